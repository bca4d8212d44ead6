//! Pools of Jobs in a simulated cluster: beside what every cluster has, the Jobs, Kubernetes' controllers that look
//! after them, each of their steps by itself, and operators to whom two watches tell Jobs and pods, each late for itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stoker_core::pool::jobs::{self, Finished, History, JobPods, JobView, RemovalStep, remember_jobs};
use stoker_core::pool::marks::marks;
use stoker_core::pool::overlay::BELIEVED;
use stoker_core::pool::{Action, RemovalReason, Snapshot};
use stoker_core::{Phase, PodView};

use crate::asking::{Asking, LastWord, Prober, World};
use crate::cluster::{Clocks, Cluster};
use crate::look::{Look, Spec, decide_and_plan};
use crate::operator::{Answer, Carrying, Fate, Operator};
use crate::pods::{POOL, POOL_UID, pod, whole};
use crate::store::{Object, Refusal, Store, View};

/// The label that links a pod to its Job, by UID.
pub const JOB: &str = "batch.kubernetes.io/controller-uid";

impl Object for JobView {
    fn name(&self) -> &str {
        &self.name
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn set_version(&mut self, version: String) {
        self.resource_version = version;
    }

    fn terminating(&self) -> bool {
        self.terminating
    }

    fn terminate(&mut self) {
        self.terminating = true;
    }

    // A Job that is deleted in the foreground waits for its pods.
    fn lingers(&self) -> bool {
        true
    }
}

/// What a pool's Jobs are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Pods at a time.
    pub parallelism: u32,
    /// Pods that must succeed.
    pub completions: u32,
    /// Pods that may fail.
    pub backoff_limit: u32,
    /// Seconds for which a finished Job stays.
    pub ttl: Option<i64>,
    /// Finished Jobs that the pool keeps.
    pub history: History,
}

impl Default for Work {
    fn default() -> Self {
        let history = History { completed: Some(3), failed: Some(3) };
        Self { parallelism: 1, completions: 1, backoff_limit: 6, ttl: None, history }
    }
}

/// What the Job controller knows of a Job before it says so in the status.
#[derive(Clone, Debug, Default)]
struct Controlled {
    /// Pods that it made and that it has not seen end.
    pods: BTreeSet<String>,
    succeeded: u32,
    failed: u32,
    made: usize,
    finished: Option<Finished>,
}

/// A finished Job that is gone.
#[derive(Clone, Debug)]
struct Vanished {
    slot: Option<u32>,
    made: Timestamp,
    gone: Timestamp,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A slot's Job is made.
    Create {
        /// The slot.
        slot: u32,
        /// The Job's name.
        name: String,
    },
    /// A pod is told what it does.
    Mark(Action),
    /// A pod of a Job that is being removed goes.
    Pod {
        /// The Job's UID.
        job: String,
        /// The pod's name.
        name: String,
        /// The pod's UID.
        uid: String,
        /// The version in which it was seen.
        version: Option<String>,
    },
    /// A Job goes.
    Job {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// The version in which it was seen, if that matters.
        version: Option<String>,
        /// Only if it has no pod that is alive: the look and the deletion are one step here.
        alone: bool,
        /// Why.
        reason: RemovalReason,
    },
}

/// A request, and what came of it.
#[derive(Clone, Debug)]
pub struct Done {
    /// The operator's number.
    pub operator: usize,
    /// The request.
    pub write: Write,
    /// What became of it.
    pub fate: Fate,
    /// The answer.
    pub answer: Answer,
    /// The request changed something.
    pub effect: bool,
    /// The look that it was planned in.
    pub look: Arc<Look>,
    /// The Job that goes, or whose pod goes, as it truly was before.
    pub job: Option<Arc<JobView>>,
    /// The pods of that Job, or the one pod that goes, as they truly were before.
    pub pods: Vec<Arc<PodView>>,
    /// What pods said that were asked before the Job's removal began.
    pub last_words: Vec<LastWord>,
}

