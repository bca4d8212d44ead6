//! What a component imports and exports, by name, for people who want to look into one.

use wasmparser::{Encoding, Parser, Payload};

use crate::error::Refusal;
use crate::log::{brief, cut};

/// Names that are told; a component may have millions.
const MAX_NAMES: usize = 64;
/// Bytes of a name that are told.
const MAX_NAME: usize = 200;

/// The names that a component imports and exports, in its order, at most 64 of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// What it exports, such as `stoker:policy/scaling@1.0.0`.
    pub exports: Vec<String>,
    /// What it imports, such as `stoker:policy/log@1.0.0`.
    pub imports: Vec<String>,
}

impl Surface {
    /// The names in a component's bytes, whether or not it fits the contract.
    ///
    /// # Errors
    /// When the bytes are no component, or a damaged one.
    pub fn of(bytes: &[u8]) -> Result<Self, Refusal> {
        crate::check::kind(bytes)?;
        let damaged = |error: wasmparser::BinaryReaderError| Refusal::Damaged(error.to_string());
        let (mut surface, mut depth) = (Self::default(), 0_usize);
        let note = |names: &mut Vec<String>, name: &str| {
            if names.len() < MAX_NAMES {
                names.push(brief(cut(name, MAX_NAME)));
            }
        };
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(damaged)? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(Refusal::CoreModule);
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        note(&mut surface.imports, import.map_err(damaged)?.name.name);
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        note(&mut surface.exports, export.map_err(damaged)?.name.name);
                    }
                }
                _ => {}
            }
        }
        Ok(surface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_built_in_are_told_and_not_those_within_it() {
        let surface = Surface::of(crate::builtin::bytes("buffer").unwrap()).unwrap();
        assert!(surface.exports.iter().any(|name| name == "stoker:policy/scaling@1.0.0"), "{surface:?}");
        assert!(surface.exports.iter().any(|name| name == "stoker:policy/settings@1.0.0"), "{surface:?}");
        let foreign = |name: &&String| !name.starts_with("stoker:policy/") && !name.starts_with("wasi:");
        let names = surface.exports.iter().chain(&surface.imports);
        assert_eq!(names.filter(foreign).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn what_is_no_component_has_none() {
        assert!(Surface::of(b"hello").is_err());
        assert_eq!(Surface::of(b"\0asm\x01\0\0\0"), Err(Refusal::CoreModule));
    }
}
