//! An object whose Jobs are kept, in a simulated cluster: the object, its Jobs and their pods, nodes, and operators that see
//! all that late. Everything goes on by itself as time passes; the stories say what goes wrong. What holds for each kind
//! of such an object is checked here at each request; what holds for one kind stands with the kind.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stoker_api::keys;
use stoker_core::kept::Upkeep;
use stoker_core::pool::JobView;

use crate::keeper::{Answer, Keeper, Kind, Node, OWN, Own, Sabotage, Stores, WAITS, Wanted, Write, name};
use crate::store::{Object as _, Refusal, Store};
use crate::world::{Due, JobTruth, Moment, Work, World, milliseconds};

/// By then every request has arrived, and every watch has told what came of it.
const CALM: SignedDuration = SignedDuration::from_secs(60);

/// What a kind promises.
pub trait Promises: Kind {
    /// Which attempt of which part a Job is.
    fn attempt(part: &Self::Part) -> String;
    /// The only node on which a part's pods start.
    fn node(part: &Self::Part) -> Option<String>;
    /// Which promises a Job breaks by being created now.
    fn created(cluster: &KeptCluster<Self>, wanted: &Wanted<Self>) -> Vec<String>;
    /// Which promises a status breaks in the place of the one that is written.
    fn written(cluster: &KeptCluster<Self>, old: &Own<Self>, new: &Self::Status) -> Vec<String>;
    /// Whether a status tells what became of a Job, so that it may be let go; else what is missing.
    fn recorded(status: &Self::Status, job: &JobTruth<Wanted<Self>>) -> Result<(), String>;
}

/// A request on its way.
struct Flight<K: Kind> {
    operator: usize,
    life: u64,
    /// 0 = of its look, 1 = of its status.
    channel: usize,
    write: Write<K>,
    answered: bool,
    /// How often it is still to arrive, or to be given up.
    ends: u32,
}

/// The truth, and those who see it late.
pub struct KeptCluster<K: Kind> {
    /// Jobs and pods.
    pub world: World<Wanted<K>>,
    /// The object.
    pub objects: Store<Own<K>>,
    /// The nodes.
    pub nodes: Store<Node>,
    /// The operators; each believes that it leads.
    pub operators: Vec<Keeper<K>>,
    /// Requests that changed something.
    pub writes: usize,
    /// Since when nobody has changed the spec, and requests went as usual.
    pub calm_since: Timestamp,
    /// When nodes left, by UID.
    pub left: BTreeMap<String, Timestamp>,
    flights: HashMap<u64, Flight<K>>,
    flown: u64,
}

impl<K: Promises> KeptCluster<K> {
    /// A cluster in which the object was just created; chance follows from a seed.
    pub fn new(own: Own<K>, start: Timestamp, operators: usize, clocks: [i64; 2], seed: u64) -> Self {
        let mut cluster = Self {
            world: World::new(start, clocks, seed),
            objects: Store::new(start),
            nodes: Store::new(start),
            operators: (0..operators).map(Keeper::new).collect(),
            writes: 0,
            calm_since: start,
            left: BTreeMap::new(),
            flights: HashMap::new(),
            flown: 0,
        };
        // The store is empty.
        cluster.objects.create(own).ok();
        for operator in 0..operators {
            cluster.at_once(Moment::Starts(operator));
        }
        cluster
    }

    /// The true time.
    pub fn now(&self) -> Timestamp {
        self.world.now
    }

    /// The object, while there is one.
    pub fn own(&self) -> Option<&Own<K>> {
        self.objects.get(OWN).map(AsRef::as_ref)
    }

    /// All operators break a rule from now on.
    pub fn sabotage(&mut self, what: Sabotage) {
        self.operators.iter_mut().for_each(|operator| operator.sabotage = Some(what));
    }

    fn at_once(&mut self, moment: Moment) {
        self.world.due(SignedDuration::ZERO, Due::Operator(moment));
    }

    fn disturbed(&mut self) {
        self.calm_since = self.world.now;
    }