/// An operator that looks after a pool of Jobs.
#[derive(Clone, Debug, Default)]
pub struct JobOperator {
    /// What every operator has; its view of the pods is of those of Jobs, and a member that it knows is a Job.
    pub op: Operator,
    /// The Jobs that it was told of.
    pub jobs: View<JobView>,
    /// When it looked last, in true time.
    looked: Timestamp,
    /// The requests that are left of its plan, each with the member's action that it belongs to.
    left: VecDeque<(Write, Action)>,
    /// The Jobs' pods as they were seen, by the Jobs' UIDs.
    pods_seen: HashMap<String, Vec<PodView>>,
    /// What pods said that were asked before their Job's removal began, by the Job's UID.
    last_words: HashMap<String, Vec<LastWord>>,
}

impl JobOperator {
    fn seen(&self) -> (Vec<JobView>, HashMap<String, Vec<PodView>>) {
        let mut pods: HashMap<String, Vec<PodView>> = HashMap::new();
        for pod in self.op.pods.iter() {
            let mut pod = PodView::clone(pod);
            let node = pod.node.as_deref().and_then(|node| self.op.nodes.get(node));
            pod.displaced = pod.node.is_some() && node.is_none_or(|node| node.cordoned || node.lost);
            pods.entry(job_of(&pod).to_owned()).or_default().push(pod);
        }
        (self.jobs.iter().map(|j| JobView::clone(j)).collect(), pods)
    }

    fn look(
        &mut self,
        outage: bool,
        late_since: Option<Timestamp>,
        history: History,
        true_now: Timestamp,
    ) -> Option<Arc<Look>> {
        let now = true_now + self.op.clock;
        let pool = self.op.pool.get(POOL)?.clone();
        self.op.due = false;
        let (views, pods_of) = self.seen();
        let none = Vec::new();
        let of = |job: &JobView| pods_of.get(&job.uid).unwrap_or(&none).as_slice();
        let jobs: Vec<JobPods<'_>> = views.iter().map(|job| JobPods { job, pods: of(job) }).collect();
        let shown = jobs.iter().map(JobPods::member).collect();
        let members = self.op.memory.see(shown, |uid| self.jobs.went(uid), now);
        let pods: Vec<PodView> = views.iter().flat_map(|job| of(job).iter().cloned()).collect();
        let (hearing, _) = self.op.judge(&pods, outage, Default::default(), now);
        let memory = &mut self.op.memory;
        let gone: Vec<JobView> = self.jobs.gone().map(|j| JobView::clone(j)).collect();
        memory.successions.note(&views, &gone, now);
        remember_jobs(&mut memory.jobs, &jobs, &members, &memory.pods, now);
        let memories = memory.jobs.clone();
        let mut settings = pool.spec.settings();
        settings.draining = pool.deleting;
        settings.no_creation_before = self.op.refused;
        settings.keep_ended = true;
        settings.replace.template_hash = None;
        let rules = std::mem::take(&mut settings.marks);
        let mut look = decide_and_plan(members, &memories, &pool.says, pool.spec, &settings, memory, now);

        let mut left = VecDeque::new();
        for action in &look.plan.actions {
            if let Action::Create { slot } = action {
                left.push_back((
                    Write::Create { slot: *slot, name: memory.job_name(POOL, POOL_UID, *slot) },
                    action.clone(),
                ));
            }
        }
        for action in &look.plan.actions {
            let Action::Remove { name, uid, resource_version, reason } = action else { continue };
            let steps = jobs::removal(resource_version.as_deref(), pods_of.get(uid).unwrap_or(&none));
            let mut alone = false;
            for step in steps {
                let write = match step {
                    RemovalStep::NoPod => {
                        alone = true;
                        continue;
                    }
                    RemovalStep::Pod { name, uid: pod, version } => {
                        Write::Pod { job: uid.clone(), name, uid: pod, version }
                    }
                    RemovalStep::Job { version } => {
                        let (name, uid) = (name.clone(), uid.clone());
                        Write::Job { name, uid, version, alone, reason: *reason }
                    }
                };
                left.push_back((write, action.clone()));
            }
        }
        let leaving = |uid: &str| {
            let this = |a: &Action| matches!(a, Action::Remove { uid: member, .. } if member == uid);
            look.plan.actions.iter().any(this)
        };
        let snapshot = Snapshot { pods: &pods, memories: &memory.pods };
        for mark in marks(snapshot, rules).into_iter().filter(|_| !pool.spec.paused) {
            let Action::Mark { uid, .. } = &mark else { continue };
            if !pods.iter().any(|p| &p.uid == uid && leaving(job_of(p))) {
                left.push_back((Write::Mark(mark.clone()), mark));
            }
        }
        for job in jobs::beyond_history(&views, history).into_iter().filter(|_| !pool.spec.paused) {
            let reason = RemovalReason::Finished;
            let (name, uid) = (job.name.clone(), job.uid.clone());
            let action =
                Action::Remove { name: name.clone(), uid: uid.clone(), resource_version: None, reason };
            left.push_back((Write::Job { name, uid, version: None, alone: false, reason }, action));
        }
        look.hearing = hearing;
        (self.pods_seen, self.last_words) = (pods_of, HashMap::new());
        // Those that have finished hold neither room nor slot.
        look.pods.retain(|member| !member.phase.is_terminal());
        self.op.last = Some(look.decision.clone());
        let since = |at| true_now.duration_since(at);
        let sure = late_since.is_none_or(|at| since(at) < BELIEVED)
            && self.op.clock_set.is_none_or(|at| since(at) > BELIEVED);
        let look = Arc::new(look);
        self.left = left;
        self.looked = true_now;
        let steps = VecDeque::new();
        self.op.carrying = Some(Carrying { look: look.clone(), steps, made_for: pool, sure, failed: false });
        Some(look)
    }

