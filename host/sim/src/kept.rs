//! An object whose Jobs are kept, in a simulated cluster: the object, its Jobs and their pods, nodes, and operators that see
//! all that late. Everything goes on by itself as time passes; the stories say what goes wrong. What holds for each kind
//! of such an object is checked here at each request; what holds for one kind stands with the kind.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stoker_api::keys;
use stoker_core::kept::Upkeep;
use stoker_core::pool::JobView;

use crate::keeper::{Keeper, Kind, Sabotage, Wanted, Write, name};
use crate::kept_object::{Node, OWN, Own, Stores};
use crate::shell::{Answer, Channel, Driven as _, Flight, Flights, Parts, Shell};
use crate::store::{Object as _, Store};
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
    flights: Flights<Write<K>>,
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
            flights: Flights::default(),
        };
        // The store is empty.
        cluster.objects.create(own).ok();
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
    pub fn own(&self) -> Option<&Own<K>> {
        self.objects.get(OWN).map(AsRef::as_ref)
    }

    /// All operators break a rule from now on.
    pub fn sabotage(&mut self, what: Sabotage) {
        self.operators.iter_mut().for_each(|operator| operator.sabotage = Some(what));
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
        self.mend_operators();
    }

    /// An operator dies; another takes its place after a while.
    pub fn crash(&mut self, operator: usize, time: SignedDuration) {
        self.replace(operator, time);
        self.disturbed();
    }

    /// What an operator's watches tell comes so late from now on: of the object, Jobs, pods and nodes.
    pub fn delay(&mut self, operator: usize, watch: usize, time: SignedDuration) {
        self.operators[operator].set_delay(Some(watch), time);
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
        self.world.remove_some_job(choice, foreground);
        self.notice();
    }

    /// Somebody deletes a pod, chosen by a number.
    pub fn delete_pod(&mut self, choice: usize) {
        self.world.remove_some_pod(choice);
        self.notice();
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
                Due::Operator(moment) => self.drive(moment),
                due => drop(self.world.happens(due)),
            }
            self.notice();
        }
        self.objects.set_time(self.world.now);
        self.nodes.set_time(self.world.now);
    }

    // The API server.

    fn finalizer(&mut self, version: &str, on: bool) -> Answer<Own<K>> {
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

    fn status(&mut self, version: &str, status: &K::Status) -> Answer<Own<K>> {
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

    fn create(&mut self, wanted: &Wanted<K>) -> Answer<Own<K>> {
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
    fn let_go(&mut self, name: &str, uid: &str) -> Answer<Own<K>> {
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

impl<K: Promises> Shell for KeptCluster<K> {
    type Operator = Keeper<K>;
    type What = Wanted<K>;
    type Object = Own<K>;

    const DOUBLES: bool = true;

    fn parts(&mut self) -> Parts<'_, Keeper<K>, Wanted<K>> {
        let Self { world, operators, flights, .. } = self;
        Parts { world, operators, flights }
    }

    fn lists(&mut self, number: usize) {
        let Self { operators, world, objects, nodes, .. } = self;
        operators[number].start(Stores { objects, jobs: &world.jobs, pods: &world.pods, nodes });
    }

    fn tells_at(&self, number: usize) -> Option<Timestamp> {
        let Self { operators, world, objects, nodes, .. } = self;
        operators[number].tells_at(Stores { objects, jobs: &world.jobs, pods: &world.pods, nodes })
    }

    fn told(&mut self, number: usize) -> bool {
        let Self { operators, world, objects, nodes, .. } = self;
        let stores = Stores { objects, jobs: &world.jobs, pods: &world.pods, nodes };
        operators[number].tell(stores, world.now)
    }

    fn learns(&mut self, flight: Flight<Write<K>>, answer: Answer<Own<K>>) {
        let (number, now) = (flight.operator, self.world.now);
        let operator = &mut self.operators[number];
        if flight.channel == Channel::Look {
            operator.learn(flight.write, answer, now);
            return self.goes_on(number);
        }
        let (next, wait) = operator.posted(&flight.write, answer, now);
        if let Some(wait) = wait {
            self.ask_for_look(number, wait);
        }
        match next {
            Some(write) => self.send(number, Channel::Status, write),
            None => self.rested(number),
        }
    }

    fn rested(&mut self, number: usize) {
        if let Some(wait) = self.operators[number].posts_in(self.world.now) {
            self.ask_for_post(number, wait);
        }
    }

    fn posts(&mut self, number: usize) {
        let now = self.world.now;
        let operator = &mut self.operators[number];
        if operator.posts_in(now) != Some(SignedDuration::ZERO) {
            return;
        }
        match operator.post(now) {
            Some(write) => self.send(number, Channel::Status, write),
            None => self.ask_for_look(number, milliseconds(1)),
        }
    }

    fn write(&mut self, _: usize, write: &Write<K>) -> Answer<Own<K>> {
        if self.world.down_for().is_some() {
            return Answer::Nothing;
        }
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
                Answer::of(deleted)
            }
            Write::Upkeep(Upkeep::Delete { name, uid, version }) => {
                Answer::of(self.world.remove_job(name, Some(uid), version.as_deref(), true))
            }
            Write::Upkeep(Upkeep::EndPod { pod, uid }) => Answer::of(self.world.end_pod(pod, uid)),
            Write::Upkeep(Upkeep::LetGo { name, uid }) => self.let_go(name, uid),
        };
        self.writes += usize::from(!answer.refuses());
        answer
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
