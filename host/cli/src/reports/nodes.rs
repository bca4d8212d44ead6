//! The nodes of the cluster, and the names of those that have left: records of executions know nodes by a hash of their UID.

use std::collections::{BTreeMap, HashMap, VecDeque};

use stoker_core::fan_out::{NodeKey, NodeView};

/// Nodes that have left of which the names are remembered.
const REMEMBERED: usize = 10_000;

/// All nodes.
#[derive(Default)]
pub struct Nodes {
    there: BTreeMap<String, (NodeKey, NodeView)>,
    /// Names and UIDs, those of nodes that have left among them.
    named: HashMap<NodeKey, (String, String)>,
    left: VecDeque<NodeKey>,
}

impl Nodes {
    /// Takes a node in. Whether that is news.
    pub fn put(&mut self, node: NodeView) -> bool {
        if self.there.get(&node.name).is_some_and(|(_, known)| *known == node) {
            return false;
        }
        let key = NodeKey::of(&node.uid);
        self.named.insert(key, (node.name.clone(), node.uid.clone()));
        if let Some((former, _)) = self.there.insert(node.name.clone(), (key, node))
            && former != key
        {
            self.leave(former);
        }
        true
    }

    /// Takes nodes away that are not to be kept. Whether that is news.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) -> bool {
        let gone: Vec<String> = self.there.keys().filter(|name| !keep(name)).cloned().collect();
        for name in &gone {
            if let Some((key, _)) = self.there.remove(name) {
                self.leave(key);
            }
        }
        !gone.is_empty()
    }

    fn leave(&mut self, key: NodeKey) {
        self.left.push_back(key);
        while self.left.len() > REMEMBERED {
            let Some(oldest) = self.left.pop_front() else { return };
            let back = |(_, (key, _)): (&String, &(NodeKey, NodeView))| *key == oldest;
            if !self.there.iter().any(back) {
                self.named.remove(&oldest);
            }
        }
    }

    /// The nodes that there are.
    pub fn there(&self) -> impl Iterator<Item = (NodeKey, &NodeView)> {
        self.there.values().map(|(key, node)| (*key, node))
    }

    /// Whether the node of that name is the one with that UID.
    pub fn is_there(&self, name: &str, uid: &str) -> bool {
        self.there.get(name).is_some_and(|(_, node)| node.uid == uid)
    }

    /// The name and the UID of a node, one that has left included.
    pub fn named(&self, key: NodeKey) -> Option<(&str, &str)> {
        self.named.get(&key).map(|(name, uid)| (name.as_str(), uid.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, uid: &str) -> NodeView {
        NodeView { name: name.into(), uid: uid.into(), ..NodeView::default() }
    }

    #[test]
    fn a_node_that_left_is_still_known_by_name_and_another_of_its_name_is_another_one() {
        let mut nodes = Nodes::default();
        assert!(nodes.put(node("a", "1")) && !nodes.put(node("a", "1")));
        assert!(nodes.put(node("a", "2")));
        assert!(nodes.is_there("a", "2") && !nodes.is_there("a", "1"));
        assert_eq!(nodes.named(NodeKey::of("1")), Some(("a", "1")));
        assert!(nodes.retain(|_| false) && !nodes.retain(|_| false));
        assert_eq!(nodes.there().count(), 0);
        assert_eq!(nodes.named(NodeKey::of("2")), Some(("a", "2")));
    }

    #[test]
    fn names_of_nodes_that_left_are_bounded() {
        let mut nodes = Nodes::default();
        for number in 0..REMEMBERED + 50 {
            nodes.put(node("a", &number.to_string()));
        }
        assert_eq!(nodes.named.len(), REMEMBERED + 1);
        assert_eq!(nodes.named(NodeKey::of("3")), None);
    }
}