    /// How many Jobs may be at work where the operator is allowed some: as many for each that believes that it leads. None
    /// = somebody has changed that lately, or requests are on their way that nobody remembers.
    pub fn at_work_at_most(&self, allowed: usize) -> Option<usize> {
        let calm = self.world.now.duration_since(self.calm_since) > CALM;
        calm.then(|| allowed.saturating_mul(self.operators.len()))
    }

    /// Of a hundred things, so many go otherwise than usual from now on.
    pub fn trouble(&mut self, trouble: u32) {
        self.world.trouble = trouble;
        self.disturbed();
    }

    /// The API server answers nobody for a while.
    pub fn goes_down(&mut self, time: SignedDuration) {
        self.world.goes_down(time);
        self.calm_since = self.world.now + time;
    }

    /// Nothing goes wrong any more: the API server answers, operators run, see all soon, and their clocks are right.
    pub fn heal(&mut self) {
        self.trouble(0);
        self.world.comes_up();
        for operator in 0..self.operators.len() {
            self.operators[operator].delays = [milliseconds(50); 4];
            self.operators[operator].clock = SignedDuration::ZERO;
            self.at_once(Moment::Starts(operator));
        }
        self.notice();
    }

    /// An operator dies; another takes its place after a while.
    pub fn crash(&mut self, operator: usize, time: SignedDuration) {
        self.operators[operator].die();
        self.world.due(time, Due::Operator(Moment::Starts(operator)));
        self.disturbed();
    }

    /// What an operator's watches tell comes so late from now on: of the object, Jobs, pods and nodes.
    pub fn delay(&mut self, operator: usize, watch: usize, time: SignedDuration) {
        self.operators[operator].delays[watch] = time;
        self.notice();
    }

    /// The spec changes.
    pub fn edit(&mut self, change: impl FnOnce(&mut K::Spec)) {
        let Some(mut spec) = self.own().filter(|own| !own.deleted).map(|own| own.spec.clone()) else {
            return;
        };
        change(&mut spec);
        let edited = |own: &mut Own<K>| {
            own.generation += i64::from(own.spec != spec);
            own.spec = spec;
        };
        self.objects.change(OWN, None, edited).ok();
        self.disturbed();
        self.notice();
    }

    /// The object gets an annotation.
    pub fn annotate(&mut self, key: &str, value: &str) {
        let annotated = |own: &mut Own<K>| drop(own.annotations.insert(key.to_owned(), value.to_owned()));
        self.objects.change(OWN, None, annotated).ok();
        self.notice();
    }

    /// The object is deleted.
    pub fn delete(&mut self) {
        self.objects.delete(OWN, None, None).ok();
        self.disown();
        self.notice();
    }

    fn disown(&mut self) {
        if self.own().is_none() && self.world.owned {
            self.world.disown();
        }
    }

    /// Somebody deletes a Job, chosen by a number: in the foreground, or in the background.
    pub fn delete_job(&mut self, choice: usize, foreground: bool) {
        if let Some(name) = self.world.jobs.some(choice) {
            self.world.tell(|| format!("{name} is deleted by hand, foreground {foreground}"));
            self.world.remove_job(&name, None, None, foreground).ok();
            self.notice();
        }
    }

    /// Somebody deletes a pod, chosen by a number.
    pub fn delete_pod(&mut self, choice: usize) {
        if let Some(name) = self.world.pods.some(choice) {
            self.world.tell(|| format!("{name} is deleted by hand"));
            self.world.remove_pod(&name);
            self.notice();
        }
    }

    /// A node joins.
    pub fn node_joins(&mut self, name: &str, uid: &str) {
        if self.nodes.create(Node::new(name, uid)).is_ok() {
            self.world.nodes.insert(name.to_owned());
            self.notice();
        }
    }

    /// A node changes.
    pub fn node_changes(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        self.nodes.change(name, None, change).ok();
        self.notice();
    }

    /// A node leaves.
    pub fn node_leaves(&mut self, name: &str) {
        let Some(node) = self.nodes.get(name) else { return };
        self.left.insert(node.uid().to_owned(), self.world.now);
        self.nodes.erase(name);
        self.world.node_leaves(name);
        self.notice();
    }

