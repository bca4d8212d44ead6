//! What is known of a NodeBatchJob for its reports, from the object, its pods and the nodes: a pure function.
//!
//! ```text
//!   status.executions (ids, times, record) ─┐
//!   pods (execution, node, attempt, end) ───┼─▶ JobView { executions { nodes { pod, earlier, state, duration } } }
//!   nodes (names by UID, which are chosen) ─┘
//! ```
//!
//! The record knows best what became of a node; what it does not tell, the last pod does. Names of pods derive from node and
//! attempt, so that the pod that comes next is known before anybody has seen it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use stoker_api::{Execution, ExecutionState, FailedPod, NodeBatchJob, NodeMetrics, ReportSpec};
use stoker_core::fan_out::{Fate, NodeKey, Record, Rules};
use stoker_core::node_batch;
use stoker_reports::{
    ExecutionId, ExecutionView, Gauge, JobKey, JobView, MetricsSpec, NodeState, NodeView, ReportLimits,
    Retention,
};

use super::nodes::Nodes;
use super::pod::NodePod;

/// Earlier attempts whose pods may still report: more than one may be tried again.
const EARLIER: u16 = 128;

/// What is known of the object, from all of its pods and all nodes.
pub fn view<'a>(object: &NodeBatchJob, pods: impl Iterator<Item = &'a NodePod>, nodes: &Nodes) -> JobView {
    let (meta, spec) = (&object.metadata, &object.spec);
    let mut by_execution: HashMap<&str, Vec<&NodePod>> = HashMap::new();
    for pod in pods {
        by_execution.entry(&pod.execution).or_default().push(pod);
    }
    let job = Job {
        name: meta.name.as_deref().unwrap_or_default(),
        uid: meta.uid.as_deref().unwrap_or_default(),
        rules: node_batch::rules(spec),
        nodes,
    };
    let mut executions: BTreeMap<ExecutionId, ExecutionView> = BTreeMap::new();
    for execution in object.status.iter().flat_map(|status| &status.executions) {
        let pods = by_execution.remove(execution.id.as_str()).unwrap_or_default();
        if let Ok(id) = execution.id.parse() {
            executions.insert(id, job.execution(execution, &pods));
        }
    }
    for (id, pods) in by_execution {
        if let (Ok(id), Some(view)) = (id.parse(), job.of_pods(id, &pods)) {
            executions.insert(id, view);
        }
    }
    JobView {
        key: key(object),
        uid: job.uid.to_owned(),
        limits: ReportLimits {
            bytes_per_upload: spec.reports.max_bytes_per_upload,
            bytes_per_execution: spec.reports.max_bytes_per_execution,
        },
        retention: retention(&spec.reports),
        metrics: spec.metrics.as_ref().map(metrics),
        executions,
    }
}

/// The object's name.
pub fn key(object: &NodeBatchJob) -> JobKey {
    let meta = &object.metadata;
    JobKey {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// Whether pods that were deleted still tell of an execution: until what became of its nodes has been written down.
pub fn needs_gone_pods(object: &NodeBatchJob, execution: &str) -> bool {
    let executions = object.status.iter().flat_map(|status| &status.executions);
    let mut known = executions.filter(|known| known.id == execution);
    known.any(|known| known.completion_time.is_none() || !known.record.is_empty())
}

fn retention(spec: &ReportSpec) -> Retention {
    let ttl = spec.ttl.as_deref().and_then(|text| node_batch::span("spec.reports.ttl", text).ok());
    Retention { history: spec.history as usize, ttl: ttl.map(|ttl| ttl.unsigned_abs()) }
}

fn metrics(spec: &NodeMetrics) -> MetricsSpec {
    let gauge = |(name, gauge): (&String, &stoker_api::NodeGauge)| {
        (name.clone(), Gauge { help: gauge.help.clone(), labels: gauge.labels.clone() })
    };
    MetricsSpec {
        prefix: spec.prefix.clone(),
        gauges: spec.gauges.iter().map(gauge).collect(),
        latest_label: spec.latest_label,
        max_series: spec.max_series as usize,
    }
}

struct Job<'a> {
    name: &'a str,
    uid: &'a str,
    rules: Rules,
    nodes: &'a Nodes,
}

/// What is known of a node's work.
struct Work<'a> {
    node: &'a str,
    uid: &'a str,
    fate: Option<Fate>,
    pods: Vec<&'a NodePod>,
}

impl<'a> Work<'a> {
    fn of((node, uid): (&'a str, &'a str)) -> Self {
        Self { node, uid, fate: None, pods: Vec::new() }
    }
}

