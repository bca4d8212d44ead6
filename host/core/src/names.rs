//! Names and hashes that are derived, not remembered: the same child always gets the same name, so that
//! creating it twice fails at the API server (I2).

use sha2::{Digest, Sha256};

/// Longest name that serves as a pod's name and as its hostname (DNS label, RFC 1123).
pub const MAX_NAME: usize = 63;

/// Letters and digits that make no words and cannot be mistaken for each other.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short hash of some parts, `length` characters that may stand in names and labels.
pub fn short_hash(parts: &[&[u8]], length: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // The length keeps ("ab", "c") apart from ("a", "bc").
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher
        .finalize()
        .iter()
        .take(length)
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}

/// The name of the pod in a slot of a pool: `<pool>-<hash of the pool's UID>-<slot>`, the pool's name cut where
/// the whole would pass [`MAX_NAME`]. Two slots of a pool never share a name, nor do two pools whose names
/// are cut to the same text.
pub fn pool_member(pool: &str, uid: &str, slot: u32) -> String {
    cut(pool, &format!("-{}-{slot}", short_hash(&[uid.as_bytes()], 5)), MAX_NAME)
}

/// Longest name of a Job of a pool: its pods' names get an index and five characters more.
const MAX_JOB_NAME: usize = 52;

/// The name of the Job in a slot of a pool: `<pool>-w-<hash>-<slot>`. The hash is of the pool's UID and of the Job that
/// finished in the slot before, as far as that one still exists and holds its name.
pub fn pool_job(pool: &str, uid: &str, slot: u32, predecessor: Option<&str>) -> String {
    let parts = [uid.as_bytes(), predecessor.unwrap_or_default().as_bytes()];
    cut(pool, &format!("-w-{}-{slot}", short_hash(&parts, 5)), MAX_JOB_NAME)
}

/// The name of the Job of an instant: `<owner>-<hash of the owner's UID>-<minutes since 1970>`.
pub fn cron_job(owner: &str, uid: &str, instant: jiff::Timestamp) -> String {
    let minutes = instant.as_second().div_euclid(60);
    cut(owner, &format!("-{}-{minutes}", short_hash(&[uid.as_bytes()], 5)), MAX_JOB_NAME)
}

/// The name of the Job that an owner makes for a part of it, a step or a node: `<owner>-<part>` where that is a name as it
/// stands, else as much of it as there is room for and a hash of the owner's UID and the part. Anything in `again`
/// makes it another Job for the same part, such as the number of the attempt, and gives it a hash, too.
pub fn part_job(owner: &str, uid: &str, part: &str, again: &[&str]) -> String {
    let plain = format!("{owner}-{part}");
    let fits = plain.len() <= MAX_JOB_NAME
        && plain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !plain.ends_with('-');
    if fits && again.is_empty() {
        return plain;
    }
    let mut parts = vec![uid.as_bytes(), part.as_bytes()];
    parts.extend(again.iter().map(|text| text.as_bytes()));
    let plain: String = plain
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' { c } else { '-' })
        .collect();
    cut(&plain, &format!("-{}", short_hash(&parts, 7)), MAX_JOB_NAME)
}

/// A name's beginning, as much of it as there is room for in a pod's name, and the tail. What may not stand there is a `-`.
pub fn cut_to_fit(head: &str, tail: &str) -> String {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let head: String = head.chars().map(|c| if legal(c) { c } else { '-' }).collect();
    cut(&head, tail, MAX_NAME)
}

/// The owner's name, as much as there is room for, and the tail.
fn cut(pool: &str, tail: &str, room: usize) -> String {
    // A CR's name may hold dots, which a hostname may not.
    let pool: String = pool.chars().map(|c| if c == '.' { '-' } else { c }).collect();
    let mut head: String = pool.chars().take(room - tail.len()).collect();
    while head.ends_with('-') {
        head.pop();
    }
    head + tail
}

/// A value that fits a label: as it is when short enough, else cut and given a hash of the whole.
pub fn label_value(value: &str) -> String {
    if value.len() <= MAX_NAME {
        return value.to_owned();
    }
    let head: String = value.chars().take(MAX_NAME - 7).collect();
    format!("{}-{}", head.trim_end_matches(['-', '.', '_']), short_hash(&[value.as_bytes()], 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_within_the_limit_for_any_pool() {
        for pool in ["a", "game-ws", &"x".repeat(253), &format!("{}.y", "z-".repeat(100)), "a.b.c"] {
            for slot in [0, 7, 99_999] {
                let name = pool_member(pool, "0b3c", slot);
                assert!(name.len() <= MAX_NAME, "{name}");
                assert!(!name.contains('.') && !name.contains("--"), "{name}");
                assert_eq!(name, pool_member(pool, "0b3c", slot));
            }
        }
    }

    #[test]
    fn a_finished_job_and_its_successor_have_different_names_within_the_limit() {
        for pool in ["game", &"x".repeat(253)] {
            let first = pool_job(pool, "0b3c", 99_999, None);
            let second = pool_job(pool, "0b3c", 99_999, Some("77aa"));
            assert!(first.len() <= MAX_JOB_NAME && second.len() <= MAX_JOB_NAME);
            assert_ne!(first, second);
            assert_eq!(second, pool_job(pool, "0b3c", 99_999, Some("77aa")));
        }
        assert!(pool_job("game", "0b3c", 3, None).starts_with("game-w-"));
    }

    #[test]
    fn parts_have_valid_distinct_names_that_are_plain_where_they_fit() {
        assert_eq!(part_job("flow", "0b3c", "build", &[]), "flow-build");
        let long = "x".repeat(253);
        let parts =
            ["ip-10-0-0-1.eu-central-1.compute.internal", "ip-10-0-0-1-eu-central-1.compute.internal"];
        let mut names: Vec<String> = parts.iter().map(|part| part_job("warm", "0b3c", part, &[])).collect();
        names.push(part_job(&long, "0b3c", "a", &[]));
        names.push(part_job(&long, "0b3c", "b", &[]));
        names.push(part_job("flow", "0b3c", "build", &["1", "2"]));
        names.push(part_job("flow", "0b3c", "build", &["12"]));
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= MAX_JOB_NAME && !name.contains('.'), "{name}");
            assert!(!names[..index].contains(name), "{name} twice");
        }
    }

    #[test]
    fn slots_and_pools_never_share_a_name() {
        let long = "p".repeat(100);
        assert_ne!(pool_member(&long, "uid-1", 0), pool_member(&long, "uid-2", 0));
        assert_ne!(pool_member("p", "uid-1", 1), pool_member("p", "uid-1", 11));
    }

    #[test]
    fn long_label_values_are_cut_and_stay_apart() {
        let (a, b) = ("x".repeat(80) + "a", "x".repeat(80) + "b");
        assert!(label_value(&a).len() <= 63);
        assert_ne!(label_value(&a), label_value(&b));
        assert_eq!(label_value("short"), "short");
    }
}
