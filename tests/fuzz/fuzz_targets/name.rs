//! Any name of a file, and any header that gives one: what is kept is one safe segment, and belongs to the node that sent it.
//! The first line is a Content-Disposition header, the second a name, the others are nodes.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use stoker_reports::fuzzing::{owner, uploaded_file};
use stoker_reports::{MAX_FILE, clean_file_name, disposition_file_name, node_key};

fn check_segment(name: &str) {
    assert!((1..=MAX_FILE).contains(&name.len()), "{name:?}");
    assert!(!name.contains(['/', '\\', '#']) && !name.contains(char::is_control), "{name:?}");
    assert!(name.bytes().any(|byte| byte != b'.'), "{name:?}");
}

fuzz_target!(|bytes: &[u8]| {
    let header = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let given = disposition_file_name(header);
    assert!(given.as_ref().is_none_or(|name| !name.trim().is_empty()));

    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().skip(1);
    let name = lines.next().unwrap_or_default();
    let mut nodes: BTreeSet<String> = lines.filter(|node| is_node(node)).map(str::to_owned).collect();
    nodes.insert("n".into());
    for name in [Some(name), given.as_deref()].into_iter().flatten() {
        let cleaned = clean_file_name(name, MAX_FILE);
        check_segment(&cleaned);
        assert_eq!(clean_file_name(&cleaned, MAX_FILE), cleaned);
        for node in &nodes {
            let file = uploaded_file(node, name, &nodes);
            check_segment(&file);
            assert!(file.starts_with(&format!("{}-", node_key(node))));
            assert_eq!(owner(&file, &nodes), Some(node.as_str()), "{file:?}");
        }
    }
    // What is no node's name gets a key all the same.
    check_segment(&node_key(name));
});

/// Whether Kubernetes takes it for a node's name (RFC 1123 subdomain).
fn is_node(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