impl Job<'_> {
    /// An execution that the status tells of.
    fn execution(&self, execution: &Execution, pods: &[&NodePod]) -> ExecutionView {
        let record = Record::read(&execution.record);
        let over = execution.completion_time.is_some();
        let mut works = works(pods);
        for (key, fate) in record.iter() {
            if let Some(named) = self.nodes.named(key) {
                works.entry(key).or_insert_with(|| Work::of(named));
            }
            if let Some(work) = works.get_mut(&key) {
                work.fate = Some(fate);
            }
        }
        if !over && execution.state == ExecutionState::Running {
            for (key, node) in self.nodes.there().filter(|(_, node)| self.rules.choose(node).is_ok()) {
                works.entry(key).or_insert_with(|| Work::of((&node.name, &node.uid)));
            }
        }
        let mut nodes = self.by_name(&execution.id, over, works);
        for failed in &execution.failed_nodes {
            // The node has left, and so has its pod.
            nodes.entry(failed.node.clone()).or_insert_with(|| named(failed));
        }
        let counts = &execution.nodes;
        ExecutionView {
            started: execution.start_time,
            ended: execution.completion_time,
            nodes,
            complete: !over || !record.is_empty() || counts.desired + counts.gone == 0,
        }
    }

    /// An execution that only its pods tell of: the status has yet to be seen, or tells of it no more.
    fn of_pods(&self, id: &str, pods: &[&NodePod]) -> Option<ExecutionView> {
        pods.iter().find(|pod| !pod.gone)?;
        let over = !pods.iter().any(|pod| pod.is_alive());
        let last = pods.iter().map(|pod| pod.ended.unwrap_or(pod.created)).max();
        Some(ExecutionView {
            started: pods.iter().map(|pod| pod.created).min().unwrap_or(Timestamp::UNIX_EPOCH),
            ended: last.filter(|_| over),
            nodes: self.by_name(id, over, works(pods)),
            complete: false,
        })
    }

    /// Of two nodes of one name, the one that is there, or else the one with the newest pod, has it; the other's pods count
    /// as earlier ones.
    fn by_name(
        &self,
        execution: &str,
        over: bool,
        works: HashMap<NodeKey, Work<'_>>,
    ) -> BTreeMap<String, NodeView> {
        let mut works: Vec<Work<'_>> = works.into_values().collect();
        let newest = |work: &Work<'_>| work.pods.iter().map(|pod| pod.created).max();
        works
            .sort_by_key(|work| (!self.nodes.is_there(work.node, work.uid), std::cmp::Reverse(newest(work))));
        let mut nodes = BTreeMap::new();
        for work in works {
            match nodes.entry(work.node.to_owned()) {
                Entry::Vacant(place) => {
                    place.insert(self.node(execution, over, &work));
                }
                Entry::Occupied(mut taken) => {
                    let pods = work.pods.iter().map(|pod| pod.name.clone());
                    let taken: &mut NodeView = taken.get_mut();
                    taken.earlier.extend(pods);
                }
            }
        }
        nodes
    }

    fn node(&self, execution: &str, over: bool, work: &Work<'_>) -> NodeView {
        let made = work.pods.iter().map(|pod| pod.attempt).max().unwrap_or(0);
        let tried = match work.fate {
            Some(Fate::Failed(tries) | Fate::Tried(tries)) => tries.last,
            _ => 0,
        };
        let last = made.max(tried).max(1);
        let pod = |attempt: u16| work.pods.iter().find(|pod| pod.attempt == attempt);
        let (state, current) = match work.fate {
            Some(Fate::Succeeded) => (NodeState::Succeeded, last),
            Some(Fate::Failed(_)) => (NodeState::Failed, last),
            Some(Fate::Gone) => (NodeState::Gone, last),
            // It has not succeeded, and is not tried again.
            Some(Fate::Tried(_)) if over && made <= tried => (NodeState::Failed, last),
            Some(Fate::Tried(_)) if made <= tried => (NodeState::Waiting, last.saturating_add(1)),
            _ => (pod(last).map_or(NodeState::Waiting, |pod| pod.state(over)), last),
        };
        let name = |attempt: u16| match pod(attempt) {
            Some(pod) => pod.name.clone(),
            None => node_batch::pod_name(self.name, self.uid, work.node, work.uid, execution, attempt),
        };
        NodeView {
            pod: name(current),
            earlier: (current.saturating_sub(EARLIER).max(1)..current).map(name).collect(),
            state,
            duration: pod(current).filter(|pod| pod.phase.is_terminal()).and_then(|pod| pod.ran),
        }
    }
}

fn works<'a>(pods: &[&'a NodePod]) -> HashMap<NodeKey, Work<'a>> {
    let mut works: HashMap<NodeKey, Work<'a>> = HashMap::new();
    for pod in pods {
        let work = works.entry(pod.key).or_insert_with(|| Work::of((&pod.node, &pod.node_uid)));
        work.pods.push(pod);
    }
    works
}

fn named(failed: &FailedPod) -> NodeView {
    NodeView {
        pod: failed.pod.clone(),
        earlier: Vec::new(),
        state: NodeState::Failed,
        duration: None::<Duration>,
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
