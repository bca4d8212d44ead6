//! What to do about a NodeBatchJob, and what its status says then.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use stoker_api::{
    Execution, ExecutionState, FailedPod, NodeBatchJob, NodeBatchJobState, NodeBatchJobStatus, NodeRecord,
    keys,
};

use super::begin::begin;
use super::body::{NewPod, rules};
use super::task::NodePod;
use super::timetable::Timetable;
use super::words;
use crate::fan_out::{
    AfterFailure, Limits, NodeKey, NodeView, Record, Rules, Spread, Task, TaskState, spread,
};
use crate::kept::Upkeep;
use crate::pod::PodView;

/// Nodes that have failed, by name, that the status tells of for each execution.
const NAMED: usize = 16;

/// Longest reason of a node's failure, in characters.
const REASON: usize = 256;

/// A pod is kept so long after its end for its log to be saved; then it goes without.
pub const KEPT_FOR_LOG: SignedDuration = SignedDuration::from_mins(10);

/// What was observed.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// The object; its status is what is surely written.
    pub object: &'a NodeBatchJob,
    /// Its schedule, or what the spec cannot mean, in words.
    pub times: Result<&'a Timetable, &'a str>,
    /// All nodes of the cluster.
    pub nodes: &'a [NodeView],
    /// All pods of the object, those that were made and are not shown yet included.
    pub pods: &'a [PodView],
    /// What the API server has against the template, until it is to be tried again.
    pub refused: Option<&'a str>,
    /// Names under which others have pods, and whether each may be tried again by now.
    pub taken: &'a BTreeMap<String, bool>,
    /// Whether a pod's log has been saved, by its UID.
    pub saved: &'a dyn Fn(&str) -> bool,
    /// Pods are told where to report.
    pub callbacks: bool,
}

/// Something to tell in an Event once the status is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// It is a warning.
    pub warning: bool,
    /// The Event's reason.
    pub reason: &'static str,
    /// In words.
    pub words: String,
}

impl Told {
    pub(super) fn new(warning: bool, reason: &'static str, words: String) -> Self {
        Self { warning, reason, words }
    }
}

/// What to do, and what the status says then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods to create, by their nodes' names, once [`still_wanted`] holds for the status as it is read then.
    pub create: Vec<NewPod>,
    /// What is done with pods that there are.
    pub upkeep: Vec<Upkeep>,
    /// Pods whose logs are to be saved now, by UID.
    pub save: Vec<String>,
    /// The status.
    pub status: NodeBatchJobStatus,
    /// News; it holds once the status is written.
    pub told: Vec<Told>,
    /// When to look again at the latest.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    pub(super) fn wake(&mut self, at: Timestamp, now: Timestamp) {
        let at = at.max(now);
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

fn under_way(execution: &Execution) -> bool {
    execution.completion_time.is_none()
}

/// Which of some pods may be created, as far as a status tells that was read just now: what has been recorded meanwhile
/// stays so (I6).
pub fn still_wanted<'a>(status: &NodeBatchJobStatus, pods: &'a [NewPod]) -> Vec<&'a NewPod> {
    let running = |execution: &&Execution| under_way(execution) && execution.state == ExecutionState::Running;
    let records: HashMap<&str, Record> = status
        .executions
        .iter()
        .filter(running)
        .map(|execution| (execution.id.as_str(), Record::read(&execution.record)))
        .collect();
    let allowed = |pod: &&NewPod| {
        records
            .get(pod.execution.as_str())
            .is_some_and(|record| record.allows(NodeKey::of(&pod.node_uid), pod.attempt))
    };
    pods.iter().filter(allowed).collect()
}

/// What to do when the object goes: every pod is let go. Nothing = that is done.
pub fn farewell(pods: &[PodView]) -> Vec<Upkeep> {
    pods.iter().filter(|pod| pod.finalizers.iter().any(|f| f == keys::OUTCOME)).map(let_go).collect()
}

fn let_go(pod: &PodView) -> Upkeep {
    Upkeep::LetGo { name: pod.name.clone(), uid: pod.uid.clone() }
}

fn delete(pod: &PodView) -> Upkeep {
    Upkeep::Delete { name: pod.name.clone(), uid: pod.uid.clone(), version: None }
}

