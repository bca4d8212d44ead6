//! Which nodes are about to be lost: cordoned, draining or not Ready. Idle pods there are no standby.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::Deserialize;
use tokio::sync::watch;

use crate::again::WatchBackOff;
use crate::context::Context;
use crate::slim_meta::slim;

/// A node with the fields that are read.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Node)]
struct SlimNode {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimSpec {
    unschedulable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimStatus {
    conditions: Vec<SlimCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

impl SlimNode {
    /// A drain cordons before it evicts, so that being cordoned tells both.
    fn is_being_lost(&self) -> bool {
        let ready = self.status.conditions.iter().find(|c| c.type_ == "Ready");
        self.spec.unschedulable
            || ready.is_some_and(|c| c.status != "True")
            || self.metadata.deletion_timestamp.is_some()
    }
}

/// The nodes that are being lost. A node never heard of is a good one: its pod's event came first.
#[derive(Default)]
pub struct NodeIndex(RwLock<HashSet<String>>);

impl NodeIndex {
    /// Whether a node is being lost.
    pub fn is_being_lost(&self, node: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// Whether that is news.
    fn note(&self, node: &str, lost: bool) -> bool {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if lost { nodes.insert(node.to_owned()) } else { nodes.remove(node) }
    }
}

/// Keeps the index true until told to stop. Where nodes may not be watched, all of them are taken for good.
pub async fn watch_nodes(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let api = Api::<SlimNode>::all(context.client.clone());
    let mut events =
        watcher(api, watcher::Config::default().any_semantic()).backoff(WatchBackOff::default()).boxed();
    let mut listed = HashSet::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = stop.wait_for(|s| *s) => return,
        };
        match event {
            None => return,
            Some(Err(error)) => tracing::warn!(
                %error,
                "nodes cannot be watched, trying again; until then idle pods on cordoned nodes count as standby"
            ),
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(node))) => {
                listed.insert(node.name_any());
                note(&context, &node.name_any(), node.is_being_lost());
            }
            Some(Ok(watcher::Event::Apply(node))) => note(&context, &node.name_any(), node.is_being_lost()),
            // Its pods are about to be collected.
            Some(Ok(watcher::Event::Delete(node))) => note(&context, &node.name_any(), true),
            Some(Ok(watcher::Event::InitDone)) => {
                let lost = context.nodes.0.read().unwrap_or_else(PoisonError::into_inner).clone();
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
