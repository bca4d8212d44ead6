//! Names of what is kept. They come from strangers, so that nothing in them may lead out of the store, hide what a file is,
//! or make one node's report look like another's.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

/// Longest name of a stored file, in bytes: what file systems allow (255) less what a temporary name adds.
pub const MAX_FILE: usize = 240;
/// Longest form of a node's name in a file's name, in bytes; half is left for the file's own.
const MAX_NODE: usize = 120;
/// Longest ending that survives when a name is cut, in bytes, with its dot.
const MAX_ENDING: usize = 16;
/// Length of the hashes that keep cut names apart, in hexadecimal digits.
const HASH: usize = 10;
/// What describes an execution, beside its reports. No node's name begins with a dot.
pub const MANIFEST: &str = ".execution.json";

/// A node's name as files begin with it: itself, or cut with a hash behind `_`, which no node's name holds.
pub fn node_key(node: &str) -> String {
    let plain = node.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if plain && node.len() <= MAX_NODE && node.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return node.to_owned();
    }
    let kept: String = node.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
    let hash = short_hash(node);
    format!("n{}_{hash}", head(&kept, MAX_NODE - hash.len() - 2))
}

/// The file that keeps a node's result.
pub fn result_file(node: &str) -> String {
    format!("{}.json", node_key(node))
}

/// The file that keeps a result of an earlier pod of the node, which does not replace that of a later one.
pub fn late_file(node: &str, pod: &str, nodes: &BTreeSet<String>) -> String {
    uploaded_file(node, &format!("late-{pod}.json"), nodes)
}

/// The file that keeps what a node sent under a name: `<node>-<name>`. Where that would be a file of another of the
/// `nodes`, whose name goes on where this one's ends, the name gets a `_`, which no node's name holds.
pub fn uploaded_file(node: &str, name: &str, nodes: &BTreeSet<String>) -> String {
    let key = node_key(node);
    let room = MAX_FILE - key.len() - 2;
    let cleaned = clean(name, room);
    let plain = format!("{key}-{}", cleaned.trim_start_matches('_'));
    if owner(&plain, nodes).is_some_and(|owner| owner != node) {
        format!("{key}-_{cleaned}")
    } else {
        format!("{key}-{cleaned}")
    }
}

/// Whose file it is: the node with the longest name that the file's begins with.
pub fn owner<'a>(file: &str, nodes: &'a BTreeSet<String>) -> Option<&'a str> {
    let mut ends = file.match_indices(['-', '.']).map(|(at, _)| at).collect::<Vec<_>>();
    ends.reverse();
    ends.into_iter().find_map(|end| {
        let (start, rest) = file.split_at(end);
        let own = rest.starts_with('-') || rest == ".json";
        if !own {
            return None;
        }
        match nodes.get(start) {
            Some(node) if node_key(node) == start => Some(node.as_str()),
            _ if is_cut(start) => nodes.iter().find(|node| node_key(node) == start).map(String::as_str),
            _ => None,
        }
    })
}