/// Plans from what was observed.
pub fn plan(look: &Look<'_>, now: Timestamp) -> Plan {
    let object = look.object;
    let written = object.status.clone().unwrap_or_default();
    let mut plan = Plan { status: written.clone(), ..Plan::default() };
    plan.status.observed_generation = object.metadata.generation;
    let bad = refusal(look);
    if let (Ok(times), None) = (look.times, &bad) {
        begin(object, times, &mut plan, now);
    } else {
        plan.status.next_instant = None;
    }

    let pods: Vec<NodePod<'_>> = look.pods.iter().filter_map(NodePod::of).collect();
    let mut executions = std::mem::take(&mut plan.status.executions);
    let mut at_work = AtWork {
        look,
        written: &written,
        rules: rules(&object.spec),
        limit: object.spec.active_deadline_seconds.map(|s| SignedDuration::from_secs(s.into())),
        hold: bad.is_some() || look.refused.is_some(),
        now,
        conflicts: Vec::new(),
        plan: &mut plan,
    };
    for execution in executions.iter_mut().filter(|execution| under_way(execution)) {
        at_work.advance(execution, &pods);
    }
    at_work.upkeep(&pods);
    let conflicts = std::mem::take(&mut at_work.conflicts);
    keep_history(&mut executions, object.spec.reports.history as usize);
    let succeeded = executions.iter().filter(|e| e.state == ExecutionState::Succeeded);
    let last = succeeded.filter_map(|e| e.completion_time).max();
    plan.status.last_successful_time = plan.status.last_successful_time.max(last);
    plan.status.executions = executions;
    plan.status.state = Some(if plan.status.executions.iter().any(under_way) {
        NodeBatchJobState::Running
    } else if object.spec.suspend {
        NodeBatchJobState::Suspended
    } else {
        NodeBatchJobState::Waiting
    });
    words::news(&written, &mut plan);
    plan.status.conditions = words::conditions(look, &written, &plan.status, bad.as_deref(), &conflicts, now);
    plan
}

/// What the spec cannot mean, in words. The rules of the CRD say the same, where they can.
fn refusal(look: &Look<'_>) -> Option<String> {
    if let Err(words) = look.times {
        return Some(words.to_owned());
    }
    let parallelism = look.object.spec.parallelism.as_ref();
    parallelism.filter(|parallelism| parallelism.of(1).is_none()).map(|_| {
        "spec.parallelism is neither a number from 1 nor a percentage from \"1%\" to \"100%\"".to_owned()
    })
}

/// Keeps executions that are under way and the newest others, of which only the newest keeps its record.
fn keep_history(executions: &mut Vec<Execution>, history: usize) {
    let mut over = 0;
    executions.retain_mut(|execution| {
        if under_way(execution) {
            return true;
        }
        over += 1;
        if over > 1 {
            execution.record = NodeRecord::default();
        }
        over <= history.max(1)
    });
}

struct AtWork<'a, 'b> {
    look: &'b Look<'a>,
    written: &'b NodeBatchJobStatus,
    rules: Rules,
    limit: Option<SignedDuration>,
    hold: bool,
    now: Timestamp,
    /// Names that another has, and that are wanted.
    conflicts: Vec<String>,
    plan: &'b mut Plan,
}

