//! Pools of Jobs: a Job is a member of the pool, its pods tell what it does. Here Jobs and pods become the members
//! that planning knows, so that one plan serves both kinds of pool.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use stoker_api::keys;

use crate::verdict::{PodMemories, PodMemory, Verdict};
use crate::{Phase, PodView};

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// It completed; else it failed.
    pub well: bool,
    /// When.
    pub at: Option<Timestamp>,
    /// Why, in Kubernetes' words, if it failed.
    pub why: Option<String>,
}

/// A Job as last seen in the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Name in the pool's namespace.
    pub name: String,
    /// UID: a Job of the same name made later is another Job.
    pub uid: String,
    /// Version at which all this was seen.
    pub resource_version: String,
    /// The pool's slot that it fills or filled.
    pub slot: Option<u32>,
    /// When it was created.
    pub created: Timestamp,
    /// It is being deleted.
    pub terminating: bool,
    /// Since when.
    pub deleted_at: Option<Timestamp>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Its spec was changed after its creation.
    pub edited: bool,
    /// How it ended, if it has.
    pub finished: Option<Finished>,
    /// Pods that it runs at a time.
    pub parallelism: u32,
    /// Pods that must succeed; None = any one.
    pub completions: Option<u32>,
    /// Pods that Kubernetes counts as running or pending.
    pub active: u32,
    /// Pods that have succeeded.
    pub succeeded: u32,
    /// Pods that have failed.
    pub failed: u32,
    /// Hash of the template that it was made from.
    pub template_hash: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl JobView {
    /// Pods that are at work or stand by when all is well.
    fn pods_wanted(&self) -> u32 {
        let left = self.completions.map_or(u32::MAX, |c| c.saturating_sub(self.succeeded));
        self.parallelism.min(left)
    }
}

/// A Job with its pods that are alive.
#[derive(Clone, Debug)]
pub struct JobPods<'a> {
    /// The Job.
    pub job: &'a JobView,
    /// Its pods, terminating and ended ones, too.
    pub pods: &'a [PodView],
}

