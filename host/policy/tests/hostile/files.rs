//! Bytes that are no policy, and policies with damage.

use stoker_policy::PolicyHost;

use crate::case::{Case, End, Step::Load, case, desired, scale, set};
use crate::fixtures::Guest;

pub fn rows() -> Vec<Case> {
    [not_components(), cut_short(), chance()].into_iter().flatten().collect()
}

fn not_components() -> Vec<Case> {
    let good = Guest::default().bytes();
    let precompiled = wasmtime::Engine::default().precompile_component(&good).unwrap();
    let no_policy: [(&str, &[u8], &str, &str); 15] = [
        ("nothing", b"", "not-a-component", "?"),
        ("a core module", b"\0asm\x01\0\0\0", "core-module", "?"),
        ("a module of a version that does not exist", b"\0asm\x07\0\x05\0", "not-a-component", "?"),
        ("WebAssembly text", b"(component)", "not-a-component", "?"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x63\x60\0\0", "not-a-component", "?"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04\0\x41\0\0\0", "not-a-component", "?"),
        ("a native program", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "not-a-component", "?"),
        ("what the compiler made of a good policy", &precompiled, "not-a-component", "?"),
        ("base64", b"AGFzbQ0AAQAHBwEBbgAB", "not-a-component", "?"),
        ("a page of a web server", b"<!DOCTYPE html>\n<html>404</html>", "not-a-component", "?"),
        ("JSON", br#"{"message": "Not Found"}"#, "not-a-component", "?"),
        ("one byte", b"\0", "not-a-component", "?"),
        ("the first bytes of a component", b"\0asm\x0d\0\x01\0", "contract", "?"),
        ("zeros", &[0; 4096], "not-a-component", "?"),
        ("33 MiB", &vec![0; 33 << 20], "too-large", "?"),
    ];
    let row = |(name, bytes, kind, message): (&str, &[u8], &'static str, &str)| {
        case(name, bytes).fails(Load, kind, message)
    };
    no_policy.into_iter().map(row).collect()
}

/// A good component that ends early, wherever.
fn cut_short() -> Vec<Case> {
    let good = Guest::default().bytes();
    let cuts = [
        (9, "damaged", "?"),
        (100, "damaged", "?"),
        (good.len() / 4, "damaged", "?"),
        (good.len() / 2, "damaged", "?"),
        (good.len() * 3 / 4, "damaged", "?"),
        (good.len() - 1, "damaged", "?"),
    ];
    let row = |(keep, kind, message)| {
        case(format!("{keep} of {} bytes", good.len()), &good[..keep]).fails(Load, kind, message)
    };
    cuts.into_iter().map(row).collect()
}

/// Random bytes, as they are and as what follows the first bytes of a component.
fn chance() -> Vec<Case> {
    let random = |count| Chance(1).take(count).collect::<Vec<u8>>();
    let component = |count| [b"\0asm\x0d\0\x01\0".to_vec(), random(count)].concat();
    vec![
        case("64 random bytes", random(64)).fails(Load, "not-a-component", "?"),
        case("a MiB of random bytes", random(1 << 20)).fails(Load, "not-a-component", "?"),
        case("a component of 64 random bytes", component(64)).fails(Load, "damaged", "?"),
        case("a component of a MiB of random bytes", component(1 << 20)).fails(Load, "damaged", "?"),
    ]
}

/// Loads a good component with a bit flipped, `count` times, and asks those that load.
///
/// How each ends is not written down here, but it is a refusal in words or a decision that keeps
/// to the contract.
pub async fn flips(host: &PolicyHost, count: usize) -> (usize, usize) {
    let good = scale(set(2048, 5)).bytes();
    let mut chance = Chance(2);
    let (mut refused, mut decided) = (0, 0);
    for _ in 0..count {
        let position = chance.below(good.len());
        let bit = chance.below(8);
        let mut bytes = good.to_vec();
        bytes[position] ^= 1 << bit;
        let name = format!("bit {bit} of byte {position} flipped");
        match case(name.as_str(), bytes).within(200).run(host).await {
            End::Fails(_, kind, message) => {
                crate::in_words(&name, kind, &message);
                refused += 1;
            }
            End::Answers(answers) => {
                assert!(answers.scale.is_some_and(|decision| decision.desired <= 1_000_000), "{name}");
                decided += 1;
            }
        }
        crate::still_decides(host, &name).await;
    }
    assert!(desired(0).victims.is_empty());
    (refused, decided)
}

/// The same bytes each time (xorshift).
pub struct Chance(pub u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        let number = [(); 4].map(|()| self.next().unwrap_or_default());
        u32::from_le_bytes(number) as usize % bound
    }
}

impl Iterator for Chance {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0])
    }
}
