//! The members of a pool as they are seen: pods, or Jobs with their pods.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use stoker_api::HotStandbyJobSpec;
use stoker_core::PodView;
use stoker_core::claims;
use stoker_core::pool::jobs::{self, History, JobCounts, JobPods, JobView};
use stoker_core::pool::marks::marks;
use stoker_core::pool::{Action, MarkRules, Memory, Placement, RemovalReason, ReplaceRules, Snapshot};
use stoker_core::verdict::{PodMemories, Verdict};

use crate::context::Context;
use crate::object::Pool;

/// What was seen of a pool at one moment.
pub struct Seen {
    /// All pods, those of a Job side by side.
    pub pods: Vec<PodView>,
    /// The Jobs, where they are the members, each with the place of its pods.
    pub jobs: Option<Vec<(JobView, Range<usize>)>>,
    /// Jobs of which the watch told lately that they are gone, as they were at last.
    pub gone: Vec<JobView>,
}

impl Seen {
    /// Reads the indexes.
    pub fn of(context: &Context, pool: &Pool) -> Self {
        let mut seen = match pool {
            Pool::Pods(_) => Self { pods: context.pods.of(pool.uid()), jobs: None, gone: Vec::new() },
            Pool::Jobs(_) => {
                let (mut pods, mut jobs) = (Vec::new(), Vec::new());
                for job in context.jobs.of(pool.uid()) {
                    let start = pods.len();
                    pods.extend(context.pods.of(&job.uid));
                    jobs.push((job, start..pods.len()));
                }
                Self { pods, jobs: Some(jobs), gone: context.jobs.gone(pool.uid()) }
            }
        };
        for pod in &mut seen.pods {
            pod.displaced = pod.node.as_deref().is_some_and(|node| context.nodes.is_being_lost(node));
        }
        seen
    }

    /// Whether the watch told a short while ago that a member is gone.
    pub fn went(&self, context: &Context, owner: &str, uid: &str) -> bool {
        match self.jobs {
            None => context.pods.went(owner, uid),
            Some(_) => context.jobs.went(owner, uid),
        }
    }

    /// The Jobs with their pods.
    pub fn job_pods(&self) -> Vec<JobPods<'_>> {
        let jobs = self.jobs.iter().flatten();
        jobs.map(|(job, place)| JobPods { job, pods: &self.pods[place.clone()] }).collect()
    }

    /// The Jobs alone.
    pub fn jobs(&self) -> Vec<JobView> {
        self.jobs.iter().flatten().map(|(job, _)| job.clone()).collect()
    }

    /// The pods of the Job with a UID.
    pub fn pods_of(&self, job: &str) -> &[PodView] {
        let found = self.jobs.iter().flatten().find(|(j, _)| j.uid == job);
        found.map_or(&[], |(_, place)| &self.pods[place.clone()])
    }

    /// The members that planning knows.
    pub fn members(&self) -> Vec<PodView> {
        match self.jobs {
            None => self.pods.clone(),
            Some(_) => self.job_pods().iter().map(JobPods::member).collect(),
        }
    }

    /// What is remembered of the members, once the pods are judged.
    pub fn remember(&self, members: &[PodView], memory: &mut Memory, now: Timestamp) -> PodMemories {
        if self.jobs.is_none() {
            return memory.pods.clone();
        }
        memory.successions.note(&self.jobs(), &self.gone, now);
        jobs::remember_jobs(&mut memory.jobs, &self.job_pods(), members, &memory.pods, now);
        memory.jobs.clone()
    }

    /// What is done beside the plan where Jobs are the members: their pods are marked, and those finished are removed
    /// beyond what is kept.
    pub fn housekeeping(
        &self,
        pool: &Pool,
        memory: &Memory,
        rules: MarkRules,
        planned: &[Action],
    ) -> Vec<Action> {
        let (Pool::Jobs(object), Some(jobs)) = (pool, &self.jobs) else { return Vec::new() };
        let leaving = |uid: &str| {
            planned.iter().any(|a| matches!(a, Action::Remove { uid: member, .. } if member == uid))
        };
        let snapshot = Snapshot { pods: &self.pods, memories: &memory.pods };
        let stays = |action: &Action| match action {
            Action::Mark { uid, .. } => !jobs.iter().any(|(job, place)| {
                leaving(&job.uid) && self.pods[place.clone()].iter().any(|p| &p.uid == uid)
            }),
            _ => true,
        };
        let mut actions: Vec<Action> = marks(snapshot, rules).into_iter().filter(stays).collect();
        let gone = |job: &JobView| Action::Remove {
            name: job.name.clone(),
            uid: job.uid.clone(),
            resource_version: None,
            reason: RemovalReason::Finished,
        };
        actions.extend(jobs::beyond_history(&self.jobs(), history(&object.spec)).into_iter().map(gone));
        actions
    }

    /// Pods that may be handed out, the first one first: of a Job that stands by the first of its pods.
    pub fn standby(
        &self,
        memory: &Memory,
        members: Snapshot<'_>,
        placement: Placement,
        replace: &ReplaceRules,
        now: Timestamp,
    ) -> Vec<Arc<PodView>> {
        let pods = Snapshot { pods: &self.pods, memories: &memory.pods };
        let free = claims::standby(pods, placement, replace, &[], now).into_iter();
        let Some(jobs) = &self.jobs else { return free.cloned().map(Arc::new).collect() };
        let idle = |job: &JobView| {
            let member = members.pods.iter().find(|member| member.uid == job.uid);
            member.is_some_and(|member| member.alive() && members.verdict(member) == Verdict::Idle)
        };
        let firsts: HashSet<&str> = jobs
            .iter()
            .filter(|(job, _)| idle(job))
            .filter_map(|(_, place)| {
                let alive = self.pods[place.clone()].iter().filter(|p| p.alive());
                alive.min_by(|a, b| a.name.cmp(&b.name)).map(|p| p.uid.as_str())
            })
            .collect();
        free.filter(|p| firsts.contains(p.uid.as_str())).cloned().map(Arc::new).collect()
    }

    /// What became of the Jobs.
    pub fn counts(&self) -> Option<JobCounts> {
        self.jobs.as_ref().map(|_| JobCounts::of(&self.job_pods()))
    }
}

/// How many finished Jobs are kept where nothing else removes them.
const KEPT: u32 = 10;

fn history(spec: &HotStandbyJobSpec) -> History {
    let left = spec.job_template.contains_key("ttlSecondsAfterFinished");
    let limit = |given: Option<u32>| given.or((!left).then_some(KEPT));
    History {
        completed: limit(spec.successful_jobs_history_limit),
        failed: limit(spec.failed_jobs_history_limit),
    }
}
