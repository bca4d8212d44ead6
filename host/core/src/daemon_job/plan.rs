//! What to do about a DaemonJob, and what its status says then.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use stoker_api::{
    CompletionPolicy, DaemonJob, DaemonJobSpec, DaemonJobState, DaemonJobStatus, FailedNode, FailurePolicy,
    NodeCounts, keys,
};

use super::body::{NewJob, refusal, rules, template_hash};
use super::run::NodeJob;
use super::words;
use crate::fan_out::{
    AfterFailure, Fate, Limits, NodeKey, NodeView, Record, Spread, Task, TaskState, spread,
};
use crate::kept::{Ended, Kept, SHOWN, Upkeep};

/// Nodes that have failed, by name, that the status tells of.
const NAMED: usize = 32;

/// Longest reason of a node's failure, in characters.
const REASON: usize = 256;

/// What should have been shown by now is looked for again so much later.
const LATER: SignedDuration = SignedDuration::from_secs(5);

/// What was observed.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The object; its status is what is surely written.
    pub object: &'a DaemonJob,
    /// The JobSpec, inline or from the JobTemplate with the override; else why there is none, in words.
    pub template: Result<&'a Map<String, Value>, &'a str>,
    /// All nodes of the cluster.
    pub nodes: &'a [NodeView],
    /// All Jobs of the object, those that were made and are not shown yet included.
    pub jobs: &'a [Kept<'a>],
    /// What the API server has against the template, until it is to be tried again.
    pub refused: Option<&'a str>,
    /// Names under which others have Jobs, and whether each may be tried again by now.
    pub taken: &'a BTreeMap<String, bool>,
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

/// What to do, and what the status says then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Jobs to create, by their nodes' names, once [`still_wanted`] holds for the status as it is read then.
    pub create: Vec<NewJob>,
    /// What is done with Jobs that there are.
    pub upkeep: Vec<Upkeep>,
    /// The status.
    pub status: DaemonJobStatus,
    /// Names that others have and that a node may yet need; what is known of any other may be forgotten.
    pub contested: Vec<String>,
    /// News; it holds once the status is written.
    pub told: Vec<Told>,
    /// When to look again at the latest.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp, now: Timestamp) {
        let at = at.max(now);
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// Which of some Jobs may be created, as far as a status tells that was read just now: what has been recorded meanwhile
/// stays so (I6).
pub fn still_wanted<'a>(status: &DaemonJobStatus, jobs: &'a [NewJob]) -> Vec<&'a NewJob> {
    let record = Record::read(&status.record);
    let stopped = matches!(status.state, Some(DaemonJobState::Failed | DaemonJobState::Paused));
    let open = status.completion_time.is_none() && !stopped;
    let allowed = |job: &&NewJob| {
        open && job.run == status.run && record.allows(NodeKey::of(&job.node_uid), job.attempt)
    };
    jobs.iter().filter(allowed).collect()
}

