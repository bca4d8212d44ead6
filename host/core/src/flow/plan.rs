//! What to do about the steps of a flow.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use stoker_api::{FlowState, JobFlowStatus, StepState, StepStatus, keys};

use super::judge::{Message, Record, message};
use super::prepared::{Flow, ON_EXIT, ON_FAILURE, Probe};
use crate::kept::{Ended, Kept, SHOWN, Upkeep};

/// Outputs that the status holds at a time, in bytes.
const OUTPUTS: usize = 256 * 1024;

/// Ended steps that the spec no longer has, and that the status still knows.
const REMOVED: usize = 256;

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
    /// Steps that had failed are started again: by hand, or because the spec was repaired.
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
    held: usize,
    pub plan: Plan,
}

/// What a Job says of itself: step, run and attempt.
fn marks<'a>(job: &Kept<'a>) -> Option<(&'a str, u32, u32)> {
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
        if newest > look.status.run || wanted && look.status.completion_time.is_some() {
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
            let failed =
                |record: &StepStatus| record.failed_for_good() || record.state == StepState::Retrying;
            let parts: Vec<usize> = self.which(|_, record| failed(&record.entry));
            self.plan.status.rerun_failed = look.rerun_failed.map(str::to_owned);
            self.resume(&parts);
        }
    }

    /// Whether failed steps are to be started again. Not while a handler runs: the end of the flow comes first.
    fn rerun_failed(&self) -> bool {
        let asked = self.look.rerun_failed;
        self.look.status.run > 0
            && asked.is_some()
            && asked != self.look.status.rerun_failed.as_deref()
            && !self.handler_runs()
    }

    fn handler_runs(&self) -> bool {
        let of_handler = |step: &str| matches!(step, ON_FAILURE | ON_EXIT);
        self.look.jobs.iter().any(|job| {
            let this = |(step, run, _): (&str, u32, u32)| of_handler(step) && run == self.plan.status.run;
            marks(job).is_some_and(this) && job.ended(self.now).is_none()
        })
    }

    /// The steps whose records are so.
    fn which(&self, so: impl Fn(usize, &Record<'a>) -> bool) -> Vec<usize> {
        let steps = 0..self.flow.steps();
        steps.filter(|at| self.records[*at].as_ref().is_some_and(|record| so(*at, record))).collect()
    }

    /// Starts steps again.
    fn resume(&mut self, parts: &[usize]) {
        for at in parts {
            if let Some(record) = &mut self.records[*at] {
                record.again();
            }
        }
        let status = &mut self.plan.status;
        (status.timed_out, status.resume_time) = (false, Some(self.now));
        self.plan.told.push(Told::Resumed { steps: parts.len() });
    }

    /// When the flow's time is over.
    fn deadline(&self) -> Option<Timestamp> {
        let status = &self.plan.status;
        let seconds = self.flow.spec.timeout_seconds?;
        let from = status.resume_time.or(status.start_time)?;
        from.saturating_add(SignedDuration::from_secs(seconds.into())).ok()
    }

    /// Brings the records up to date from the Jobs.
    fn observe(&mut self) {
        let outputs = self.records.iter().flatten().filter_map(|record| record.entry.output.as_ref());
        self.held = outputs.map(String::len).sum();
        let open = self.plan.status.completion_time.is_none();
        self.late = self.deadline().is_some_and(|at| at <= self.now) && open;
        // The last attempt of each counts.
        let mut newest: BTreeMap<&str, (u32, Kept<'a>)> = BTreeMap::new();
        for job in self.look.jobs {
            if let Some((step, run, attempt)) = marks(job)
                && run == self.plan.status.run
                && newest.get(step).is_none_or(|(known, _)| attempt > *known)
            {
                newest.insert(step, (attempt, *job));
            }
        }
        for (step, (attempt, job)) in newest {
            match self.flow.part(step) {
                Some(part) => {
                    let before = self.records[part].take();
                    let record = self.judge(step, Some(part), before, attempt, job);
                    self.records[part] = Some(record);
                }
                None => {
                    let before = self.removed.remove(step);
                    let record = self.judge(step, None, before, attempt, job);
                    self.removed.insert(step.to_owned(), record);
                }
            }
        }
        self.vanished();
        // One that failed while it was asked for was meant, too.
        if self.rerun_failed() && self.plan.status.rerun_failed.as_deref() == self.look.rerun_failed {
            let written = |record: &Record<'a>| {
                let key = self.key(&record.job);
                self.look
                    .status
                    .job_status_list
                    .get(&key)
                    .is_some_and(|entry| entry.state == StepState::Running)
            };
            let meant = |_, record: &Record<'a>| {
                let failed = record.entry.failed_for_good() || record.entry.state == StepState::Retrying;
                failed && written(record)
            };
            for at in self.which(meant) {
                if let Some(record) = &mut self.records[at] {
                    record.again();
                }
            }
        }
    }

    /// What has become of a step, from what was known and its last Job.
    fn judge(
        &mut self,
        step: &str,
        part: Option<usize>,
        before: Option<Record<'a>>,
        attempt: u32,
        job: Kept<'a>,
    ) -> Record<'a> {
        let mut earlier = 0;
        if let Some(mut known) = before {
            let attempts = known.entry.attempts();
            if attempts > attempt || attempts == attempt && known.entry.state != StepState::Running {
                // Status is the truth.
                known.kept = Some(job).filter(|_| attempts == attempt);
                return known;
            }
            // A step that had failed for good has another attempt only because it was started again by hand.
            let by_hand = attempts < attempt && known.entry.failed_for_good();
            earlier = if by_hand { attempts } else { known.entry.earlier };
        }
        let view = job.job;
        let several = |count: u32| if count > 1 { count } else { 0 };
        let mut record = Record {
            job: view.name.clone(),
            entry: StepStatus {
                step: step.to_owned(),
                attempt: (attempt != 1).then_some(attempt),
                earlier,
                active: view.active,
                succeeded: if view.completions.is_some_and(|all| all > 1) { view.succeeded } else { 0 },
                failed: several(view.failed),
                start_time: Some(view.created),
                hash: view.template_hash.clone(),
                ..StepStatus::default()
            },
            kept: Some(job),
        };
        let at = view.finished.as_ref().and_then(|finished| finished.at).or(view.deleted_at);
        let at = Some(at.unwrap_or(self.now));
        match job.ended(self.now) {
            None => {
                let shown = view.deleted_at.and_then(|at| at.saturating_add(SHOWN).ok());
                if let Some(shown) = shown.filter(|at| view.active > 0 && *at > self.now) {
                    self.wake(shown);
                }
            }
            Some(Ended::Succeeded) => self.succeeded(&mut record, part, &job, at),
            Some(Ended::Failed(why)) => self.failed(&mut record, part, StepState::Failed, &why, at),
            Some(Ended::Deleted) => {
                let why = "its Job was deleted before it had ended";
                self.failed(&mut record, part, StepState::Deleted, why, at);
            }
        }
        record
    }

    fn succeeded(
        &mut self,
        record: &mut Record<'a>,
        part: Option<usize>,
        job: &Kept<'a>,
        at: Option<Timestamp>,
    ) {
        let read = part.is_some_and(|part| !self.flow.parts[part].readers.is_empty());
        let output = match message(job, self.now) {
            Message::Is(output) => output.filter(|_| read),
            Message::By(by) if read => return self.wake(by),
            Message::By(_) => None,
        };
        let size = output.as_ref().map_or(0, String::len);
        if size > 0 && self.held + size > OUTPUTS {
            let words = format!(
                "its output of {size} bytes is too much: a flow holds {OUTPUTS} bytes at a time; write less to the termination message"
            );
            record.end(StepState::Failed, Some(&words), at);
            return self.news(record, false);
        }
        record.end(StepState::Succeeded, None, at);
        record.entry.output = output;
        self.held += size;
    }

    /// A Job failed, or was deleted: the step is tried again, or has failed.
    fn failed(
        &mut self,
        record: &mut Record<'a>,
        part: Option<usize>,
        state: StepState,
        why: &str,
        at: Option<Timestamp>,
    ) {
        let retry = part.and_then(|part| self.flow.step(part)).and_then(|step| step.retry.as_ref());
        let limit = retry.map_or(0, |retry| retry.limit);
        let used = record.entry.attempts().saturating_sub(record.entry.earlier);
        if self.late || self.plan.status.timed_out {
            let why = if state == StepState::Deleted { TIMED_OUT } else { why };
            record.end(StepState::Failed, Some(why), at);
            self.news(record, false);
        } else if used <= limit {
            record.end(StepState::Retrying, Some(why), at);
            self.news(record, true);
        } else {
            record.end(state, Some(why), at);
            self.news(record, false);
        }
    }

    pub fn news(&mut self, record: &Record<'a>, again: bool) {
        let (step, attempts) = (record.entry.step.clone(), record.entry.attempts());
        let reason = record.entry.reason.clone().unwrap_or_default();
        self.plan.told.push(if again {
            Told::StepRetried { step, attempts, reason }
        } else {
            Told::StepFailed { step, reason }
        });
    }

    /// Jobs that are gone although nobody has seen them end: somebody took their finalizers off.
    fn vanished(&mut self) {
        for at in 0..self.records.len() {
            let lost =
                |record: &Record<'_>| record.kept.is_none() && record.entry.state == StepState::Running;
            let Some(mut record) = self.records[at].take_if(|record| lost(record)) else { continue };
            let started = record.entry.start_time.unwrap_or(self.now);
            let shown = started.saturating_add(SHOWN).unwrap_or(Timestamp::MAX);
            if shown > self.now {
                self.wake(shown);
            } else {
                let at_now = Some(self.now);
                self.failed(
                    &mut record,
                    Some(at),
                    StepState::Deleted,
                    "its Job is gone, and nobody has seen it end",
                    at_now,
                );
            }
            self.records[at] = Some(record);
        }
        self.removed.retain(|_, record| record.kept.is_some() || record.entry.state != StepState::Running);
    }

    /// Steps that failed and whose spec, or template, has changed since are started again.
    fn repaired(&mut self) {
        if self.handler_runs() {
            return;
        }
        let changed = |at: usize, record: &Record<'_>| {
            let hash = &self.flow.parts[at].hash;
            record.entry.failed_for_good()
                && hash.is_some()
                && record.entry.hash.is_some()
                && record.entry.hash != *hash
        };
        let parts = self.which(changed);
        if !parts.is_empty() {
            self.resume(&parts);
            self.late = false;
        }
    }

    /// Outputs that no step may need any more are dropped.
    fn prune_outputs(&mut self) {
        let succeeded: Vec<bool> = self
            .records
            .iter()
            .map(|record| record.as_ref().is_some_and(|record| record.entry.state == StepState::Succeeded))
            .collect();
        for (at, part) in self.flow.parts.iter().enumerate() {
            if let Some(record) = &mut self.records[at]
                && part.readers.iter().all(|reader| succeeded[*reader])
            {
                record.entry.output = None;
            }
        }
        for record in self.removed.values_mut() {
            record.entry.output = None;
        }
    }

    pub fn key(&self, job: &str) -> String {
        format!("{job}/{}", self.flow.namespace)
    }

    /// Looks after the Jobs that there are.
    fn settle(&mut self) {
        let (written, now) = (self.look.status, self.now);
        let by_step: BTreeMap<&str, &StepStatus> =
            written.job_status_list.values().map(|entry| (entry.step.as_str(), entry)).collect();
        for job in self.look.jobs {
            self.plan.upkeep.extend(job.endings());
            let marks = marks(job);
            let run = marks.map_or(0, |(_, run, _)| run);
            if job.ended(now).is_some() {
                let recorded = marks.is_none_or(|(step, run, attempt)| {
                    let of_step = |entry: &&StepStatus| {
                        entry.attempts() > attempt
                            || entry.attempts() == attempt && entry.state != StepState::Running
                    };
                    written.run > run || written.run == run && by_step.get(step).is_some_and(|e| of_step(&e))
                });
                if job.kept() && recorded {
                    let until = job.held_until(now);
                    if until > now { self.wake(until) } else { self.plan.upkeep.push(job.let_go()) }
                } else if !job.kept() && !job.job.terminating && run > 0 && run + 1 < self.plan.status.run {
                    // Those of the run before this one stay, for their logs.
                    self.plan.upkeep.push(job.delete());
                }
            } else if self.plan.status.timed_out
                && !job.job.terminating
                && marks.is_some_and(|(step, ..)| !matches!(step, ON_FAILURE | ON_EXIT))
            {
                self.plan.upkeep.push(job.delete());
            }
        }
        let status = &self.plan.status;
        if let (Some(ttl), Some(_), Some(ended)) =
            (self.flow.spec.ttl_seconds_after_finished, written.completion_time, status.completion_time)
            && !self.plan.rerun_waits
        {
            let due = ended.saturating_add(SignedDuration::from_secs(ttl.into())).unwrap_or(Timestamp::MAX);
            if due > now { self.wake(due) } else { self.plan.delete = true }
        }
        if !self.late
            && self.plan.status.completion_time.is_none()
            && let Some(at) = self.deadline()
        {
            self.wake(at);
        }
    }

    /// What the status says.
    fn describe(&mut self) {
        let ended =
            |record: &Record<'_>| record.entry.ended() && !record.kept.is_some_and(|kept| kept.kept());
        let mut old: Vec<(Option<Timestamp>, String)> = self
            .removed
            .iter()
            .filter(|(_, record)| ended(record))
            .map(|(step, record)| (record.entry.completion_time, step.clone()))
            .collect();
        old.sort();
        old.truncate(old.len().saturating_sub(REMOVED));
        for (_, step) in old {
            self.removed.remove(&step);
        }
        let steps = self.flow.steps();
        let of_steps = self.records.iter().take(steps).flatten();
        let succeeded = of_steps.filter(|record| record.entry.state == StepState::Succeeded).count();
        self.plan.status.progress = Some(format!("{succeeded}/{steps}"));
        let failed = self.records.iter().flatten().any(|record| record.entry.failed_for_good());
        let begun = self.plan.status.start_time.is_some();
        let state = match (&self.flow.order, failed || self.plan.status.timed_out) {
            (Err(_), _) | (_, true) => FlowState::Failed,
            _ if self.plan.status.completion_time.is_some() => FlowState::Succeed,
            _ if begun => FlowState::Running,
            _ => FlowState::Pending,
        };
        self.plan.status.state = Some(state);
        self.plan.status.observed_generation = self.look.generation;
        if self.look.status.completion_time.is_none() && self.plan.status.completion_time.is_some() {
            self.plan.told.push(Told::Ended { state });
        }
        if self.plan.status.timed_out && !self.look.status.timed_out {
            self.plan.told.push(Told::TimedOut);
        }
        let older = |at: usize, record: &Record<'_>| {
            let hash = &self.flow.parts[at].hash;
            let ran = matches!(record.entry.state, StepState::Running | StepState::Succeeded);
            ran && hash.is_some() && record.entry.hash.is_some() && record.entry.hash != *hash
        };
        self.plan.outdated =
            self.which(older).into_iter().map(|at| self.flow.parts[at].name.clone()).collect();
        let running = |record: &&Record<'_>| !record.entry.ended();
        self.plan.removed =
            self.removed.values().filter(running).map(|record| record.entry.step.clone()).collect();
        let records = self.records.iter().flatten().chain(self.removed.values());
        let list = records.map(|record| (self.key(&record.job), record.entry.clone())).collect();
        self.plan.status.job_status_list = list;
    }
}