    /// Lets time pass until some time.
    pub fn until(&mut self, time: Timestamp) {
        while let Some(due) = self.world.next(time) {
            self.objects.set_time(self.world.now);
            self.nodes.set_time(self.world.now);
            match due {
                Due::Operator(moment) => self.happens(moment),
                due => drop(self.world.happens(due)),
            }
            self.notice();
        }
        self.objects.set_time(self.world.now);
        self.nodes.set_time(self.world.now);
    }

    /// Watches have something to tell that was not there before.
    fn notice(&mut self) {
        let down = self.world.down_for().unwrap_or_default();
        for number in 0..self.operators.len() {
            let Self { operators, world, objects, nodes, .. } = self;
            let Some(operator) = operators.get_mut(number).filter(|o| o.alive) else { continue };
            let stores = Stores { objects, jobs: &world.jobs, pods: &world.pods, nodes };
            let Some(next) = operator.tells_at(stores) else { continue };
            let next = next.max(world.now + down);
            if operator.telling.is_none_or(|at| at > next) {
                operator.telling = Some(next);
                world.due(next.duration_since(world.now), Due::Operator(Moment::Tells(number)));
            }
        }
    }

    // Operators.

    fn happens(&mut self, moment: Moment) {
        match moment {
            Moment::Arrives(flight) => self.arrives(flight),
            Moment::TimesOut(flight) => self.times_out(flight),
            Moment::Looks(operator, life) => self.looks(operator, life),
            Moment::Posts(operator, life) => self.posts(operator, life),
            Moment::Tells(operator) => self.tells(operator),
            Moment::Starts(operator) => self.starts(operator),
        }
    }

    fn starts(&mut self, number: usize) {
        if let Some(wait) = self.world.down_for() {
            return self.world.due(wait, Due::Operator(Moment::Starts(number)));
        }
        let Self { operators, world, objects, nodes, .. } = self;
        if let Some(operator) = operators.get_mut(number).filter(|o| !o.alive) {
            operator.start(Stores { objects, jobs: &world.jobs, pods: &world.pods, nodes });
        }
        self.ask_for_look(number, milliseconds(1));
    }

    fn ask_for_look(&mut self, number: usize, wait: SignedDuration) {
        let at = self.world.now + wait;
        let operator = &mut self.operators[number];
        if operator.alive && operator.looks_at.is_none_or(|before| at < before) {
            operator.looks_at = Some(at);
            self.world.due(wait, Due::Operator(Moment::Looks(number, operator.life)));
        }
    }

    fn tells(&mut self, number: usize) {
        let down = self.world.down_for().is_some();
        let Self { operators, world, objects, nodes, .. } = self;
        let Some(operator) = operators.get_mut(number).filter(|o| o.alive) else { return };
        operator.telling = None;
        let stores = Stores { objects, jobs: &world.jobs, pods: &world.pods, nodes };
        if !down && operator.tell(stores, world.now) {
            self.ask_for_look(number, milliseconds(1));
        }
    }

    fn looks(&mut self, number: usize, life: u64) {
        let now = self.world.now;
        let operator = &mut self.operators[number];
        if !operator.alive || operator.life != life || operator.looks_at.is_none_or(|at| at > now) {
            return;
        }
        operator.looks_at = None;
        if operator.busy() {
            operator.again = true;
            return;
        }
        let words = operator.look(now);
        self.world.tell(|| format!("operator {number} {words}"));
        self.goes_on(number);
    }

    /// An operator makes the next request of its look, or rests.
    fn goes_on(&mut self, number: usize) {
        let now = self.world.now;
        let operator = &mut self.operators[number];
        match operator.next_write(now) {
            Some(write) => self.send(number, 0, write),
            None => {
                if let Some(wait) = operator.rest(now) {
                    self.ask_for_look(number, wait);
                }
                self.ask_for_post(number);
            }
        }
    }

    fn ask_for_post(&mut self, number: usize) {
        let operator = &self.operators[number];
        if let Some(wait) = operator.posts_in(self.world.now) {
            self.world.due(wait, Due::Operator(Moment::Posts(number, operator.life)));
        }
    }

    fn posts(&mut self, number: usize, life: u64) {
        let now = self.world.now;
        let operator = &mut self.operators[number];
        if operator.life != life || !operator.alive || operator.posts_in(now) != Some(SignedDuration::ZERO) {
            return;
        }
        match operator.post(now) {
            Some(write) => self.send(number, 1, write),
            None => self.ask_for_look(number, milliseconds(1)),
        }
    }

