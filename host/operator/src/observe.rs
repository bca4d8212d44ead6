//! The pods as the watch tells them, by owner. Only pods with an owner label are watched, and only the fields
//! that core reads are kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::runtime::{WatchStreamExt, watcher};
use serde::Deserialize;
use stoker_api::keys;
use stoker_core::pod::PodCondition;
use stoker_core::{Phase, PodView};
use tokio::sync::watch;

use crate::context::{Context, Scope};

/// A pod with the fields that are read; the rest is never deserialised.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Pod)]
pub struct SlimPod {
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimSpec {
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    phase: Option<String>,
    conditions: Vec<SlimCondition>,
    container_statuses: Vec<SlimContainer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: Option<String>,
    last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimContainer {
    restart_count: u32,
    state: SlimState,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SlimState {
    running: Option<SlimRunning>,
    waiting: Option<SlimWaiting>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimWaiting {
    reason: String,
    message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimRunning {
    started_at: Option<Time>,
}

/// The controller that owns an object: (UID, name).
fn owner(meta: &ObjectMeta) -> Option<(&str, &str)> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|r| r.controller == Some(true) && r.kind == "HotStandbyDeployment")
        .map(|r| (r.uid.as_str(), r.name.as_str()))
}

impl SlimPod {
    /// UID of the controller that owns it.
    pub fn owner_uid(&self) -> Option<&str> {
        owner(&self.metadata).map(|(uid, _)| uid)
    }

    /// What core reads of it.
    pub fn into_view(self) -> PodView {
        let meta = self.metadata;
        let labels = meta.labels.unwrap_or_default();
        PodView {
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            slot: labels.get(keys::SLOT).and_then(|s| s.parse().ok()),
            created: meta.creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            phase: match self.status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Pending,
            },
            terminating: meta.deletion_timestamp.is_some(),
            node: self.spec.node_name,
            restarts: self.status.container_statuses.iter().map(|c| c.restart_count).sum(),
            containers_started: self
                .status
                .container_statuses
                .iter()
                .filter_map(|c| c.state.running.as_ref()?.started_at.as_ref().map(|t| t.0))
                .max(),
            displaced: false,
            waiting: self
                .status
                .container_statuses
                .iter()
                .find_map(|c| c.state.waiting.as_ref().and_then(in_words)),
            conditions: self
                .status
                .conditions
                .into_iter()
                .map(|c| PodCondition {
                    type_: c.type_,
                    status: c.status,
                    reason: c.reason,
                    since: c.last_transition_time.map(|t| t.0),
                })
                .collect(),
            template_hash: labels.get(keys::TEMPLATE_HASH).cloned(),
            labels,
            annotations: meta.annotations.unwrap_or_default(),
        }
    }
}

/// Why a container does not start, if something is wrong.
fn in_words(waiting: &SlimWaiting) -> Option<String> {
    let SlimWaiting { reason, message } = waiting;
    if reason.is_empty() || matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let words = if message.is_empty() { reason.clone() } else { format!("{reason}: {message}") };
    Some(words.chars().take(300).collect())
}

type Pool = BTreeMap<String, PodView>;

/// Pods by owner UID and name.
pub struct PodIndex {
    pools: RwLock<HashMap<String, Pool>>,
    /// UIDs of pods that went a short while ago, by owner UID. A pod that came and went between two looks is
    /// not in `pods`, and this alone tells it from one that the watch has not shown yet.
    gone: RwLock<HashMap<String, Vec<(Instant, String)>>>,
    /// Namespace and name of each owner that was ever seen, by UID.
    owners: RwLock<HashMap<String, (String, String)>>,
    /// Since when a change waits to be looked at, by owner UID.
    touched: RwLock<HashMap<String, Instant>>,
    synced: watch::Sender<usize>,
    scopes: usize,
}

impl PodIndex {
    pub fn new(scopes: usize) -> Self {
        Self {
            pools: RwLock::default(),
            gone: RwLock::default(),
            owners: RwLock::default(),
            touched: RwLock::default(),
            synced: watch::channel(0).0,
            scopes,
        }
    }

    /// Waits until every scope has been listed once: before that, what is missing cannot be known.
    pub async fn ready(&self) {
        let mut synced = self.synced.subscribe();
        synced.wait_for(|n| *n >= self.scopes).await.ok();
    }

    /// Whether every scope has been listed once.
    pub fn is_ready(&self) -> bool {
        *self.synced.borrow() >= self.scopes
    }

    /// The pods of an owner.
    pub fn of(&self, owner: &str) -> Vec<PodView> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.get(owner).map(|p| p.values().cloned().collect()).unwrap_or_default()
    }

    /// Nodes that have pods.
    pub fn nodes(&self) -> HashSet<String> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.values().flat_map(BTreeMap::values).filter_map(|p| p.node.clone()).collect()
    }

