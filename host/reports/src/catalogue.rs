//! What there is to read: jobs, their executions, and what each node reported.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::cluster::{JobView, NodeState, NotReady};
use crate::fared::{Fared, Node};
use crate::manifest::Manifest;
use crate::names::{self, MANIFEST};
use crate::service::Reports;
use crate::slot::{ExecutionId, JobKey, LATEST};
use crate::store::{self, Kept, StoreError};

/// Files whose names go on so after the node's are logs of containers.
const LOG: &str = "-container-";

/// A job.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobEntry {
    pub namespace: String,
    pub name: String,
    /// Whether there is such a NodeBatchJob; its reports outlive it for a while. Absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

/// An execution.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionEntry {
    pub id: String,
    /// What follows is absent where nobody saw its end.
    #[serde(flatten)]
    pub told: Option<Told>,
}

/// What is known of an execution.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// Absent = it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Nodes that were to report; those that left before their work had ended are not among them. Absent where not all are
    /// known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<usize>,
}

impl Told {
    fn of(fared: Fared<'_>) -> Self {
        let count =
            |wanted: fn(&Node<'_>) -> bool| fared.is_complete().then(|| fared.nodes().filter(wanted).count());
        Self {
            started: fared.started(),
            ended: fared.ended(),
            nodes: count(|node| node.state != Some(NodeState::Gone)),
            failed: count(|node| node.state == Some(NodeState::Failed)),
            reported: None,
        }
    }
}

/// What an execution's nodes reported.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionDetail {
    pub namespace: String,
    pub job: String,
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    pub nodes: Vec<NodeEntry>,
}

/// What one node reported.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEntry {
    pub node: String,
    /// waiting, running, succeeded, failed or gone; absent where nobody saw its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// Its last pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// How long that ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_milliseconds: Option<u64>,
    /// Absent = nothing was reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<FileEntry>,
    pub files: Vec<FileEntry>,
    pub logs: Vec<FileEntry>,
}

/// A kept file, by the name under which it is served.
#[derive(Debug, Serialize)]
pub struct FileEntry {
    pub name: String,
    pub bytes: u64,
    pub modified: Timestamp,
}

impl From<Kept> for FileEntry {
    fn from(kept: Kept) -> Self {
        Self { name: kept.name, bytes: kept.size, modified: kept.modified }
    }
}

/// All jobs, those without reports among them.
pub async fn jobs(reports: &Reports) -> Result<Vec<JobEntry>, StoreError> {
    let listed: Result<BTreeSet<JobKey>, NotReady> =
        reports.cluster.jobs().map(|jobs| jobs.iter().map(|job| job.key.clone()).collect());
    let mut keys = listed.clone().unwrap_or_default();
    for namespace in reports.store.folders(None).await?.into_iter().filter(|name| is_ours(name)) {
        let Some(folder) = store::folder(&[&namespace]) else { continue };
        for name in reports.store.folders(Some(&folder)).await? {
            keys.insert(JobKey { namespace: namespace.clone(), name });
        }
    }
    let entry = |key: JobKey| JobEntry {
        exists: listed.as_ref().ok().map(|listed| listed.contains(&key)),
        namespace: key.namespace,
        name: key.name,
    };
    Ok(keys.into_iter().map(entry).collect())
}

/// Whether it can be a namespace; a volume may hold a `lost+found`.
fn is_ours(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}

/// A job's executions, the newest first; `None` if there is no such job.
pub async fn executions(reports: &Reports, key: &JobKey) -> Result<Option<Vec<ExecutionEntry>>, StoreError> {
    let view = reports.cluster.job(key).ok().flatten();
    let ids = ids(reports, key, view.as_deref()).await?;
    if ids.is_empty() && view.is_none() {
        return Ok(None);
    }
    let mut entries = Vec::with_capacity(ids.len());
    for id in ids.iter().rev() {
        let told = match &view {
            Some(view) => told(reports, view, id),
            // A job that is gone has few executions left, and they are asked for rarely.
            None => written(reports, key, id).await?,
        };
        entries.push(ExecutionEntry { id: id.to_string(), told });
    }
    Ok(Some(entries))
}

/// What is known of an execution of a job that there is.
fn told(reports: &Reports, job: &JobView, id: &ExecutionId) -> Option<Told> {
    let view = job.executions.get(id);
    let known = reports.series.with(job, |series| {
        let fared = Fared::best(view, series.over.get(id).map(std::sync::Arc::as_ref))?;
        Some(Told { reported: Some(series.runs.get(id).map_or(0, BTreeMap::len)), ..Told::of(fared) })
    });
    // What was reported before has yet to be read.
    known.unwrap_or_else(|| Fared::best(view, None).map(Told::of))
}

