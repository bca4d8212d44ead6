//! An operator that looks after an object whose Jobs are kept until their outcome is written, as the shell does it: what its
//! watches told it, what it remembers, the requests of its look, one after the other, and the status that it writes beside.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stoker_api::keys;
use stoker_core::fan_out::NodeView;
use stoker_core::kept::{Kept, NEWEST, Upkeep};
use stoker_core::pool::JobView;

use crate::kept_object::{Node, OWN, Own, Stores};
use crate::known::Known;
use crate::shell::{Answer, Channel, Driven, PLAN_HOLDS, Pulse};
use crate::store::{Object as _, View};

/// What was done about an object that goes is waited for so long.
const LEAVING: SignedDuration = SignedDuration::from_secs(5);

/// A status is written at most this often, unless it is urgent.
const STATUS_PERIOD: SignedDuration = SignedDuration::from_secs(1);

/// It looks again so often at least while something is to come.
const RARELY: SignedDuration = SignedDuration::from_secs(60);

/// A moment more than asked, so that the look comes after what it waits for.
const MOMENT: SignedDuration = SignedDuration::from_millis(2);

/// Annotations by which a Job says what it is for.
const PART: [&str; 5] = [keys::STEP, keys::NODE, keys::NODE_UID, keys::RUN, keys::ATTEMPT];

/// A kind of object whose Jobs are kept: what the operator asks core.
pub trait Kind: Clone + Debug + PartialEq + 'static {
    /// The spec.
    type Spec: Clone + Debug + PartialEq;
    /// The status.
    type Status: Clone + Debug + Default + PartialEq;
    /// A part of the object's work, which gets a Job.
    type Part: Clone + Debug + PartialEq;

    /// What a look comes to.
    fn plan(look: &Seen<'_, Self>, now: Timestamp) -> Wants<Self>;
    /// Whether a part is still to get a Job, as far as a status says that was read just now.
    fn still_wanted(status: &Self::Status, part: &Self::Part) -> bool;
    /// What is done with the Jobs when the object goes.
    fn farewell(jobs: &[Kept<'_>]) -> Vec<Upkeep>;
    /// What a status says, in a line.
    fn words(status: &Self::Status) -> String;
}

/// What an operator sees.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a, K: Kind> {
    /// The object.
    pub own: &'a Own<K>,
    /// Its Jobs.
    pub jobs: &'a [Kept<'a>],
    /// The nodes.
    pub nodes: &'a [NodeView],
    /// Names under which others have Jobs, and whether each may be tried again by now.
    pub taken: &'a BTreeMap<String, bool>,
    /// What is done wrong.
    pub sabotage: Option<Sabotage>,
}

/// A Job that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted<K: Kind> {
    /// What for.
    pub part: K::Part,
    /// What is asked for.
    pub body: Arc<Value>,
    /// By which object that was planned.
    pub by: Arc<Own<K>>,
}

/// What is wanted after a look.
#[derive(Clone, Debug)]
pub struct Wants<K: Kind> {
    /// Jobs to create.
    pub create: Vec<(K::Part, Value)>,
    /// What is done with those that there are.
    pub upkeep: Vec<Upkeep>,
    /// The object is to be deleted.
    pub delete: bool,
    /// What the object is to say.
    pub status: K::Status,
    /// That is written at once.
    pub urgent: bool,
    /// When to look again at the latest.
    pub wake_at: Option<Timestamp>,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub enum Write<K: Kind> {
    /// The object is read: before something is created, after a conflict, or to know whether it is gone.
    Read,
    /// The object gets its finalizer, or loses it.
    Finalizer {
        /// The object's version.
        version: String,
        /// It gets it.
        on: bool,
    },
    /// A Job is created.
    Create(Wanted<K>),
    /// A Job is read whose name was taken.
    ReadJob(Wanted<K>),
    /// Something is done with a Job.
    Upkeep(Upkeep),
    /// The object is deleted.
    Delete {
        /// The object's version.
        version: String,
    },
    /// The status is written.
    Status {
        /// The object's version.
        version: String,
        /// The status.
        status: Box<K::Status>,
    },
}

impl<K: Kind> Write<K> {
    /// What it is, in words.
    pub fn words(&self) -> String {
        match self {
            Self::Create(wanted) => format!("create {}", name(&wanted.body)),
            Self::ReadJob(wanted) => format!("read {}", name(&wanted.body)),
            Self::Status { status, .. } => format!("status {}", K::words(status)),
            other => format!("{other:?}"),
        }
    }
}

/// A rule that an operator breaks on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Jobs are let go as soon as they have ended.
    LetsGoEarly,
    /// Jobs are let go as soon as their outcome is written, and an object that was read once counts as the newest for long.
    HoldsNoNames,
    /// The name of a Job depends on who makes it.
    NamesItsOwn,
    /// Jobs are made without the finalizer.
    KeepsNothing,
    /// The status is never written.
    WritesNothing,
    /// What a step waits for does not matter.
    WaitsForNothing,
    /// How many may be at work does not matter.
    CountsNothing,
}