impl JobPods<'_> {
    fn alive(&self) -> impl Iterator<Item = &PodView> {
        self.pods.iter().filter(|p| p.alive())
    }

    /// It has had pods. What those did is not known any more, so that the Job is not one that nobody has used.
    fn has_history(&self) -> bool {
        self.job.succeeded + self.job.failed > 0 || self.pods.iter().any(|p| !p.alive())
    }

    /// Pods exist that the watch has not shown yet.
    fn has_unseen(&self) -> bool {
        self.job.active as usize > self.pods.iter().filter(|p| !p.phase.is_terminal()).count()
    }

    /// All of its pods exist and are Ready.
    fn ready(&self) -> bool {
        let wanted = self.job.pods_wanted().max(1) as usize;
        self.alive().count() >= wanted && self.alive().all(PodView::ready)
    }

    /// The member of the pool that it is.
    ///
    /// Its phase is the Job's, its node and conditions are those of the pod that is the least far, and an annotation
    /// that one of its pods carries counts for it.
    pub fn member(&self) -> PodView {
        let job = self.job;
        let slowest = self
            .alive()
            .min_by_key(|p| (p.ready(), p.node.is_some(), p.name.clone()))
            .filter(|_| job.finished.is_none());
        let mut annotations = job.annotations.clone();
        for key in [keys::FORCE_REMOVE, keys::USED] {
            if let Some(value) = self.alive().find_map(|p| p.annotations.get(key)) {
                annotations.insert(key.to_owned(), value.clone());
            }
        }
        PodView {
            name: job.name.clone(),
            uid: job.uid.clone(),
            resource_version: job.resource_version.clone(),
            slot: job.slot,
            created: job.created,
            phase: match &job.finished {
                Some(Finished { well: true, .. }) => Phase::Succeeded,
                Some(_) => Phase::Failed,
                None => slowest.map_or(Phase::Pending, |p| p.phase),
            },
            terminating: job.terminating,
            deleted_at: job.deleted_at,
            grace: 0,
            finalizers: Vec::new(),
            ended: None,
            // A Job that had pods, or has some unseen, is not one that no node runs yet.
            node: slowest
                .and_then(|p| p.node.clone())
                .or_else(|| (self.has_history() || self.has_unseen()).then(|| "?".to_owned())),
            ip: None,
            ports: Vec::new(),
            displaced: self.alive().any(|p| p.displaced),
            restarts: self.pods.iter().map(|p| p.restarts).sum(),
            waiting: self.alive().find_map(|p| p.waiting.clone()),
            message: None,
            containers_started: slowest.and_then(|p| p.containers_started),
            gate_started: None,
            conditions: slowest
                .filter(|p| !p.ready() || self.ready())
                .map(|p| p.conditions.clone())
                .unwrap_or_default(),
            template_hash: job.template_hash.clone(),
            labels: BTreeMap::new(),
            annotations,
        }
    }

    /// What the Job does: it is busy if any of its pods is, or has been to its end; else claimed if one is; unknown if it
    /// cannot be told of one;
    /// idle if all of them are.
    fn verdict(&self, pods: &PodMemories) -> Verdict {
        let of = |p: &PodView| pods.get(&p.uid).map_or(Verdict::Unknown, |m| m.verdict);
        let some = |verdict| self.alive().any(|p| of(p) == verdict);
        if some(Verdict::Busy)
            || self.job.succeeded > 0
            || self.pods.iter().any(|p| p.phase == Phase::Succeeded)
        {
            Verdict::Busy
        } else if some(Verdict::Claimed) {
            Verdict::Claimed
        } else if some(Verdict::Unknown) {
            Verdict::Unknown
        } else if some(Verdict::Starting) || self.alive().count() < self.job.pods_wanted().max(1) as usize {
            Verdict::Starting
        } else {
            Verdict::Idle
        }
    }

    fn remembered(&self, pods: &PodMemories, old: Option<&PodMemory>, now: Timestamp) -> PodMemory {
        let verdict = self.verdict(pods);
        let of = || self.alive().filter_map(|p| pods.get(&p.uid));
        // A busy pod makes a busy Job at once; an idle Job is one since its last pod is.
        let since = match verdict {
            Verdict::Idle => of().map(|m| m.since).max(),
            _ => None,
        };
        let last_clear = match verdict {
            Verdict::Busy | Verdict::Claimed => Some(true),
            Verdict::Idle | Verdict::Starting => Some(false),
            Verdict::Unknown if of().any(|m| m.last_clear == Some(true)) => Some(true),
            Verdict::Unknown => old.and_then(|m| m.last_clear),
        };
        let first_ready = || self.ready().then(|| of().filter_map(|m| m.first_ready).max().unwrap_or(now));
        // A pod tells of itself that it was Ready before it ended; of a Job that had finished when it was first seen, as
        // after a restart, it is not held against it that its pods may be gone.
        let was_ready = || self.pods.iter().filter_map(|p| pods.get(&p.uid)).any(|m| m.ever_ready);
        let once_ready = || (self.job.finished.is_some() && (old.is_none() || was_ready())).then_some(now);
        PodMemory {
            seen: old.map_or_else(|| self.job.created.min(now), |m| m.seen),
            first_ready: old.and_then(|m| m.first_ready).or_else(first_ready).or_else(once_ready),
            ever_ready: old.is_some_and(|m| m.ever_ready)
                || self.has_history()
                || self.ready() && of().all(|m| m.ever_ready),
            verdict,
            since: since.or_else(|| old.filter(|m| m.verdict == verdict).map(|m| m.since)).unwrap_or(now),
            last_clear,
            probe: (verdict, now),
            spent: of().any(|m| m.spent),
        }
    }
}

