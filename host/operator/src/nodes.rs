//! The nodes: which are about to be lost, cordoned, draining or not Ready, so that idle pods there are no standby; and which
//! there are, for work on every node.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use stoker_core::fan_out::NodeView;
use tokio::sync::watch;

use crate::again::{WatchBackOff, watches};
use crate::context::Context;
use crate::slim_node::SlimNode;

/// Changes of nodes that come within so long of each other ask for one look.
const TOGETHER: Duration = Duration::from_millis(100);

/// The labels by which providers and autoscalers tell a node's pool, in the order in which they are asked.
const NODE_POOLS: [&str; 8] = [
    "karpenter.sh/nodepool",
    "cloud.google.com/gke-nodepool",
    "eks.amazonaws.com/nodegroup",
    "kubernetes.azure.com/agentpool",
    "ibm-cloud.kubernetes.io/worker-pool-name",
    "doks.digitalocean.com/node-pool",
    "k8s.scaleway.com/pool-name",
    "node.kubernetes.io/nodepool",
];

/// The nodes.
#[derive(Default)]
pub struct NodeIndex {
    /// Those that are being lost. A node never heard of is a good one: its pod's event came first.
    lost: RwLock<HashSet<String>>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// All of them have been listed once.
    listed: bool,
    nodes: BTreeMap<String, NodeView>,
    /// The same, for those who read them, until something changes.
    shared: Option<Arc<[NodeView]>>,
}

impl Known {
    /// Whether that is news.
    fn put(&mut self, node: NodeView) -> bool {
        let news = self.nodes.get(&node.name) != Some(&node);
        if news {
            self.nodes.insert(node.name.clone(), node);
            self.shared = None;
        }
        news
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) -> bool {
        let before = self.nodes.len();
        self.nodes.retain(|name, _| keep(name));
        let news = self.nodes.len() < before;
        if news {
            self.shared = None;
        }
        news
    }
}

impl NodeIndex {
    /// Whether a node is being lost.
    pub fn is_being_lost(&self, node: &str) -> bool {
        self.lost.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// All nodes, by name; None = they have not been listed yet.
    pub fn all(&self) -> Option<Arc<[NodeView]>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.listed {
            return None;
        }
        if known.shared.is_none() {
            known.shared = Some(known.nodes.values().cloned().collect());
        }
        known.shared.clone()
    }

    /// The node pool (or node group) that a node belongs to, by the label that its provider gives; empty = none known.
    pub fn pool_of(&self, node: &str) -> String {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let labels = known.nodes.get(node).map(|node| &node.labels);
        let pool = labels.and_then(|labels| NODE_POOLS.iter().find_map(|label| labels.get(*label)));
        pool.cloned().unwrap_or_default()
    }

    /// Whether that is news.
    fn note(&self, node: &str, lost: bool) -> bool {
        let mut nodes = self.lost.write().unwrap_or_else(PoisonError::into_inner);
        if lost { nodes.insert(node.to_owned()) } else { nodes.remove(node) }
    }

    fn change(&self, change: impl FnOnce(&mut Known) -> bool) -> bool {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps the index true until told to stop. Where nodes may not be watched, all of them are taken for good.
pub async fn watch_nodes(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let api = Api::<SlimNode>::all(context.client.clone());
    let mut events = watcher(api, watches()).backoff(WatchBackOff::default()).boxed();
    let mut listed = HashSet::new();
    let mut news = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(TOGETHER), if news => {
                news = false;
                context.nodes_changed();
                continue;
            }
            _ = stop.wait_for(|s| *s) => return,
        };
        match event {
            None => return,
            Some(Err(error)) => tracing::warn!(
                %error,
                "nodes cannot be watched, trying again; until then idle pods on cordoned nodes count as standby, and work on every node does not start"
            ),
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(node))) => {
                listed.insert(node.name_any());
                news |= apply(&context, node);
            }
            Some(Ok(watcher::Event::Apply(node))) => news |= apply(&context, node),
            // Its pods are about to be collected.
            Some(Ok(watcher::Event::Delete(node))) => {
                let name = node.name_any();
                news |= context.nodes.change(|known| known.retain(|other| other != name));
                note(&context, &name, true);
            }
            Some(Ok(watcher::Event::InitDone)) => {
                news |= context.nodes.change(|known| {
                    let first = !std::mem::replace(&mut known.listed, true);
                    known.retain(|name| listed.contains(name)) || first
                });
                let lost = context.nodes.lost.read().unwrap_or_else(PoisonError::into_inner).clone();
                let with_pods = context.pods.nodes();
                for node in with_pods.into_iter().chain(lost) {
                    if !listed.contains(&node) {
                        note(&context, &node, true);
                    }
                }
            }
        }
    }
}

/// Takes a node in. Returns whether something changed that those read who work on every node.
fn apply(context: &Arc<Context>, node: SlimNode) -> bool {
    note(context, &node.name_any(), node.is_being_lost());
    context.nodes.change(|known| known.put(node.into_view()))
}

/// Notes what a node has become, and has the pools looked at that have pods there.
fn note(context: &Arc<Context>, node: &str, lost: bool) {
    if !context.nodes.note(node, lost) {
        return;
    }
    tracing::info!(node, lost, "a node is being lost or is good again");
    for owner in context.pods.on_node(node) {
        if let Some(key) = context.owners.of(&owner) {
            context.trigger(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(ready: &str) -> NodeView {
        let node: SlimNode = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "a", "uid": "u"},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap_or_else(|error| panic!("{error}"));
        node.into_view()
    }

    #[test]
    fn a_heartbeat_is_no_news_and_nodes_are_not_known_before_they_are_listed() {
        let index = NodeIndex::default();
        assert!(index.change(|known| known.put(node("True"))));
        assert!(!index.change(|known| known.put(node("True"))));
        assert!(index.all().is_none());
        index.change(|known| std::mem::replace(&mut known.listed, true));
        assert_eq!(index.all().map(|nodes| nodes.len()), Some(1));
        assert!(index.change(|known| known.put(node("False"))));
        assert_eq!(index.all().map(|nodes| nodes[0].ready), Some(false));
        assert_eq!(index.pool_of("a"), "", "no label tells it");
        let mut pooled = node("True");
        pooled.labels.insert("cloud.google.com/gke-nodepool".into(), "gpus".into());
        index.change(|known| known.put(pooled));
        assert_eq!((index.pool_of("a"), index.pool_of("b")), ("gpus".to_owned(), String::new()));
        assert!(index.change(|known| known.retain(|name| name != "a")));
        assert_eq!(index.all().map(|nodes| nodes.len()), Some(0));
    }
}
