//! Any file callback: answered in words or kept, under safe names, whole, and the same however it is cut on its way. The
//! first three lines are ?name=, Content-Type and Content-Disposition; the rest is the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stoker_reports::MAX_FILE;
use stoker_reports::fuzzing::{Files, Upload, upload};

/// Names that are made by chance are not compared.
fn contents(files: &Files) -> Vec<&Vec<u8>> {
    let mut contents: Vec<_> = files.values().collect();
    contents.sort();
    contents
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (name, content_type, disposition, body) = (part(), part(), part(), part());
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty());
    let sent = Upload { name, content_type, disposition, body, pieces: &[usize::MAX] };
    let Some((answer, files)) = upload(sent) else { return };
    for name in files.keys() {
        assert!(name.starts_with("n-") && name.len() <= MAX_FILE, "{name:?}");
        assert!(!name.contains(['/', '\\', '#']) && !name.contains(char::is_control), "{name:?}");
    }
    match &answer {
        Ok(kept) => {
            assert!(!files.is_empty());
            assert_eq!(*kept, files.values().map(|file| file.len() as u64).sum::<u64>());
        }
        Err(words) => assert!(!words.is_empty()),
    }
    for pieces in [&[1][..], &[7, 64]] {
        let (again, other) = upload(Upload { pieces, ..sent }).expect("it was sent before");
        assert_eq!(answer.is_ok(), again.is_ok(), "{answer:?} {again:?}");
        if answer.is_ok() {
            assert_eq!(contents(&files), contents(&other));
        }
    }
});
