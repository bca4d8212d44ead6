//! Jobs and their pods in a simulated cluster in which everything goes on by itself as time passes, each thing after a
//! delay: the Job controller, the TTL controller, the garbage collector, the scheduler and the kubelet. Whoever owns the
//! Jobs, and the operators that look after them, are others' to simulate; they share the agenda.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use stoker_api::keys;
use stoker_core::pod::PodCondition;
use stoker_core::pool::JobView;
use stoker_core::pool::jobs::Finished;
use stoker_core::{Phase, PodView};

use crate::jobs::{JOB, job_of};
use crate::pods::{end, pod, set, whole};
use crate::store::{Refusal, Store};

/// Kubernetes' finalizer of what is deleted in the foreground.
const FOREGROUND: &str = "foregroundDeletion";

/// How long work takes, in milliseconds.
const WORK: [i64; 4] = [1_000, 15_000, 70_000, 200_000];

/// What is to happen at its time.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// The Job controller looks at a Job, by UID.
    Controls(String),
    /// The time of a Job after its end is over, by UID.
    Expires(String),
    /// The garbage collector looks at what belongs to a Job, by UID.
    Collects(String),
    /// A pod gets a node.
    Binds(String),
    /// A pod's images are there, and its gate holds, if it has one.
    Gates(String),
    /// A pod's work begins.
    Begins(String),
    /// A pod's work ends.
    Ends(String, bool),
    /// A pod that is deleted is gone.
    Goes(String),
    /// Something of the operators.
    Operator(Moment),
}

/// What is to happen to an operator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// A request reaches the API server.
    Arrives(u64),
    /// No answer to a request came within the operator's patience.
    TimesOut(u64),
    /// An operator looks, if it still lives.
    Looks(usize, u64),
    /// An operator writes a status, if it still lives.
    Posts(usize, u64),
    /// A watch may have something to tell.
    Tells(usize),
    /// An operator starts.
    Starts(usize),
}

/// What holds the work of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Until then, by the nodes' clock.
    pub until: Timestamp,
    /// By a process within its container, and not before that starts.
    pub within: bool,
}

/// What a Job is like.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// What holds it.
    pub held: Option<Held>,
    /// Pods that may fail.
    pub backoff_limit: u32,
    /// Seconds for which it stays after its end.
    pub ttl: Option<i64>,
    /// The only node on which its pods start.
    pub node: Option<String>,
}

/// What truly became of a Job.
#[derive(Clone, Debug)]
pub struct JobTruth<W> {
    /// What it was made for.
    pub what: W,
    /// When it was made.
    pub made: Timestamp,
    /// When it was deleted first.
    pub deleted: Option<Timestamp>,
    /// Its work has begun.
    pub begun: bool,
    /// It has ended, well or not.
    pub ended: Option<bool>,
    /// It ended well before anybody deleted it.
    pub completed: bool,
    /// It is gone.
    pub gone: bool,
    /// Pods that succeeded.
    pub succeeded: u32,
    work: Work,
    failures: u32,
    pods: BTreeSet<String>,
    made_pods: u32,
}

/// What truly became of a pod.
#[derive(Clone, Debug, Default)]
struct PodTruth {
    /// It runs no longer from then on.
    killed: Option<Timestamp>,
    at_work: bool,
    gone: bool,
}

/// Jobs, pods, and those who look after them. `W` is what a Job is made for.
pub struct World<W> {
    /// The true time.
    pub now: Timestamp,
    /// The Jobs.
    pub jobs: Store<JobView>,
    /// Their pods.
    pub pods: Store<PodView>,
    /// The nodes that there are, by name, for Jobs that are pinned to one.
    pub nodes: BTreeSet<String>,
    /// What became of Jobs, by UID.
    pub truth: BTreeMap<String, JobTruth<W>>,
    /// Of a hundred things, so many go otherwise than usual.
    pub trouble: u32,
    /// Of a hundred pods, so many fail.
    pub failing: u32,
    /// How far the API server's clock, and the nodes', are ahead, in milliseconds.
    pub clocks: [i64; 2],
    /// The object that owns the Jobs is there.
    pub owned: bool,
    /// Promises that were broken, in words.
    pub broken: Vec<String>,
    /// What was done, in words, if it is to be told.
    pub told: Option<Vec<String>>,
    pods_truth: HashMap<String, PodTruth>,
    down_until: Timestamp,
    agenda: BTreeMap<(Timestamp, u64), Due>,
    count: u64,
    random: u64,
}

/// What a pod has said in the end that ended well.
pub(crate) fn said(pod: &str) -> String {
    format!("said by {pod}")
}

pub(crate) fn milliseconds(milliseconds: i64) -> SignedDuration {
    SignedDuration::from_millis(milliseconds)
}