    fn send(&mut self, number: usize, channel: usize, write: Write<K>) {
        let (latency, answered, lost, doubled) = if self.world.troubled() {
            let latency = milliseconds(self.world.chance(14_900) as i64);
            (latency, self.world.chance(3) > 0, self.world.chance(4) == 0, self.world.chance(3) == 0)
        } else {
            (milliseconds(1 + self.world.chance(30) as i64), true, false, false)
        };
        self.flown += 1;
        let id = self.flown;
        if !lost {
            self.world.due(latency, Due::Operator(Moment::Arrives(id)));
        }
        if doubled {
            let again = milliseconds(self.world.chance(14_900) as i64);
            self.world.due(again, Due::Operator(Moment::Arrives(id)));
        }
        self.world.due(WAITS, Due::Operator(Moment::TimesOut(id)));
        let operator = &mut self.operators[number];
        operator.flights[channel] = Some(id);
        let ends = 1 + u32::from(!lost) + u32::from(doubled);
        let flight = Flight { operator: number, life: operator.life, channel, write, answered, ends };
        self.flights.insert(id, flight);
    }

    fn arrives(&mut self, id: u64) {
        let Some(flight) = self.flights.get(&id) else { return };
        let (number, write, answered) = (flight.operator, flight.write.clone(), flight.answered);
        let answer = self.write(&write);
        self.world.tell(|| format!("operator {number}: {} -> {answer:?}", write.words()));
        if answered {
            self.learns(id, answer);
        }
        self.ends(id);
    }

    fn times_out(&mut self, id: u64) {
        self.learns(id, Answer::Nothing);
        self.ends(id);
    }