/// What to do when the object goes: every Job is let go. Nothing = that is done.
pub fn farewell(jobs: &[Kept<'_>]) -> Vec<Upkeep> {
    jobs.iter().filter(|kept| kept.kept()).map(Kept::let_go).collect()
}

/// Plans from what was observed.
pub fn plan(look: &Look<'_>, now: Timestamp) -> Plan {
    let object = look.object;
    let written = object.status.clone().unwrap_or_default();
    let spec = &object.spec;
    let bad = match look.template {
        Err(words) => Some(words.to_owned()),
        Ok(template) => refusal(spec, template),
    };
    let hash = look.template.ok().filter(|_| bad.is_none()).map(|template| template_hash(spec, template));
    let jobs: Vec<NodeJob<'_>> = look.jobs.iter().filter_map(NodeJob::of).collect();
    let (mut status, fresh) = turn(object, &written, hash.as_deref(), &jobs, now);
    if spec.completion_policy == CompletionPolicy::Always {
        status.completion_time = None;
    }
    let over = status.completion_time.is_some();

    let mut plan = Plan::default();
    let limit = time_limit(spec, &status).filter(|_| !over);
    let timed_out = limit.is_some_and(|limit| limit <= now);
    if let Some(limit) = limit.filter(|limit| *limit > now) {
        plan.wake(limit, now);
    }

    let tasks: Vec<Task<'_>> = jobs.iter().map(|job| job.task(status.run, now)).collect();
    let limits = Limits {
        at_a_time: spec.parallelism.clone(),
        retry: spec.retry.clone(),
        after_failure: match spec.failure_policy {
            FailurePolicy::Continue => AfterFailure::GoOn,
            FailurePolicy::Pause => AfterFailure::Hold,
            FailurePolicy::FailFast => AfterFailure::End,
        },
        hold: spec.paused || bad.is_some() || look.refused.is_some() || fresh || over || status.run == 0,
        end: timed_out,
        endless: spec.completion_policy == CompletionPolicy::Always,
    };
    let empty = Map::new();
    let rules = rules(spec, look.template.unwrap_or(&empty));
    let before = Record::read(&status.record);

    // A node of the same name may have left a Job of the name: it makes room once it is done with.
    let by_name: HashMap<&str, &Kept<'_>> = look.jobs.iter().map(|k| (k.job.name.as_str(), k)).collect();
    let owner = object.metadata.name.as_deref().unwrap_or_default();
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    let (mut conflicts, mut former) = (Vec::new(), HashSet::new());
    let (create, run) = (&mut plan.create, status.run);
    let mut spread = spread(&rules, &limits, look.nodes, &before, &tasks, now, &mut |start, room| {
        if !room && look.taken.is_empty() {
            return false;
        }
        let new = NewJob::of(owner, uid, &start.node, &start.uid, run, start.attempt);
        let again = look.taken.get(&new.name);
        if again.is_some() {
            conflicts.push(new.name.clone());
        }
        if !room || again == Some(&false) {
            return false;
        }
        if let Some(there) = by_name.get(new.name.as_str()) {
            if there.job.annotations.get(keys::NODE_UID) != Some(&start.uid) {
                former.insert(there.job.uid.as_str());
            }
            return false;
        }
        create.push(new);
        true
    });

    plan.contested = contested(look, run, &spread.record);
    status.record = spread.record.write();
    let gone = status.nodes.gone + spread.counts.gone;
    spread.counts.gone = gone;
    if over {
        count_late(&mut status.nodes, &spread.counts);
    } else {
        status.nodes = spread.counts.clone();
    }
    status.progress = format!("{}/{}", status.nodes.succeeded, status.nodes.desired);
    name_failed(&mut status, look.nodes, &jobs, &tasks, &spread, &limits);
    if !over {
        let ended = state(&mut status, spec, &spread, bad.is_some() || fresh, timed_out);
        if ended {
            status.completion_time = Some(now);
        }
    }
    upkeep(look, &mut plan, &jobs, &spread, &former, &written, now);
    if let Some(at) = spread.wake_at {
        plan.wake(at, now);
    }
    let ended_at = status.completion_time.unwrap_or(now);
    let saying = words::Saying {
        look,
        written: &written,
        spread: &spread,
        bad: bad.as_deref(),
        conflicts: &conflicts,
        timed_out: time_limit(spec, &status).is_some_and(|limit| limit <= ended_at),
        starts: fresh || !plan.create.is_empty() || !former.is_empty(),
    };
    plan.told = saying.news(&status);
    // What comes after its end is not told of: nodes come and go, and it would be written again each time.
    if !over || status.observed_generation != written.observed_generation {
        status.conditions = saying.conditions(&status, now);
    }
    plan.status = status;
    plan
}

/// Takes up what the user asks for: a whole new run, or another chance for nodes that have failed. True = it has just
/// begun, and nothing is created before that is written.
fn turn(
    object: &DaemonJob,
    written: &DaemonJobStatus,
    hash: Option<&str>,
    jobs: &[NodeJob<'_>],
    now: Timestamp,
) -> (DaemonJobStatus, bool) {
    let spec = &object.spec;
    let annotation = |key: &str| {
        let text = object.metadata.annotations.as_ref().and_then(|all| all.get(key));
        text.filter(|text| !text.is_empty()).cloned()
    };
    let (rerun, resume) = (annotation(keys::RERUN), annotation(keys::RESUME));
    let changed = hash.is_some_and(|hash| written.run > 0 && hash != written.template_hash);
    let asked = rerun.is_some() && rerun != written.rerun;
    let anew = hash.is_some() && (written.run == 0 || asked || changed && spec.rerun_on_template_change);
    let mut status = if anew {
        DaemonJobStatus {
            run: written.run.saturating_add(1),
            rerun: rerun.or_else(|| written.rerun.clone()),
            start_time: Some(now),
            conditions: written.conditions.clone(),
            ..DaemonJobStatus::default()
        }
    } else {
        written.clone()
    };
    status.observed_generation = object.metadata.generation;
    if let Some(hash) = hash {
        hash.clone_into(&mut status.template_hash);
    }
    if anew || written.run == 0 {
        status.resume = resume.or_else(|| written.resume.clone());
        return (status, true);
    }
    let mut record = Record::read(&written.record);
    // What has just failed is meant, too, and so is what its failure cancels: both are written first.
    let resumed =
        resume.is_some() && resume != written.resume && !just_failed(jobs, written.run, &record, now);
    if resumed {
        status.resume = resume;
    }
    let failed = written.state == Some(DaemonJobState::Failed) || record.has_failures();
    let stopped = matches!(written.state, Some(DaemonJobState::Failed | DaemonJobState::Paused));
    let edited = written.observed_generation != object.metadata.generation;
    let pardoned =
        failed && (changed || edited && stopped) || resumed && (failed || record.has_failed_tries());
    if pardoned {
        record.pardon();
        status.record = record.write();
        status.failed_nodes.clear();
        status.resume_time = Some(now);
        status.completion_time = None;
    }
    (status, pardoned)
}

/// Some attempt of a run has failed, and the record does not tell of it yet.
fn just_failed(jobs: &[NodeJob<'_>], run: u32, record: &Record, now: Timestamp) -> bool {
    jobs.iter().filter(|job| job.run == run).any(|job| {
        let failed = matches!(job.kept.ended(now), Some(Ended::Failed(_)));
        failed && !record.settles(NodeKey::of(job.uid), job.attempt)
    })
}

/// The names that others have and that nodes which are there may yet need.
fn contested(look: &Look<'_>, run: u32, record: &Record) -> Vec<String> {
    if look.taken.is_empty() {
        return Vec::new();
    }
    let meta = &look.object.metadata;
    let (owner, uid) = (meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default());
    let next = |node: &NodeView| {
        let attempt = record.next(NodeKey::of(&node.uid))?;
        Some(NewJob::of(owner, uid, &node.name, &node.uid, run, attempt).name)
    };
    look.nodes.iter().filter_map(next).filter(|name| look.taken.contains_key(name)).collect()
}

fn time_limit(spec: &DaemonJobSpec, status: &DaemonJobStatus) -> Option<Timestamp> {
    let seconds = spec.timeout_seconds.filter(|_| spec.completion_policy == CompletionPolicy::Once)?;
    let from = status.resume_time.or(status.start_time)?;
    from.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

/// After its end a run counts what is recorded even so: a Job that was cancelled had succeeded, or its node has left. Nodes
/// that came since do not count.
fn count_late(nodes: &mut NodeCounts, now: &NodeCounts) {
    let late = (now.succeeded + now.failed).saturating_sub(nodes.succeeded + nodes.failed);
    (nodes.succeeded, nodes.failed, nodes.gone) = (now.succeeded, now.failed, now.gone);
    nodes.pending = nodes.pending.saturating_sub(late);
    nodes.desired = nodes.running + nodes.succeeded + nodes.failed + nodes.pending;
}

/// Brings the list of failed nodes up to date.
fn name_failed(
    status: &mut DaemonJobStatus,
    nodes: &[NodeView],
    jobs: &[NodeJob<'_>],
    tasks: &[Task<'_>],
    spread: &Spread,
    limits: &Limits,
) {
    if limits.endless && !status.failed_nodes.is_empty() {
        let there: HashSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        status.failed_nodes.retain(|failed| there.contains(failed.node.as_str()));
    }
    for failure in spread.failures.iter().filter(|failure| failure.for_good) {
        let (job, task) = (&jobs[failure.task], &tasks[failure.task]);
        let why = match &task.state {
            TaskState::Failed { why, .. } => why.as_str(),
            _ => "Deleted: its Job was deleted before it had ended",
        };
        status.failed_nodes.retain(|failed| failed.node != job.node);
        status.failed_nodes.push(FailedNode {
            node: job.node.to_owned(),
            job: job.kept.job.name.clone(),
            attempts: job.attempt.into(),
            reason: why.chars().take(REASON).collect(),
        });
    }
    status.failed_nodes.sort_by(|a, b| a.node.cmp(&b.node));
    status.failed_nodes.truncate(NAMED);
}

/// Says where the run is. True = it is over.
fn state(
    status: &mut DaemonJobStatus,
    spec: &DaemonJobSpec,
    spread: &Spread,
    waits: bool,
    timed_out: bool,
) -> bool {
    let nodes = &status.nodes;
    let quiet = spread.in_flight == 0 && spread.undecided == 0;
    let all_ended = quiet && nodes.pending == 0 && nodes.succeeded + nodes.failed > 0 && !waits;
    let once = spec.completion_policy == CompletionPolicy::Once;
    let by_failure = if nodes.failed > 0 { DaemonJobState::Failed } else { DaemonJobState::Succeed };
    let stopped = timed_out || nodes.failed > 0 && spec.failure_policy == FailurePolicy::FailFast;
    let halted = spec.paused || nodes.failed > 0 && spec.failure_policy == FailurePolicy::Pause;
    let started = nodes.running + nodes.succeeded + nodes.failed > 0 || !spread.record.is_empty() || !quiet;
    let (state, over) = if all_ended {
        (by_failure, once)
    } else if stopped {
        (DaemonJobState::Failed, once && quiet && !waits)
    } else if halted {
        (DaemonJobState::Paused, false)
    } else if started && nodes.desired > 0 {
        (DaemonJobState::Running, false)
    } else {
        (DaemonJobState::Pending, false)
    };
    status.state = Some(state);
    over
}

/// Looks after the Jobs that exist.
fn upkeep(
    look: &Look<'_>,
    plan: &mut Plan,
    jobs: &[NodeJob<'_>],
    spread: &Spread,
    former: &HashSet<&str>,
    written: &DaemonJobStatus,
    now: Timestamp,
) {
    let record = Record::read(&written.record);
    let cancelled: HashSet<usize> = spread.cancels.iter().copied().collect();
    let known: HashSet<&str> = jobs.iter().map(|job| job.kept.job.uid.as_str()).collect();
    let strays = look.jobs.iter().filter(|kept| !known.contains(kept.job.uid.as_str()));
    for kept in strays.filter(|kept| kept.kept() && kept.ended(now).is_some()) {
        plan.upkeep.push(kept.let_go());
    }
    for (index, job) in jobs.iter().enumerate() {
        let kept = &job.kept;
        plan.upkeep.extend(kept.endings());
        if cancelled.contains(&index) && !kept.job.terminating {
            plan.upkeep.push(kept.delete());
        }
        let ended = kept.ended(now).is_some();
        let left = former.contains(kept.job.uid.as_str());
        if left && ended && !kept.kept() && !kept.job.terminating {
            plan.upkeep.push(kept.delete());
        }
        if !kept.kept() {
            continue;
        }
        if ended {
            let key = NodeKey::of(job.uid);
            // One that was cancelled may yet have succeeded, which is to be known first.
            let known = match kept.ended(now) {
                Some(Ended::Succeeded) => record.of(key) == Some(Fate::Succeeded),
                _ => record.settles(key, job.attempt),
            };
            let settled = job.run < written.run || job.run == written.run && known;
            let waits = spread.waiting.get(&key).copied().unwrap_or(now);
            if waits > now {
                plan.wake(waits, now);
            } else if settled {
                plan.upkeep.push(kept.let_go());
            }
        } else if let Some(deleted) = kept.job.deleted_at.filter(|_| kept.job.active > 0) {
            // Pods of it that no watch shows may be another's.
            plan.wake(deleted.saturating_add(SHOWN).unwrap_or(Timestamp::MAX).max(now + LATER), now);
        }
    }
}