impl<W> World<W> {
    /// One without Jobs; chance follows from a seed.
    pub fn new(start: Timestamp, clocks: [i64; 2], seed: u64) -> Self {
        Self {
            now: start,
            jobs: Store::new(start),
            pods: Store::new(start),
            nodes: BTreeSet::new(),
            truth: BTreeMap::new(),
            trouble: 0,
            failing: 20,
            clocks,
            owned: true,
            broken: Vec::new(),
            told: None,
            pods_truth: HashMap::new(),
            down_until: start,
            agenda: BTreeMap::new(),
            count: 0,
            random: seed,
        }
    }

    pub(crate) fn api_now(&self) -> Timestamp {
        self.now + milliseconds(self.clocks[0])
    }

    pub(crate) fn node_now(&self) -> Timestamp {
        self.now + milliseconds(self.clocks[1])
    }

    /// A number below another: the next one of splitmix64.
    pub(crate) fn chance(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    pub(crate) fn troubled(&mut self) -> bool {
        self.chance(100) < u64::from(self.trouble)
    }

    /// A time up to some milliseconds; up to some others if there is trouble.
    pub(crate) fn within(&mut self, usual: u64, trouble: u64) -> SignedDuration {
        let most = if self.troubled() { trouble } else { usual };
        milliseconds(self.chance(most) as i64 + 1)
    }

    pub(crate) fn due(&mut self, wait: SignedDuration, what: Due) {
        self.count += 1;
        self.agenda.insert((self.now + wait.max(SignedDuration::ZERO), self.count), what);
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(told) = &mut self.told {
            told.push(format!("    {now} {}", what()));
        }
    }

    pub(crate) fn breaks(&mut self, promise: String) {
        self.tell(|| format!("BROKEN: {promise}"));
        self.broken.push(format!("{}: {promise}", self.now));
    }

    /// The API server answers nobody for a while.
    pub fn goes_down(&mut self, time: SignedDuration) {
        self.down_until = self.down_until.max(self.now + time);
    }

    /// The API server answers again.
    pub(crate) fn comes_up(&mut self) {
        self.down_until = self.now;
    }

    /// How long the API server still answers nobody.
    pub(crate) fn down_for(&self) -> Option<SignedDuration> {
        (self.now < self.down_until).then(|| self.down_until.duration_since(self.now))
    }

    /// Moves on to what is next until some time, and to that time if there is nothing more.
    pub(crate) fn next(&mut self, until: Timestamp) -> Option<Due> {
        let next = self.agenda.first_entry().filter(|entry| entry.key().0 <= until);
        let (at, due) = match next {
            Some(entry) => {
                let ((at, _), due) = entry.remove_entry();
                (at, Some(due))
            }
            None => (until, None),
        };
        self.now = self.now.max(at);
        self.jobs.set_time(self.now);
        self.pods.set_time(self.now);
        due
    }

    /// What is not the operators' happens. The UID of a Job whose work begins.
    pub(crate) fn happens(&mut self, what: Due) -> Option<String> {
        let by_controller =
            matches!(what, Due::Controls(_) | Due::Expires(_) | Due::Collects(_) | Due::Binds(_));
        if let Some(down) = self.down_for().filter(|_| by_controller) {
            // Controllers wait for the API server.
            let wait = down + self.within(200, 700);
            self.due(wait, what);
            return None;
        }
        match what {
            Due::Begins(pod) => return self.begins(&pod),
            Due::Gates(pod) => self.gates(pod),
            Due::Controls(uid) => self.control(&uid),
            Due::Expires(uid) => {
                if let Some(name) = self.jobs.by_uid(&uid).map(|job| job.name.clone()) {
                    self.tell(|| format!("{name} is deleted: its time is over"));
                    self.remove_job(&name, None, None, false).ok();
                }
            }
            Due::Collects(uid) => self.collect(&uid),
            Due::Binds(pod) => self.binds(pod),
            Due::Ends(pod, well) => self.ends(&pod, well),
            Due::Goes(pod) => self.goes(&pod),
            Due::Operator(_) => {}
        }
        None
    }

    // What is asked of the API server.

    /// A Job is created.
    pub(crate) fn create_job(&mut self, new: JobView, what: W, work: Work) -> Result<JobView, Refusal> {
        let uid = format!("job-{}", self.truth.len());
        let created = whole(self.api_now());
        let made = self.jobs.create(JobView { uid: uid.clone(), created, ..new })?;
        let truth = JobTruth {
            what,
            made: self.now,
            deleted: None,
            begun: false,
            ended: None,
            completed: false,
            gone: false,
            work,
            succeeded: 0,
            failures: 0,
            pods: BTreeSet::new(),
            made_pods: 0,
        };
        self.truth.insert(uid.clone(), truth);
        let wait = self.within(300, 5_000);
        self.due(wait, Due::Controls(uid.clone()));
        if !self.owned {
            let wait = self.within(700, 700);
            self.due(wait, Due::Collects(uid));
        }
        Ok(JobView::clone(&made))
    }

    /// Somebody deletes a Job, chosen by a number: in the foreground, or in the background.
    pub(crate) fn remove_some_job(&mut self, choice: usize, foreground: bool) {
        if let Some(name) = self.jobs.some(choice) {
            self.tell(|| format!("{name} is deleted by hand, foreground {foreground}"));
            self.remove_job(&name, None, None, foreground).ok();
        }
    }

    /// Somebody deletes a pod, chosen by a number.
    pub(crate) fn remove_some_pod(&mut self, choice: usize) {
        if let Some(name) = self.pods.some(choice) {
            self.tell(|| format!("{name} is deleted by hand"));
            self.remove_pod(&name);
        }
    }

    /// A pod is deleted, if it is that one.
    pub(crate) fn end_pod(&mut self, name: &str, uid: &str) -> Result<(), Refusal> {
        self.pods.get(name).filter(|pod| pod.uid == uid).ok_or(Refusal::NotFound)?;
        self.remove_pod(name);
        Ok(())
    }

    /// A Job is deleted, in the foreground or in the background.
    pub(crate) fn remove_job(
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
        if let Some(truth) = self.truth.get_mut(&uid) {
            truth.gone = true;
        }
        let wait = self.within(700, 700);
        self.due(wait, Due::Collects(uid));
    }

    /// A Job's finalizer of Stoker is taken off.
    pub(crate) fn let_go(&mut self, name: &str) {
        self.jobs.change(name, None, |job| job.finalizers.retain(|f| f != keys::OUTCOME)).ok();
        self.drop_job(name);
    }

    /// A pod is deleted: the kubelet ends it soon.
    pub(crate) fn remove_pod(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name).cloned().filter(|pod| !pod.terminating) else { return };
        if pod.node.is_none() || pod.phase.is_terminal() {
            return self.goes(name);
        }
        self.pods.change(name, None, |pod| pod.terminating = true).ok();
        let at_work = self.pods_truth.get(name).is_some_and(|truth| truth.at_work);
        let kill = if at_work { self.within(8_000, 30_000) } else { self.within(700, 700) };
        self.pods_truth.entry(name.to_owned()).or_default().killed = Some(self.now + kill);
        let wait = kill + self.within(500, 5_000);
        self.due(wait, Due::Goes(name.to_owned()));
        let wait = self.within(300, 2_000);
        self.due(wait, Due::Controls(job_of(&pod).to_owned()));
    }

