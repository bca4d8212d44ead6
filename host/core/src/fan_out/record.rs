//! What became of each node of a run, small enough for a status: 8 to 12 characters a node.
//!
//! A node is known by 48 bits of a hash of its UID. Two of 5,000 nodes share them with a chance of 1 in 22 million
//! (5,000² / 2⁴⁹); the second of them would get no work, and count with the first.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use stoker_api::NodeRecord;

/// Bytes by which a node is known.
const KEY: usize = 6;

/// Bytes of a node with its tries.
const WITH_TRIES: usize = KEY + 3;

/// By what a node is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey([u8; KEY]);

impl NodeKey {
    /// That of a node's UID.
    pub fn of(uid: &str) -> Self {
        let mut key = [0; KEY];
        key.copy_from_slice(&Sha256::digest(uid.as_bytes())[..KEY]);
        Self(key)
    }
}

/// Attempts of a node that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// The number of the last one.
    pub last: u16,
    /// How many have failed since the node was given a chance.
    pub failures: u8,
}

/// What became of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has succeeded.
    Succeeded,
    /// It has failed for good.
    Failed(Tries),
    /// Attempts have ended, and it may have another one.
    Tried(Tries),
    /// It left before its work had ended.
    Gone,
}

/// What became of the nodes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(BTreeMap<NodeKey, Fate>);

impl Record {
    /// Reads it. What is not as it was written is left out.
    pub fn read(packed: &NodeRecord) -> Self {
        let mut all = BTreeMap::new();
        let plain = [(&packed.gone, Fate::Gone), (&packed.succeeded, Fate::Succeeded)];
        for (text, open) in [(&packed.tried, true), (&packed.failed, false)] {
            for entry in unpack(text).chunks_exact(WITH_TRIES) {
                let tries = Tries { last: u16::from_be_bytes([entry[6], entry[7]]), failures: entry[8] };
                all.insert(key(entry), if open { Fate::Tried(tries) } else { Fate::Failed(tries) });
            }
        }
        for (text, fate) in plain {
            all.extend(unpack(text).chunks_exact(KEY).map(|entry| (key(entry), fate)));
        }
        Self(all)
    }

    /// Writes it.
    pub fn write(&self) -> NodeRecord {
        let (mut succeeded, mut failed, mut tried, mut gone) = (vec![], vec![], vec![], vec![]);
        for (key, fate) in &self.0 {
            let (list, tries) = match fate {
                Fate::Succeeded => (&mut succeeded, None),
                Fate::Gone => (&mut gone, None),
                Fate::Failed(tries) => (&mut failed, Some(tries)),
                Fate::Tried(tries) => (&mut tried, Some(tries)),
            };
            list.extend_from_slice(&key.0);
            if let Some(tries) = tries {
                list.extend_from_slice(&tries.last.to_be_bytes());
                list.push(tries.failures);
            }
        }
        let pack = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
        NodeRecord { succeeded: pack(succeeded), failed: pack(failed), tried: pack(tried), gone: pack(gone) }
    }

    /// What became of a node so far.
    pub fn of(&self, node: NodeKey) -> Option<Fate> {
        self.0.get(&node).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (NodeKey, Fate)> + use<'_> {
        self.0.iter().map(|(key, fate)| (*key, *fate))
    }

    /// How many nodes it knows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// It knows of no node.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Some node has failed for good.
    pub fn has_failures(&self) -> bool {
        self.0.values().any(|fate| matches!(fate, Fate::Failed(_)))
    }

    /// Some node has failed attempts behind it since it was given a chance, and may have another.
    pub fn has_failed_tries(&self) -> bool {
        self.0.values().any(|fate| matches!(fate, Fate::Tried(tries) if tries.failures > 0))
    }

    /// Which attempt of a node would be its next one, if it had one; None = it has succeeded or left.
    pub fn next(&self, node: NodeKey) -> Option<u16> {
        match self.of(node) {
            Some(Fate::Succeeded | Fate::Gone) => None,
            Some(Fate::Failed(tries) | Fate::Tried(tries)) => tries.last.checked_add(1),
            None => Some(1),
        }
    }