/// A look that is being carried out.
#[derive(Clone, Debug)]
struct Looking<K: Kind> {
    object: Option<Arc<Own<K>>>,
    began: Timestamp,
    left: VecDeque<Write<K>>,
    letter: Option<Letter<K>>,
    /// Something was created, so that the next look tells of it.
    any: bool,
    failed: bool,
    /// Look again then, by its clock.
    wake: Option<Timestamp>,
    /// Look again so much later.
    wait: Option<SignedDuration>,
}

/// A status that is to be written in the place of another.
#[derive(Clone, Debug)]
struct Letter<K: Kind> {
    object: Arc<Own<K>>,
    before: K::Status,
    status: K::Status,
    urgent: bool,
}

/// An operator.
#[derive(Clone, Debug)]
pub struct Keeper<K: Kind> {
    /// Which operator it is.
    pub number: usize,
    /// How far its clock is ahead.
    pub clock: SignedDuration,
    /// How late its watches tell of the object, Jobs, pods and nodes.
    pub delays: [SignedDuration; 4],
    /// How often it has looked.
    pub looks: usize,
    /// What it does wrong.
    pub sabotage: Option<Sabotage>,
    pulse: Pulse,
    objects: View<Own<K>>,
    known: Known,
    nodes: View<Node>,
    shown: Option<(i64, bool, BTreeMap<String, String>)>,
    latest: Option<Arc<Own<K>>>,
    /// A version of the object, and when it was asked for of which the answer was that it is the newest.
    proven: Option<(u64, Timestamp)>,
    /// When a request of the look was sent that reads the object.
    reads_since: Timestamp,
    /// Names of Jobs that are another's, until when, and how often that was seen.
    taken: HashMap<String, (Timestamp, u32)>,
    failures: u32,
    looking: Option<Looking<K>>,
    letter: Option<Letter<K>>,
    posted: Option<Timestamp>,
    post_failures: u32,
    /// The writing of the status rests until then.
    posts_after: Option<Timestamp>,
}