    /// Namespace and name of the owners of the pods on a node.
    pub fn on_node(&self, node: &str) -> Vec<(String, String)> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        pools
            .iter()
            .filter(|(_, pool)| pool.values().any(|p| p.node.as_deref() == Some(node)))
            .filter_map(|(uid, _)| owners.get(uid).cloned())
            .collect()
    }

    fn owned(&self, uid: &str, namespace: &str, name: &str) {
        let known = self.owners.read().unwrap_or_else(PoisonError::into_inner).contains_key(uid);
        if !known {
            let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
            owners.insert(uid.to_owned(), (namespace.to_owned(), name.to_owned()));
        }
    }

    /// Forgets an owner that is gone.
    pub fn forget(&self, uid: &str) {
        self.owners.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Whether the watch told within the last [`OVERLAY`] that a pod of an owner is gone.
    pub fn went(&self, owner: &str, uid: &str) -> bool {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        gone.get(owner).is_some_and(|gone| gone.iter().any(|(_, gone)| gone == uid))
    }

    /// Since when a change of the owner's pods has waited, taken.
    pub fn take_touched(&self, owner: &str) -> Option<Instant> {
        self.touched.write().unwrap_or_else(PoisonError::into_inner).remove(owner)
    }

    fn touch(&self, owner: &str) {
        let mut touched = self.touched.write().unwrap_or_else(PoisonError::into_inner);
        touched.entry(owner.to_owned()).or_insert_with(Instant::now);
    }

    fn put(&self, owner: &str, pod: PodView) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.entry(owner.to_owned()).or_default().insert(pod.name.clone(), pod);
    }

    fn remove(&self, owner: &str, name: &str, uid: &str) {
        let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
        gone.entry(owner.to_owned()).or_default().push((Instant::now(), uid.to_owned()));
        gone.retain(|_, gone| {
            gone.retain(|(at, _)| at.elapsed() < OVERLAY);
            !gone.is_empty()
        });
        drop(gone);
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get_mut(owner) {
            if pool.get(name).is_some_and(|p| p.uid == uid) {
                pool.remove(name);
            }
            if pool.is_empty() {
                pools.remove(owner);
            }
        }
    }

    /// Replaces what is known of a scope by a complete listing.
    fn replace(&self, in_scope: impl Fn(&str) -> bool, listed: HashMap<String, Pool>) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|owner, _| !in_scope(owner));
        pools.extend(listed);
    }
}

/// Keeps the index true for a scope until told to stop.
pub async fn watch_pods(context: Arc<Context>, scope: Arc<Scope>, mut stop: watch::Receiver<bool>) {
    let config = watcher::Config::default().labels(keys::OWNER_UID).any_semantic();
    let mut events = watcher(scope.api::<SlimPod>(context.client.clone()), config).default_backoff().boxed();
    // Owners seen in this scope: (namespace, name) by UID.
    let mut owners: HashMap<String, (String, String)> = HashMap::new();
    let mut listing: HashMap<String, Pool> = HashMap::new();
    let mut first = true;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = stop.wait_for(|s| *s) => return,
        };
        let (pod, gone) = match event {
            None => return,
            Some(Err(error)) => {
                tracing::warn!(scope = scope.label(), %error, "the watch of pods broke, trying again");
                continue;
            }
            Some(Ok(watcher::Event::Init)) => {
                listing.clear();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(pod))) => {
                if let Some((uid, name)) = owner(&pod.metadata) {
                    let uid = uid.to_owned();
                    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                    context.pods.owned(&uid, &namespace, name);
                    owners.insert(uid.clone(), (namespace, name.to_owned()));
                    let view = pod.into_view();
                    listing.entry(uid).or_default().insert(view.name.clone(), view);
                }
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => {
                context.pods.replace(|uid| owners.contains_key(uid), std::mem::take(&mut listing));
                if std::mem::take(&mut first) {
                    context.pods.synced.send_modify(|n| *n += 1);
                }
                for (namespace, name) in owners.values() {
                    context.trigger(namespace, name);
                }
                continue;
            }
            Some(Ok(watcher::Event::Apply(pod))) => (pod, false),
            Some(Ok(watcher::Event::Delete(pod))) => (pod, true),
        };
        let Some((uid, name)) = owner(&pod.metadata) else { continue };
        let (uid, name) = (uid.to_owned(), name.to_owned());
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        context.pods.owned(&uid, &namespace, &name);
        owners.insert(uid.clone(), (namespace.clone(), name.clone()));
        let view = pod.into_view();
        if gone {
            context.pods.remove(&uid, &view.name, &view.uid);
        } else {
            context.pods.put(&uid, view);
        }
        context.pods.touch(&uid);
        context.trigger(&namespace, &name);
    }
}

/// How long what was just done is believed although the watch does not show it yet. Longer than any healthy
/// watch lags; should the watch be cut off, the slots' names still keep a pod from being made twice.
pub const OVERLAY: Duration = Duration::from_secs(30);
