//! Pods of nodes as one watch shows them, on one clock and in the store's own order: when they came, ran and ended, and how
//! many of them were in flight at a time.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use kube::{Client, Resource as _};
use serde::Deserialize;
use stoker_api::keys;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::World;

/// Whoever waits for the next change for so long waits in vain.
const PATIENCE: Duration = Duration::from_secs(300);

/// A pod as it was first shown.
#[derive(Clone, Debug)]
pub struct NodePod {
    pub name: String,
    /// The node that it is for; empty if nobody says.
    pub node: String,
    /// Which attempt of the node it is.
    pub attempt: String,
    /// The variables of its first container.
    pub variables: HashMap<String, String>,
}

impl NodePod {
    /// The address at which it reports a result, a file or an event.
    pub fn url(&self, what: &str) -> Result<&str> {
        let url = self.variables.get(&format!("CALLBACK_SERVICE_{what}_URL"));
        url.map(String::as_str).with_context(|| format!("pod {} has no address for {what}", self.name))
    }
}

/// What happened to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Came,
    Runs,
    /// It has ended, well or badly, or is gone.
    Ended {
        well: bool,
    },
}

/// A change.
#[derive(Clone, Debug)]
pub struct Seen {
    pub pod: Arc<NodePod>,
    pub what: What,
    pub at: Instant,
}

/// What happened to pods of a namespace since it began.
pub struct NodePods {
    seen: UnboundedReceiver<Result<Seen>>,
    tally: Arc<Mutex<Tally>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Tally {
    /// Those that have not ended, by UID, and whether they run.
    in_flight: HashMap<String, (Arc<NodePod>, bool)>,
    most: usize,
    made: Vec<Arc<NodePod>>,
}

impl NodePods {
    /// Begins.
    pub async fn start(world: &World) -> Result<Self> {
        let listed = world.api::<Pod>().list_metadata(&ListParams::default().limit(1)).await?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let (into, seen) = unbounded_channel();
        let tally = Arc::<Mutex<Tally>>::default();
        let path = Pod::url_path(&(), Some(&world.namespace));
        let (client, counts) = (world.client.clone(), tally.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = watch(client, &path, version, &counts, &into).await {
                into.send(Err(error)).ok();
            }
        });
        Ok(Self { seen, tally, task })
    }

    /// Waits for the next change.
    pub async fn next(&mut self) -> Result<Seen> {
        let next = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        let next = next.with_context(|| {
            format!(
                "nothing has happened for {PATIENCE:?}; {} are in flight",
                locked(&self.tally).in_flight.len()
            )
        })?;
        next.context("the watch of pods has ended")?
    }

    /// The most pods that had come and had not ended at a time.
    pub fn most(&self) -> usize {
        locked(&self.tally).most
    }

    /// All that have come, in the store's order.
    pub fn made(&self) -> Vec<Arc<NodePod>> {
        locked(&self.tally).made.clone()
    }

    /// Checks that the watch has missed nothing: it still goes on.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.task.is_finished(), "the watch of pods has ended");
        Ok(())
    }
}

impl Drop for NodePods {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Takes a change in; what is news of it, in order.
    fn take(&mut self, pod: &Slim, gone: bool) -> Vec<(Arc<NodePod>, What)> {
        let (uid, phase) = (&pod.metadata.uid, pod.status.phase.as_str());
        let ended = gone || matches!(phase, "Succeeded" | "Failed");
        let mut news = Vec::new();
        if !ended && !self.in_flight.contains_key(uid) {
            let new = Arc::new(pod.read());
            self.made.push(new.clone());
            self.in_flight.insert(uid.clone(), (new.clone(), false));
            self.most = self.most.max(self.in_flight.len());
            news.push((new, What::Came));
        }
        if let Some((shown, runs)) = self.in_flight.get_mut(uid)
            && phase == "Running"
            && !std::mem::replace(runs, true)
        {
            news.push((shown.clone(), What::Runs));
        }
        if ended && let Some((shown, _)) = self.in_flight.remove(uid) {
            news.push((shown, What::Ended { well: phase == "Succeeded" }));
        }
        news
    }
}

/// A pod with what is read of it: thousands are decoded beside what is measured.
#[derive(Clone, Debug, Deserialize)]
struct Slim {
    metadata: SlimMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMeta {
    name: String,
    uid: String,
    resource_version: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimSpec {
    containers: Vec<SlimContainer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimContainer {
    env: Vec<Variable>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimStatus {
    phase: String,
}

impl Slim {
    fn read(&self) -> NodePod {
        let said = |key: &str| self.metadata.annotations.get(key).cloned().unwrap_or_default();
        let variables = self.spec.containers.iter().take(1).flat_map(|container| &container.env);
        NodePod {
            name: self.metadata.name.clone(),
            node: said(keys::NODE),
            attempt: said(keys::ATTEMPT),
            variables: variables.map(|v| (v.name.clone(), v.value.clone())).collect(),
        }
    }
}

/// Tells what happens to pods from a version on, until nobody listens.
async fn watch(
    client: Client,
    path: &str,
    mut version: String,
    tally: &Mutex<Tally>,
    into: &UnboundedSender<Result<Seen>>,
) -> Result<()> {
    loop {
        // A watch lasts a few minutes; the next one goes on where it ended.
        let request = Request::new(path).watch(&WatchParams::default(), &version)?;
        let mut events = pin!(client.request_events::<Slim>(request).await?);
        while let Some(event) = events.try_next().await? {
            let at = Instant::now();
            let (pod, gone) = match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
                WatchEvent::Deleted(pod) => (pod, true),
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => {
                    return Err(anyhow!("the watch of pods broke: {}", status.message));
                }
            };
            version.clone_from(&pod.metadata.resource_version);
            let news = locked(tally).take(&pod, gone);
            for (pod, what) in news {
                if into.send(Ok(Seen { pod, what, at })).is_err() {
                    return Ok(());
                }
            }
        }
    }
}
