//! What to do about the steps of a flow.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use stoker_api::{FlowState, JobFlowStatus, StepState, StepStatus, keys};

use super::judge::Record;
use super::prepared::{Flow, ON_EXIT, ON_FAILURE, Probe};
use crate::kept::{Kept, Upkeep};

/// Why steps end and are left out when the flow's time is over.
pub(super) const TIMED_OUT: &str = "the flow's timeoutSeconds have passed";

/// What was asked and answered well: the UID of the Job that was asked, and the question.
pub type Answers = HashSet<(String, Probe)>;

/// What is planned from.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The flow.
    pub flow: &'a Flow,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// Its annotation [`keys::RERUN`].
    pub rerun: Option<&'a str>,
    /// Its annotation [`keys::RERUN_FAILED`].
    pub rerun_failed: Option<&'a str>,
    /// Its status as it is surely written.
    pub status: &'a JobFlowStatus,
    /// Its Jobs.
    pub jobs: &'a [Kept<'a>],
    /// What was asked and answered well. An answer holds for the Job whose pod gave it.
    pub answers: &'a Answers,
}

/// A Job to create: [`super::body`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// The step or handler, by its index among the flow's parts.
    pub part: usize,
    /// Its name.
    pub step: String,
    /// The Job's name.
    pub name: String,
    /// The run that it belongs to.
    pub run: u32,
    /// Which attempt of the run it is, from 1.
    pub attempt: u32,
    /// Hash of what it is made from.
    pub hash: String,
    /// What steps before it have to say.
    pub env: Vec<(String, String)>,
}

/// A question to a step's pods, asked until one answers well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The step that is asked.
    pub step: String,
    /// The UID of its Job.
    pub uid: String,
    /// What it is asked.
    pub probe: Probe,
    /// Its running pods.
    pub addresses: Vec<IpAddr>,
}

/// News for Events and metrics; it holds once the status is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A step, or a handler, failed for good.
    StepFailed {
        /// Which.
        step: String,
        /// Why.
        reason: String,
    },
    /// A step failed and is tried again.
    StepRetried {
        /// Which.
        step: String,
        /// Attempts so far.
        attempts: u32,
        /// Why.
        reason: String,
    },
    /// The flow's time was over before it had ended.
    TimedOut,
    /// Steps, or handlers, that had failed are started again: by hand, or because the spec was repaired.
    Resumed {
        /// How many.
        steps: usize,
    },
    /// A whole new run has begun.
    RunBegan {
        /// Its number.
        run: u32,
    },
    /// The flow has ended.
    Ended {
        /// How.
        state: FlowState,
    },
}

/// What to do, and what the status says then.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Jobs to create.
    pub create: Vec<NewJob>,
    /// What to do with those that there are.
    pub upkeep: Vec<Upkeep>,
    /// What to ask.
    pub ask: Vec<Ask>,
    /// The object has been ended for its ttlSecondsAfterFinished: delete it.
    pub delete: bool,
    /// The status, conditions apart: see [`super::conditions`].
    pub status: JobFlowStatus,
    /// News.
    pub told: Vec<Told>,
    /// When to look again at the latest.
    pub wake_at: Option<Timestamp>,
    /// JobTemplates that steps wait for, by name.
    pub missing: BTreeSet<String>,
    /// Steps that ran, or run, as an older spec had them.
    pub outdated: Vec<String>,
    /// Steps that there is no longer in the spec, and whose Jobs still run.
    pub removed: Vec<String>,
    /// A new run is asked for, and begins when this one has ended.
    pub rerun_waits: bool,
    /// A step waits for the time of its next attempt.
    pub backs_off: bool,
    /// A step waits only for Jobs whose pods have all ended: it starts as soon as these are seen to have ended, too.
    pub follows_soon: bool,
    /// How often a thing that a step waits for was weighed.
    pub weighed: usize,
}

