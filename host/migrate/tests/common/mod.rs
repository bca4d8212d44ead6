//! The fixtures: manifests of the older systems.

use std::path::{Path, PathBuf};

use stoker_migrate::{Options, Outcome};

/// All files of them.
pub fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    all.sort();
    assert!(!all.is_empty());
    all
}

/// What becomes of a file.
pub fn migrated(path: &Path) -> Outcome {
    let name = path.file_name().unwrap().to_str().unwrap();
    stoker_migrate::migrate(name, &std::fs::read_to_string(path).unwrap(), &Options::default())
}