impl<K: Kind> Keeper<K> {
    /// One that has not started yet.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            clock: SignedDuration::ZERO,
            delays: [SignedDuration::ZERO; 4],
            looks: 0,
            sabotage: None,
            pulse: Pulse::default(),
            objects: View::default(),
            known: Known::default(),
            nodes: View::default(),
            shown: None,
            latest: None,
            proven: None,
            reads_since: Timestamp::UNIX_EPOCH,
            taken: HashMap::new(),
            failures: 0,
            looking: None,
            letter: None,
            posted: None,
            post_failures: 0,
            posts_after: None,
        }
    }

    /// It starts: it lists everything, and remembers nothing.
    pub fn start(&mut self, stores: Stores<'_, K>) {
        self.pulse.begin();
        self.objects.relist(stores.objects);
        self.known.relist(stores.jobs, stores.pods);
        self.nodes.relist(stores.nodes);
    }

    fn sabotages(&self, what: Sabotage) -> bool {
        self.sabotage == Some(what)
    }

    /// When its watches have something to tell.
    pub fn tells_at(&self, stores: Stores<'_, K>) -> Option<Timestamp> {
        let [of_jobs, of_pods] = self.known.late_since(stores.jobs, stores.pods);
        let of_object = self.objects.late_since(stores.objects);
        let since = [of_object, of_jobs, of_pods, self.nodes.late_since(stores.nodes)];
        since.into_iter().zip(self.delays).filter_map(|(since, delay)| Some(since? + delay)).min()
    }

    /// Its watches tell what is due. Returns whether it asks for a look.
    pub fn tell(&mut self, stores: Stores<'_, K>, now: Timestamp) -> bool {
        let until = self.delays.map(|delay| now - delay);
        self.objects.deliver_until(stores.objects, until[0]);
        let mut asks = self.known.deliver(stores.jobs, stores.pods, [until[1], until[2]]);
        asks |= self.nodes.deliver_until(stores.nodes, until[3]);
        let shown = self.objects.get(OWN).map(|own| (own.generation, own.finalizer, own.annotations.clone()));
        let changed = shown != self.shown;
        self.shown = shown;
        changed || asks
    }

    /// The newer one of the object as the watch shows it and as it was read or written last.
    fn newest(&mut self, shown: Arc<Own<K>>) -> Arc<Own<K>> {
        if let Some(latest) = &self.latest
            && latest.number() > shown.number()
        {
            return latest.clone();
        }
        self.latest = None;
        shown
    }

    /// When an object was surely the newest, if that is not long ago.
    fn proven_newest(&self, object: &Own<K>, now: Timestamp) -> Option<Timestamp> {
        let proven = self.proven.filter(|(number, _)| *number == object.number()).map(|(_, asked)| asked);
        let holds =
            if self.sabotages(Sabotage::HoldsNoNames) { SignedDuration::from_secs(30) } else { NEWEST };
        proven.filter(|asked| now.duration_since(*asked) <= holds)
    }

    fn saw(&mut self, object: Arc<Own<K>>) {
        if self.latest.as_ref().is_none_or(|latest| latest.number() <= object.number()) {
            self.latest = Some(object);
        }
    }

    fn plan(
        &mut self,
        looking: &mut Looking<K>,
        own: &Arc<Own<K>>,
        kept: &[Kept<'_>],
        now: Timestamp,
        true_now: Timestamp,
    ) -> String {
        let nodes: Vec<NodeView> = self.nodes.iter().map(|node| node.view.clone()).collect();
        let taken: BTreeMap<String, bool> =
            self.taken.iter().map(|(name, taken)| (name.clone(), taken.0 <= true_now)).collect();
        let taken_until = self.taken.values().map(|taken| taken.0).filter(|at| *at > true_now).min();
        let proven = self.proven_newest(own, true_now);
        let mut wants =
            K::plan(&Seen { own, jobs: kept, nodes: &nodes, taken: &taken, sabotage: self.sabotage }, now);
        if wants.delete {
            looking.left.push_back(Write::Delete { version: own.version().to_owned() });
            looking.wait = Some(LEAVING);
            return "deletes the object".to_owned();
        }
        let mut held = None;
        if self.sabotages(Sabotage::LetsGoEarly) {
            let ended = kept.iter().filter(|kept| kept.kept() && kept.ended(now).is_some());
            wants.upkeep.extend(ended.map(Kept::let_go));
        } else if !self.sabotages(Sabotage::HoldsNoNames) {
            wants.upkeep.retain(|upkeep| {
                let Upkeep::LetGo { uid, .. } = upkeep else { return true };
                let until = self.known.held_until(uid, true_now);
                if until > true_now {
                    held = [held, Some(until)].into_iter().flatten().min();
                }
                until <= true_now
            });
        }
        wants.create.retain(|(_, body)| taken.get(name(body)) != Some(&false));
        let words = format!(
            "creates {:?}, {:?}, wakes {:?}",
            wants.create.iter().map(|(_, body)| name(body)).collect::<Vec<_>>(),
            wants.upkeep,
            wants.wake_at
        );
        match proven {
            Some(proven) => looking.began = proven,
            None if !wants.create.is_empty() => looking.left.push_back(Write::Read),
            None => {}
        }
        for (part, mut body) in wants.create {
            if self.sabotages(Sabotage::NamesItsOwn) {
                body["metadata"]["name"] = format!("{}-{}", name(&body), self.number).into();
            }
            if self.sabotages(Sabotage::KeepsNothing) {
                body["metadata"]["finalizers"] = Value::Array(Vec::new());
            }
            looking.left.push_back(Write::Create(Wanted { part, body: Arc::new(body), by: own.clone() }));
        }
        looking.left.extend(wants.upkeep.into_iter().map(Write::Upkeep));
        let (before, status) = (own.status.clone(), wants.status);
        looking.letter = (before != status && !self.sabotages(Sabotage::WritesNothing)).then(|| Letter {
            object: own.clone(),
            before,
            status,
            urgent: wants.urgent,
        });
        looking.wake = wants.wake_at;
        let waits = [taken_until, held].into_iter().flatten().min();
        looking.wait = waits.map(|at| at.duration_since(true_now));
        words
    }

    /// Takes note of the answer to a request of its look.
    pub fn learn(&mut self, write: Write<K>, answer: Answer<Own<K>>, now: Timestamp) {
        let Some(mut looking) = self.looking.take() else { return };
        match (write, answer) {
            (Write::Read, answer) => self.read(&mut looking, answer),
            (Write::Create(wanted), Answer::Existed | Answer::Nothing) => {
                looking.left.push_front(Write::ReadJob(wanted))
            }
            (Write::Create(wanted), Answer::Job(job)) => {
                self.taken.remove(name(&wanted.body));
                self.known.note_made(&job);
                looking.any = true;
            }
            (Write::ReadJob(wanted), Answer::Job(job)) => {
                looking.any = true;
                if is_for(&job, &wanted.body) {
                    self.taken.remove(name(&wanted.body));
                    self.known.note_made(&job);
                } else {
                    let before = self.taken.get(name(&wanted.body)).map_or(0, |taken| taken.1);
                    let wait = SignedDuration::from_secs((5 << before.min(6)).min(300));
                    self.taken.insert(name(&wanted.body).to_owned(), (now + wait, before + 1));
                }
            }
            (Write::Create(_) | Write::ReadJob(_), _) => {
                looking.failed = true;
                looking.left.retain(|write| !matches!(write, Write::Create(_)));
            }
            (_, Answer::Nothing) => looking.failed = true,
            (Write::Upkeep(Upkeep::LetGo { uid, .. }), _) => self.known.note_let_go(&uid),
            (Write::Finalizer { .. }, Answer::Conflict) => looking.failed = true,
            _ => {}
        }
        self.looking = Some(looking);
    }

    fn read(&mut self, looking: &mut Looking<K>, answer: Answer<Own<K>>) {
        match (answer, looking.object.clone()) {
            (Answer::Object(latest), Some(own)) if latest.generation == own.generation && !latest.deleted => {
                let wanted = |write: &Write<K>| match write {
                    Write::Create(wanted) => K::still_wanted(&latest.status, &wanted.part),
                    _ => true,
                };
                looking.left.retain(wanted);
                looking.began = self.reads_since;
                self.proven = Some((latest.number(), self.reads_since));
                self.saw(latest);
                return;
            }
            (Answer::NotFound, None) => {
                let (jobs, pods) = self.known.seen();
                let none = Vec::new();
                let of = |job: &JobView| pods.get(&job.uid).unwrap_or(&none).as_slice();
                let kept: Vec<Kept<'_>> = jobs.iter().map(|job| Kept { job, pods: of(job) }).collect();
                looking.left.extend(K::farewell(&kept).into_iter().map(Write::Upkeep));
                looking.wait = (!looking.left.is_empty()).then_some(LEAVING);
            }
            (Answer::Nothing, _) => looking.failed = true,
            _ => {}
        }
        looking.left.retain(|write| !matches!(write, Write::Create(_)));
    }

    /// How long until there is a status to write; None = there is none, or one is being written.
    pub fn posts_in(&self, now: Timestamp) -> Option<SignedDuration> {
        let letter = self.letter.as_ref().filter(|_| !self.pulse.waits(Channel::Status))?;
        let period = self.posted.filter(|_| !letter.urgent).map(|posted| posted + STATUS_PERIOD);
        let at = [period, self.posts_after].into_iter().flatten().max();
        Some(at.map_or(SignedDuration::ZERO, |at| at.duration_since(now).max(SignedDuration::ZERO)))
    }

    /// The status to write. None = somebody else wrote it meanwhile, and it looks again with that.
    pub fn post(&mut self, now: Timestamp) -> Option<Write<K>> {
        let letter = self.letter.take()?;
        self.posted = Some(now);
        let latest = self.latest.clone().filter(|latest| latest.number() > letter.object.number());
        let base = latest.unwrap_or(letter.object);
        let status = Box::new(letter.status);
        (base.status == letter.before).then(|| Write::Status { version: base.version().to_owned(), status })
    }

    /// Takes note of the answer to a status that was written. A request to make next, and how long to wait with the look
    /// that it asks for.
    pub fn posted(
        &mut self,
        write: &Write<K>,
        answer: Answer<Own<K>>,
        now: Timestamp,
    ) -> (Option<Write<K>>, Option<SignedDuration>) {
        match (write, answer) {
            (Write::Status { .. }, Answer::Conflict) => return (Some(Write::Read), None),
            (write, Answer::Object(object)) => {
                self.post_failures = 0;
                if let (Write::Status { .. }, Some(posted)) = (write, self.posted) {
                    self.proven = Some((object.number(), posted));
                }
                self.saw(object);
            }
            (_, Answer::Nothing) => {
                self.post_failures += 1;
                let wait = SignedDuration::from_secs(1 << (self.post_failures.min(5) - 1));
                self.posts_after = Some(now + wait);
                return (None, Some(wait));
            }
            _ => return (None, None),
        }
        (None, Some(MOMENT))
    }
}