/// What the store knows of an execution.
async fn written(reports: &Reports, key: &JobKey, id: &ExecutionId) -> Result<Option<Told>, StoreError> {
    let Some(folder) = store::execution_folder(key, id) else { return Ok(None) };
    let manifest = Manifest::read(&reports.store, &folder).await?;
    Ok(Fared::best(None, Some(&manifest)).map(Told::of))
}

async fn ids(
    reports: &Reports,
    key: &JobKey,
    view: Option<&JobView>,
) -> Result<BTreeSet<ExecutionId>, StoreError> {
    let mut ids = view.map(|view| told_of(reports, view)).unwrap_or_default();
    if let Some(folder) = store::job_folder(key) {
        let kept = reports.store.folders(Some(&folder)).await?;
        ids.extend(kept.iter().filter_map(|name| name.parse::<ExecutionId>().ok()));
    }
    Ok(ids)
}

/// The executions that a job tells of, without those that were pruned.
fn told_of(reports: &Reports, view: &JobView) -> BTreeSet<ExecutionId> {
    let all = || view.executions.keys();
    let kept =
        reports.series.with(view, |series| all().filter(|id| !series.pruned.contains(id)).cloned().collect());
    kept.unwrap_or_else(|| all().cloned().collect())
}

/// The execution that a path names; `latest` is the newest.
pub async fn resolve(
    reports: &Reports,
    key: &JobKey,
    named: &str,
) -> Result<Option<ExecutionId>, StoreError> {
    if named != LATEST {
        return Ok(named.parse().ok());
    }
    let view = reports.cluster.job(key).ok().flatten();
    Ok(ids(reports, key, view.as_deref()).await?.pop_last())
}

/// What an execution's nodes reported; `None` if there is no such execution.
pub async fn detail(
    reports: &Reports,
    key: &JobKey,
    id: &ExecutionId,
) -> Result<Option<ExecutionDetail>, StoreError> {
    let Some(folder) = store::execution_folder(key, id) else { return Ok(None) };
    let job = reports.cluster.job(key).ok().flatten();
    let view = job.as_ref().and_then(|job| job.executions.get(id));
    let files = reports.store.files(&folder).await?;
    if files.is_empty() && view.is_none() {
        return Ok(None);
    }
    let manifest = Manifest::read(&reports.store, &folder).await?;
    let mut nodes = manifest.names();
    nodes.extend(view.into_iter().flat_map(|view| view.nodes.keys().cloned()));
    let fared = Fared::best(view, Some(&manifest));
    let mut entries = entries(&nodes, fared);
    for kept in files.into_iter().filter(|kept| kept.name != MANIFEST) {
        if let Some(entry) = names::owner(&kept.name, &nodes).and_then(|node| entries.get_mut(node)) {
            sort_in(entry, kept);
        }
    }
    Ok(Some(ExecutionDetail {
        namespace: key.namespace.clone(),
        job: key.name.clone(),
        id: id.to_string(),
        started: fared.and_then(Fared::started).or(manifest.started),
        ended: fared.and_then(Fared::ended),
        nodes: entries.into_values().collect(),
    }))
}

/// The nodes as they fared, without what they reported.
fn entries<'a>(nodes: &'a BTreeSet<String>, fared: Option<Fared<'a>>) -> BTreeMap<&'a str, NodeEntry> {
    let mut entries: BTreeMap<&str, NodeEntry> =
        nodes.iter().map(|node| (node.as_str(), empty(node))).collect();
    for node in fared.into_iter().flat_map(Fared::nodes) {
        if let Some(entry) = entries.get_mut(node.name) {
            entry.state = node.state;
            entry.pod = node.pod.map(str::to_owned);
            let ran = node.duration.map(|ran| u64::try_from(ran.as_millis()).unwrap_or(u64::MAX));
            entry.duration_milliseconds = ran;
        }
    }
    entries
}

fn empty(node: &str) -> NodeEntry {
    NodeEntry {
        node: node.to_owned(),
        state: None,
        pod: None,
        duration_milliseconds: None,
        result: None,
        files: Vec::new(),
        logs: Vec::new(),
    }
}

fn sort_in(entry: &mut NodeEntry, kept: Kept) {
    let key = names::node_key(&entry.node);
    if kept.name == names::result_file(&entry.node) {
        entry.result = Some(kept.into());
    } else if kept.name[key.len()..].starts_with(LOG) && kept.name.ends_with(".log") {
        entry.logs.push(kept.into());
    } else {
        entry.files.push(kept.into());
    }
}
