//! A PreScaledCronJob in a simulated cluster: the object, its Jobs, their pods and the gates in them, and operators that
//! see all that late. Unlike pools, whose stories say each step, here everything goes on by itself as time passes, each
//! thing after a delay; the stories say what goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, json};
use stoker_api::{ConcurrencyPolicy, Gate, PreScaledCronJobStatus, keys};
use stoker_core::names;
use stoker_core::pool::JobView;
use stoker_core::pool::jobs::History;
use stoker_core::pre_scaled::{Lead, Rules, Stopped, job};
use stoker_cron::Schedule;

use crate::cron_operator::{CronOperator, Told, Write};
use crate::pods::whole;
use crate::shell::{Answer, Driven as _, Flight, Flights, PATIENCE, PLAN_HOLDS, Parts, Shell};
use crate::store::{Object, Store};
use crate::world::{Due, Held, JobTruth, Moment, Work, World};

/// Name of the object.
pub const CRON: &str = "nightly";
/// Its UID.
pub const CRON_UID: &str = "0b3c";

/// Operators' clocks are wrong by so much at most.
const CLOCKS: SignedDuration = SignedDuration::from_secs(2);

/// How long before its instant a run is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warm {
    /// Seconds.
    Seconds(i64),
    /// At the last instant of another schedule.
    Primer(&'static str),
}

/// The object's spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CronSpec {
    /// The schedule.
    pub schedule: &'static str,
    /// Its time zone.
    pub zone: &'static str,
    /// The warm-up.
    pub warm: Warm,
    /// How work is held.
    pub gate: Gate,
    /// What becomes of a run when an earlier one is at work.
    pub concurrency: ConcurrencyPolicy,
    /// startingDeadlineSeconds
    pub deadline: Option<i64>,
    /// suspend
    pub suspend: bool,
    /// paused
    pub paused: bool,
    /// Which template.
    pub template: u8,
    /// History limits.
    pub keep: History,
    /// backoffLimit of the Jobs.
    pub backoff_limit: u32,
}

impl CronSpec {
    /// The spec as it is read.
    pub fn rules(&self) -> Option<(Rules, Lead)> {
        let lead = match self.warm {
            Warm::Seconds(seconds) => Lead::Before(SignedDuration::from_secs(seconds)),
            Warm::Primer(schedule) => Lead::Primer(Schedule::parse(schedule).ok()?),
        };
        let suspended = self.suspend.then_some(Stopped::Suspended);
        let rules = Rules {
            schedule: Schedule::parse(self.schedule).ok()?,
            zone: TimeZone::get(self.zone).ok()?,
            timetable: format!("{} in {}", self.schedule, self.zone),
            stopped: if self.paused { Some(Stopped::Paused) } else { suspended },
            concurrency: self.concurrency,
            deadline: self.deadline.map(SignedDuration::from_secs),
            keep: self.keep,
            hash: format!("{}-{:?}", self.template, self.gate),
        };
        Some((rules, lead))
    }
}

/// The object.
#[derive(Clone, Debug, PartialEq)]
pub struct Cron {
    version: String,
    /// Goes up with each change of the spec, and with the deletion.
    pub generation: u64,
    /// When it was created, by the API server's clock.
    pub created: Timestamp,
    /// The spec.
    pub spec: CronSpec,
    /// The status.
    pub status: PreScaledCronJobStatus,
    /// It has Stoker's finalizer.
    pub finalizer: bool,
    /// It is being deleted.
    pub deleted: bool,
}

impl Object for Cron {
    fn name(&self) -> &str {
        CRON
    }

