//! A PreScaledCronJob in a simulated cluster: the object, its Jobs, their pods and the gates in them, and operators that
//! see all that late. Unlike pools, whose stories say each step, here everything goes on by itself as time passes, each
//! thing after a delay; the stories say what goes wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, json};
use stoker_api::{ConcurrencyPolicy, Gate, PreScaledCronJobStatus, keys};
use stoker_core::pod::PodCondition;
use stoker_core::pool::JobView;
use stoker_core::pool::jobs::{Finished, History};
use stoker_core::pre_scaled::{Lead, Rules, Stopped, job};
use stoker_core::{Phase, PodView, names};
use stoker_cron::Schedule;

use crate::cron_operator::{Answer, CronOperator, Told, Write};
use crate::jobs::{JOB, job_of};
use crate::pods::{end, pod, whole};
use crate::store::{Object, Refusal, Store};

/// Name of the object.
pub const CRON: &str = "nightly";
/// Its UID.
pub const CRON_UID: &str = "0b3c";

/// Operators' clocks are wrong by so much at most.
const CLOCKS: SignedDuration = SignedDuration::from_secs(2);

/// Kubernetes' finalizer of what is deleted in the foreground.
const FOREGROUND: &str = "foregroundDeletion";

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

/// What is to happen at its time.
#[derive(Clone, Debug)]
enum Due {
    /// A request reaches the API server.
    Arrives { operator: usize, life: u64, number: u64, write: Box<Write>, answered: bool },
    /// No answer came within the operator's patience.
    TimesOut { operator: usize, life: u64, number: u64 },
    /// An operator looks.
    Looks { operator: usize, life: u64 },
    /// A watch may have something to tell.
    Tells { operator: usize },
    /// An operator starts.
    Starts { operator: usize },
    /// The Job controller looks at a Job, by UID.
    Controls(String),
    /// The garbage collector looks at what belongs to a Job, by UID.
    Collects(String),
    /// A pod gets a node.
    Binds(String),
    /// A pod's images are there, and its gate holds.
    Gates(String),
    /// A pod's gate opens.
    Opens(String),
    /// A pod's work ends.
    Ends(String, bool),
    /// A pod that is deleted is gone.
    Goes(String),
}

/// What truly became of a Job.
#[derive(Clone, Debug)]
pub struct JobTruth {
    /// Its instant.
    pub instant: Timestamp,
    /// When it was made.
    pub made: Timestamp,
    /// When it was deleted first.
    pub deleted: Option<Timestamp>,
    /// It was let go before its work could begin, so that its instant may have another.
    pub void: bool,
    /// Its work has begun.
    pub begun: bool,
    /// It ended before.
    pub failed: bool,
    /// By which spec it was made.
    pub spec: CronSpec,
    /// By the argument of the gate in its pods.
    gate: Timestamp,
    /// Pods that succeeded.
    pub succeeded: u32,
    failures: u32,
    pods: BTreeSet<String>,
    made_pods: u32,
}

/// What truly became of a pod.
#[derive(Clone, Debug, Default)]
struct PodTruth {
    /// The kubelet ends it then.
    killed: Option<Timestamp>,
    at_work: bool,
    gone: bool,
}

/// The truth, and those who see it late.
pub struct CronCluster {
    /// The true time.
    pub now: Timestamp,
    /// The object.
    pub crons: Store<Cron>,
    /// Its Jobs.
    pub jobs: Store<JobView>,
    /// Their pods.
    pub pods: Store<PodView>,
    /// The operators; each believes that it leads.
    pub operators: Vec<CronOperator>,
    /// What became of Jobs, by UID.
    pub truth: BTreeMap<String, JobTruth>,
    /// Of a hundred things, so many go otherwise than usual.
    pub trouble: u32,
    /// How far the API server's clock, and the nodes', are ahead, in milliseconds.
    pub clocks: [i64; 2],
    /// Promises that were broken, in words.
    pub broken: Vec<String>,
    /// Requests that changed something.
    pub writes: usize,
    /// What was done, in words, if it is to be told.
    pub told: Option<Vec<String>>,
    /// Two runs may be at work: somebody chose it lately.
    pub beside_allowed_until: Timestamp,
    pods_truth: HashMap<String, PodTruth>,
    down_until: Timestamp,
    agenda: BTreeMap<(Timestamp, u64), Due>,
    count: u64,
    random: u64,
}