    /// The owner is gone: the garbage collector looks at what was its.
    pub(crate) fn disown(&mut self) {
        self.owned = false;
        for uid in self.jobs.iter().map(|job| job.uid.clone()).collect::<Vec<_>>() {
            let wait = self.within(700, 700);
            self.due(wait, Due::Collects(uid));
        }
    }

    /// A node leaves, and its pods with it.
    pub(crate) fn node_leaves(&mut self, name: &str) {
        self.nodes.remove(name);
        let on = |pod: &&std::sync::Arc<PodView>| pod.node.as_deref() == Some(name);
        for pod in self.pods.iter().filter(on).map(|pod| pod.name.clone()).collect::<Vec<_>>() {
            self.pods_truth.entry(pod.clone()).or_default().killed = Some(self.now);
            let wait = self.within(20_000, 60_000);
            self.due(wait, Due::Goes(pod));
        }
    }

    // Kubernetes' controllers.

    /// The Job controller counts pods that ended or are deleted, makes one that is missing, and ends the Job.
    fn control(&mut self, uid: &str) {
        let Some(job) = self.jobs.by_uid(uid).cloned() else { return };
        let api_now = self.api_now();
        let Some(truth) = self.truth.get_mut(uid) else { return };
        let mut ending = 0;
        for name in truth.pods.clone() {
            match self.pods.get(&name).map(|pod| (pod.phase, pod.terminating)) {
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
        let failures = truth.failures + ending;
        let active = truth.pods.len() as u32 - ending;
        let over = truth.succeeded > 0 || failures > truth.work.backoff_limit;
        let mut finished = job.finished.clone();
        let ends = finished.is_none() && over && truth.pods.is_empty();
        if ends {
            let well = truth.succeeded > 0;
            let why = (!well).then(|| "BackoffLimitExceeded".to_owned());
            finished = Some(Finished { well, at: Some(whole(api_now)), why });
            truth.ended = Some(well);
            truth.completed = well && truth.deleted.is_none();
        }
        let ttl = truth.work.ttl.filter(|_| ends);
        let succeeded = truth.succeeded;
        if finished.is_none() && !over && active == 0 && !job.terminating {
            self.make_pod(uid, api_now);
        }
        if let Some(ttl) = ttl {
            self.due(SignedDuration::from_secs(ttl), Due::Expires(uid.to_owned()));
        }
        self.jobs
            .change(&job.name, None, |job| {
                (job.active, job.succeeded, job.failed) = (active, succeeded, failures);
                job.finished = finished;
            })
            .ok();
    }

    fn make_pod(&mut self, uid: &str, api_now: Timestamp) {
        let Some(truth) = self.truth.get_mut(uid) else { return };
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

    /// The garbage collector deletes what belongs to something that is gone or waits for it.
    fn collect(&mut self, uid: &str) {
        let Some(job) = self.jobs.by_uid(uid).cloned() else {
            for pod in self.pods_of(uid) {
                self.remove_pod(&pod);
            }
            return;
        };
        if !self.owned && !job.terminating {
            self.remove_job(&job.name, None, None, false).ok();
            return;
        }
        if job.terminating && job.finalizers.iter().any(|f| f == FOREGROUND) {
            for pod in self.pods_of(uid) {
                self.remove_pod(&pod);
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

    fn binds(&mut self, name: String) {
        let now = self.api_now();
        let Some(pod) = self.pods.get(&name).cloned() else { return };
        let pinned = self.truth.get(job_of(&pod)).and_then(|truth| truth.work.node.clone());
        if pinned.as_ref().is_some_and(|node| !self.nodes.contains(node)) {
            // It waits for a node of the name.
            return self.due(SignedDuration::from_secs(20), Due::Binds(name));
        }
        self.pods
            .change(&name, None, |pod| {
                pod.node = Some(pinned.unwrap_or_else(|| "node".to_owned()));
                pod.conditions.push(PodCondition {
                    type_: "PodScheduled".to_owned(),
                    status: "True".to_owned(),
                    reason: None,
                    since: Some(whole(now)),
                });
            })
            .ok();
        let wait = self.within(3_000, 90_000);
        self.due(wait, Due::Gates(name));
    }

    // The kubelet.

    fn gates(&mut self, name: String) {
        let now = self.node_now();
        let Some(pod) = self.pods.get(&name).cloned().filter(|pod| pod.node.is_some()) else { return };
        let Some(truth) = self.truth.get(job_of(&pod)) else { return };
        let Some(held) = truth.work.held else { return self.due(milliseconds(5), Due::Begins(name)) };
        self.pods
            .change(&name, None, |pod| {
                if held.within {
                    (pod.phase, pod.containers_started) = (Phase::Running, Some(whole(now)));
                } else {
                    pod.gate_started = Some(whole(now));
                }
            })
            .ok();
        self.due(held.until.duration_since(now).max(milliseconds(5)), Due::Begins(name));
    }

    fn begins(&mut self, name: &str) -> Option<String> {
        let node_now = self.node_now();
        let pod = self.pods.get(name).cloned().filter(|_| !self.dead(name))?;
        self.pods_truth.entry(name.to_owned()).or_default().at_work = true;
        self.pods
            .change(name, None, |pod| {
                (pod.phase, pod.containers_started) = (Phase::Running, Some(whole(node_now)));
                set(pod, "Ready", "True", node_now);
            })
            .ok();
        self.tell(|| format!("{name} begins its work"));
        let well = self.chance(100) >= u64::from(self.failing);
        let long = WORK[self.chance(WORK.len() as u64) as usize];
        self.due(milliseconds(long), Due::Ends(name.to_owned(), well));
        let uid = job_of(&pod).to_owned();
        self.truth.get_mut(&uid)?.begun = true;
        Some(uid)
    }

    /// Jobs of which a pod is at work.
    pub fn at_work(&self) -> HashSet<String> {
        let at_work = |pod: &&std::sync::Arc<PodView>| {
            self.pods_truth.get(&pod.name).is_some_and(|truth| truth.at_work)
        };
        self.pods.iter().filter(at_work).map(|pod| job_of(pod).to_owned()).collect()
    }

    /// The kubelet has ended it, or its node is gone.
    fn dead(&self, pod: &str) -> bool {
        let truth = self.pods_truth.get(pod);
        truth.is_some_and(|truth| truth.gone || truth.killed.is_some_and(|at| at <= self.now))
    }

    fn ends(&mut self, name: &str, well: bool) {
        let now = self.node_now();
        let Some(pod) = self.pods.get(name).cloned().filter(|_| !self.dead(name)) else { return };
        self.pods_truth.entry(name.to_owned()).or_default().at_work = false;
        self.pods
            .change(name, None, |pod| {
                end(pod, well, now);
                pod.message = well.then(|| said(name));
            })
            .ok();
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