    fn next_write(&mut self) -> Option<(Write, Action, Arc<Look>)> {
        let latest = self.op.pool.get(POOL).cloned();
        let carrying = self.op.carrying.as_ref()?;
        if latest.is_none_or(|latest| latest.voids(&carrying.made_for)) {
            self.left.clear();
        }
        let (write, action) = self.left.pop_front()?;
        Some((write, action, carrying.look.clone()))
    }

    /// Asks the pods of a Job that is about to go once more, unless that is done.
    fn ask_last(&mut self, removal: &Action, world: &World<'_>) {
        let Action::Remove { uid, .. } = removal else { return };
        if !self.last_words.contains_key(uid) {
            let pods = self.pods_seen.get(uid).map(Vec::as_slice).unwrap_or_default();
            self.op.ask_last(removal, pods, world);
        }
    }

    /// Whether a Job goes by its pods' last words, which are heard before the first step of its removal.
    fn lets_go(&mut self, removal: &Action, now: Timestamp) -> bool {
        let Action::Remove { uid, .. } = removal else { return true };
        if self.last_words.contains_key(uid) {
            return true;
        }
        let (words, goes) = self.op.last_words(removal, now);
        self.last_words.insert(uid.clone(), words);
        goes
    }

    fn learn(&mut self, write: &Write, action: &Action, answer: &Answer, true_now: Timestamp) {
        let removed = matches!(answer, Answer::Removed | Answer::NotFound);
        match write {
            // The next step follows.
            Write::Pod { .. } if removed => return,
            Write::Pod { .. } | Write::Job { .. } => self.left.retain(|(_, of)| of != action),
            Write::Create { .. } | Write::Mark(_) => {}
        }
        let now = true_now + self.op.clock;
        match (write, answer) {
            (Write::Create { slot, name }, Answer::Existed(None) | Answer::Nothing) => {
                self.op.memory.keep_time(now);
                self.op.memory.overlay.creation_unanswered(*slot, name, now);
                self.fail();
            }
            // What a Job's pod does gives the Job no new version: there is no doubt, and nothing to wait for.
            (Write::Pod { .. } | Write::Job { .. }, Answer::Conflict) => {}
            _ => self.op.learn(action, answer, true_now),
        }
        let failed = self.op.carrying.as_ref().is_some_and(|c| c.failed);
        if failed && matches!(write, Write::Create { .. }) {
            // The other creations would fail for the same reason.
            self.left.retain(|(write, _)| !matches!(write, Write::Create { .. }));
        }
    }

    fn fail(&mut self) {
        if let Some(carrying) = &mut self.op.carrying {
            carrying.failed = true;
        }
    }
}

