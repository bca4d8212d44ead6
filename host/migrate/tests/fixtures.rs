//! Every fixture is migrated and compared with what was committed beside it: `UPDATE_EXPECTED=1` writes it anew.

use std::path::{Path, PathBuf};

use stoker_migrate::{Options, Outcome};

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    all.sort();
    assert!(!all.is_empty());
    all
}

fn migrated(path: &Path) -> Outcome {
    let name = path.file_name().unwrap().to_str().unwrap();
    stoker_migrate::migrate(name, &std::fs::read_to_string(path).unwrap(), &Options::default())
}

#[test]
fn every_fixture_becomes_what_was_committed() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    for path in fixtures() {
        let (made, kept) = (migrated(&path).render(), path.with_extension("expected"));
        if update {
            std::fs::write(&kept, made).unwrap();
        } else {
            let kept_text = std::fs::read_to_string(&kept).unwrap_or_default();
            assert_eq!(made, kept_text, "{}: UPDATE_EXPECTED=1 writes it anew", kept.display());
        }
    }
}