impl<K: Kind> Driven for Keeper<K> {
    type Write = Write<K>;

    fn pulse(&mut self) -> &mut Pulse {
        &mut self.pulse
    }

    fn set_clock(&mut self, ahead: SignedDuration) {
        self.clock = ahead;
    }

    fn set_delay(&mut self, watch: Option<usize>, late: SignedDuration) {
        match watch {
            Some(watch) => self.delays[watch] = late,
            None => self.delays = [late; 4],
        }
    }

    fn die(&mut self) {
        *self = Self {
            pulse: self.pulse.next(),
            clock: self.clock,
            delays: self.delays,
            looks: self.looks,
            sabotage: self.sabotage,
            ..Self::new(self.number)
        };
    }

    fn busy(&self) -> bool {
        self.looking.is_some()
    }

    fn look(&mut self, true_now: Timestamp) -> String {
        self.looks += 1;
        let now = true_now + self.clock;
        let shown = self.objects.get(OWN).cloned();
        let object = shown.map(|shown| self.newest(shown));
        if object.is_none() {
            self.latest = None;
        }
        let (jobs, pods) = self.known.seen();
        let none = Vec::new();
        let of = |job: &JobView| pods.get(&job.uid).unwrap_or(&none).as_slice();
        let kept: Vec<Kept<'_>> = jobs.iter().map(|job| Kept { job, pods: of(job) }).collect();
        let mut looking = Looking {
            object: object.clone(),
            began: true_now,
            left: VecDeque::new(),
            letter: None,
            any: false,
            failed: false,
            wake: None,
            wait: None,
        };
        let words = match &object {
            // Jobs without their owner: is it gone?
            None if !kept.is_empty() => {
                looking.left.push_back(Write::Read);
                "sees Jobs and no object".to_owned()
            }
            None => "sees nothing".to_owned(),
            Some(own) if !own.deleted && !own.finalizer => {
                looking.left.push_back(Write::Finalizer { version: own.version().to_owned(), on: true });
                "sees a new object".to_owned()
            }
            Some(own) if own.deleted && !own.finalizer => "sees an object that is let go".to_owned(),
            Some(own) if own.deleted => {
                let deeds = K::farewell(&kept);
                let words = format!("bids farewell: {deeds:?}");
                if deeds.is_empty() {
                    looking.left.push_back(Write::Finalizer { version: own.version().to_owned(), on: false });
                } else {
                    looking.left.extend(deeds.into_iter().map(Write::Upkeep));
                    looking.wait = Some(LEAVING);
                }
                words
            }
            Some(own) => self.plan(&mut looking, own, &kept, now, true_now),
        };
        self.looking = Some(looking);
        let job = |job: &JobView| {
            let ended = job.finished.as_ref().map(|finished| finished.well);
            format!("{} active {} ended {ended:?} deleted {:?}", job.name, job.active, job.deleted_at)
        };
        format!("sees {:?}, {words}", jobs.iter().map(job).collect::<Vec<_>>())
    }