    fn uid(&self) -> &str {
        CRON_UID
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn set_version(&mut self, version: String) {
        self.version = version;
    }

    fn terminating(&self) -> bool {
        self.deleted
    }

    fn terminate(&mut self) {
        self.generation += u64::from(!self.deleted);
        self.deleted = true;
    }

    fn lingers(&self) -> bool {
        self.finalizer
    }
}

/// What a Job of a PreScaledCronJob is made for.
#[derive(Clone, Debug)]
pub struct CronRun {
    /// Its instant.
    pub instant: Timestamp,
    /// It was let go before its work could begin, so that its instant may have another.
    pub void: bool,
    /// By which spec it was made.
    pub spec: CronSpec,
}

/// What truly became of a Job.
pub type RunTruth = JobTruth<CronRun>;

/// The truth, and those who see it late.
pub struct CronCluster {
    /// Jobs and pods.
    pub world: World<CronRun>,
    /// The object.
    pub crons: Store<Cron>,
    /// The operators; each believes that it leads.
    pub operators: Vec<CronOperator>,
    /// Requests that changed something.
    pub writes: usize,
    /// Two runs may be at work: somebody chose it lately.
    pub beside_allowed_until: Timestamp,
    flights: Flights<Write>,
}

impl CronCluster {
    /// A cluster in which the object was just created; chance follows from a seed.
    pub fn new(start: Timestamp, spec: CronSpec, operators: usize, clocks: [i64; 2], seed: u64) -> Self {
        let mut cluster = Self {
            world: World::new(start, clocks, seed),
            crons: Store::new(start),
            operators: vec![CronOperator::new(); operators],
            writes: 0,
            beside_allowed_until: start,
            flights: Flights::default(),
        };
        let cron = Cron {
            version: String::new(),
            generation: 1,
            created: whole(cluster.world.api_now()),
            spec,
            status: PreScaledCronJobStatus::default(),
            finalizer: false,
            deleted: false,
        };
        // The store is empty.
        cluster.crons.create(cron).ok();
        for operator in 0..operators {
            cluster.world.due(SignedDuration::ZERO, Due::Operator(Moment::Starts(operator)));
        }
        cluster
    }

    /// The true time.
    pub fn now(&self) -> Timestamp {
        self.world.now
    }

    /// The object, while there is one.
    pub fn cron(&self) -> Option<&Cron> {
        self.crons.get(CRON).map(AsRef::as_ref)
    }

    /// Nothing goes wrong any more: the API server answers, operators run, see all soon, and their clocks are right.
    pub fn heal(&mut self) {
        self.world.trouble = 0;
        self.world.comes_up();
        self.mend_operators();
    }

    /// An operator dies; another takes its place after a while.
    pub fn crash(&mut self, operator: usize, time: SignedDuration) {
        self.replace(operator, time);
    }

    /// What an operator's watches tell comes so late from now on: of the object, Jobs and pods.
    pub fn delay(&mut self, operator: usize, watch: usize, time: SignedDuration) {
        self.operators[operator].set_delay(Some(watch), time);
        self.notice();
    }

    /// The spec changes.
    pub fn edit(&mut self, spec: CronSpec) {
        let changed = self.cron().is_some_and(|cron| cron.spec != spec);
        if changed {
            self.crons
                .change(CRON, None, |cron| {
                    cron.generation += 1;
                    cron.spec = spec;
                })
                .ok();
            self.world.tell(|| format!("edited: {spec:?}"));
            self.notice();
        }
    }

    /// The object is deleted.
    pub fn delete(&mut self) {
        self.crons.delete(CRON, None, None).ok();
        self.world.tell(|| "the object is deleted".to_owned());
        self.notice();
        self.disown();
    }

    /// Somebody deletes a Job, chosen by a number: in the foreground, or in the background.
    pub fn delete_job(&mut self, choice: usize, foreground: bool) {
        self.world.remove_some_job(choice, foreground);
        self.notice();
    }

    /// Somebody edits a Job, chosen by a number.
    pub fn edit_job(&mut self, choice: usize) {
        if let Some(name) = self.world.jobs.some(choice) {
            self.world.tell(|| format!("{name} is edited by hand"));
            self.world.jobs.change(&name, None, |job| job.edited = true).ok();
            self.notice();
        }
    }

    /// Somebody deletes a pod, chosen by a number.
    pub fn delete_pod(&mut self, choice: usize) {
        self.world.remove_some_pod(choice);
        self.notice();
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: SignedDuration) {
        self.until(self.world.now + time);
    }

    /// Lets time pass until some time.
    pub fn until(&mut self, time: Timestamp) {
        while let Some(due) = self.world.next(time) {
            self.crons.set_time(self.world.now);
            match due {
                Due::Operator(moment) => self.drive(moment),
                due => {
                    if let Some(uid) = self.world.happens(due) {
                        self.begins(&uid);
                    }
                }
            }
            self.notice();
        }
        self.crons.set_time(self.world.now);
    }

    // The API server.

    fn finalizer(&mut self, version: &str, on: bool) -> Answer<Cron> {
        let Some(cron) = self.crons.get(CRON) else { return Answer::NotFound };
        if cron.version() != version {
            return Answer::Conflict;
        }
        let deleted = cron.deleted;
        self.crons.change(CRON, None, |cron| cron.finalizer = on).ok();
        if deleted && !on {
            self.crons.finish(CRON);
            self.disown();
        }
        Answer::Done
    }