/// Plans from what was observed.
pub fn plan(look: &Look<'_>, now: Timestamp) -> Plan {
    let mut planner = Planner::new(look, now);
    planner.load();
    planner.tokens();
    planner.observe();
    planner.repaired();
    planner.advance();
    planner.prune_outputs();
    planner.describe();
    planner.settle();
    planner.plan
}

/// Whether a Job may be created, as far as a status tells that was read just now: an attempt that it knows, or a later one,
/// has been made, and a step that has succeeded has no other (I6), however old what was planned from is.
pub fn still_wanted(status: &JobFlowStatus) -> impl Fn(&NewJob) -> bool + use<'_> {
    let known: HashMap<&str, &StepStatus> =
        status.job_status_list.values().map(|entry| (entry.step.as_str(), entry)).collect();
    let open = move |job: &NewJob| {
        let next = |entry: &&StepStatus| {
            let done = entry.state == StepState::Succeeded && !handles(&job.step);
            !done && entry.attempts() < job.attempt
        };
        known.get(job.step.as_str()).is_none_or(next)
    };
    move |job| status.run < job.run || status.run == job.run && open(job)
}

/// What to do when the object goes: its Jobs are let go, and go with it. Nothing = that is done.
pub fn farewell(jobs: &[Kept<'_>]) -> Vec<Upkeep> {
    jobs.iter().filter(|job| job.kept()).map(Kept::let_go).collect()
}

pub(super) struct Planner<'a> {
    pub look: &'a Look<'a>,
    pub flow: &'a Flow,
    pub now: Timestamp,
    /// Of each part.
    pub records: Vec<Option<Record<'a>>>,
    /// Of steps that the spec no longer has.
    pub removed: BTreeMap<String, Record<'a>>,
    /// The flow's time is over: nothing starts any more.
    pub late: bool,
    /// Bytes of outputs that are held.
    pub held: usize,
    pub plan: Plan,
}

/// Whether it is a handler and no step.
pub(super) fn handles(step: &str) -> bool {
    matches!(step, ON_FAILURE | ON_EXIT)
}

/// What a Job says of itself: step, run and attempt.
pub(super) fn marks<'a>(job: &Kept<'a>) -> Option<(&'a str, u32, u32)> {
    let of = |key: &str| job.job.annotations.get(key).map(String::as_str);
    Some((of(keys::STEP)?, of(keys::RUN)?.parse().ok()?, of(keys::ATTEMPT)?.parse().ok()?))
}

impl<'a> Planner<'a> {
    fn new(look: &'a Look<'a>, now: Timestamp) -> Self {
        let mut status = look.status.clone();
        status.job_status_list.clear();
        status.conditions.clear();
        let plan = Plan { status, ..Plan::default() };
        let records = vec![None; look.flow.parts.len()];
        Self { look, flow: look.flow, now, records, removed: BTreeMap::new(), late: false, held: 0, plan }
    }

    pub fn wake(&mut self, at: Timestamp) {
        let at = at.max(self.now);
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Begins with what is written.
    fn load(&mut self) {
        for (key, entry) in &self.look.status.job_status_list {
            let job = key.split('/').next().unwrap_or_default().to_owned();
            let record = Record { job, entry: entry.clone(), kept: None };
            match self.flow.part(&entry.step) {
                Some(part) => self.records[part] = Some(record),
                None => {
                    self.removed.insert(entry.step.clone(), record);
                }
            }
        }
    }

    /// Follows what is asked for by annotations. Those that were there at the first look ask for nothing.
    fn tokens(&mut self) {
        let (look, status) = (self.look, &mut self.plan.status);
        if look.status.run == 0 {
            status.run = 1;
            status.rerun = look.rerun.map(str::to_owned);
            status.rerun_failed = look.rerun_failed.map(str::to_owned);
            return;
        }
        let newest = look.jobs.iter().filter_map(marks).map(|(_, run, _)| run).max().unwrap_or(1);
        let wanted = look.rerun.is_some() && look.rerun != look.status.rerun.as_deref();
        // A step may have started since the end, because the spec was edited, and that not be written yet.
        let at_work = |job: &Kept<'_>| {
            job.ended(self.now).is_none() && marks(job).is_some_and(|(_, run, _)| run == look.status.run)
        };
        let over = look.status.completion_time.is_some() && !look.jobs.iter().any(at_work);
        if newest > look.status.run || wanted && over {
            let run = newest.max(look.status.run + 1);
            *status = JobFlowStatus {
                run,
                rerun: look.rerun.map(str::to_owned),
                rerun_failed: look.rerun_failed.map(str::to_owned),
                ..JobFlowStatus::default()
            };
            self.records.fill(None);
            self.removed.clear();
            self.plan.told.push(Told::RunBegan { run });
            return;
        }
        self.plan.rerun_waits = wanted;
        if self.rerun_failed() {
            let failed = |entry: &StepStatus| {
                entry.failed_for_good() || entry.state == StepState::Retrying && !handles(&entry.step)
            };
            let parts = self.which_parts(|record| failed(&record.entry));
            self.plan.status.rerun_failed = look.rerun_failed.map(str::to_owned);
            self.resume(&parts);
        }
    }

