//! Bytes that are no policy, and policies with damage.

use stoker_policy::PolicyHost;

use crate::case::{Case, End, case, scale, set};
use crate::fixtures::Guest;
use crate::shape::NAMES;

pub fn rows() -> Vec<Case> {
    [not_components(), cut_short(), chance()].concat()
}

fn not_components() -> Vec<Case> {
    let good = Guest::default().bytes();
    let precompiled = wasmtime::Engine::default().precompile_component(&good).unwrap();
    let native = "it is a native program or an already compiled component; upload the .wasm file";
    let files: [(&str, &[u8], &str); 13] = [
        ("nothing", b"", "it is empty"),
        ("one byte", b"\0", "it begins with 00; upload the .wasm file that the build made"),
        ("zeros", &[0; 4096], "it begins with 00 00 00 00; upload the .wasm file that the build made"),
        (
            "a module of a version that does not exist",
            b"\0asm\x07\0\x05\0",
            "its version is unknown; build it with a current toolchain",
        ),
        ("WebAssembly text", b"(component)", "it is WebAssembly text; convert it with `wasm-tools parse`"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0", "it is compressed with gzip; upload it uncompressed"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04\0\x41\0", "it is compressed with zstd; upload it uncompressed"),
        ("a native program", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", native),
        ("what the compiler made of a good policy", &precompiled, native),
        ("base64", b"AGFzbQ0AAQAHBwEBbgAB", "it is base64 text; put it into binaryData, not data"),
        (
            "a page of a web server",
            b"<!DOCTYPE html>\n<html>404</html>",
            "it is HTML or XML, perhaps a server's error in place of a download; upload the .wasm file",
        ),
        (
            "JSON",
            br#"{"message": "Not Found"}"#,
            "it begins with 7b 22 6d 65; upload the .wasm file that the build made",
        ),
        (
            "a MiB of random bytes",
            &random(1 << 20),
            "it begins with ba 02 fe e1; upload the .wasm file that the build made",
        ),
    ];
    let row = |(name, bytes, found): (&str, &[u8], &str)| {
        case(name, bytes).refused("not-a-component", format!("not a WebAssembly component: {found}"))
    };
    let too_large = "the component has 34603008 bytes, at most 33554432 are allowed: strip it, or build it \
        optimised for size";
    let core = "is a core WebAssembly module, not a component: build with `--target wasm32-wasip2` or \
        `cargo component build`";
    let others = [
        case("a core module", *b"\0asm\x01\0\0\0").refused("core-module", core),
        case("33 MiB", vec![0; 33 << 20]).refused("too-large", too_large),
    ];
    files.into_iter().map(row).chain(others).collect()
}

/// A component that ends early, wherever.
fn cut_short() -> Vec<Case> {
    let whole = wat::parse_str(format!("(component {NAMES})")).unwrap();
    let cuts = [(9, "0x9"), (10, "0xa"), (whole.len() / 2, "0xf"), (whole.len() - 1, "0x53")];
    let row = |(keep, offset)| {
        let name = format!("{keep} of {} bytes of a component", whole.len());
        damaged(case(name, &whole[..keep]), &format!("unexpected end-of-file (at offset {offset})"))
    };
    cuts.into_iter().map(row).collect()
}

fn damaged(case: Case, reason: &str) -> Case {
    let message = format!("the component is damaged or cut short: {reason}; build and upload it again");
    case.refused("damaged", message)
}

/// Random bytes as what follows the first bytes of a component.
fn chance() -> Vec<Case> {
    let component = |count| [b"\0asm\x0d\0\x01\0".to_vec(), random(count)].concat();
    vec![
        damaged(
            case("a component of 64 random bytes", component(64)),
            "malformed section id (at offset 0x8)",
        ),
        damaged(
            case("a component of a MiB of random bytes", component(1 << 20)),
            "malformed section id (at offset 0x8)",
        ),
    ]
}

fn random(count: usize) -> Vec<u8> {
    Chance(1).take(count).collect()
}

/// Loads a good component with a bit flipped, `count` times, and asks those that load. Returns how
/// many were refused and how many decided.
///
/// How each ends is not written down here, but it is a refusal in words or a decision that keeps
/// to the contract.
pub async fn flips(host: &PolicyHost, count: usize) -> (usize, usize) {
    let good = scale(set(2048, 5)).bytes();
    let mut chance = Chance(2);
    let (mut refused, mut decided) = (0, 0);
    for _ in 0..count {
        let (position, bit) = (chance.below(good.len()), chance.below(8));
        let mut bytes = good.to_vec();
        bytes[position] ^= 1 << bit;
        let name = format!("bit {bit} of byte {position} flipped");
        match case(name.as_str(), bytes).within(200).run(host).await {
            End::Fails(_, kind, message) => {
                assert_eq!(crate::in_words(kind, &message), None, "{name}");
                refused += 1;
            }
            End::Answers(answers) => {
                assert!(answers.scale.is_none_or(|decision| decision.desired <= 1_000_000), "{name}");
                decided += 1;
            }
        }
        crate::still_decides(host, &name).await;
    }
    (refused, decided)
}

/// The same numbers each time (xorshift).
struct Chance(u64);

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