fn milliseconds(milliseconds: i64) -> SignedDuration {
    SignedDuration::from_millis(milliseconds)
}

impl CronCluster {
    /// A cluster in which the object was just created; chance follows from a seed.
    pub fn new(start: Timestamp, spec: CronSpec, operators: usize, clocks: [i64; 2], seed: u64) -> Self {
        let mut cluster = Self {
            now: start,
            crons: Store::new(start),
            jobs: Store::new(start),
            pods: Store::new(start),
            operators: vec![CronOperator::new(); operators],
            truth: BTreeMap::new(),
            trouble: 0,
            clocks,
            broken: Vec::new(),
            writes: 0,
            told: None,
            beside_allowed_until: start,
            pods_truth: HashMap::new(),
            down_until: start,
            agenda: BTreeMap::new(),
            count: 0,
            random: seed,
        };
        let cron = Cron {
            version: String::new(),
            generation: 1,
            created: whole(cluster.api_now()),
            spec,
            status: PreScaledCronJobStatus::default(),
            finalizer: false,
            deleted: false,
        };
        // The store is empty.
        cluster.crons.create(cron).ok();
        for operator in 0..operators {
            cluster.due(SignedDuration::ZERO, Due::Starts { operator });
        }
        cluster
    }

    fn api_now(&self) -> Timestamp {
        self.now + milliseconds(self.clocks[0])
    }

    fn node_now(&self) -> Timestamp {
        self.now + milliseconds(self.clocks[1])
    }

    /// The object, while there is one.
    pub fn cron(&self) -> Option<&Cron> {
        self.crons.get(CRON).map(AsRef::as_ref)
    }

    /// A number below another: the next one of splitmix64.
    pub(crate) fn chance(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn troubled(&mut self) -> bool {
        self.chance(100) < u64::from(self.trouble)
    }

    /// A time up to some milliseconds; up to some others if there is trouble.
    fn within(&mut self, usual: u64, trouble: u64) -> SignedDuration {
        let most = if self.troubled() { trouble } else { usual };
        milliseconds(self.chance(most) as i64 + 1)
    }

    fn due(&mut self, wait: SignedDuration, what: Due) {
        self.count += 1;
        self.agenda.insert((self.now + wait.max(SignedDuration::ZERO), self.count), what);
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(told) = &mut self.told {
            told.push(format!("    {now} {}", what()));
        }
    }

    fn breaks(&mut self, promise: String) {
        self.tell(|| format!("BROKEN: {promise}"));
        self.broken.push(format!("{}: {promise}", self.now));
    }

    /// The API server answers nobody for a while.
    pub fn goes_down(&mut self, time: SignedDuration) {
        self.down_until = self.down_until.max(self.now + time);
    }

    fn down(&self) -> bool {
        self.now < self.down_until
    }

    /// Nothing goes wrong any more: the API server answers, operators run, see all soon, and their clocks are right.
    pub fn heal(&mut self) {
        (self.trouble, self.down_until) = (0, self.now);
        for operator in 0..self.operators.len() {
            if let Some(o) = self.operators.get_mut(operator) {
                o.delays = [milliseconds(50); 3];
                o.clock = SignedDuration::ZERO;
            }
            self.due(SignedDuration::ZERO, Due::Starts { operator });
        }
        self.notice();
    }

    /// An operator dies; another takes its place after a while.
    pub fn crash(&mut self, operator: usize, time: SignedDuration) {
        if let Some(o) = self.operators.get_mut(operator) {
            o.die();
            self.due(time, Due::Starts { operator });
        }
    }

    /// What an operator's watches tell comes so late from now on: of the object, Jobs and pods.
    pub fn delay(&mut self, operator: usize, watch: usize, time: SignedDuration) {
        if let Some(o) = self.operators.get_mut(operator) {
            o.delays[watch] = time;
            self.notice();
        }
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
            self.tell(|| format!("edited: {spec:?}"));
            self.notice();
        }
    }

    /// The object is deleted.
    pub fn delete(&mut self) {
        self.crons.delete(CRON, None, None).ok();
        self.tell(|| "the object is deleted".to_owned());
        self.notice();
        self.collect_all();
    }