    /// Whether what failed is to be started again. Not while handlers are at it: the end of the flow comes first, and is
    /// written. One that runs although that is written to have come was started again for this.
    pub fn rerun_failed(&self) -> bool {
        let (asked, written) = (self.look.rerun_failed, self.look.status);
        let asked = written.run > 0 && asked.is_some() && asked != written.rerun_failed.as_deref();
        let known = |step: &str, attempt| {
            let of_step = |entry: &&StepStatus| entry.step == step && entry.state != StepState::Running;
            written.job_status_list.values().any(|entry| of_step(&entry) && entry.attempts() >= attempt)
        };
        let over = |(step, attempt, job): (&str, u32, &Kept<'_>)| {
            job.ended(self.now).is_some() && known(step, attempt)
        };
        asked && (written.completion_time.is_some() || self.handlers().all(over))
    }

    pub fn handler_runs(&self) -> bool {
        self.handlers().any(|(_, _, job)| job.ended(self.now).is_none())
    }

    /// The handlers' Jobs of this run, each with the handler's name and which attempt it is.
    fn handlers(&self) -> impl Iterator<Item = (&'a str, u32, &'a Kept<'a>)> + use<'a> {
        let this = self.plan.status.run;
        let marked = self.look.jobs.iter().filter_map(|job| Some((marks(job)?, job)));
        marked
            .filter(move |((step, run, _), _)| handles(step) && *run == this)
            .map(|((step, _, attempt), job)| (step, attempt, job))
    }

    /// The steps whose records are so.
    pub fn which(&self, so: impl Fn(usize, &Record<'a>) -> bool) -> Vec<usize> {
        let steps = 0..self.flow.steps();
        steps.filter(|at| self.records[*at].as_ref().is_some_and(|record| so(*at, record))).collect()
    }

    /// The steps and handlers whose records are so.
    pub fn which_parts(&self, so: impl Fn(&Record<'a>) -> bool) -> Vec<usize> {
        let parts = 0..self.records.len();
        parts.filter(|at| self.records[*at].as_ref().is_some_and(&so)).collect()
    }

    /// Starts steps and handlers again.
    pub fn resume(&mut self, parts: &[usize]) {
        for at in parts {
            if let Some(record) = &mut self.records[*at] {
                record.again();
            }
        }
        let status = &mut self.plan.status;
        (status.timed_out, status.resume_time) = (false, Some(self.now));
        if !parts.is_empty() {
            status.completion_time = None;
        }
        self.plan.told.push(Told::Resumed { steps: parts.len() });
    }

    /// When the flow's time is over.
    pub fn deadline(&self) -> Option<Timestamp> {
        let status = &self.plan.status;
        let seconds = self.flow.spec.timeout_seconds?;
        let from = status.resume_time.or(status.start_time)?;
        from.saturating_add(SignedDuration::from_secs(seconds.into())).ok()
    }

    pub fn key(&self, job: &str) -> String {
        format!("{job}/{}", self.flow.namespace)
    }
}