    fn ends(&mut self, id: u64) {
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.ends -= 1;
            if flight.ends == 0 {
                self.flights.remove(&id);
            }
        }
    }

    /// An operator takes note of an answer, if it still waits for it.
    fn learns(&mut self, id: u64, answer: Answer<K>) {
        let Some(flight) = self.flights.get(&id) else { return };
        let (number, channel, write) = (flight.operator, flight.channel, flight.write.clone());
        let now = self.world.now;
        let operator = &mut self.operators[number];
        if operator.life != flight.life || operator.flights[channel] != Some(id) {
            return;
        }
        operator.flights[channel] = None;
        if channel == 0 {
            operator.learn(write, answer, now);
            return self.goes_on(number);
        }
        let (next, wait) = operator.posted(&write, answer, now);
        if let Some(wait) = wait {
            self.ask_for_look(number, wait);
        }
        match next {
            Some(write) => self.send(number, 1, write),
            None => self.ask_for_post(number),
        }
    }

    // The API server.

    fn write(&mut self, write: &Write<K>) -> Answer<K> {
        if self.world.down_for().is_some() {
            return Answer::Nothing;
        }
        let done = |result: Result<(), Refusal>| match result {
            Ok(()) => Answer::Done,
            Err(Refusal::NotFound) => Answer::NotFound,
            Err(_) => Answer::Conflict,
        };
        let answer = match write {
            Write::Read => {
                return self.objects.get(OWN).map_or(Answer::NotFound, |own| Answer::Object(own.clone()));
            }
            Write::ReadJob(wanted) => {
                let job = self.world.jobs.get(name(&wanted.body));
                return job.map_or(Answer::NotFound, |job| Answer::Job(job.clone()));
            }
            Write::Finalizer { version, on } => self.finalizer(version, *on),
            Write::Create(wanted) => self.create(wanted),
            Write::Status { version, status } => self.status(version, status),
            Write::Delete { version } => {
                let deleted = self.objects.delete(OWN, None, Some(version)).map(drop);
                self.disown();
                done(deleted)
            }
            Write::Upkeep(Upkeep::Delete { name, uid, version }) => {
                done(self.world.remove_job(name, Some(uid), version.as_deref(), true))
            }
            Write::Upkeep(Upkeep::EndPod { pod, uid }) => {
                match self.world.pods.get(pod).filter(|pod| &pod.uid == uid) {
                    Some(_) => {
                        self.world.remove_pod(pod);
                        Answer::Done
                    }
                    None => Answer::NotFound,
                }
            }
            Write::Upkeep(Upkeep::LetGo { name, uid }) => self.let_go(name, uid),
        };
        if !matches!(answer, Answer::NotFound | Answer::Conflict | Answer::Existed) {
            self.writes += 1;
        }
        answer
    }

    fn finalizer(&mut self, version: &str, on: bool) -> Answer<K> {
        let Some(own) = self.objects.get(OWN) else { return Answer::NotFound };
        if own.version() != version {
            return Answer::Conflict;
        }
        let deleted = own.deleted;
        self.objects.change(OWN, None, |own| own.finalizer = on).ok();
        if deleted && !on {
            self.objects.finish(OWN);
            self.disown();
        }
        Answer::Done
    }

    fn status(&mut self, version: &str, status: &K::Status) -> Answer<K> {
        let Some(own) = self.objects.get(OWN).cloned() else { return Answer::NotFound };
        if own.version() != version {
            return Answer::Conflict;
        }
        for promise in K::written(self, &own, status) {
            self.world.breaks(promise);
        }
        match self.objects.change(OWN, None, |own| own.status = status.clone()) {
            Ok(own) => Answer::Object(own),
            Err(_) => Answer::NotFound,
        }
    }

    fn create(&mut self, wanted: &Wanted<K>) -> Answer<K> {
        if self.world.jobs.get(name(&wanted.body)).is_some() {
            return Answer::Existed;
        }
        // Of an object that goes every Job goes.
        if self.own().is_some_and(|own| !own.deleted) {
            let attempt = K::attempt(&wanted.part);
            let mut broken = K::created(self, wanted);
            if self.world.truth.values().any(|job| K::attempt(&job.what.part) == attempt) {
                broken.push(format!("I6: a second Job for {attempt}"));
            }
            broken.into_iter().for_each(|promise| self.world.breaks(promise));
        }
        let number = |field: &str| wanted.body["spec"][field].as_i64();
        let work = Work {
            held: None,
            backoff_limit: number("backoffLimit").unwrap_or(6) as u32,
            ttl: number("ttlSecondsAfterFinished"),
            node: K::node(&wanted.part),
        };
        match self.world.create_job(view(&wanted.body), wanted.clone(), work) {
            Ok(job) => Answer::Job(job.into()),
            Err(_) => Answer::Existed,
        }
    }

    /// A Job is let go, which its outcome must be recorded for (I6).
    fn let_go(&mut self, name: &str, uid: &str) -> Answer<K> {
        let Some(job) = self.world.jobs.get(name).filter(|job| job.uid == uid) else {
            return Answer::NotFound;
        };
        let kept = job.finalizers.iter().any(|finalizer| finalizer == keys::OUTCOME);
        let own = self.objects.get(OWN).filter(|own| !own.deleted && kept).cloned();
        if let (Some(own), Some(truth)) = (own, self.world.truth.get(uid))
            && let Err(words) = K::recorded(&own.status, truth)
        {
            self.world.breaks(format!("I6: {name} is let go: {words}"));
        }
        self.world.let_go(name);
        Answer::Done
    }
}

/// A Job as it is created.
fn view(body: &Value) -> JobView {
    let texts = |of: &Value| -> BTreeMap<String, String> {
        let texts = of.as_object().into_iter().flatten();
        texts.filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned()))).collect()
    };
    let finalizers = body["metadata"]["finalizers"].as_array().into_iter().flatten();
    JobView {
        name: name(body).to_owned(),
        uid: String::new(),
        resource_version: String::new(),
        slot: None,
        created: Timestamp::UNIX_EPOCH,
        terminating: false,
        deleted_at: None,
        finalizers: finalizers.filter_map(|finalizer| finalizer.as_str().map(str::to_owned)).collect(),
        edited: false,
        finished: None,
        parallelism: 1,
        completions: Some(1),
        active: 0,
        succeeded: 0,
        failed: 0,
        template_hash: texts(&body["metadata"]["labels"]).remove(keys::TEMPLATE_HASH),
        annotations: texts(&body["metadata"]["annotations"]),
    }
}