    /// Somebody deletes a Job, chosen by a number: in the foreground, or in the background.
    pub fn delete_job(&mut self, choice: usize, foreground: bool) {
        if let Some(name) = self.jobs.some(choice) {
            self.tell(|| format!("{name} is deleted by hand, foreground {foreground}"));
            self.remove_job(&name, None, None, foreground).ok();
            self.notice();
        }
    }

    /// Somebody edits a Job, chosen by a number.
    pub fn edit_job(&mut self, choice: usize) {
        if let Some(name) = self.jobs.some(choice) {
            self.tell(|| format!("{name} is edited by hand"));
            self.jobs.change(&name, None, |job| job.edited = true).ok();
            self.notice();
        }
    }

    /// Somebody deletes a pod, chosen by a number.
    pub fn delete_pod(&mut self, choice: usize) {
        if let Some(name) = self.pods.some(choice) {
            self.tell(|| format!("{name} is deleted by hand"));
            self.remove_pod(&name);
            self.notice();
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: SignedDuration) {
        self.until(self.now + time);
    }

    /// Lets time pass until some time.
    pub fn until(&mut self, time: Timestamp) {
        while let Some((&(at, number), _)) = self.agenda.first_key_value()
            && at <= time
        {
            let Some(what) = self.agenda.remove(&(at, number)) else { continue };
            self.set_time(self.now.max(at));
            self.happens(what);
            self.notice();
        }
        self.set_time(self.now.max(time));
    }

    fn set_time(&mut self, now: Timestamp) {
        self.now = now;
        self.crons.set_time(now);
        self.jobs.set_time(now);
        self.pods.set_time(now);
    }

    /// Watches have something to tell that was not there before.
    fn notice(&mut self) {
        for operator in 0..self.operators.len() {
            let down = self.down_until;
            let Some(o) = self.operators.get_mut(operator).filter(|o| o.alive) else { continue };
            let Some(next) = o.tells_at(&self.crons, &self.jobs, &self.pods) else { continue };
            let next = next.max(down).max(self.now);
            if o.telling.is_none_or(|at| at > next) {
                o.telling = Some(next);
                self.due(next.duration_since(self.now), Due::Tells { operator });
            }
        }
    }

    fn happens(&mut self, what: Due) {
        match what {
            Due::Arrives { operator, life, number, write, answered } => {
                let answer = self.write(operator, &write);
                self.tell(|| format!("operator {operator}: {} -> {answer:?}", write.words()));
                let waits = |o: &&mut CronOperator| o.waits_for(life, number);
                if answered && self.operators.get_mut(operator).filter(waits).is_some() {
                    self.learns(operator, &write, answer);
                }
            }
            Due::TimesOut { operator, life, number } => {
                let waiting = self.operators.get_mut(operator).filter(|o| o.waits_for(life, number));
                if let Some(write) = waiting.and_then(|o| o.waited()) {
                    self.tell(|| format!("operator {operator}: {} is not answered", write.words()));
                    self.learns(operator, &write, Answer::Nothing);
                }
            }
            Due::Looks { operator, life } => self.looks(operator, life),
            Due::Tells { operator } => self.tells(operator),
            Due::Starts { operator } => {
                if self.down() {
                    let wait = self.down_until.duration_since(self.now);
                    return self.due(wait, Due::Starts { operator });
                }
                if let Some(o) = self.operators.get_mut(operator).filter(|o| !o.alive) {
                    o.start(&self.crons, &self.jobs, &self.pods);
                }
                self.ask_for_look(operator, milliseconds(1));
            }
            // Controllers wait for the API server.
            what @ (Due::Controls(_) | Due::Collects(_) | Due::Binds(_)) if self.down() => {
                let wait = self.down_until.duration_since(self.now) + self.within(200, 700);
                self.due(wait, what);
            }
            Due::Controls(uid) => self.control(&uid),
            Due::Collects(uid) => self.collect(&uid),
            Due::Binds(pod) => {
                let now = self.api_now();
                self.pods.change(&pod, None, |pod| bound(pod, now)).ok();
                let wait = self.within(3_000, 90_000);
                self.due(wait, Due::Gates(pod));
            }
            Due::Gates(pod) => self.gates(pod),
            Due::Opens(pod) => self.opens(pod),
            Due::Ends(pod, well) => self.ends(&pod, well),
            Due::Goes(pod) => self.goes(&pod),
        }
    }

    // Operators.

    fn ask_for_look(&mut self, operator: usize, wait: SignedDuration) {
        let at = self.now + wait;
        let Some(o) = self.operators.get_mut(operator).filter(|o| o.alive) else { return };
        if o.looks_at.is_none_or(|before| at < before) {
            o.looks_at = Some(at);
            let life = o.life;
            self.due(wait, Due::Looks { operator, life });
        }
    }

    fn tells(&mut self, operator: usize) {
        let (now, down) = (self.now, self.down());
        let Some(o) = self.operators.get_mut(operator).filter(|o| o.alive) else { return };
        o.telling = None;
        if !down && o.tell(&self.crons, &self.jobs, &self.pods, now) {
            self.ask_for_look(operator, milliseconds(1));
        }
    }

    fn looks(&mut self, operator: usize, life: u64) {
        let now = self.now;
        let Some(o) = self.operators.get_mut(operator) else { return };
        if !o.alive || o.life != life || o.looks_at.is_none_or(|at| at > now) {
            return;
        }
        o.looks_at = None;
        if o.busy() {
            o.again = true;
            return;
        }
        let words = o.look(now);
        self.tell(|| format!("operator {operator} {words}"));
        self.goes_on(operator);
    }

    /// An operator makes its next request, or rests.
    fn goes_on(&mut self, operator: usize) {
        let now = self.now;
        let Some(o) = self.operators.get_mut(operator) else { return };
        let write = o.next_write(now);
        let (life, number) = (o.life, o.number);
        let Some(write) = write else {
            if let Some(wait) = o.rest(now) {
                self.ask_for_look(operator, wait);
            }
            return;
        };
        let (latency, answered, lost) = if self.troubled() {
            (milliseconds(self.chance(14_900) as i64), self.chance(3) > 0, self.chance(4) == 0)
        } else {
            (milliseconds(1 + self.chance(30) as i64), true, false)
        };
        if !lost {
            let write = Box::new(write);
            self.due(latency, Due::Arrives { operator, life, number, write, answered });
        }
        self.due(crate::cron_operator::PATIENCE, Due::TimesOut { operator, life, number });
    }

    fn learns(&mut self, operator: usize, write: &Write, answer: Answer) {
        let now = self.now;
        if let Some(o) = self.operators.get_mut(operator) {
            o.learn(write, answer, now);
        }
        self.goes_on(operator);
    }

    // The API server.

    fn write(&mut self, operator: usize, write: &Write) -> Answer {
        if self.down() {
            return Answer::Nothing;
        }
        let done = |result: Result<(), Refusal>| match result {
            Ok(()) => Answer::Done,
            Err(Refusal::NotFound) => Answer::NotFound,
            Err(_) => Answer::Conflict,
        };
        let answer = match write {
            Write::Read => match self.crons.get(CRON) {
                Some(cron) => return Answer::Object(cron.clone()),
                None => return Answer::NotFound,
            },
            Write::ReadJob { instant } => {
                let name = names::cron_job(CRON, CRON_UID, *instant);
                return self.jobs.get(&name).map_or(Answer::NotFound, |job| Answer::Job(job.clone()));
            }
            Write::Finalizer { version, on } => self.finalizer(version, *on),
            Write::Create { instant, spec, now } => self.create(*instant, *spec, *now),
            Write::Status { version, status, told, spec, generation } => {
                self.status(operator, version, status, told, *spec, *generation)
            }
            Write::Delete { name, uid, version, foreground } => {
                done(self.remove_job(name, Some(uid), version.as_deref(), *foreground))
            }
            Write::Pod { name, uid } => match self.pods.get(name).filter(|pod| &pod.uid == uid) {
                Some(_) => {
                    self.remove_pod(name);
                    Answer::Done
                }
                None => Answer::NotFound,
            },
            Write::LetGo { name, uid } => match self.jobs.get(name).filter(|job| &job.uid == uid) {
                Some(_) => {
                    self.let_go(name);
                    Answer::Done
                }
                None => Answer::NotFound,
            },
        };
        if !matches!(answer, Answer::NotFound | Answer::Conflict | Answer::Existed) {
            self.writes += 1;
        }
        answer
    }

    fn finalizer(&mut self, version: &str, on: bool) -> Answer {
        let Some(cron) = self.crons.get(CRON) else { return Answer::NotFound };
        if cron.version() != version {
            return Answer::Conflict;
        }
        let deleted = cron.deleted;
        self.crons.change(CRON, None, |cron| cron.finalizer = on).ok();
        if deleted && !on {
            self.crons.finish(CRON);
            self.collect_all();
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
    ) -> Answer {
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
                .breaks(format!("I5: what was decided up to {from} is open again: {:?}", new.decided_until));
        };
        let named = std::iter::successors(rules.after(from), |last| rules.after(*last));
        let named: BTreeSet<Timestamp> = named.take_while(|at| *at <= to).take(9_000).collect();
        let (before, after) = (old.missed_count + old.skipped_count, new.missed_count + new.skipped_count);
        let had = self.truth.values().filter(|job| !job.void).map(|job| job.instant);
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
            self.breaks(words);
        }
    }

