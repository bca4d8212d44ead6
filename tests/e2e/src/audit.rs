//! What really happened to pods, whoever believes what: by the API server's audit log, which tells requests, and
//! by a watch, which tells the store's own order. A request whose client was killed while it was answered
//! stands in the log as failed, whether it took effect or not; the watch knows.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::account::Deed;
use crate::root;

/// A pod's creation or removal, in the order in which the API server answered.
#[derive(Clone, Debug)]
pub enum PodEvent {
    Created {
        name: String,
        uid: String,
        at: String,
    },
    /// An accepted delete request; `busy` is what the pod's annotation said at that moment. Who ends may be called busy
    /// afterwards, as long as a finalizer keeps it.
    Deleted {
        name: String,
        uid: String,
        busy: bool,
        at: String,
    },
}

/// Creations and deletions of pods in a namespace that the operator asked for and that succeeded.
pub fn pod_events(namespace: &str, busy_key: &str) -> Result<Vec<PodEvent>> {
    let mut events = Vec::new();
    for event in log(namespace, Timestamp::MIN)? {
        let about = &event["objectRef"];
        if about["resource"] != "pods"
            || about["namespace"] != namespace
            || event["stage"] != "ResponseComplete"
        {
            continue;
        }
        let code = event["responseStatus"]["code"].as_u64().unwrap_or(0);
        let dry = event["requestURI"].as_str().is_some_and(|u| u.contains("dryRun"));
        if !(200..300).contains(&code) || dry {
            continue;
        }
        let body = &event["responseObject"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let at = text(&event["stageTimestamp"]);
        match event["verb"].as_str() {
            Some("create") if about["subresource"].is_null() => events.push(PodEvent::Created {
                name: text(&body["metadata"]["name"]),
                uid: text(&body["metadata"]["uid"]),
                at,
            }),
            Some("delete") => events.push(PodEvent::Deleted {
                name: text(&about["name"]),
                uid: text(&body["metadata"]["uid"]),
                busy: body["metadata"]["annotations"][busy_key] == "true",
                at,
            }),
            _ => {}
        }
    }
    Ok(events)
}

/// A request of an operator to the API server.
#[derive(Clone, Debug)]
pub struct Request {
    pub verb: String,
    /// Such as `pods` or `hotstandbydeployments/status`.
    pub resource: String,
    pub name: String,
    /// When it was answered.
    pub at: Timestamp,
}

/// What operators asked within a namespace, watches apart, which last.
pub fn operators_requests(namespace: &str) -> Result<Vec<Request>> {
    operators_requests_since(namespace, Timestamp::MIN)
}

/// Those that were answered after a time.
pub fn operators_requests_since(namespace: &str, since: Timestamp) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for event in log(namespace, since)? {
        let about = &event["objectRef"];
        let stoker = event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("stoker/"));
        if !stoker
            || about["namespace"] != namespace
            || event["stage"] != "ResponseComplete"
            || event["verb"] == "watch"
        {
            continue;
        }
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let sub = about["subresource"].as_str().map(|sub| format!("/{sub}")).unwrap_or_default();
        requests.push(Request {
            verb: text(&event["verb"]),
            resource: text(&about["resource"]) + &sub,
            name: text(&about["name"]),
            at: text(&event["stageTimestamp"]).parse()?,
        });
    }
    Ok(requests)
}

/// What accounts asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub allowed: BTreeSet<Deed>,
    /// As they may not: an admission plug-in that refuses what they may ask for is another thing.
    pub refused: BTreeSet<Deed>,
}

/// What an account asked for in vain, as it may not.
pub fn refused(user: &str) -> Result<BTreeSet<Deed>> {
    Ok(asked(&[user], Timestamp::MIN)?.refused)
}

/// What accounts of one namespace asked for since a time.
pub fn asked(users: &[&str], since: Timestamp) -> Result<Asked> {
    let mut asked = Asked::default();
    let Some(namespace) = users.first().and_then(|user| user.split(':').nth(2)) else { return Ok(asked) };
    for event in log(namespace, since)? {
        let about = &event["objectRef"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let theirs = event["user"]["username"].as_str().is_some_and(|user| users.contains(&user));
        // Everybody may ask what he may: the test does so in their place.
        if !theirs || !about["resource"].is_string() || about["resource"] == "selfsubjectaccessreviews" {
            continue;
        }
        let sub = about["subresource"].as_str().map(|sub| format!("/{sub}")).unwrap_or_default();
        let resource = text(&about["resource"]) + &sub;
        let deed =
            Deed::new(&text(&event["verb"]), &text(&about["apiGroup"]), &resource, about["name"].as_str());
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            asked.refused.insert(deed);
        } else {
            asked.allowed.insert(deed);
        }
    }
    Ok(asked)
}

