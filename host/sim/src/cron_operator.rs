//! An operator that looks after a PreScaledCronJob: what its watches told it, what it remembers, and the requests of its
//! look, one after the other, as the shell makes them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stoker_api::PreScaledCronJobStatus;
use stoker_core::PodView;
use stoker_core::kept::{NEWEST, Upkeep};
use stoker_core::pool::{JobPods, JobView};
use stoker_core::pre_scaled::{self, Action, Run};

use crate::crons::{CRON, Cron, CronSpec};
use crate::known::Known;
use crate::shell::{Answer, Driven, PLAN_HOLDS, Pulse};
use crate::store::{Object as _, Store, View};

/// After a farewell it looks again so much later.
const FAREWELL: SignedDuration = SignedDuration::from_secs(5);

/// A moment more than asked, so that the look comes after what it waits for.
const MOMENT: SignedDuration = SignedDuration::from_millis(2);

/// What the operator knew when it planned a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Instants of which it knew a run.
    pub runs: BTreeSet<Timestamp>,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The object is read: before something is created, after a conflict, or to know whether it is gone.
    Read,
    /// A Job is read whose name was taken.
    ReadJob {
        /// Its instant.
        instant: Timestamp,
    },
    /// The object gets its finalizer, or loses it.
    Finalizer {
        /// The object's version.
        version: String,
        /// It gets it.
        on: bool,
    },
    /// A run is created.
    Create {
        /// Its instant.
        instant: Timestamp,
        /// By which spec.
        spec: CronSpec,
        /// When that was planned, by the operator's clock.
        now: Timestamp,
    },
    /// A Job is deleted.
    Delete {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// The version in which it was seen, if that matters.
        version: Option<String>,
        /// Its pods go first.
        foreground: bool,
    },
    /// A pod is deleted.
    Pod {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// A Job's finalizer is taken off.
    LetGo {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// The status is written.
    Status {
        /// The object's version.
        version: String,
        /// The status.
        status: Box<PreScaledCronJobStatus>,
        /// What was known.
        told: Told,
        /// By which spec.
        spec: CronSpec,
        /// Of which generation.
        generation: u64,
    },
}

impl Write {
    /// What it is, in words.
    pub fn words(&self) -> String {
        match self {
            Self::Status { status, .. } => format!(
                "Status: decided until {:?}, missed {}, skipped {}, {} ended",
                status.decided_until,
                status.missed_count,
                status.skipped_count,
                status.last_runs.len()
            ),
            Self::Create { instant, .. } => format!("Create {instant}"),
            other => format!("{other:?}"),
        }
    }
}

/// A look that is being carried out.
#[derive(Clone, Debug, Default)]
struct Carrying {
    object: Option<Arc<Cron>>,
    began: Timestamp,
    left: VecDeque<Write>,
    /// The decisions as they were read last.
    decided: Option<Timestamp>,
    failed: bool,
    /// The look is over by an error.
    error: bool,
    /// Look again at once.
    again: bool,
    /// Look again then, by its clock.
    wake: Option<Timestamp>,
    /// Look again so much later.
    wait: Option<SignedDuration>,
}

/// An operator.
#[derive(Clone, Debug, Default)]
pub struct CronOperator {
    /// How far its clock is ahead.
    pub clock: SignedDuration,
    /// How late its watches tell of the object, Jobs and pods.
    pub delays: [SignedDuration; 3],
    /// How often it has looked.
    pub looks: usize,
    /// It looks again so often at least while something is to come: timers do not know when the clock is set.
    pub rarely: Option<SignedDuration>,
    pulse: Pulse,
    crons: View<Cron>,
    known: Known,
    shown: Option<(u64, bool)>,
    latest: Option<Arc<Cron>>,
    /// A version of the object, and when it was asked for of which the answer was that it is the newest.
    proven: Option<(u64, Timestamp)>,
    /// When the last request was sent that reads or writes the object.
    asked: Timestamp,
    failures: u32,
    carrying: Option<Carrying>,
}

fn version(cron: &Cron) -> u64 {
    cron.version().parse().unwrap_or(0)
}

impl CronOperator {
    /// One that has not started yet.
    pub fn new() -> Self {
        Self { rarely: Some(SignedDuration::from_secs(60)), ..Self::default() }
    }

    /// It starts: it lists everything, and remembers nothing.
    pub fn start(&mut self, crons: &Store<Cron>, jobs: &Store<JobView>, pods: &Store<PodView>) {
        self.pulse.begin();
        self.crons.relist(crons);
        self.known.relist(jobs, pods);
    }

    /// When its watches have something to tell.
    pub fn tells_at(
        &self,
        crons: &Store<Cron>,
        jobs: &Store<JobView>,
        pods: &Store<PodView>,
    ) -> Option<Timestamp> {
        let [of_jobs, of_pods] = self.known.late_since(jobs, pods);
        let since = [self.crons.late_since(crons), of_jobs, of_pods];
        since.into_iter().zip(self.delays).filter_map(|(since, delay)| Some(since? + delay)).min()
    }

    /// Its watches tell what is due. Returns whether it asks for a look.
    pub fn tell(
        &mut self,
        crons: &Store<Cron>,
        jobs: &Store<JobView>,
        pods: &Store<PodView>,
        now: Timestamp,
    ) -> bool {
        let of_children = self.known.deliver(jobs, pods, [now - self.delays[1], now - self.delays[2]]);
        self.crons.deliver_until(crons, now - self.delays[0]);
        let shown = self.crons.get(CRON).map(|cron| (cron.generation, cron.finalizer));
        let changed = shown != self.shown;
        self.shown = shown;
        changed || of_children
    }

    /// Takes note of an answer.
    pub fn learn(&mut self, write: &Write, answer: Answer<Cron>, true_now: Timestamp) {
        let now = true_now + self.clock;
        let Some(mut carrying) = self.carrying.take() else { return };
        match (write, answer) {
            (Write::Read, answer) => self.read(&mut carrying, answer, now),
            (Write::Create { instant, .. }, Answer::Existed | Answer::Nothing) => {
                carrying.left.push_front(Write::ReadJob { instant: *instant });
            }
            (Write::Create { .. } | Write::ReadJob { .. }, Answer::Job(job)) => {
                self.known.note_made(&job);
            }
            (Write::Create { .. } | Write::ReadJob { .. }, _) => {
                carrying.failed = true;
                carrying.left.retain(|write| !matches!(write, Write::Create { .. }));
            }
            (Write::Status { .. }, Answer::Object(written)) => {
                self.proven = Some((version(&written), self.asked));
                self.latest = Some(written);
                carrying.again = true;
            }
            (Write::Status { .. }, Answer::Conflict) => {
                // To be looked at again with what is read now.
                carrying.left = VecDeque::from([Write::Read]);
                carrying.again = true;
            }
            (Write::Status { .. }, Answer::NotFound) => {}
            (Write::Status { .. }, _) => carrying.error = true,
            (Write::Finalizer { .. }, Answer::Done | Answer::NotFound) => {}
            (Write::Finalizer { .. }, _) => carrying.error = true,
            (_, Answer::Nothing) => carrying.failed = true,
            (Write::LetGo { uid, .. }, _) => self.known.note_let_go(uid),
            _ => {}
        }
        self.carrying = Some(carrying);
    }

    fn read(&mut self, carrying: &mut Carrying, answer: Answer<Cron>, now: Timestamp) {
        let drop_creations =
            |carrying: &mut Carrying| carrying.left.retain(|write| !matches!(write, Write::Create { .. }));
        match (answer, carrying.object.clone()) {
            (Answer::Object(latest), _) if carrying.again => self.latest = Some(latest),
            (Answer::Object(latest), Some(object)) => {
                if latest.generation != object.generation || latest.deleted {
                    return drop_creations(carrying);
                }
                carrying.decided = latest.status.decided_until;
                carrying.began = self.asked;
                self.proven = Some((version(&latest), self.asked));
                if version(&latest) > version(&object) {
                    self.latest = Some(latest);
                }
            }
            (Answer::NotFound, None) => {
                let (jobs, pods) = self.known.seen();
                let none = Vec::new();
                let of = |job: &JobView| pods.get(&job.uid).unwrap_or(&none).as_slice();
                let runs: Vec<Run<'_>> =
                    jobs.iter().filter_map(|job| Run::of(&JobPods { job, pods: of(job) })).collect();
                carrying.left.extend(pre_scaled::farewell(&runs, now).iter().filter_map(request));
                carrying.wait = (!carrying.left.is_empty()).then_some(FAREWELL);
            }
            (Answer::Object(_), None) => {}
            (Answer::Nothing, _) => {
                carrying.failed = true;
                carrying.error |= carrying.again;
                drop_creations(carrying);
            }
            (_, Some(_)) => drop_creations(carrying),
            (_, None) => {}
        }
    }
}

impl Driven for CronOperator {
    type Write = Write;

    fn pulse(&mut self) -> &mut Pulse {
        &mut self.pulse
    }

    fn set_clock(&mut self, ahead: SignedDuration) {
        self.clock = ahead;
    }

    fn set_delay(&mut self, watch: Option<usize>, late: SignedDuration) {
        match watch {
            Some(watch) => self.delays[watch] = late,
            None => self.delays = [late; 3],
        }
    }

    fn die(&mut self) {
        *self = Self {
            pulse: self.pulse.next(),
            clock: self.clock,
            delays: self.delays,
            looks: self.looks,
            rarely: self.rarely,
            ..Self::default()
        };
    }

    fn busy(&self) -> bool {
        self.carrying.is_some()
    }

    fn look(&mut self, true_now: Timestamp) -> String {
        self.looks += 1;
        let now = true_now + self.clock;
        let shown = self.crons.get(CRON).cloned();
        if shown.is_none() {
            self.latest = None;
        }
        let newer = |shown: &Arc<Cron>| self.latest.clone().filter(|latest| version(latest) > version(shown));
        let object = shown.map(|shown| newer(&shown).unwrap_or(shown));
        let mut carrying = Carrying { object: object.clone(), began: true_now, ..Carrying::default() };
        let (jobs, pods) = self.known.seen();
        let none = Vec::new();
        let of = |job: &JobView| pods.get(&job.uid).unwrap_or(&none).as_slice();
        let runs: Vec<Run<'_>> =
            jobs.iter().filter_map(|job| Run::of(&JobPods { job, pods: of(job) })).collect();
        let words = match &object {
            // Jobs without their owner: is it gone?
            None if !runs.is_empty() => {
                carrying.left.push_back(Write::Read);
                "sees Jobs and no object".to_owned()
            }
            None => "sees nothing".to_owned(),
            Some(cron) if cron.finalizer == cron.deleted && !cron.finalizer => {
                let version = cron.version().to_owned();
                carrying.left.push_back(Write::Finalizer { version, on: true });
                "sees a new object".to_owned()
            }
            Some(cron) if cron.deleted && !cron.finalizer => "sees an object that is let go".to_owned(),
            Some(cron) if cron.deleted => {
                let actions = pre_scaled::farewell(&runs, now);
                if actions.is_empty() {
                    let version = cron.version().to_owned();
                    carrying.left.push_back(Write::Finalizer { version, on: false });
                } else {
                    carrying.left.extend(actions.iter().filter_map(request));
                    carrying.wait = Some(FAREWELL);
                }
                format!("bids farewell: {actions:?}")
            }
            Some(cron) => match cron.spec.rules() {
                None => "cannot read the spec".to_owned(),
                Some((rules, lead)) => {
                    let plan = pre_scaled::plan(
                        &rules,
                        &lead,
                        cron.spec.gate,
                        &cron.status,
                        cron.created,
                        &runs,
                        now,
                    );
                    let creates: Vec<Write> = plan
                        .actions
                        .iter()
                        .filter_map(|action| match action {
                            Action::Create { instant } => {
                                Some(Write::Create { instant: *instant, spec: cron.spec, now })
                            }
                            _ => None,
                        })
                        .collect();
                    let proven = self.proven.filter(|(known, asked)| {
                        *known == version(cron) && true_now.duration_since(*asked) <= NEWEST
                    });
                    match proven {
                        Some((_, asked)) => {
                            carrying.began = asked;
                            carrying.decided = cron.status.decided_until;
                        }
                        None if !creates.is_empty() => carrying.left.push_back(Write::Read),
                        None => {}
                    }
                    carrying.left.extend(creates);
                    let mut held = None;
                    for request in plan.actions.iter().filter_map(request) {
                        if let Write::LetGo { uid, .. } = &request {
                            let until = self.known.held_until(uid, true_now);
                            if until > true_now {
                                held = [held, Some(until)].into_iter().flatten().min();
                                continue;
                            }
                        }
                        carrying.left.push_back(request);
                    }
                    carrying.wait = held.map(|until| until.duration_since(true_now));
                    if plan.status != cron.status {
                        carrying.left.push_back(Write::Status {
                            version: String::new(),
                            status: Box::new(plan.status.clone()),
                            told: Told {
                                runs: runs.iter().filter(|r| !r.void(now)).map(|r| r.instant).collect(),
                            },
                            spec: cron.spec,
                            generation: cron.generation,
                        });
                    }
                    carrying.wake = plan.wake_at;
                    format!("plans {:?}, wakes {:?}", plan.actions, plan.wake_at)
                }
            },
        };
        let seen: Vec<String> = runs
            .iter()
            .map(|run| {
                let job = run.job;
                let ended = job.finished.as_ref().map(|finished| finished.well);
                format!("{} active {} ended {ended:?} deleted {:?}", run.instant, job.active, job.deleted_at)
            })
            .collect();
        self.carrying = Some(carrying);
        format!("at {now} sees {seen:?}, {words}")
    }

    fn next_write(&mut self, now: Timestamp) -> Option<Write> {
        let newest = self.latest.clone();
        let carrying = self.carrying.as_mut()?;
        while let Some(mut write) = carrying.left.pop_front() {
            if matches!(write, Write::Read | Write::Status { .. }) {
                self.asked = now;
            }
            match &mut write {
                Write::Create { instant, .. } => {
                    let late = now.duration_since(carrying.began) > PLAN_HOLDS;
                    if late || carrying.decided.is_some_and(|decided| decided >= *instant) {
                        continue;
                    }
                }
                Write::Status { version: of, .. } => {
                    let Some(object) = &carrying.object else { continue };
                    let base = newest.filter(|latest| version(latest) > version(object));
                    let base = base.unwrap_or_else(|| object.clone());
                    if base.status != object.status {
                        // Somebody else wrote it meanwhile.
                        carrying.again = true;
                        return None;
                    }
                    base.version().clone_into(of);
                }
                _ => {}
            }
            return Some(write);
        }
        None
    }

    fn rest(&mut self, true_now: Timestamp) -> Option<SignedDuration> {
        let done = self.carrying.take()?;
        let more = self.pulse.take_again().then_some(MOMENT);
        let wait = if done.failed || done.error {
            self.failures += 1;
            let longest = if done.error { 5 } else { 2 };
            Some(SignedDuration::from_secs(1 << (self.failures.min(longest) - 1)))
        } else {
            self.failures = 0;
            let until = |at: Timestamp| at.duration_since(true_now + self.clock).max(SignedDuration::ZERO);
            let wake =
                done.wake.map(|at| (until(at) + MOMENT).min(self.rarely.unwrap_or(SignedDuration::MAX)));
            if done.again { Some(MOMENT) } else { [wake, done.wait].into_iter().flatten().min() }
        };
        [wait, more].into_iter().flatten().min()
    }

    fn words(write: &Write) -> String {
        write.words()
    }
}

/// The request that an action is, unless it is a creation.
fn request(action: &Action) -> Option<Write> {
    Some(match action.clone() {
        Action::Create { .. } => return None,
        Action::Cancel { job: name, uid, version, .. } => {
            Write::Delete { name, uid, version: Some(version), foreground: true }
        }
        Action::Replace { job: name, uid } => Write::Delete { name, uid, version: None, foreground: true },
        Action::Forget { job: name, uid } => Write::Delete { name, uid, version: None, foreground: false },
        Action::Upkeep(Upkeep::Delete { name, uid, version }) => {
            Write::Delete { name, uid, version, foreground: true }
        }
        Action::Upkeep(Upkeep::EndPod { pod: name, uid }) => Write::Pod { name, uid },
        Action::Upkeep(Upkeep::LetGo { name, uid }) => Write::LetGo { name, uid },
    })
}