/// Whether it has the form of a name that was cut.
fn is_cut(key: &str) -> bool {
    let hash = key.rsplit_once('_').map(|(_, hash)| hash);
    hash.is_some_and(|hash| hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A name as it may be stored: separators, control characters, what turns writing around, and `#` (which marks temporary
/// files) become `_`; so do dots if there is nothing else. One that is longer than `room` bytes is cut at the end of a
/// character, before its ending, and gets a hash, so that two long names stay two. Never empty.
pub fn clean(name: &str, room: usize) -> String {
    let cleaned: String = name.trim().chars().map(|c| if unsafe_in_names(c) { '_' } else { c }).collect();
    let cleaned = if cleaned.bytes().all(|b| b == b'.') { "_".repeat(cleaned.len().max(1)) } else { cleaned };
    if cleaned.len() <= room {
        return cleaned;
    }
    let hash = short_hash(name);
    let ending = cleaned.rfind('.').map_or("", |at| &cleaned[at..]);
    let ending = if (2..=MAX_ENDING).contains(&ending.len()) { ending } else { "" };
    let tail = format!("-{hash}{ending}");
    let stem = &cleaned[..cleaned.len() - ending.len()];
    format!("{}{tail}", head(stem, room.saturating_sub(tail.len())))
}

fn unsafe_in_names(c: char) -> bool {
    let turns =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || turns || matches!(c, '/' | '\\' | '#')
}

/// The first bytes of a text, whole characters only.
pub fn head(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn short_hash(text: &str) -> String {
    Sha256::digest(text).iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// The ending of a file that came without a name, by its media type.
pub fn ending(content_type: Option<&str>) -> &'static str {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "text/plain" => ".txt",
        "text/csv" => ".csv",
        "text/html" => ".html",
        "text/css" => ".css",
        "text/markdown" => ".md",
        "text/xml" | "application/xml" => ".xml",
        "application/json" => ".json",
        "application/yaml" | "application/x-yaml" | "text/yaml" => ".yaml",
        "application/pdf" => ".pdf",
        "application/gzip" | "application/x-gzip" => ".gz",
        "application/zip" => ".zip",
        "application/zstd" => ".zst",
        "application/x-tar" => ".tar",
        "image/png" => ".png",
        "image/jpeg" => ".jpg",
        "image/gif" => ".gif",
        "image/svg+xml" => ".svg",
        _ => ".file",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn plain_and_unicode_names_stay() {
        for name in ["test.txt", "Bericht für Knoten.log", "报告.json", "a b.txt", ".profile", "日志-1"]
        {
            assert_eq!(clean(name, 200), name);
        }
    }

    #[test]
    fn separators_dots_and_controls_go() {
        assert_eq!(clean("../../etc/passwd", 200), ".._.._etc_passwd");
        assert_eq!(clean("..\\..\\x", 200), ".._.._x");
        assert_eq!(clean("..", 200), "__");
        assert_eq!(clean(" . ", 200), "_");
        assert_eq!(clean("", 200), "_");
        assert_eq!(clean("a\0b\nc\u{7f}\u{202e}d", 200), "a_b_c__d");
        assert_eq!(clean("part#7", 200), "part_7");
    }

    #[test]
    fn long_names_keep_their_ending_and_stay_apart() {
        let (one, other) = (format!("{}1.log", "é".repeat(300)), format!("{}2.log", "é".repeat(300)));
        let (one, other) = (clean(&one, 100), clean(&other, 100));
        assert!(one.len() <= 100 && one.ends_with(".log"), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn never_collides_for_nodes_that_share_a_first_dns_label() {
        let all = nodes(&["a", "a.eu", "a.us", "a-b"]);
        let results: BTreeSet<_> = all.iter().map(|node| result_file(node)).collect();
        assert_eq!(results.len(), all.len());
        // What `a` calls `b-x.txt` is not what `a-b` calls `x.txt`, and `b.json` is not the result of `a-b`.
        assert_eq!(uploaded_file("a-b", "x.txt", &all), "a-b-x.txt");
        assert_eq!(uploaded_file("a", "b-x.txt", &all), "a-_b-x.txt");
        assert_eq!(uploaded_file("a", "_b-x.txt", &all), "a-__b-x.txt");
        assert_eq!(uploaded_file("a", "b.json", &all), "a-_b.json");
        assert_eq!(uploaded_file("a", "c.json", &all), "a-c.json");
    }

    #[test]
    fn long_node_names_fit_and_stay_apart() {
        let (one, other) = (format!("{}1", "n".repeat(252)), format!("{}2", "n".repeat(252)));
        let all = nodes(&[&one, &other]);
        assert_ne!(result_file(&one), result_file(&other));
        let file = uploaded_file(&one, &"x".repeat(300), &all);
        assert!(file.len() <= MAX_FILE);
        assert_eq!(owner(&file, &all), Some(one.as_str()));
        assert_eq!(owner(&result_file(&other), &all), Some(other.as_str()));
    }

    #[test]
    fn endings_follow_the_media_type() {
        assert_eq!(ending(Some("text/plain; charset=utf-8")), ".txt");
        assert_eq!(ending(Some("application/x-www-form-urlencoded")), ".file");
        assert_eq!(ending(None), ".file");
    }

    proptest! {
        #[test]
        fn a_cleaned_name_is_one_safe_segment(name in any::<String>(), room in 40usize..200) {
            let cleaned = clean(&name, room);
            prop_assert!(!cleaned.is_empty() && cleaned.len() <= room);
            prop_assert!(!cleaned.contains(['/', '\\', '#', '\0']) && !cleaned.chars().any(char::is_control));
            prop_assert!(cleaned.bytes().any(|b| b != b'.'));
            prop_assert_eq!(clean(&cleaned, room), cleaned.clone(), "cleaning twice changes nothing");
        }

        #[test]
        fn every_file_belongs_to_its_sender(
            names in proptest::collection::btree_set("[a-c]([-.a-c]{0,4}[a-c])?", 1..6),
            file in "[-._a-c]{1,6}(\\.json)?",
            at in any::<prop::sample::Index>(),
        ) {
            let node = at.get(&names.iter().cloned().collect::<Vec<_>>()).clone();
            let stored = uploaded_file(&node, &file, &names);
            prop_assert_eq!(owner(&stored, &names), Some(node.as_str()), "{}", stored);
            prop_assert!(names.iter().all(|other| result_file(other) != stored), "{}", stored);
            prop_assert_eq!(owner(&result_file(&node), &names), Some(node.as_str()));
        }

        #[test]
        fn different_names_of_one_node_stay_different(
            names in proptest::collection::btree_set("[a-c](-[a-c])?", 1..5),
            (one, other) in ("[-_a-c]{1,5}", "[-_a-c]{1,5}"),
        ) {
            prop_assume!(one != other);
            let node = names.iter().next().unwrap();
            prop_assert_ne!(uploaded_file(node, &one, &names), uploaded_file(node, &other, &names));
        }
    }
}