    fn status(
        &mut self,
        operator: usize,
        version: &str,
        status: &PreScaledCronJobStatus,
        told: &Told,
        spec: CronSpec,
        generation: u64,
    ) -> Answer<Cron> {
        let Some(cron) = self.crons.get(CRON).cloned() else { return Answer::NotFound };
        if cron.version() != version {
            return Answer::Conflict;
        }
        self.counts(operator, &cron, status, told, spec, generation);
        match self.crons.change(CRON, None, |cron| cron.status = status.clone()) {
            Ok(cron) => Answer::Object(cron),
            Err(_) => Answer::NotFound,
        }
    }

    /// What is decided is accounted for: of the instants in between, each that had no Job is counted, and none that the
    /// operator knew to have one.
    fn counts(
        &mut self,
        operator: usize,
        cron: &Cron,
        new: &PreScaledCronJobStatus,
        told: &Told,
        spec: CronSpec,
        generation: u64,
    ) {
        let old = &cron.status;
        if old.timetable.is_some() && old.timetable != new.timetable {
            return;
        }
        let Some((rules, _)) = spec.rules() else { return };
        let from = old.decided_until.unwrap_or(cron.created);
        let (Some(to), true) = (new.decided_until, new.decided_until >= Some(from)) else {
            return self
                .world
                .breaks(format!("I5: what was decided up to {from} is open again: {:?}", new.decided_until));
        };
        let named = std::iter::successors(rules.after(from), |last| rules.after(*last));
        let named: BTreeSet<Timestamp> = named.take_while(|at| *at <= to).take(9_000).collect();
        let (before, after) = (old.missed_count + old.skipped_count, new.missed_count + new.skipped_count);
        let had =
            self.world.truth.values().map(|job| &job.what).filter(|run| !run.void).map(|run| run.instant);
        let mut had: BTreeSet<Timestamp> = had.collect();
        if self.operators.len() > 1 {
            // It may not have been told yet that the other one let a cancelled run go before its instant.
            had.extend(&told.runs);
        }
        let count = |of: &BTreeSet<Timestamp>| named.intersection(of).count();
        let (least, most) = (named.len() - count(&had), named.len() - count(&told.runs));
        let counted = after.saturating_sub(before) as usize;
        if counted < least || counted > most {
            let words = format!(
                "I5: operator {operator}, generation {generation}: {counted} of {} instants after {from} up to {to} are counted, {least} had no Job, and of {most} it knew none",
                named.len()
            );
            self.world.breaks(words);
        }
    }

    fn create(&mut self, instant: Timestamp, spec: CronSpec, planned: Timestamp) -> Answer<Cron> {
        let name = names::cron_job(CRON, CRON_UID, instant);
        let template =
            json!({"template": {"spec": {"containers": [{"name": "a", "image": "a", "command": ["a"]}]}}});
        let template: Map<_, _> = template.as_object().cloned().unwrap_or_default();
        let body = job(&template, spec.gate, "gate", instant, &Map::new(), planned);
        let argument = match spec.gate {
            Gate::InitContainer => &body["template"]["spec"]["initContainers"][1]["command"][2],
            Gate::Exec => &body["template"]["spec"]["containers"][0]["command"][2],
        };
        let gate = argument.as_str().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::MIN);
        let new = JobView {
            name,
            uid: String::new(),
            resource_version: String::new(),
            slot: None,
            created: planned,
            terminating: false,
            deleted_at: None,
            finalizers: vec![keys::OUTCOME.to_owned()],
            edited: false,
            finished: None,
            parallelism: 1,
            completions: Some(1),
            active: 0,
            succeeded: 0,
            failed: 0,
            template_hash: spec.rules().map(|(rules, _)| rules.hash),
            annotations: BTreeMap::from([(keys::INSTANT.to_owned(), instant.to_string())]),
        };
        let held = Some(Held { until: gate, within: spec.gate == Gate::Exec });
        let work = Work { held, backoff_limit: spec.backoff_limit, ..Work::default() };
        let run = CronRun { instant, void: false, spec };
        let Ok(made) = self.world.create_job(new, run, work) else { return Answer::Existed };
        let patience = PLAN_HOLDS + PATIENCE;
        let late = self.world.now.duration_since(instant) - patience - CLOCKS;
        if spec.deadline.is_some_and(|deadline| late > SignedDuration::from_secs(deadline)) {
            self.world.breaks(format!("deadline: a run of {instant} is made"));
        }
        Answer::Job(made.into())
    }