    /// Whether the end of an attempt is in it, so that it may be forgotten otherwise and is never made again.
    pub fn settles(&self, node: NodeKey, attempt: u16) -> bool {
        match self.of(node) {
            Some(Fate::Succeeded | Fate::Gone) => true,
            Some(Fate::Failed(tries) | Fate::Tried(tries)) => tries.last >= attempt,
            None => false,
        }
    }

    /// Whether an attempt may be made, as far as this tells.
    pub fn allows(&self, node: NodeKey, attempt: u16) -> bool {
        match self.of(node) {
            Some(Fate::Succeeded | Fate::Gone | Fate::Failed(_)) => false,
            Some(Fate::Tried(tries)) => tries.last < attempt,
            None => true,
        }
    }

    /// A node has succeeded.
    pub fn succeed(&mut self, node: NodeKey) {
        self.0.insert(node, Fate::Succeeded);
    }

    /// A node left before its work had ended.
    pub fn leave(&mut self, node: NodeKey) {
        self.0.insert(node, Fate::Gone);
    }

    /// An attempt has failed; with more failures than `retries` the node has failed for good. True = so it is.
    pub fn fail(&mut self, node: NodeKey, attempt: u16, retries: u32) -> bool {
        let before = self.tries(node);
        let failures = before.failures.saturating_add(1);
        let tries = Tries { last: before.last.max(attempt), failures };
        let for_good = u32::from(failures) > retries;
        self.0.insert(node, if for_good { Fate::Failed(tries) } else { Fate::Tried(tries) });
        for_good
    }

    /// An attempt is cancelled: it counts for nothing, but its number is used up.
    pub fn cancel(&mut self, node: NodeKey, attempt: u16) {
        let before = self.tries(node);
        self.0.insert(node, Fate::Tried(Tries { last: before.last.max(attempt), ..before }));
    }

    /// Nodes that have failed get another chance, and all have their retries anew.
    pub fn pardon(&mut self) {
        for fate in self.0.values_mut() {
            if let Fate::Failed(tries) | Fate::Tried(tries) = *fate {
                *fate = Fate::Tried(Tries { failures: 0, ..tries });
            }
        }
    }

    /// Forgets nodes.
    pub fn retain(&mut self, mut keep: impl FnMut(NodeKey) -> bool) {
        self.0.retain(|key, _| keep(*key));
    }

    fn tries(&self, node: NodeKey) -> Tries {
        match self.of(node) {
            Some(Fate::Failed(tries) | Fate::Tried(tries)) => tries,
            _ => Tries::default(),
        }
    }
}

fn unpack(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap_or_default()
}

fn key(entry: &[u8]) -> NodeKey {
    let mut key = [0; KEY];
    key.copy_from_slice(&entry[..KEY]);
    NodeKey(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeKey {
        NodeKey::of(&format!("6f1c2b1e-0000-4000-8000-{number:012}"))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut record = Record::default();
        record.succeed(node(1));
        record.leave(node(2));
        assert!(record.fail(node(3), 300, 0));
        assert!(!record.fail(node(4), 1, 2));
        record.cancel(node(5), 7);
        assert_eq!(Record::read(&record.write()), record);
        assert_eq!(record.of(node(3)), Some(Fate::Failed(Tries { last: 300, failures: 1 })));
        assert_eq!(record.of(node(5)), Some(Fate::Tried(Tries { last: 7, failures: 0 })));
        assert!(record.settles(node(4), 1) && !record.settles(node(4), 2) && record.allows(node(4), 2));
        record.pardon();
        assert!(record.allows(node(3), 301) && !record.allows(node(3), 300));
    }

    #[test]
    fn five_thousand_nodes_fit_forty_thousand_characters_without_a_collision() {
        let mut record = Record::default();
        (0..5_000).for_each(|number| record.succeed(node(number)));
        assert_eq!(record.len(), 5_000);
        assert_eq!(record.write().succeeded.len(), 40_000);
    }

    #[test]
    fn garbage_is_left_out() {
        let packed =
            NodeRecord { succeeded: "?!".to_owned(), failed: "AAAA".to_owned(), ..NodeRecord::default() };
        assert!(Record::read(&packed).is_empty());
    }
}
