//! A run: the Job of an instant, with its pods.

use jiff::{SignedDuration, Timestamp};
use stoker_api::{EndedRun, Gate, RunOutcome, keys};

use crate::kept::{Ended, Kept};
use crate::pod::PodView;
use crate::pool::{JobPods, JobView};

/// A Job that was deleted so long before its instant never let its work begin, also where clocks differ a little.
const SURELY_BEFORE: SignedDuration = SignedDuration::from_secs(3);

/// The Job of an instant, with its pods.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its instant.
    pub instant: Timestamp,
    /// The Job.
    pub job: &'a JobView,
    /// Its pods.
    pub pods: &'a [PodView],
}

impl<'a> Run<'a> {
    /// A Job as a run; None = it says of no instant that it is for it.
    pub fn of(job: &JobPods<'a>) -> Option<Self> {
        let instant = job.job.annotations.get(keys::INSTANT)?.parse().ok()?;
        Some(Self { instant, job: job.job, pods: job.pods })
    }

    /// It ended, well or badly.
    pub fn finished(&self) -> bool {
        self.job.finished.is_some()
    }

    /// Its instant is to come.
    pub fn held(&self, now: Timestamp) -> bool {
        self.instant > now
    }

    /// It was deleted, and its pods ended, before its work could begin, so that the instant may have another run; or that
    /// may still come about. Is it kept at its instant, then nobody has seen its pods end before, and it counts as the run
    /// of it: whoever was to end them, API server or node, may have been too late.
    ///
    /// Kubernetes counts deleted pods as failed, and may meanwhile call the Job failed for them.
    pub fn void(&self, now: Timestamp) -> bool {
        let Some(deleted) = self.job.deleted_at else { return false };
        let ended = self.job.finished.as_ref();
        let ended_before = ended.is_some_and(|ended| ended.well || ended.at.is_some_and(|at| at < deleted));
        let before = |time| self.instant.duration_since(time) >= SURELY_BEFORE;
        !ended_before && before(deleted) && (before(now) || !self.kept())
    }

    /// It is held or at work: it has neither ended, nor been deleted before its work began, nor been deleted so that
    /// nothing of it runs any more.
    pub fn active(&self, now: Timestamp) -> bool {
        let gone = self.job.terminating && self.quiet(now);
        !self.finished() && !self.void(now) && !gone
    }

    /// Its Job, as one that is kept until its outcome is recorded.
    pub fn keeping(&self) -> Kept<'a> {
        Kept { job: self.job, pods: self.pods }
    }

    /// Nothing of it runs any more.
    pub fn quiet(&self, now: Timestamp) -> bool {
        self.keeping().quiet(now)
    }

    /// It is kept until its outcome is recorded.
    pub fn kept(&self) -> bool {
        self.keeping().kept()
    }

    /// How it ended, once it has: what is to be recorded.
    pub fn outcome(&self, gate: Gate, now: Timestamp) -> Option<EndedRun> {
        if self.void(now) {
            return None;
        }
        let outcome = match self.keeping().ended(now)? {
            Ended::Succeeded => RunOutcome::Succeeded,
            Ended::Failed(_) => RunOutcome::Failed,
            Ended::Deleted => RunOutcome::Deleted,
        };
        let first = self.first_pod();
        let (scheduled, warm, started) = first.map(|pod| moments(pod, gate)).unwrap_or_default();
        let span = |from: Option<Timestamp>, to: Option<Timestamp>| {
            let span = to?.duration_since(from?);
            Some(u64::try_from(span.as_millis()).unwrap_or(0))
        };
        Some(EndedRun {
            instant: self.instant,
            job: self.job.name.clone(),
            outcome,
            schedule_milliseconds: span(Some(self.job.created), scheduled),
            pull_milliseconds: span(scheduled, warm),
            held_milliseconds: span(warm, warm.map(|warm| warm.max(self.instant))),
            start_milliseconds: span(warm.map(|warm| warm.max(self.instant)), started),
            node: first.and_then(|pod| pod.node.clone()),
        })
    }

    fn first_pod(&self) -> Option<&'a PodView> {
        self.pods.iter().min_by_key(|pod| (pod.created, &pod.name))
    }
}

/// When a pod had a node, its images, and running containers.
fn moments(pod: &PodView, gate: Gate) -> (Option<Timestamp>, Option<Timestamp>, Option<Timestamp>) {
    let scheduled = pod.condition("PodScheduled").filter(|c| c.status == "True").and_then(|c| c.since);
    match gate {
        Gate::InitContainer => (scheduled, pod.gate_started, pod.containers_started),
        // The gate becomes the work, and nobody outside sees when.
        Gate::Exec => (scheduled, pod.containers_started, None),
    }
}
