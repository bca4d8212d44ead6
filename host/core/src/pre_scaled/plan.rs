//! What to do about the runs of a PreScaledCronJob.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use stoker_api::{ActiveRun, ConcurrencyPolicy, EndedRun, Gate, PreScaledCronJobStatus, RunOutcome};

use super::run::Run;
use super::timetable::{Lead, Rules, Stopped};
use crate::kept::{SHOWN, Upkeep};
use crate::pool::JobView;
use crate::pool::jobs::beyond_history;

/// An edit that comes later than this before the instant leaves the run as it is: its pods have 30 s to end, unless their
/// template says otherwise, and only when they have ended before it may the instant have another run.
const TOO_LATE: SignedDuration = SignedDuration::from_secs(35);

/// What should have been shown by now is looked for again so much later.
const LATER: SignedDuration = SignedDuration::from_secs(5);

/// Instants whose warm-ups overlap: no more runs than this are held at a time.
const AHEAD: usize = 16;

/// So many instants that passed are counted one by one.
const COUNTED: u32 = 10_000;

/// Ended runs that the status keeps.
const RECORDED: usize = 32;

/// Active runs that the status names.
const NAMED: usize = 32;

/// Why a run that is held is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// `suspend`, `paused` or deletion.
    Stopped,
    /// The schedule names its instant no more.
    Unnamed,
    /// Its template has changed; another takes its place.
    Outdated,
    /// Somebody changed it by hand; another takes its place.
    Edited,
    /// An earlier run is held or at work, and none may be beside it.
    Forbidden,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create the run of an instant.
    Create {
        /// The instant.
        instant: Timestamp,
    },
    /// Delete a run that is held, in the version in which it was seen.
    Cancel {
        /// The Job's name.
        job: String,
        /// Its UID.
        uid: String,
        /// Its version.
        version: String,
        /// Why.
        why: Cancelled,
    },
    /// Delete a run that is at work: a later one takes its place.
    Replace {
        /// The Job's name.
        job: String,
        /// Its UID.
        uid: String,
    },
    /// Look after a Job that there is.
    Upkeep(Upkeep),
    /// Delete a Job that has ended and is beyond the history limits.
    Forget {
        /// The Job's name.
        job: String,
        /// Its UID.
        uid: String,
    },
}

impl From<Upkeep> for Action {
    fn from(upkeep: Upkeep) -> Self {
        Self::Upkeep(upkeep)
    }
}

/// News of instants that got no run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody could start them in time.
    Missed {
        /// How many.
        count: u32,
        /// The last of them.
        last: Timestamp,
    },
    /// An earlier run was at work.
    Skipped {
        /// The instant.
        instant: Timestamp,
    },
}

/// What to do, and what the status says then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do.
    pub actions: Vec<Action>,
    /// The status, conditions and policy apart.
    pub status: PreScaledCronJobStatus,
    /// News for Events and metrics; it holds once the status is written.
    pub told: Vec<Told>,
    /// When to look again at the latest.
    pub wake_at: Option<Timestamp>,
}

/// Plans from what was observed. `status` is what is surely written; `born` is when the object was created.
pub fn plan(
    rules: &Rules,
    lead: &Lead,
    gate: Gate,
    status: &PreScaledCronJobStatus,
    born: Timestamp,
    runs: &[Run<'_>],
    now: Timestamp,
) -> Plan {
    let mut look =
        Look { rules, lead, gate, runs, now, plan: Plan { status: status.clone(), ..Plan::default() } };
    look.begin(born);
    look.passed();
    look.unnamed();
    look.ahead();
    look.settle(status);
    look.describe();
    look.plan
}

struct Look<'a> {
    rules: &'a Rules,
    lead: &'a Lead,
    gate: Gate,
    runs: &'a [Run<'a>],
    now: Timestamp,
    plan: Plan,
}

