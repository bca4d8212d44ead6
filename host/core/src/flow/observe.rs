//! What has become of the steps, from what is written and the Jobs that there are.

use std::collections::BTreeMap;

use jiff::Timestamp;
use stoker_api::{StepState, StepStatus};

use super::judge::{Message, Record, message};
use super::plan::{Planner, TIMED_OUT, Told, marks};
use crate::kept::{Ended, Kept, SHOWN};

/// Outputs that the status holds at a time, in bytes.
pub(super) const OUTPUTS: usize = 256 * 1024;

impl<'a> Planner<'a> {
    /// Brings the records up to date from the Jobs.
    pub fn observe(&mut self) {
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
    pub fn repaired(&mut self) {
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
}
