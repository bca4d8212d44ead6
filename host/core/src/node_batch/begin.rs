//! Which execution begins now.

use jiff::{Timestamp, tz::TimeZone};
use stoker_api::{
    Execution, ExecutionCause, ExecutionState, NodeBatchJob, NodeBatchJobStatus, NodeCounts, NodeRecord,
    Overlap, keys,
};

use super::plan::{Plan, Told};
use super::timetable::Timetable;

/// Instants that have passed are counted one by one up to so many.
const COUNTED: u32 = 10_000;

/// Executions that are under way at a time with Allow.
const AT_A_TIME: usize = 8;

/// Decides the instants that have passed, and begins an execution if one is due: one at a time, since each is written before
/// the next.
pub(super) fn begin(object: &NodeBatchJob, times: &Timetable, plan: &mut Plan, now: Timestamp) {
    let born = object.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let spec = &object.spec;
    let first = plan.status.timetable.is_none();
    if first && !spec.run_on_startup {
        plan.status.started_up = true;
    }
    if plan.status.timetable.as_ref() != Some(&times.words) {
        plan.status.decided_until = Some(plan.status.decided_until.map_or(born, |until| until.max(now)));
        plan.status.timetable = Some(times.words.clone());
    }
    plan.status.next_instant = times.after(now);
    if let Some(next) = plan.status.next_instant {
        plan.wake(next, now);
    }
    let text = object.metadata.annotations.as_ref().and_then(|all| all.get(keys::RUN_NOW));
    let asked = text.filter(|text| !text.is_empty() && Some(*text) != plan.status.run_now.as_ref()).cloned();
    let mut at_once = Begin { overlap: spec.concurrency_policy, plan, now };
    if !spec.suspend && at_once.scheduled(times) {
        return;
    }
    if let Some(text) = asked
        && at_once.room()
    {
        at_once.plan.status.run_now = Some(text);
        at_once.execution(ExecutionCause::Manual, None);
        return;
    }
    if spec.run_on_startup && !at_once.plan.status.started_up && !spec.suspend {
        let due = born.saturating_add(times.startup_delay).unwrap_or(Timestamp::MAX);
        if due > now {
            at_once.plan.wake(due, now);
        } else if at_once.room() {
            at_once.plan.status.started_up = true;
            at_once.execution(ExecutionCause::Startup, None);
        }
    }
}

struct Begin<'a> {
    overlap: Overlap,
    plan: &'a mut Plan,
    now: Timestamp,
}

impl Begin<'_> {
    fn under_way(&self) -> usize {
        let under_way = |execution: &&Execution| execution.completion_time.is_none();
        self.plan.status.executions.iter().filter(under_way).count()
    }

    /// Whether another may begin beside those that are under way, or in their place.
    fn room(&self) -> bool {
        match self.overlap {
            Overlap::Forbid => self.under_way() == 0,
            Overlap::Allow => self.under_way() < AT_A_TIME,
            Overlap::Replace => true,
        }
    }

    fn missed(&mut self, count: u32, last: Timestamp) {
        if count > 0 {
            self.plan.status.missed_count = self.plan.status.missed_count.saturating_add(count);
            self.plan.told.push(Told::new(
                true,
                "InstantsMissed",
                format!("{count} instants passed without an execution, the last one at {last}"),
            ));
        }
    }

    /// Decides the instants that have passed. True = an execution has begun.
    fn scheduled(&mut self, times: &Timetable) -> bool {
        let from = self.plan.status.decided_until.unwrap_or(self.now);
        let Some(last) = times.until(self.now).filter(|last| *last > from) else { return false };
        let (mut count, mut at) = (0, times.after(from));
        while let Some(instant) = at.filter(|at| *at <= last)
            && count < COUNTED
        {
            count += 1;
            at = times.after(instant);
        }
        self.plan.status.decided_until = Some(last);
        if times.deadline.is_some_and(|deadline| self.now.duration_since(last) > deadline) {
            self.missed(count, last);
            return false;
        }
        let before = last.checked_sub(jiff::SignedDuration::from_secs(1)).ok();
        if let Some(before) = before.and_then(|at| times.until(at)).filter(|_| count > 1) {
            self.missed(count - 1, before);
        }
        if !self.room() {
            self.plan.status.skipped_count = self.plan.status.skipped_count.saturating_add(1);
            let words = match self.overlap {
                Overlap::Allow => format!("{AT_A_TIME} executions are under way: that of {last} is left out"),
                _ => format!("an execution is under way: that of {last} is left out"),
            };
            self.plan.told.push(Told::new(true, "ExecutionSkipped", words));
            return false;
        }
        self.plan.status.last_schedule_time = Some(last);
        self.execution(ExecutionCause::Schedule, Some(last));
        true
    }

    fn execution(&mut self, cause: ExecutionCause, instant: Option<Timestamp>) {
        if self.overlap == Overlap::Replace {
            for earlier in self.plan.status.executions.iter_mut().filter(|e| e.completion_time.is_none()) {
                earlier.state = ExecutionState::Replaced;
            }
        }
        let id = next_id(&self.plan.status, instant.unwrap_or(self.now));
        let by = match cause {
            ExecutionCause::Schedule => "by its schedule",
            ExecutionCause::Startup => "since the object was created",
            ExecutionCause::Manual => "by hand",
        };
        self.plan.told.push(Told::new(false, "ExecutionBegan", format!("execution {id} has begun, {by}")));
        let execution = Execution {
            id,
            cause,
            instant,
            start_time: self.now,
            completion_time: None,
            state: ExecutionState::Running,
            progress: String::new(),
            nodes: NodeCounts::default(),
            failed_nodes: Vec::new(),
            record: NodeRecord::default(),
        };
        self.plan.status.executions.insert(0, execution);
    }
}

/// The minute of an id, and its number within that.
fn rank(id: &str) -> (&str, u32) {
    let (minute, number) = id.split_once('-').unwrap_or((id, "1"));
    (minute, number.parse().unwrap_or(1))
}

/// The id of an execution of a minute. Each comes after those that there are.
fn next_id(status: &NodeBatchJobStatus, minute: Timestamp) -> String {
    let minute = minute.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H%M").to_string();
    match status.executions.iter().map(|execution| rank(&execution.id)).max() {
        Some((last, number)) if last >= minute.as_str() => format!("{last}-{}", number + 1),
        _ => minute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_minutes_and_go_up_whatever_the_order_of_instants() {
        let mut status = NodeBatchJobStatus::default();
        let mut add = |minute: &str| {
            let id = next_id(&status, minute.parse().unwrap_or_default());
            let at = Timestamp::UNIX_EPOCH;
            status.executions.insert(
                0,
                Execution {
                    id: id.clone(),
                    cause: ExecutionCause::Manual,
                    instant: None,
                    start_time: at,
                    completion_time: Some(at),
                    state: ExecutionState::Succeeded,
                    progress: String::new(),
                    nodes: NodeCounts::default(),
                    failed_nodes: Vec::new(),
                    record: NodeRecord::default(),
                },
            );
            id
        };
        assert_eq!(add("2026-08-03T09:10:30Z"), "202608030910");
        assert_eq!(add("2026-08-03T09:10:59Z"), "202608030910-2");
        assert_eq!(add("2026-08-03T09:00:00Z"), "202608030910-3");
        assert_eq!(add("2026-08-03T09:11:00Z"), "202608030911");
    }
}
