//! The API server's audit log: what really happened to pods, whoever believes what.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::root;

/// A pod's creation or removal, in the order in which the API server answered.
#[derive(Clone, Debug)]
pub enum PodEvent {
    Created {
        name: String,
        uid: String,
        at: String,
    },
    /// An accepted delete request; `busy` is what the pod's annotation said at that moment.
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
    for line in lines()? {
        if !line.contains(namespace) {
            continue;
        }
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
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

fn lines() -> Result<Vec<String>> {
    let dir = root().join("target/cluster/logs");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .with_context(|| format!("{} cannot be read", dir.display()))?
        .filter_map(|f| Some(f.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("audit")))
        .collect();
    // Rotated files carry their time in the name; the present one has none and is the newest.
    files.sort_by_key(|p| (p.ends_with("audit.log"), p.clone()));
    let mut all = Vec::new();
    for file in files {
        all.extend(BufReader::new(std::fs::File::open(file)?).lines().map_while(Result::ok));
    }
    Ok(all)
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