/// Brings what is remembered of a pool's Jobs up to date from what is remembered of their pods. Jobs that were made
/// and are not shown yet are given by their members alone.
pub fn remember_jobs(
    memories: &mut PodMemories,
    jobs: &[JobPods<'_>],
    members: &[PodView],
    pods: &PodMemories,
    now: Timestamp,
) {
    let by_uid: HashMap<&str, &JobPods<'_>> = jobs.iter().map(|j| (j.job.uid.as_str(), j)).collect();
    let present: HashSet<&str> = members.iter().map(|m| m.uid.as_str()).collect();
    memories.retain(|uid, _| present.contains(uid.as_str()));
    for member in members {
        let old = memories.get(&member.uid);
        let new = match by_uid.get(member.uid.as_str()) {
            Some(job) => job.remembered(pods, old, now),
            None => PodMemory::starting(now),
        };
        memories.insert(member.uid.clone(), new);
    }
}

/// Jobs of a pool by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Pods that are alive.
    pub pods: u32,
    /// All that exist.
    pub jobs: u32,
    /// Neither finished nor terminating.
    pub active: u32,
    /// Completed ones that still exist.
    pub completed: u32,
    /// Failed ones that still exist.
    pub failed: u32,
}

impl JobCounts {
    /// Counts them.
    pub fn of(jobs: &[JobPods<'_>]) -> Self {
        let mut c = Self::default();
        for JobPods { job, pods } in jobs {
            c.jobs += 1;
            c.pods += pods.iter().filter(|p| p.alive()).count() as u32;
            match &job.finished {
                Some(Finished { well: true, .. }) => c.completed += 1,
                Some(_) => c.failed += 1,
                None => c.active += u32::from(!job.terminating),
            }
        }
        c
    }
}

/// How many finished Jobs are kept; None = as many as there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Of the completed ones.
    pub completed: Option<u32>,
    /// Of the failed ones.
    pub failed: Option<u32>,
}

/// Finished Jobs beyond the limits, the oldest first.
pub fn beyond_history(jobs: &[JobView], limits: History) -> Vec<&JobView> {
    let beyond = |well: bool, limit: Option<u32>| {
        let finished = |j: &&JobView| !j.terminating && j.finished.as_ref().is_some_and(|f| f.well == well);
        let mut kept: Vec<&JobView> = jobs.iter().filter(finished).collect();
        kept.sort_by_key(|j| (j.finished.as_ref().and_then(|f| f.at), j.created, j.name.clone()));
        let limit = limit.map_or(usize::MAX, |l| l as usize);
        kept.truncate(kept.len().saturating_sub(limit));
        kept
    };
    let mut all = beyond(true, limits.completed);
    all.extend(beyond(false, limits.failed));
    all
}

/// One step of a Job's removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemovalStep {
    /// A pod goes.
    Pod {
        /// Its name.
        name: String,
        /// Its UID: a namesake is spared.
        uid: String,
        /// The version in which it was seen idle; it is spared if it has changed since (I1).
        version: Option<String>,
    },
    /// Nothing goes if a pod of the Job is alive now.
    NoPod,
    /// The Job goes in the foreground: it holds its slot until its pods are gone (I2).
    Job {
        /// The version in which it was seen, if that matters.
        version: Option<String>,
    },
}

/// How a Job that stands by is removed, in this order and no further than the first step at which something is spared:
/// its pods, each in the version in which it was seen idle, and then, if no other is alive, the Job itself (I1).
/// Kubernetes starts no other pod while those end (podReplacementPolicy Failed), but one of which no node runs a
/// container ends at once, and not all of them may have been seen. A Job of which no pod was seen goes only in the
/// version in which it had none. Without the Job's version what it does no longer matters, and its pods' versions neither.
pub fn removal(version: Option<&str>, pods: &[PodView]) -> Vec<RemovalStep> {
    let of_pod = |p: &PodView| RemovalStep::Pod {
        name: p.name.clone(),
        uid: p.uid.clone(),
        version: version.map(|_| p.resource_version.clone()),
    };
    let mut steps: Vec<RemovalStep> = pods.iter().filter(|p| p.alive()).map(of_pod).collect();
    let unchanged = version.filter(|_| steps.is_empty()).map(str::to_owned);
    if version.is_some() {
        steps.push(RemovalStep::NoPod);
    }
    steps.push(RemovalStep::Job { version: unchanged });
    steps
}