/// Watches a namespace's pods from now on.
pub struct PodWatch {
    events: Arc<Mutex<Vec<PodEvent>>>,
    task: JoinHandle<()>,
}

impl PodWatch {
    /// Begins.
    pub async fn start(pods: Api<Pod>, busy_key: &'static str) -> Result<Self> {
        let mut version =
            pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let mut stream = pods.watch(&WatchParams::default(), &version).await?.boxed();
        let events = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&events);
        let task = tokio::spawn(async move {
            // Whether those that are ending were busy when that was asked for, by UID.
            let mut ending = HashMap::new();
            loop {
                while let Some(event) = stream.next().await {
                    let (pod, created) = match event {
                        Ok(WatchEvent::Added(pod)) => (pod, Some(true)),
                        Ok(WatchEvent::Deleted(pod)) => (pod, Some(false)),
                        Ok(WatchEvent::Modified(pod)) => (pod, None),
                        _ => continue,
                    };
                    version = pod.resource_version().unwrap_or_default();
                    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
                    let busy = pod.annotations().get(busy_key).is_some_and(|value| value == "true");
                    let at = version.clone();
                    let event = match created {
                        Some(true) => PodEvent::Created { name, uid, at },
                        Some(false) => {
                            let busy = ending.remove(&uid).unwrap_or(busy);
                            PodEvent::Deleted { name, uid, busy, at }
                        }
                        None => {
                            if pod.metadata.deletion_timestamp.is_some() {
                                ending.entry(uid).or_insert(busy);
                            }
                            continue;
                        }
                    };
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                }
                // A watch lasts a few minutes; the next one goes on where it ended.
                let Ok(next) = pods.watch(&WatchParams::default(), &version).await else { return };
                stream = next.boxed();
            }
        });
        Ok(Self { events, task })
    }

    /// What happened so far, in the store's order.
    pub fn events(&self) -> Vec<PodEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The log's entries about a namespace that were written after a time, read one by one: the log of thousands of pods is
/// large.
pub(crate) fn log(namespace: &str, since: Timestamp) -> Result<impl Iterator<Item = Value>> {
    let dir = root().join("target/cluster/logs");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .with_context(|| format!("{} cannot be read", dir.display()))?
        .filter_map(|f| Some(f.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("audit")))
        .collect();
    // Rotated files carry their time in the name; the present one has none and is the newest.
    files.sort_by_key(|p| (p.ends_with("audit.log"), p.clone()));
    let recent = move |file: &PathBuf| {
        let changed = file.metadata().and_then(|m| m.modified()).ok();
        changed.and_then(|at| Timestamp::try_from(at).ok()).is_none_or(|at| at >= since)
    };
    let lines = files
        .into_iter()
        .filter(recent)
        .filter_map(|file| std::fs::File::open(file).ok())
        .flat_map(|file| BufReader::new(file).lines().map_while(Result::ok));
    let namespace = namespace.to_owned();
    Ok(lines.filter(move |line| line.contains(&namespace) && stamp(line) >= Some(since)).filter_map(|line| {
        // The last line may be half written.
        serde_json::from_str(&line).ok()
    }))
}

/// When an entry's request was answered, read without the rest of it.
fn stamp(line: &str) -> Option<Timestamp> {
    let (_, rest) = line.rsplit_once("\"stageTimestamp\":\"")?;
    rest.split_once('"')?.0.parse().ok()
}

/// The most pods that existed at a time, by the operator's creations and everybody's deletions, and the names
/// that were created while they existed. On simulated nodes a deleted pod is gone at once.
pub fn peak(events: &[PodEvent]) -> (usize, Vec<String>) {
    let mut present: HashMap<String, String> = HashMap::new();
    let (mut peak, mut twice) = (0, Vec::new());
    for event in events {
        match event {
            PodEvent::Created { name, uid, .. } => {
                if present.insert(name.clone(), uid.clone()).is_some() {
                    twice.push(name.clone());
                }
                peak = peak.max(present.len());
            }
            PodEvent::Deleted { name, uid, .. } => {
                if present.get(name) == Some(uid) {
                    present.remove(name);
                }
            }
        }
    }
    (peak, twice)
}