impl Look<'_> {
    fn wake(&mut self, at: Timestamp) {
        let at = at.max(self.now);
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |before| before.min(at)));
    }

    /// The name of the instant's Job is taken, by whatever.
    fn taken(&self, instant: Timestamp) -> bool {
        self.runs.iter().any(|run| run.instant == instant)
    }

    fn earlier_active(&self, instant: Timestamp) -> bool {
        self.runs.iter().any(|run| run.instant < instant && run.active(self.now))
    }

    /// A timetable begins with the object, and anew when it changes.
    fn begin(&mut self, born: Timestamp) {
        let status = &mut self.plan.status;
        if status.timetable.as_ref() != Some(&self.rules.timetable) {
            let from = status.decided_until.map_or(born, |decided| decided.max(self.now));
            status.decided_until = Some(from);
            status.timetable = Some(self.rules.timetable.clone());
        }
    }

    /// Decides the instants that have passed.
    fn passed(&mut self) {
        let from = self.plan.status.decided_until.unwrap_or(self.now);
        let Some(last) = self.rules.until(self.now).filter(|last| *last > from) else { return };
        let passed = |run: &&Run<'_>| run.instant > from && run.instant <= self.now && !run.void(self.now);
        let named = self.runs.iter().filter(passed).map(|run| run.instant).filter(|at| self.rules.names(*at));
        let ran: BTreeSet<Timestamp> = named.collect();
        let mut open = from;
        if let Some(newest) = ran.last().copied() {
            let (mut passed_over, mut at) = (0, self.rules.after(from));
            while let Some(instant) = at.filter(|at| *at < newest)
                && passed_over < COUNTED
            {
                passed_over += u32::from(!ran.contains(&instant));
                at = self.rules.after(instant);
            }
            self.missed(passed_over, newest);
            let status = &mut self.plan.status;
            status.last_schedule_time = status.last_schedule_time.max(Some(newest));
            status.decided_until = Some(newest);
            open = newest;
        }
        if self.rules.stopped == Some(Stopped::Suspended) {
            // A change of mind may still want the last one.
            return;
        }
        let (mut count, mut at) = (0, self.rules.after(open));
        while let Some(instant) = at.filter(|at| *at <= last)
            && count < COUNTED
        {
            count += 1;
            at = self.rules.after(instant);
        }
        if count == 0 {
            return;
        }
        if self.rules.stopped.is_some() {
            let status = &mut self.plan.status;
            status.skipped_count = status.skipped_count.saturating_add(count);
            status.decided_until = Some(last);
            return;
        }
        let late = self.rules.deadline.is_some_and(|deadline| self.now.duration_since(last) > deadline);
        if late {
            self.missed(count, last);
            self.plan.status.decided_until = Some(last);
            return;
        }
        let before = last.checked_sub(SignedDuration::from_secs(1)).ok().and_then(|at| self.rules.until(at));
        if let Some(before) = before.filter(|_| count > 1) {
            self.missed(count - 1, before);
            self.plan.status.decided_until = Some(before);
        }
        if self.taken(last) {
            // What is left of a cancelled one goes first; its end asks for the next look.
        } else if self.rules.concurrency == ConcurrencyPolicy::Forbid && self.earlier_active(last) {
            self.plan.status.skipped_count += 1;
            self.plan.status.decided_until = Some(last);
            self.plan.told.push(Told::Skipped { instant: last });
        } else {
            self.plan.actions.push(Action::Create { instant: last });
            if let Some(deadline) = self.rules.deadline {
                // Should it not come about.
                self.wake(last.saturating_add(deadline).unwrap_or(Timestamp::MAX));
            }
        }
    }

    /// Decides the instants of runs that the schedule names no more, as far as no other is open before them.
    fn unnamed(&mut self) {
        let Some(from) = self.plan.status.decided_until else { return };
        let passed = |run: &&Run<'_>| run.instant > from && run.instant <= self.now && !run.void(self.now);
        let next = self.rules.after(from);
        let strays = self.runs.iter().filter(passed).map(|run| run.instant);
        let last = strays.filter(|stray| next.is_none_or(|next| *stray < next)).max();
        self.plan.status.decided_until = last.or(Some(from));
    }

    fn missed(&mut self, count: u32, last: Timestamp) {
        if count > 0 {
            self.plan.status.missed_count = self.plan.status.missed_count.saturating_add(count);
            self.plan.told.push(Told::Missed { count, last });
        }
    }

    /// Creates the runs whose warm-up has begun.
    fn ahead(&mut self) {
        let (rules, lead) = (self.rules, self.lead);
        let mut at = rules.after(self.now);
        self.plan.status.next_instant = at;
        self.plan.status.next_warm_up = at.map(|instant| lead.start(instant, &rules.zone));
        if let Some(next) = at {
            self.wake(next);
        }
        let mut alone = true;
        for _ in 0..AHEAD {
            let Some(instant) = at else { return };
            let start = lead.start(instant, &rules.zone);
            if start > self.now {
                if rules.stopped.is_none() {
                    self.wake(start);
                }
                return;
            }
            if rules.stopped.is_some() {
                return;
            }
            if !self.taken(instant) && self.plan.status.decided_until < Some(instant) {
                let forbidden = rules.concurrency == ConcurrencyPolicy::Forbid
                    && (!alone || self.earlier_active(instant) || self.creates());
                if forbidden {
                    // The earlier one's end asks for the next look.
                    return;
                }
                self.plan.actions.push(Action::Create { instant });
            }
            alone = false;
            at = rules.after(instant);
        }
    }

    fn creates(&self) -> bool {
        self.plan.actions.iter().any(|action| matches!(action, Action::Create { .. }))
    }

    /// Looks after the runs that exist.
    fn settle(&mut self, written: &PreScaledCronJobStatus) {
        // What is being deleted may never have begun.
        let begun = |run: &&Run<'_>| !run.held(self.now) && !run.job.terminating;
        let newest = self.runs.iter().filter(begun).map(|run| run.instant).max();
        for run in self.runs {
            let (job, uid) = (run.job.name.clone(), run.job.uid.clone());
            self.plan.actions.extend(run.keeping().endings().map(Action::from));
            if let Some(ended) = run.outcome(self.gate, self.now) {
                if run.kept() {
                    self.record(&ended, run);
                    self.let_go(&ended, run, written);
                }
            } else if run.job.terminating {
                if run.void(self.now) && run.kept() && run.quiet(self.now) {
                    self.plan.actions.push(run.keeping().let_go().into());
                }
                if let Some(deleted) = run.job.deleted_at.filter(|_| run.kept() && run.job.active > 0) {
                    self.wake(deleted.saturating_add(SHOWN).unwrap_or(Timestamp::MAX).max(self.now + LATER));
                }
            } else if run.held(self.now) {
                if let Some(why) = self.unwanted(run) {
                    let version = run.job.resource_version.clone();
                    self.plan.actions.push(Action::Cancel { job, uid, version, why });
                }
            } else if self.rules.concurrency == ConcurrencyPolicy::Replace && newest > Some(run.instant) {
                self.plan.actions.push(Action::Replace { job, uid });
            }
        }
        let ended: Vec<JobView> =
            self.runs.iter().filter(|run| !run.kept()).map(|run| run.job.clone()).collect();
        for job in beyond_history(&ended, self.rules.keep) {
            self.plan.actions.push(Action::Forget { job: job.name.clone(), uid: job.uid.clone() });
        }
    }

    /// Why a run that is held is to go.
    fn unwanted(&self, run: &Run<'_>) -> Option<Cancelled> {
        if self.rules.stopped.is_some() {
            return Some(Cancelled::Stopped);
        }
        if !self.rules.names(run.instant) {
            return Some(Cancelled::Unnamed);
        }
        if self.rules.concurrency == ConcurrencyPolicy::Forbid && self.earlier_active(run.instant) {
            return Some(Cancelled::Forbidden);
        }
        if run.instant.duration_since(self.now) <= TOO_LATE {
            return None;
        }
        if run.job.template_hash.as_ref() != Some(&self.rules.hash) {
            return Some(Cancelled::Outdated);
        }
        run.job.edited.then_some(Cancelled::Edited)
    }

    fn record(&mut self, ended: &EndedRun, run: &Run<'_>) {
        let status = &mut self.plan.status;
        if status.last_runs.iter().any(|known| (known.instant, &known.job) == (ended.instant, &ended.job)) {
            return;
        }
        if ended.outcome == RunOutcome::Succeeded {
            let at = run.job.finished.as_ref().and_then(|finished| finished.at).unwrap_or(self.now);
            status.last_successful_time = status.last_successful_time.max(Some(at));
        }
        status.last_runs.push(ended.clone());
        status.last_runs.sort_by_key(|run| Reverse(run.instant));
        status.last_runs.truncate(RECORDED);
    }

    /// Lets a run go whose outcome is surely written.
    fn let_go(&mut self, ended: &EndedRun, run: &Run<'_>, written: &PreScaledCronJobStatus) {
        let recorded =
            written.last_runs.iter().any(|known| (known.instant, &known.job) == (ended.instant, &ended.job))
                || written.last_runs.len() >= RECORDED
                    && written.last_runs.last().is_some_and(|oldest| oldest.instant > ended.instant);
        let decided = written.decided_until.is_some_and(|decided| decided >= run.instant);
        if !recorded || !decided {
            return;
        }
        self.plan.actions.push(run.keeping().let_go().into());
    }

    fn describe(&mut self) {
        let mut active: Vec<ActiveRun> = self
            .runs
            .iter()
            .filter(|run| run.active(self.now))
            .map(|run| ActiveRun {
                instant: run.instant,
                job: run.job.name.clone(),
                held: run.held(self.now),
            })
            .collect();
        active.sort_by_key(|run| run.instant);
        self.plan.status.active_count = u32::try_from(active.len()).unwrap_or(u32::MAX);
        active.truncate(NAMED);
        self.plan.status.active = active;
    }
}

/// What to do when the object goes: what is held is cancelled, and everything is let go. Nothing = that is done.
pub fn farewell(runs: &[Run<'_>], now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    for run in runs {
        let (job, uid) = (run.job.name.clone(), run.job.uid.clone());
        if run.held(now) && run.active(now) && !run.job.terminating {
            let version = run.job.resource_version.clone();
            actions.push(Action::Cancel { job, uid, version, why: Cancelled::Stopped });
        } else if run.kept() {
            actions.push(run.keeping().let_go().into());
        }
    }
    actions
}