    fn create(&mut self, instant: Timestamp, spec: CronSpec, planned: Timestamp) -> Answer {
        let uid = format!("job-{}", self.truth.len());
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
            uid: uid.clone(),
            resource_version: String::new(),
            slot: None,
            created: whole(self.api_now()),
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
        let Ok(made) = self.jobs.create(new) else { return Answer::Existed };
        let patience = crate::cron_operator::PLAN_HOLDS + crate::cron_operator::PATIENCE;
        let late = self.now.duration_since(instant) - patience - CLOCKS;
        if spec.deadline.is_some_and(|deadline| late > SignedDuration::from_secs(deadline)) {
            self.breaks(format!("deadline: a run of {instant} is made"));
        }
        let truth = JobTruth {
            instant,
            made: self.now,
            deleted: None,
            void: false,
            begun: false,
            failed: false,
            spec,
            gate,
            succeeded: 0,
            failures: 0,
            pods: BTreeSet::new(),
            made_pods: 0,
        };
        self.truth.insert(uid.clone(), truth);
        let wait = self.within(300, 5_000);
        self.due(wait, Due::Controls(uid.clone()));
        if self.cron().is_none() {
            // Its owner is gone.
            let wait = self.within(700, 700);
            self.due(wait, Due::Collects(uid));
        }
        Answer::Job(made)
    }