/// The UID of the Job that a pod is of.
pub fn job_of(pod: &PodView) -> &str {
    pod.labels.get(JOB).map_or("", String::as_str)
}

/// The truth about a pool of Jobs, and those who see it late.
#[derive(Clone, Debug)]
pub struct JobCluster {
    /// Pods, nodes, the pool and the clock. Its own operators are none.
    pub base: Cluster,
    /// The Jobs.
    pub jobs: Store<JobView>,
    /// What new Jobs are like.
    pub work: Work,
    /// The operators; each believes that it leads.
    pub operators: Vec<JobOperator>,
    /// How many Jobs were made.
    pub made: usize,
    /// A slot's names have misled two operators, see [`JobCluster::names_may_mislead`].
    pub misled: bool,
    controlled: HashMap<String, (Work, Controlled)>,
    vanished: Vec<Vanished>,
    /// When operators started.
    started: Vec<Timestamp>,
    lives: u64,
}

impl JobCluster {
    /// A cluster with so many good nodes, operators that have just started, and a pool without Jobs.
    pub fn new(spec: Spec, work: Work, nodes: usize, operators: usize, clocks: Clocks) -> Self {
        let base = Cluster::new(spec, nodes, 0, clocks);
        let mut cluster = Self {
            jobs: Store::new(base.now),
            base,
            work,
            operators: vec![JobOperator::default(); operators],
            made: 0,
            misled: false,
            controlled: HashMap::new(),
            vanished: Vec::new(),
            started: Vec::new(),
            lives: 0,
        };
        for operator in 0..operators {
            cluster.restart(operator);
        }
        cluster
    }

    /// Its pods are asked from now on.
    pub fn asks(&mut self, asking: Asking) {
        self.base.asks(asking);
        for o in &mut self.operators {
            o.op.prober = Some(Prober::new(asking));
        }
    }

    /// An operator asks a pod that it knows, chosen by a number, or all of them.
    pub fn ask(&mut self, operator: usize, choice: Option<usize>) {
        if let (Some(o), Some(world)) = (self.operators.get_mut(operator), self.base.world()) {
            o.op.ask(choice, &world);
        }
    }

    /// An operator hears an answer, chosen by a number, or all of them.
    pub fn hear(&mut self, operator: usize, choice: Option<usize>) {
        if let Some(o) = self.operators.get_mut(operator) {
            o.op.hear(choice, self.base.now);
        }
    }

    /// An operator asks all pods that it knows, and hears what they answer at once.
    pub fn ask_all(&mut self, operator: usize) {
        self.hear(operator, None);
        self.ask(operator, None);
        self.hear(operator, None);
    }

    /// An operator asks the pods of all Jobs that it is about to remove for their last word.
    pub fn ask_last(&mut self, operator: usize) {
        if let (Some(o), Some(world)) = (self.operators.get_mut(operator), self.base.world()) {
            for (_, action) in o.left.clone() {
                o.ask_last(&action, &world);
            }
        }
    }

    /// Time passes.
    pub fn pass(&mut self, time: SignedDuration) {
        self.base.pass(time);
        self.jobs.set_time(self.base.now);
    }

    /// The pods of a Job.
    pub fn pods_of(&self, job: &str) -> Vec<Arc<PodView>> {
        self.base.pods.iter().filter(|p| job_of(p) == job).cloned().collect()
    }

    /// Jobs that have not finished, terminating ones, too.
    pub fn unfinished(&self) -> Vec<Arc<JobView>> {
        self.jobs.iter().filter(|j| j.finished.is_none()).cloned().collect()
    }

    /// Jobs that have finished or of which a pod has ended well, by UID, whether they are still there or not.
    pub fn ended(&self) -> BTreeSet<(bool, &str)> {
        let well = self.base.pods.iter().filter(|p| p.phase == Phase::Succeeded).map(|p| job_of(p));
        let counted = self.controlled.iter().filter(|(_, (_, c))| c.succeeded > 0);
        let well = well.chain(counted.map(|(uid, _)| uid.as_str())).map(|uid| (false, uid));
        let finished = self.controlled.iter().filter(|(_, (_, c))| c.finished.is_some());
        well.chain(finished.map(|(uid, _)| (true, uid.as_str()))).collect()
    }

