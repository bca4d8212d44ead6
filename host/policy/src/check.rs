//! Reads a component's imports and exports before anything is compiled, and says in words what
//! does not fit. It looks at names and versions; types are compared when the component is linked.

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use crate::error::Refusal;
use crate::log::{brief, cut};
use crate::wasi;

/// The interfaces that a policy may export, of which it needs at least one.
const DECISIONS: [&str; 3] = ["scaling", "busyness", "warm-up"];
/// What a policy may import from the contract.
const CONTRACT_IMPORTS: [&str; 2] = ["stoker:policy/log", "stoker:policy/types"];
const PACKAGE: &str = "stoker:policy/";
/// Version of the contract that is spoken, without the patch level.
const CONTRACT_VERSION: &str = "1.0";
/// Version of WASI that is served.
const WASI_VERSION: &str = "0.2";
/// Problems that are told; the others are counted.
const MAX_PROBLEMS: usize = 8;
/// Bytes of a name that are told. The contract's longest is a third of it.
const MAX_NAME: usize = 100;
/// Deepest nesting of components; tools make two or three levels.
const MAX_DEPTH: usize = 16;

/// What the outermost component imports and exports.
#[derive(Debug, Default)]
struct Surface {
    has_settings: bool,
    decides: bool,
    problems: Problems,
}

/// The first problems in words, and how many more there are: a component may have millions.
#[derive(Debug, Default)]
struct Problems {
    told: Vec<String>,
    more: usize,
}

impl Problems {
    fn note(&mut self, words: impl FnOnce() -> String) {
        if self.told.len() < MAX_PROBLEMS {
            self.told.push(words());
        } else {
            self.more += 1;
        }
    }

    fn result(mut self) -> Result<(), Refusal> {
        if self.told.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            self.told.push(format!("and {} more problems", self.more));
        }
        Err(Refusal::Contract(self.told.join("; ")))
    }
}

/// Refuses what cannot be a policy.
pub(crate) fn check(bytes: &[u8], max_bytes: usize) -> Result<(), Refusal> {
    if bytes.len() > max_bytes {
        return Err(Refusal::TooLarge { bytes: bytes.len(), max: max_bytes });
    }
    kind(bytes)?;
    let Surface { has_settings, decides, mut problems } = surface(bytes)?;
    if !has_settings {
        problems.note(|| "exports no settings of stoker:policy@1.0.0, which every policy needs".into());
    }
    if !decides {
        problems.note(|| "exports none of scaling, busyness, warm-up of stoker:policy@1.0.0".into());
    }
    problems.result()
}

/// A name of the component's author, for a message.
fn shown(name: &str) -> String {
    match brief(cut(name, MAX_NAME)) {
        whole if name.len() <= MAX_NAME => whole,
        start => format!("{start}…"),
    }
}

/// Tells components from all else by their first bytes.
pub(crate) fn kind(bytes: &[u8]) -> Result<(), Refusal> {
    let found = match bytes {
        [] => "it is empty".to_owned(),
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => return Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => return Err(Refusal::CoreModule),
        [0, b'a', b's', b'm', ..] => "its version is unknown; build it with a current toolchain".to_owned(),
        [0x1f, 0x8b, ..] => "it is compressed with gzip; upload it uncompressed".to_owned(),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed with zstd; upload it uncompressed".to_owned(),
        [0x7f, b'E', b'L', b'F', ..] => {
            "it is a native program or an already compiled component; upload the .wasm file".to_owned()
        }
        bytes if bytes.starts_with(b"AGFzb") => {
            "it is base64 text; put it into binaryData, not data".to_owned()
        }
        bytes if bytes.trim_ascii_start().starts_with(b"(") => {
            "it is WebAssembly text; convert it with `wasm-tools parse`".to_owned()
        }
        bytes if bytes.trim_ascii_start().starts_with(b"<") => {
            "it is HTML or XML, perhaps a server's error in place of a download; upload the .wasm file"
                .to_owned()
        }
        bytes => {
            let start: Vec<_> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!("it begins with {}; upload the .wasm file that the build made", start.join(" "))
        }
    };
    Err(Refusal::NotAComponent { found })
}

fn surface(bytes: &[u8]) -> Result<Surface, Refusal> {
    let damaged = |error: wasmparser::BinaryReaderError| Refusal::Damaged(error.to_string());
    let mut surface = Surface::default();
    // Modules and components within the outermost one, whose own imports do not concern the host.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(Refusal::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let text =
                        format!("components are nested more than {MAX_DEPTH} deep: compose fewer of them");
                    return Err(Refusal::Contract(text));
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    surface.imports(import.map_err(damaged)?.name.name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    if export.kind == ComponentExternalKind::Instance {
                        surface.exports(export.name.name);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(surface)
}

impl Surface {
    fn imports(&mut self, name: &str) {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        let wanted = if CONTRACT_IMPORTS.contains(&interface) {
            CONTRACT_VERSION
        } else if wasi::SERVED.contains(&interface) {
            WASI_VERSION
        } else {
            let words = || format!("imports {}, which no policy gets: build without it", shown(name));
            return self.problems.note(words);
        };
        if !compatible(version, wanted) {
            self.problems.note(|| format!("imports {}, this host serves {wanted}.x", shown(name)));
        }
    }

    fn exports(&mut self, name: &str) {
        let Some(rest) = name.strip_prefix(PACKAGE) else { return };
        let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
        let (decision, settings) = (DECISIONS.contains(&interface), interface == "settings");
        self.has_settings |= settings;
        self.decides |= decision;
        if (decision || settings) && !compatible(version, CONTRACT_VERSION) {
            let words = || format!("exports {}, this host speaks {CONTRACT_VERSION}.x", shown(name));
            self.problems.note(words);
        }
    }
}

/// Whether `version` is `wanted` with some patch level.
fn compatible(version: &str, wanted: &str) -> bool {
    let patch = version.strip_prefix(wanted).and_then(|rest| rest.strip_prefix('.'));
    patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_patch_levels_are_compatible() {
        assert!(compatible("0.1.0", "0.1") && compatible("0.2.12", "0.2"));
        for other in ["", "0.1", "0.10.0", "1.0.0", "0.1.0-rc", "0.1."] {
            assert!(!compatible(other, "0.1"), "{other}");
        }
    }

    #[test]
    fn what_is_no_component_is_named() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "empty"),
            (b"AGFzbQ0AAQA=", "binaryData"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"\n (component)", "wasm-tools parse"),
            (b"\x7fELF\x02", ".wasm file"),
            (b"hello", "68 65 6c 6c"),
        ];
        for (bytes, word) in cases {
            let error = check(bytes, 1 << 20).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(check(b"\0asm\x01\0\0\0", 1 << 20), Err(Refusal::CoreModule));
    }
}