    fn let_go(&mut self, name: &str) {
        let Some(job) = self.world.jobs.get(name) else { return };
        let now = self.world.now;
        if let Some(truth) = self.world.truth.get_mut(&job.uid) {
            truth.what.void |= job.terminating && !truth.begun && now < truth.what.instant;
        }
        self.world.let_go(name);
    }

    fn disown(&mut self) {
        if self.cron().is_none() && self.world.owned {
            self.world.disown();
        }
    }

    /// The work of a run begins.
    fn begins(&mut self, uid: &str) {
        let node_now = self.world.node_now();
        let Some(CronRun { instant, spec, .. }) = self.world.truth.get(uid).map(|job| job.what.clone())
        else {
            return;
        };
        if node_now < instant {
            self.world.breaks(format!("{uid} begins its work before {instant}"));
        }
        let others =
            |(other, job): &(&String, &RunTruth)| job.what.instant == instant && job.begun && *other != uid;
        if let Some((other, _)) = self.world.truth.iter().find(others) {
            let words = format!("I5: {uid} and {other} both begin the work of {instant}");
            self.world.breaks(words);
        }
        let now_forbidden =
            self.cron().is_some_and(|cron| cron.spec.concurrency == ConcurrencyPolicy::Forbid);
        if now_forbidden
            && spec.concurrency == ConcurrencyPolicy::Forbid
            && self.world.now > self.beside_allowed_until
        {
            let at_work = self.world.at_work();
            let made = |uid: &str| self.world.truth.get(uid).map(|job| job.made);
            // Of two leaders neither knows what the other has made since it looked.
            let unknown = |other: &str| {
                let apart = made(uid).zip(made(other)).map(|(one, two)| one.duration_since(two).abs());
                self.operators.len() > 1 && apart.is_some_and(|apart| apart <= PLAN_HOLDS + PATIENCE)
            };
            if let Some(other) = at_work.iter().find(|other| *other != uid && !unknown(other)) {
                self.world.breaks(format!("Forbid: {uid} begins its work beside {other}"));
            }
        }
    }
}

impl Shell for CronCluster {
    type Operator = CronOperator;
    type What = CronRun;
    type Object = Cron;

    const DOUBLES: bool = false;

    fn parts(&mut self) -> Parts<'_, CronOperator, CronRun> {
        let Self { world, operators, flights, .. } = self;
        Parts { world, operators, flights }
    }

    fn lists(&mut self, number: usize) {
        self.operators[number].start(&self.crons, &self.world.jobs, &self.world.pods);
    }

    fn tells_at(&self, number: usize) -> Option<Timestamp> {
        self.operators[number].tells_at(&self.crons, &self.world.jobs, &self.world.pods)
    }

    fn told(&mut self, number: usize) -> bool {
        let now = self.world.now;
        self.operators[number].tell(&self.crons, &self.world.jobs, &self.world.pods, now)
    }

    fn learns(&mut self, flight: Flight<Write>, answer: Answer<Cron>) {
        let now = self.world.now;
        self.operators[flight.operator].learn(&flight.write, answer, now);
        self.goes_on(flight.operator);
    }

    fn write(&mut self, operator: usize, write: &Write) -> Answer<Cron> {
        if self.world.down_for().is_some() {
            return Answer::Nothing;
        }
        let answer = match write {
            Write::Read => match self.crons.get(CRON) {
                Some(cron) => return Answer::Object(cron.clone()),
                None => return Answer::NotFound,
            },
            Write::ReadJob { instant } => {
                let name = names::cron_job(CRON, CRON_UID, *instant);
                return self.world.jobs.get(&name).map_or(Answer::NotFound, |job| Answer::Job(job.clone()));
            }
            Write::Finalizer { version, on } => self.finalizer(version, *on),
            Write::Create { instant, spec, now } => self.create(*instant, *spec, *now),
            Write::Status { version, status, told, spec, generation } => {
                self.status(operator, version, status, told, *spec, *generation)
            }
            Write::Delete { name, uid, version, foreground } => {
                Answer::of(self.world.remove_job(name, Some(uid), version.as_deref(), *foreground))
            }
            Write::Pod { name, uid } => Answer::of(self.world.end_pod(name, uid)),
            Write::LetGo { name, uid } => match self.world.jobs.get(name).filter(|job| &job.uid == uid) {
                Some(_) => {
                    self.let_go(name);
                    Answer::Done
                }
                None => Answer::NotFound,
            },
        };
        self.writes += usize::from(!answer.refuses());
        answer
    }
}