    fn next_write(&mut self, now: Timestamp) -> Option<Write<K>> {
        let looking = self.looking.as_mut()?;
        let late = now.duration_since(looking.began) > PLAN_HOLDS;
        while let Some(write) = looking.left.pop_front() {
            if write == Write::Read {
                self.reads_since = now;
            }
            if !(late && matches!(write, Write::Create(_))) {
                return Some(write);
            }
        }
        None
    }

    fn rest(&mut self, true_now: Timestamp) -> Option<SignedDuration> {
        let done = self.looking.take()?;
        let more = self.pulse.take_again().then_some(MOMENT);
        if done.any && !done.failed {
            // The status is to tell of them, too.
            return Some(MOMENT);
        }
        if done.object.is_some_and(|own| own.finalizer && !own.deleted) {
            // What changed may have changed back meanwhile.
            self.letter = done.letter;
        }
        let wait = if done.failed {
            self.failures += 1;
            Some(SignedDuration::from_secs(1 << (self.failures.min(2) - 1)))
        } else {
            self.failures = 0;
            let until = |at: Timestamp| at.duration_since(true_now + self.clock).max(SignedDuration::ZERO);
            let wake = done.wake.map(|at| (until(at) + MOMENT).min(RARELY));
            [wake, done.wait].into_iter().flatten().min()
        };
        [wait, more].into_iter().flatten().min()
    }

    fn words(write: &Write<K>) -> String {
        write.words()
    }
}

/// The name of a Job that is asked for.
pub(crate) fn name(body: &Value) -> &str {
    body["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether a Job is for the same part as one that was to be created.
fn is_for(job: &JobView, body: &Value) -> bool {
    let wanted = &body["metadata"]["annotations"];
    PART.iter().all(|key| wanted[*key].as_str() == job.annotations.get(*key).map(String::as_str))
}