    fn remove_job(
        &mut self,
        name: &str,
        uid: Option<&str>,
        version: Option<&str>,
        foreground: bool,
    ) -> Result<(), Refusal> {
        let job = self.jobs.get(name).cloned().ok_or(Refusal::NotFound)?;
        if uid.is_some_and(|u| u != job.uid) || version.is_some_and(|v| v != job.resource_version) {
            return Err(Refusal::Conflict);
        }
        let (now, api_now) = (self.now, whole(self.api_now()));
        if let Some(truth) = self.truth.get_mut(&job.uid) {
            truth.deleted.get_or_insert(now);
        }
        self.jobs.change(name, None, |job| {
            job.terminating = true;
            job.deleted_at.get_or_insert(api_now);
            if foreground && !job.finalizers.iter().any(|f| f == FOREGROUND) {
                job.finalizers.push(FOREGROUND.to_owned());
            }
        })?;
        self.drop_job(name);
        let wait = self.within(700, 700);
        self.due(wait, Due::Collects(job.uid.clone()));
        Ok(())
    }

    /// A Job that is deleted and that nothing holds is gone.
    fn drop_job(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name).filter(|job| job.terminating && job.finalizers.is_empty()) else {
            return;
        };
        let uid = job.uid.clone();
        self.jobs.erase(name);
        let wait = self.within(700, 700);
        self.due(wait, Due::Collects(uid));
    }

    fn let_go(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name).cloned() else { return };
        self.jobs.change(name, None, |job| job.finalizers.retain(|f| f != keys::OUTCOME)).ok();
        if let Some(truth) = self.truth.get_mut(&job.uid) {
            truth.void |= job.terminating && !truth.begun && self.now < truth.instant;
        }
        self.drop_job(name);
    }

    /// A pod is deleted: the kubelet ends it soon, one at work within its grace period.
    fn remove_pod(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name).cloned().filter(|pod| !pod.terminating) else { return };
        if pod.node.is_none() || pod.phase.is_terminal() {
            return self.goes(name);
        }
        self.pods.change(name, None, |pod| pod.terminating = true).ok();
        let at_work = self.pods_truth.get(name).is_some_and(|truth| truth.at_work);
        let kill = if at_work { self.within(8_000, 30_000) } else { self.within(700, 700) };
        let killed = self.now + kill;
        self.pods_truth.entry(name.to_owned()).or_default().killed = Some(killed);
        let wait = kill + self.within(500, 5_000);
        self.due(wait, Due::Goes(name.to_owned()));
        let wait = self.within(300, 2_000);
        self.due(wait, Due::Controls(job_of(&pod).to_owned()));
    }

    // Kubernetes' controllers.

    /// The Job controller counts pods that ended or are deleted, makes one that is missing, and ends the Job.
    fn control(&mut self, uid: &str) {
        let Some(job) = self.jobs.by_uid(uid).cloned() else { return };
        let api_now = self.api_now();
        let Some(truth) = self.truth.get_mut(uid) else { return };
        let mut ending = 0;
        for name in truth.pods.clone() {
            let pod = self.pods.get(&name);
            match pod.map(|pod| (pod.phase, pod.terminating)) {
                Some((Phase::Succeeded, _)) => truth.succeeded += 1,
                Some((Phase::Failed, _)) | None => truth.failures += 1,
                Some((_, true)) => {
                    ending += 1;
                    continue;
                }
                Some(_) => continue,
            }
            truth.pods.remove(&name);
        }
        let active = truth.pods.len() - ending;
        let failed = truth.failures + ending as u32 > truth.spec.backoff_limit;
        let over = truth.succeeded > 0 || failed;
        let mut finished = job.finished.clone();
        if finished.is_none() && over && truth.pods.is_empty() {
            let (well, begun) = (truth.succeeded > 0, truth.begun);
            let why = (!well).then(|| "BackoffLimitExceeded".to_owned());
            finished = Some(Finished { well, at: Some(whole(api_now)), why });
            truth.failed = !well && !begun && truth.deleted.is_none();
        }
        if finished.is_none() && !over && active == 0 && !job.terminating {
            truth.made_pods += 1;
            let name = format!("{uid}-{}", truth.made_pods);
            truth.pods.insert(name.clone());
            let mut new = PodView { name: name.clone(), uid: name.clone(), slot: None, ..pod(0, api_now) };
            new.labels = BTreeMap::from([(JOB.to_owned(), uid.to_owned())]);
            self.pods.create(new).ok();
            let wait = self.within(500, 60_000);
            self.due(wait, Due::Binds(name));
            let wait = self.within(200, 2_000);
            self.due(wait, Due::Controls(uid.to_owned()));
        }
        let (succeeded, failures) = (self.truth[uid].succeeded, self.truth[uid].failures + ending as u32);
        self.jobs
            .change(&job.name, None, |job| {
                (job.active, job.succeeded, job.failed) = (active as u32, succeeded, failures);
                job.finished = finished;
            })
            .ok();
    }

    /// The garbage collector deletes what belongs to something that is gone or waits for it.
    fn collect(&mut self, uid: &str) {
        let job = self.jobs.by_uid(uid).cloned();
        let Some(job) = job else {
            for pod in self.pods_of(uid) {
                self.remove_pod(&pod);
            }
            return;
        };
        if self.cron().is_none() && !job.terminating {
            self.remove_job(&job.name, None, None, false).ok();
            return;
        }
        if job.terminating && job.finalizers.iter().any(|f| f == FOREGROUND) {
            let pods = self.pods_of(uid);
            for pod in &pods {
                self.remove_pod(pod);
            }
            if self.pods_of(uid).is_empty() {
                self.jobs.change(&job.name, None, |job| job.finalizers.retain(|f| f != FOREGROUND)).ok();
                self.drop_job(&job.name);
            }
        }
    }

    fn pods_of(&self, job: &str) -> Vec<String> {
        self.pods.iter().filter(|pod| job_of(pod) == job).map(|pod| pod.name.clone()).collect()
    }

    fn collect_all(&mut self) {
        if self.cron().is_none() {
            for job in self.jobs.iter().map(|job| job.uid.clone()).collect::<Vec<_>>() {
                let wait = self.within(700, 700);
                self.due(wait, Due::Collects(job));
            }
        }
    }

    // The kubelet and the gate.

    fn gates(&mut self, name: String) {
        let now = self.node_now();
        let Some(pod) = self.pods.get(&name).cloned().filter(|pod| pod.node.is_some()) else { return };
        let Some(truth) = self.truth.get(job_of(&pod)) else { return };
        let (gate, exec) = (truth.gate, truth.spec.gate == Gate::Exec);
        self.pods
            .change(&name, None, |pod| {
                if exec {
                    (pod.phase, pod.containers_started) = (Phase::Running, Some(whole(now)));
                } else {
                    pod.gate_started = Some(whole(now));
                }
            })
            .ok();
        self.due(gate.duration_since(now).max(milliseconds(5)), Due::Opens(name));
    }

    fn opens(&mut self, name: String) {
        let now = self.now;
        let Some(pod) = self.pods.get(&name).cloned() else { return };
        if self
            .pods_truth
            .get(&name)
            .is_some_and(|truth| truth.gone || truth.killed.is_some_and(|at| at <= now))
        {
            return;
        }
        self.pods_truth.entry(name.clone()).or_default().at_work = true;
        let node_now = self.node_now();
        self.pods
            .change(&name, None, |pod| {
                (pod.phase, pod.containers_started) = (Phase::Running, Some(whole(node_now)));
            })
            .ok();
        self.tell(|| format!("{name} begins its work"));
        self.begins(job_of(&pod), node_now);
        let well = self.chance(5) > 0;
        let long = [1_000, 15_000, 70_000, 200_000][self.chance(4) as usize];
        self.due(milliseconds(long), Due::Ends(name, well));
    }

    /// The work of a run begins.
    fn begins(&mut self, uid: &str, node_now: Timestamp) {
        let Some(job) = self.truth.get_mut(uid) else { return };
        job.begun = true;
        let (instant, spec) = (job.instant, job.spec);
        if node_now < instant {
            self.breaks(format!("{uid} begins its work before {instant}"));
        }
        let others =
            |(other, job): &(&String, &JobTruth)| job.instant == instant && job.begun && *other != uid;
        if let Some((other, _)) = self.truth.iter().find(others) {
            let words = format!("I5: {uid} and {other} both begin the work of {instant}");
            self.breaks(words);
        }
        let now_forbidden =
            self.cron().is_some_and(|cron| cron.spec.concurrency == ConcurrencyPolicy::Forbid);
        if now_forbidden
            && spec.concurrency == ConcurrencyPolicy::Forbid
            && self.now > self.beside_allowed_until
        {
            let at_work: HashSet<String> = self.at_work();
            if let Some(other) = at_work.iter().find(|other| *other != uid) {
                self.breaks(format!("Forbid: {uid} begins its work beside {other}"));
            }
        }
    }

    /// Jobs of which a pod is at work.
    pub fn at_work(&self) -> HashSet<String> {
        let at_work = |pod: &&std::sync::Arc<PodView>| {
            self.pods_truth.get(&pod.name).is_some_and(|truth| truth.at_work)
        };
        self.pods.iter().filter(at_work).map(|pod| job_of(pod).to_owned()).collect()
    }

    fn ends(&mut self, name: &str, well: bool) {
        let now = self.node_now();
        let Some(pod) = self.pods.get(name).cloned() else { return };
        self.pods_truth.entry(name.to_owned()).or_default().at_work = false;
        self.pods.change(name, None, |pod| end(pod, well, now)).ok();
        let wait = self.within(300, 3_000);
        self.due(wait, Due::Controls(job_of(&pod).to_owned()));
    }

    fn goes(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name).cloned() else { return };
        let truth = self.pods_truth.entry(name.to_owned()).or_default();
        (truth.gone, truth.at_work) = (true, false);
        self.pods.erase(name);
        let uid = job_of(&pod).to_owned();
        let wait = self.within(300, 3_000);
        self.due(wait, Due::Controls(uid.clone()));
        let wait = self.within(500, 700);
        self.due(wait, Due::Collects(uid));
    }
}

fn bound(pod: &mut PodView, now: Timestamp) {
    pod.node = Some("node".to_owned());
    pod.conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        reason: None,
        since: Some(whole(now)),
    });
}
