//! What the status says in the end, and what is done with the Jobs that there are.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use stoker_api::{FlowState, StepState, StepStatus};

use super::judge::Record;
use super::plan::{Planner, Told, handles, marks};

/// Ended steps that the spec no longer has, and that the status still knows.
const REMOVED: usize = 256;

impl Planner<'_> {
    /// Outputs that no step may need any more are dropped.
    pub fn prune_outputs(&mut self) {
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

    /// What the status says.
    pub fn describe(&mut self) {
        let ended = |record: &Record<'_>| !record.runs() && !record.kept.is_some_and(|kept| kept.kept());
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
        let running = self.removed.values().filter(|record| record.runs());
        self.plan.removed = running.map(|record| record.entry.step.clone()).collect();
        let records = self.records.iter().flatten().chain(self.removed.values());
        let list = records.map(|record| (self.key(&record.job), record.entry.clone())).collect();
        self.plan.status.job_status_list = list;
    }

    /// Looks after the Jobs that there are.
    pub fn settle(&mut self) {
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
                    written.run > run || written.run == run && by_step.get(step).is_some_and(of_step)
                });
                if job.kept() && recorded {
                    self.plan.upkeep.push(job.let_go());
                } else if !job.kept() && !job.job.terminating && run > 0 && run + 1 < self.plan.status.run {
                    // Those of the run before this one stay, for their logs.
                    self.plan.upkeep.push(job.delete());
                }
            } else if self.plan.status.timed_out
                && !job.job.terminating
                && marks.is_some_and(|(step, ..)| !handles(step))
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
}