impl AtWork<'_, '_> {
    /// Brings an execution forward.
    fn advance(&mut self, execution: &mut Execution, all: &[NodePod<'_>]) {
        let (look, now) = (self.look, self.now);
        let pods: Vec<&NodePod<'_>> = all.iter().filter(|pod| pod.execution == execution.id).collect();
        let tasks: Vec<Task<'_>> = pods.iter().map(|pod| pod.task(self.limit, now)).collect();
        // Nothing is created before the execution is written.
        let fresh = self.written.executions.iter().all(|known| known.id != execution.id);
        let replaced = execution.state == ExecutionState::Replaced;
        let limits = Limits {
            at_a_time: look.object.spec.parallelism.clone(),
            retry: look.object.spec.retry.clone(),
            after_failure: AfterFailure::GoOn,
            hold: self.hold || fresh,
            end: replaced,
            endless: false,
        };
        let before = Record::read(&execution.record);
        let by_name: HashMap<&str, &NodePod<'_>> =
            all.iter().map(|pod| (pod.pod.name.as_str(), pod)).collect();
        let id = execution.id.clone();
        let (conflicts, create) = (&mut self.conflicts, &mut self.plan.create);
        let mut former = HashSet::new();
        let mut may_start = |start: &crate::fan_out::Start, room: bool| {
            if !room && look.taken.is_empty() {
                return false;
            }
            let new = NewPod::of(look.object, &start.node, &start.uid, &id, start.attempt);
            let again = look.taken.get(&new.name);
            if again.is_some() {
                conflicts.push(new.name.clone());
            }
            if !room || again == Some(&false) {
                return false;
            }
            if let Some(there) = by_name.get(new.name.as_str()) {
                // A node of the same name has left one of the name: it makes room once it is done with.
                if there.uid != start.uid {
                    former.insert(there.pod.uid.clone());
                }
                return false;
            }
            create.push(new);
            true
        };
        let mut spread = spread(&self.rules, &limits, look.nodes, &before, &tasks, now, &mut may_start);
        execution.record = spread.record.write();
        spread.counts.gone += execution.nodes.gone;
        execution.nodes = spread.counts.clone();
        execution.progress = format!("{}/{}", execution.nodes.succeeded, execution.nodes.desired);
        name_failed(execution, &pods, &tasks, &spread);
        for index in &spread.cancels {
            if !pods[*index].pod.terminating {
                self.plan.upkeep.push(delete(pods[*index].pod));
            }
        }
        for pod in pods.iter().filter(|pod| former.contains(&pod.pod.uid)) {
            if pod.pod.phase.is_terminal() && !pod.kept() && !pod.pod.terminating {
                self.plan.upkeep.push(delete(pod.pod));
            }
        }
        if let Some(at) = spread.wake_at {
            self.plan.wake(at, now);
        }
        self.times(&pods, &tasks);
        if !fresh && !self.hold {
            end(execution, &spread, now);
        }
    }

    /// Deletes pods that take too long, and notes when others will.
    fn times(&mut self, pods: &[&NodePod<'_>], tasks: &[Task<'_>]) {
        for (pod, task) in pods.iter().zip(tasks) {
            if task.state == TaskState::Running {
                match pod.due(self.limit) {
                    Some(due) if due > self.now => self.plan.wake(due, self.now),
                    // By then the kubelet would have said so: it is asked to end it, or is found silent.
                    Some(_) if !pod.pod.terminating => self.plan.upkeep.push(delete(pod.pod)),
                    _ => {}
                }
                if let Some(at) = pod.given_up_at() {
                    self.plan.wake(at, self.now);
                }
            }
        }
    }

    /// Lets go of pods whose outcome is surely written, and deletes those that nobody needs any more.
    fn upkeep(&mut self, pods: &[NodePod<'_>]) {
        let newest = self.written.executions.first().map(|execution| execution.id.as_str());
        let records: HashMap<&str, Record> = self
            .written
            .executions
            .iter()
            .filter(|execution| under_way(execution))
            .map(|execution| (execution.id.as_str(), Record::read(&execution.record)))
            .collect();
        for pod in pods {
            if pod.state(self.limit, self.now) == TaskState::Running {
                continue;
            }
            // What belongs to no execution under way is recorded, or nobody asks any more.
            let recorded = records
                .get(pod.execution)
                .is_none_or(|record| record.settles(NodeKey::of(pod.uid), pod.attempt));
            if !recorded {
                continue;
            }
            let logged = self.logged(pod);
            if pod.kept() {
                if logged {
                    self.plan.upkeep.push(let_go(pod.pod));
                }
            } else if logged && !pod.pod.terminating {
                self.forget(pod, newest);
            }
        }
    }

    /// Whether nothing more is wanted of a pod's log.
    fn logged(&mut self, pod: &NodePod<'_>) -> bool {
        if !self.look.object.spec.save_pod_log || !self.look.callbacks || pod.pod.node.is_none() {
            return true;
        }
        let until = pod.after_end(KEPT_FOR_LOG, self.now);
        if (self.look.saved)(&pod.pod.uid) || until <= self.now {
            return true;
        }
        self.plan.save.push(pod.pod.uid.clone());
        self.plan.wake(until, self.now);
        false
    }

    /// Deletes a pod that has ended once its time is over, or another execution has begun.
    fn forget(&mut self, pod: &NodePod<'_>, newest: Option<&str>) {
        let ttl = self.look.object.spec.ttl_seconds_after_finished;
        let until = ttl.map(|ttl| pod.after_end(SignedDuration::from_secs(ttl.into()), self.now));
        match until {
            Some(until) if until > self.now => self.plan.wake(until, self.now),
            None if newest == Some(pod.execution) => return,
            _ => {}
        }
        let over = until.is_some_and(|until| until <= self.now);
        if over || newest != Some(pod.execution) {
            self.plan.upkeep.push(delete(pod.pod));
        }
    }
}

/// Brings the list of failed nodes up to date.
fn name_failed(execution: &mut Execution, pods: &[&NodePod<'_>], tasks: &[Task<'_>], spread: &Spread) {
    for failure in spread.failures.iter().filter(|failure| failure.for_good) {
        let (pod, task) = (pods[failure.task], &tasks[failure.task]);
        let why = match &task.state {
            TaskState::Failed { why, .. } => why.as_str(),
            _ => "Deleted: its pod was deleted before it had ended",
        };
        execution.failed_nodes.retain(|failed| failed.node != pod.node);
        execution.failed_nodes.push(FailedPod {
            node: pod.node.to_owned(),
            pod: pod.pod.name.clone(),
            attempts: pod.attempt.into(),
            reason: why.chars().take(REASON).collect(),
        });
    }
    execution.failed_nodes.sort_by(|a, b| a.node.cmp(&b.node));
    execution.failed_nodes.truncate(NAMED);
}

/// Ends an execution of which nothing is left to do.
fn end(execution: &mut Execution, spread: &Spread, now: Timestamp) {
    if spread.in_flight > 0 || spread.undecided > 0 {
        return;
    }
    let replaced = execution.state == ExecutionState::Replaced;
    if !replaced && spread.counts.pending > 0 {
        return;
    }
    execution.completion_time = Some(now);
    if !replaced {
        let nodes = &execution.nodes;
        // That no node was chosen is no success.
        let well = nodes.failed == 0 && nodes.desired > 0;
        execution.state = if well { ExecutionState::Succeeded } else { ExecutionState::Failed };
    }
}
