//! What starts now, what waits, what is left out, and how a flow ends.

use std::collections::HashSet;

use jiff::Timestamp;
use stoker_api::{FlowState, StepState, StepStatus};

use super::judge::{Holds, Record, weigh};
use super::plan::{Ask, NewJob, Planner, TIMED_OUT};
use super::prepared::{ON_EXIT, ON_FAILURE, Probe};
use crate::Phase;

impl Planner<'_> {
    /// Starts what can start, and brings the flow to its end.
    pub fn advance(&mut self) {
        let Ok(order) = &self.flow.order else { return };
        let mut free = self.weigh_all(order);
        if self.late && !self.plan.status.timed_out && self.open() {
            self.plan.status.timed_out = true;
            free = self.weigh_all(order);
        }
        self.missing();
        if !self.late && !self.plan.status.timed_out {
            free.sort_unstable();
            self.start(&free);
        }
        if self.plan.status.start_time.is_none()
            && (!self.plan.create.is_empty() || self.records.iter().any(Option::is_some))
        {
            self.plan.status.start_time = Some(self.now);
        }
        self.finish();
    }

    fn state(&self, at: usize) -> Option<StepState> {
        self.records[at].as_ref().map(|record| record.entry.state)
    }

    /// Whether a step may still start or run.
    fn open(&self) -> bool {
        let ended = |record: &Option<Record<'_>>| record.as_ref().is_some_and(|record| record.entry.ended());
        self.records.iter().take(self.flow.steps()).any(|record| !ended(record))
    }

    /// Weighs what the steps that do not run wait for. Those that can start now, back-off and limits apart.
    fn weigh_all(&mut self, order: &[usize]) -> Vec<usize> {
        let (flow, mut free, mut asked) = (self.flow, Vec::new(), HashSet::new());
        self.plan.ask.clear();
        self.plan.follows_soon = false;
        for at in order.iter().copied() {
            if !matches!(self.state(at), None | Some(StepState::Retrying | StepState::Skipped)) {
                continue;
            }
            if self.plan.status.timed_out {
                self.leave_out(at, TIMED_OUT);
                continue;
            }
            let (mut waits, mut soon, mut probes) = (false, true, Vec::new());
            let mut never = None;
            for wait in &flow.parts[at].waits {
                self.plan.weighed += 1;
                let record = self.records[wait.on].as_ref();
                match weigh(wait, &flow.parts[wait.on], record, self.look.answers) {
                    Holds::Yes => {}
                    Holds::NotYet(probe) => {
                        waits = true;
                        soon &= record.is_some_and(Record::ending);
                        probes.extend(probe.map(|probe| (wait.on, probe)));
                    }
                    Holds::Never(why) => {
                        never = Some(why);
                        break;
                    }
                }
            }
            if let Some(why) = never {
                self.leave_out(at, &why);
                continue;
            }
            self.take_back(at);
            if !waits {
                free.push(at);
            } else if !flow.spec.suspend {
                self.plan.follows_soon |= soon;
                for (on, probe) in probes {
                    if asked.insert((on, probe.clone())) {
                        self.ask(on, probe);
                    }
                }
            }
        }
        free
    }

    /// A step does not start. One that has been tried before has failed, if it was its own failure that ended it.
    fn leave_out(&mut self, at: usize, why: &str) {
        let name = &self.flow.parts[at].name;
        let mut record = self.records[at].take().unwrap_or_else(|| Record {
            job: self.flow.job_name(name, self.plan.status.run, 1),
            entry: StepStatus { step: name.clone(), ..StepStatus::default() },
            kept: None,
        });
        let tried =
            record.entry.state == StepState::Retrying && record.entry.attempts() > record.entry.earlier;
        if tried && self.plan.status.timed_out {
            record.entry.state = StepState::Failed;
            self.news(&record, false);
        } else {
            record.end(StepState::Skipped, Some(why), None);
        }
        self.records[at] = Some(record);
    }

    /// What was left out may start after all.
    fn take_back(&mut self, at: usize) {
        let skipped = |record: &mut Record<'_>| record.entry.state == StepState::Skipped;
        if let Some(mut record) = self.records[at].take_if(skipped)
            && record.entry.attempts() > 0
        {
            record.again();
            self.records[at] = Some(record);
        }
    }

    fn ask(&mut self, on: usize, probe: Probe) {
        let Some(Record { kept: Some(kept), entry, .. }) = &self.records[on] else { return };
        let running = kept.pods.iter().filter(|pod| pod.alive() && pod.phase == Phase::Running);
        let addresses = running.filter_map(|pod| pod.ip).collect();
        let ask = Ask { step: entry.step.clone(), uid: kept.job.uid.clone(), probe, addresses };
        self.plan.ask.push(ask);
    }

    /// JobTemplates that steps need which have not run.
    fn missing(&mut self) {
        for (at, part) in self.flow.parts.iter().enumerate() {
            let to_run = matches!(self.state(at), None | Some(StepState::Retrying));
            if let Some(name) = part.reference.as_ref().filter(|_| part.template.is_none() && to_run) {
                self.plan.missing.insert(name.clone());
            }
        }
    }

    /// Starts steps in the order of the spec, as many as may be at work.
    fn start(&mut self, free: &[usize]) {
        if self.flow.spec.suspend {
            return;
        }
        let of_steps = self.records.iter().take(self.flow.steps()).flatten();
        let at_work = of_steps.chain(self.removed.values()).filter(|record| record.runs()).count();
        let most = self.flow.spec.max_parallel.map_or(usize::MAX, |most| most as usize);
        let mut room = most.saturating_sub(at_work);
        for at in free.iter().copied() {
            if let Some(due) = self.due(at).filter(|due| *due > self.now) {
                self.wake(due);
                self.plan.backs_off = true;
            } else if room > 0 && self.create(at, self.outputs(at)) {
                room -= 1;
            }
        }
    }

    /// When a step that failed is tried again.
    fn due(&self, at: usize) -> Option<Timestamp> {
        let entry = &self.records[at].as_ref()?.entry;
        let failures = entry.attempts().checked_sub(entry.earlier).filter(|failures| *failures > 0)?;
        let retry = self.flow.step(at)?.retry.as_ref()?;
        entry.completion_time?.saturating_add(retry.delay(failures)).ok()
    }

    /// What the steps that it waited for have to say.
    fn outputs(&self, at: usize) -> Vec<(String, String)> {
        let said = |on: usize| {
            let entry = &self.records[on].as_ref()?.entry;
            let name = entry.step.to_uppercase().replace('-', "_");
            Some((format!("STOKER_OUTPUT_{name}"), entry.output.clone()?))
        };
        self.flow.parts[at].waits.iter().filter_map(|wait| said(wait.on)).collect()
    }

    /// Creates the next attempt. False = its JobTemplate is missing.
    fn create(&mut self, at: usize, env: Vec<(String, String)>) -> bool {
        let part = &self.flow.parts[at];
        let Some(hash) = &part.hash else { return false };
        let before = self.records[at].as_ref().map_or(0, |record| record.entry.attempts());
        let (run, attempt) = (self.plan.status.run, before + 1);
        let name = self.flow.job_name(&part.name, run, attempt);
        self.plan.create.push(NewJob {
            part: at,
            step: part.name.clone(),
            name,
            run,
            attempt,
            hash: hash.clone(),
            env,
        });
        true
    }

    /// When nothing runs or can start any more, the handlers run, and the flow has ended.
    fn finish(&mut self) {
        // A removed one that waits for its next attempt never gets it.
        let removed = self.removed.values().any(Record::runs);
        if self.open() {
            if self.plan.status.completion_time.take().is_some() {
                self.plan.status.resume_time = Some(self.now);
            }
            for name in [ON_FAILURE, ON_EXIT] {
                let ended = |record: &&mut Record<'_>| record.entry.ended() && record.entry.attempts() > 0;
                if let Some(at) = self.flow.part(name)
                    && let Some(record) = self.records[at].as_mut().filter(ended)
                {
                    record.again();
                }
            }
            return;
        }
        let runs = |record: &Record<'_>| !record.entry.ended();
        if self.records.iter().skip(self.flow.steps()).flatten().any(runs) {
            // A handler was started again by hand.
            self.plan.status.completion_time = None;
        }
        if removed || self.plan.status.completion_time.is_some() {
            return;
        }
        let failed: Vec<String> = self
            .records
            .iter()
            .take(self.flow.steps())
            .flatten()
            .filter(|record| record.entry.failed_for_good())
            .map(|record| record.entry.step.clone())
            .collect();
        let state = if failed.is_empty() && !self.plan.status.timed_out {
            FlowState::Succeed
        } else {
            FlowState::Failed
        };
        let needed = state == FlowState::Failed;
        if self.handled(ON_FAILURE, needed, state, &failed) && self.handled(ON_EXIT, true, state, &failed) {
            self.plan.status.completion_time = Some(self.now);
        }
    }

    /// Whether a handler has ended, or is not needed; else it runs.
    fn handled(&mut self, name: &str, needed: bool, state: FlowState, failed: &[String]) -> bool {
        let Some(at) = self.flow.part(name) else { return true };
        match self.state(at) {
            Some(StepState::Running) => false,
            Some(StepState::Succeeded | StepState::Failed | StepState::Deleted) => true,
            None if !needed => true,
            Some(_) if !needed => {
                if let Some(record) = &mut self.records[at] {
                    record.end(StepState::Skipped, Some("no step has failed"), None);
                }
                true
            }
            None | Some(_) => {
                let state = if state == FlowState::Failed { "Failed" } else { "Succeed" };
                let env = [
                    ("STOKER_FLOW", self.flow.name.clone()),
                    ("STOKER_FLOW_STATE", state.to_owned()),
                    ("STOKER_FAILED_STEPS", failed.join(" ")),
                ];
                if !self.flow.spec.suspend {
                    self.create(at, env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
                }
                false
            }
        }
    }
}