    /// An operator's plan that is older than some time is dropped.
    pub fn drop_plan(&mut self, operator: usize, older: SignedDuration) {
        if let Some(o) = self.operators.get_mut(operator)
            && o.looked + older < self.base.now
        {
            o.left.clear();
        }
    }

    /// Whether the names of a slot's Jobs may have misled two operators: a finished Job vanished from it that had been
    /// there for less than the time by which operators may act late, or an operator that has started since knows
    /// nothing of it, or one whose clock was set since forgot it early.
    pub fn names_may_mislead(&self, slot: u32, late: SignedDuration) -> bool {
        let set = || self.operators.iter().filter_map(|o| o.op.clock_set);
        self.vanished.iter().any(|v| {
            let since = |at: &Timestamp| *at >= v.gone && *at < v.gone + BELIEVED * 2;
            v.slot == Some(slot)
                && (v.gone.duration_since(v.made) < late
                    || self.started.iter().any(since)
                    || set().any(|at| since(&at)))
        })
    }

    /// The Job controller looks at a Job: it counts pods that have ended, makes those that are missing, and ends it.
    pub fn control(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name).cloned() else { return };
        let now = self.base.now + self.base.clocks.api;
        let Some((work, c)) = self.controlled.get_mut(&job.uid) else { return };
        for uid in c.pods.clone() {
            match self.base.pods.by_uid(&uid).cloned() {
                Some(pod) if !pod.phase.is_terminal() => continue,
                Some(pod) => {
                    if pod.phase == Phase::Succeeded {
                        c.succeeded += 1;
                    } else {
                        c.failed += 1;
                    }
                    // The controller's finalizer held it.
                    self.base.pods.finish(&pod.name);
                }
                None => c.failed += 1,
            }
            c.pods.remove(&uid);
        }
        if job.terminating || c.finished.is_some() {
            return;
        }
        let failed = c.failed > work.backoff_limit;
        if failed || c.succeeded >= work.completions {
            for uid in &c.pods {
                if let Some(pod) = self.base.pods.by_uid(uid).map(|p| p.name.clone()) {
                    self.base.pods.delete(&pod, Some(uid), None).ok();
                }
            }
            c.pods.retain(|uid| self.base.pods.by_uid(uid).is_some());
            if c.pods.is_empty() {
                let why = failed.then(|| "BackoffLimitExceeded".to_owned());
                c.finished = Some(Finished { well: !failed, at: Some(whole(now)), why });
            }
            return;
        }
        // Terminating ones count until they have ended (podReplacementPolicy Failed).
        let wanted = work.parallelism.min(work.completions - c.succeeded) as usize;
        while c.pods.len() < wanted {
            c.made += 1;
            let uid = format!("{}-{}", job.uid, c.made);
            let mut new = PodView { name: uid.clone(), uid: uid.clone(), slot: None, ..pod(0, now) };
            new.labels = BTreeMap::from([(JOB.to_owned(), job.uid.clone())]);
            self.base.pods.create(new).ok();
            c.pods.insert(uid);
        }
    }

    /// The Job controller writes into a Job's status what it knows.
    pub fn report(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name).cloned() else { return };
        let Some((_, c)) = self.controlled.get(&job.uid) else { return };
        let active = c.pods.iter().filter(|uid| self.base.pods.by_uid(uid).is_some_and(|p| p.alive()));
        let active = active.count() as u32;
        let change = |job: &mut JobView| {
            (job.active, job.succeeded, job.failed) = (active, c.succeeded, c.failed);
            job.finished = c.finished.clone();
        };
        self.jobs.change(name, Some(&job.uid), change).ok();
    }

    /// The garbage collector: pods of Jobs that are gone or are deleted in the foreground go, busy ones, too, and then
    /// those Jobs.
    pub fn collect(&mut self) {
        for pod in self.base.pods.iter().cloned().collect::<Vec<_>>() {
            if self.jobs.by_uid(job_of(&pod)).is_none_or(|job| job.terminating) {
                self.base.pods.delete(&pod.name, None, None).ok();
            }
        }
        for job in self.jobs.iter().filter(|j| j.terminating).cloned().collect::<Vec<_>>() {
            if !self.base.pods.iter().any(|p| job_of(p) == job.uid) {
                self.vanish(&job);
                self.jobs.finish(&job.name);
            }
        }
    }

    fn vanish(&mut self, job: &JobView) {
        if self.controlled.get(&job.uid).is_some_and(|(_, c)| c.finished.is_some()) {
            let made = job.created - self.base.clocks.api;
            self.vanished.push(Vanished { slot: job.slot, made, gone: self.base.now });
        }
    }

    /// A finished Job goes when its time is over.
    pub fn expire(&mut self, name: &str) {
        let now = self.base.now + self.base.clocks.api;
        let Some(job) = self.jobs.get(name).cloned() else { return };
        let ttl = self.controlled.get(&job.uid).and_then(|(work, _)| work.ttl);
        let ended = job.finished.as_ref().and_then(|f| f.at);
        if let (Some(ttl), Some(ended)) = (ttl, ended)
            && ended + SignedDuration::from_secs(ttl) <= now
        {
            self.jobs.delete(name, Some(&job.uid), None).ok();
        }
    }

    /// An operator starts anew: it remembers nothing but the target in its status, and lists everything.
    pub fn restart(&mut self, operator: usize) {
        self.lives += 1;
        self.started.push(self.base.now);
        let failing = self.base.pool().is_some_and(|pool| pool.says != crate::Says::Nothing);
        let Some(o) = self.operators.get_mut(operator) else { return };
        let last = o.op.last.as_ref().map(|d| d.applied).filter(|_| failing);
        let clock = o.op.clock;
        *o = JobOperator::default();
        o.op = Operator { life: self.lives, clock, due: true, held: last, ..Operator::default() };
        o.op.prober = self.base.servers.as_ref().map(|servers| Prober::new(servers.asking));
        o.op.memory.last_good = last;
        o.op.pods.relist(&self.base.pods);
        o.op.nodes.relist(&self.base.nodes);
        o.op.pool.relist(&self.base.pool);
        o.jobs.relist(&self.jobs);
    }

    /// An operator is told all that it has not been told.
    pub fn tell_all(&mut self, operator: usize) {
        if let Some(o) = self.operators.get_mut(operator) {
            o.op.due |= o.op.pods.deliver(&self.base.pods, usize::MAX);
            o.op.due |= o.op.nodes.deliver(&self.base.nodes, usize::MAX);
            o.op.due |= o.op.pool.deliver(&self.base.pool, usize::MAX);
            o.op.due |= o.jobs.deliver(&self.jobs, usize::MAX);
        }
    }

    /// How late an operator's watches are at most: since when the oldest event of a Job or a pod has not been told.
    pub fn late_since(&self, operator: usize) -> Option<Timestamp> {
        let o = self.operators.get(operator)?;
        let late = [o.op.pods.late_since(&self.base.pods), o.jobs.late_since(&self.jobs)];
        late.into_iter().flatten().min()
    }

    /// An operator looks, unless it is carrying out a plan or knows of no pool.
    pub fn look(&mut self, operator: usize) -> Option<Arc<Look>> {
        let late_since = self.late_since(operator);
        let o = self.operators.get_mut(operator).filter(|o| o.op.carrying.is_none())?;
        o.look(self.base.outage, late_since, self.work.history, self.base.now)
    }

    /// The Job that an operator is about to remove, or whose pod it is about to.
    pub fn next_removed(&self, operator: usize) -> Option<&str> {
        let left = &self.operators.get(operator)?.left;
        left.iter().find_map(|(write, _)| match write {
            Write::Pod { job: uid, .. } | Write::Job { uid, .. } => Some(uid.as_str()),
            _ => None,
        })
    }

    /// An operator makes the next request of its plan. None when there is none.
    pub fn act(&mut self, operator: usize, fate: Fate) -> Option<Done> {
        let o = self.operators.get_mut(operator)?;
        let Some((write, action, look)) = o.next_write() else {
            o.op.rest(self.base.now);
            return None;
        };
        if let Some(world) = self.base.world() {
            o.ask_last(&action, &world);
        }
        let goes = o.lets_go(&action, self.base.now);
        let last_words = match &action {
            Action::Remove { uid, .. } => o.last_words.get(uid).cloned().unwrap_or_default(),
            _ => Vec::new(),
        };
        let of = |uid: &str| (self.jobs.by_uid(uid).cloned(), self.pods_of(uid));
        let (job, pods) = match &write {
            Write::Job { uid, .. } => of(uid),
            Write::Pod { job, uid, .. } => {
                (of(job).0, self.base.pods.by_uid(uid).cloned().into_iter().collect())
            }
            Write::Create { .. } | Write::Mark(_) => (None, Vec::new()),
        };
        let done = |answer: &Answer| matches!(answer, Answer::Made(_) | Answer::Removed);
        let (answer, effect) = match fate {
            _ if !goes => (Answer::Spared, false),
            Fate::Passes => {
                let answer = self.write(&write, look.spec);
                (answer.clone(), done(&answer))
            }
            Fate::Lost => (Answer::Nothing, false),
            Fate::Unanswered => (Answer::Nothing, done(&self.write(&write, look.spec))),
            Fate::Doubled => {
                let effect = done(&self.write(&write, look.spec));
                let answer = self.write(&write, look.spec);
                let again = done(&answer);
                (answer, effect || again)
            }
            Fate::Refused if matches!(write, Write::Create { .. }) => (Answer::Refused, false),
            Fate::Refused => (Answer::Conflict, false),
        };
        if let Some(o) = self.operators.get_mut(operator) {
            o.learn(&write, &action, &answer, self.base.now);
            if o.left.is_empty() {
                o.op.rest(self.base.now);
            }
        }
        Some(Done { operator, write, fate, answer, effect, look, job, pods, last_words })
    }

    fn write(&mut self, write: &Write, spec: Spec) -> Answer {
        let removed = |result: Result<(), Refusal>| match result {
            Ok(()) => Answer::Removed,
            Err(Refusal::NotFound) => Answer::NotFound,
            Err(_) => Answer::Conflict,
        };
        match write {
            Write::Create { slot, name } => self.create(*slot, name, spec),
            Write::Mark(Action::Mark { name, uid, resource_version, labels, annotations }) => {
                self.base.mark(name, uid, resource_version.as_deref(), labels, annotations)
            }
            Write::Mark(_) => Answer::Nothing,
            Write::Pod { name, uid, version, .. } => {
                removed(self.base.pods.delete(name, Some(uid), version.as_deref()).map(drop))
            }
            Write::Job { name, uid, version, alone, reason } => {
                if *alone && self.pods_of(uid).iter().any(|p| p.alive()) {
                    return Answer::Conflict;
                }
                let result = self.jobs.delete(name, Some(uid), version.as_deref());
                if let Ok(job) = &result
                    && *reason == RemovalReason::Finished
                {
                    self.vanish(job);
                    // In the background.
                    self.jobs.erase(name);
                }
                removed(result.map(drop))
            }
        }
    }

    fn create(&mut self, slot: u32, name: &str, spec: Spec) -> Answer {
        let member = |job: &JobView| JobPods { job, pods: &[] }.member();
        let uid = format!("job-{slot}-{}", self.made);
        let new = JobView {
            name: name.to_owned(),
            uid: uid.clone(),
            resource_version: String::new(),
            slot: Some(slot),
            created: whole(self.base.now + self.base.clocks.api),
            terminating: false,
            deleted_at: None,
            finalizers: Vec::new(),
            edited: false,
            finished: None,
            parallelism: self.work.parallelism,
            completions: Some(self.work.completions),
            active: 0,
            succeeded: 0,
            failed: 0,
            template_hash: Some(spec.hash()),
            annotations: BTreeMap::new(),
        };
        match self.jobs.create(new) {
            Ok(made) => {
                self.made += 1;
                self.controlled.insert(uid, (self.work, Controlled::default()));
                Answer::Made(member(&made))
            }
            Err(_) => Answer::Existed(self.jobs.get(name).map(|job| member(job))),
        }
    }
}
