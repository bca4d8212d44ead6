//! The cluster: nodes, the pool's object, its pods, operators, and a clock that only its driver moves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stoker_api::keys;
use stoker_core::PodView;
use stoker_core::claims::{Claim, marks_of, release};
use stoker_core::pool::overlay::BELIEVED;
use stoker_core::pool::{Action, Marks};

use crate::asking::{Asking, Prober, Servers, World};
use crate::look::{Look, Says, Spec};
use crate::operator::{Answer, Done, Fate, Operator};
use crate::pods::{POOL, POOL_UID, at, bind, pod, says_busy, set, start};
use crate::store::{Object, Refusal, Store};

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    version: String,
    /// It takes no new pods.
    pub cordoned: bool,
    /// It does not answer.
    pub lost: bool,
}

impl Object for Node {
    fn name(&self) -> &str {
        &self.name
    }

    fn uid(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn set_version(&mut self, version: String) {
        self.version = version;
    }

    fn terminating(&self) -> bool {
        false
    }

    fn terminate(&mut self) {}

    fn lingers(&self) -> bool {
        false
    }
}

/// The pool's object, and the policy that it names.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    version: String,
    /// Goes up with each change of the spec.
    pub generation: u64,
    /// The spec.
    pub spec: Spec,
    /// Stands for the policy's digest.
    pub digest: u64,
    /// What the policy says.
    pub says: Says,
    /// It is being deleted; a finalizer holds it while its pods are drained.
    pub deleting: bool,
}

impl Pool {
    /// Whether what was decided for another state of the pool does not hold for this one (I4).
    pub fn voids(&self, made_for: &Pool) -> bool {
        (self.generation, self.digest, self.deleting)
            != (made_for.generation, made_for.digest, made_for.deleting)
    }
}

impl Object for Pool {
    fn name(&self) -> &str {
        POOL
    }

    fn uid(&self) -> &str {
        POOL_UID
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn set_version(&mut self, version: String) {
        self.version = version;
    }

    fn terminating(&self) -> bool {
        self.deleting
    }

    fn terminate(&mut self) {
        self.deleting = true;
    }

    fn lingers(&self) -> bool {
        true
    }
}

/// How far others' clocks are ahead of the true time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// The API server's, which creation times are by.
    pub api: SignedDuration,
    /// The kubelets', which conditions' times are by.
    pub kubelet: SignedDuration,
}

/// The truth, and those who see it late.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The true time.
    pub now: Timestamp,
    /// Others' clocks.
    pub clocks: Clocks,
    /// The pods.
    pub pods: Store<PodView>,
    /// The nodes.
    pub nodes: Store<Node>,
    /// The one pool.
    pub pool: Store<Pool>,
    /// The operators; each believes that it leads.
    pub operators: Vec<Operator>,
    /// Nothing can be told of pods that are past starting.
    pub outage: bool,
    /// What pods do and say, if they are asked.
    pub servers: Option<Servers>,
    /// The greatest maximum that was ever in force.
    pub greatest_maximum: u32,
    /// Which operator's life made a pod, by UID.
    pub made_by: HashMap<String, u64>,
    /// Claims that were granted and have not ended: their names, by their pods' UIDs.
    pub claims: BTreeMap<String, String>,
    /// Claims that were ever asked for.
    claimed: u64,
    /// Which operator's life removed a pod, by UID.
    pub removed_by: HashMap<String, u64>,
    /// When an operator's life learned that a pod, by UID, is gone.
    missed: HashMap<(u64, String), Timestamp>,
    lives: u64,
}

impl Cluster {
    /// A cluster with so many good nodes, operators that have just started, and a pool without pods.
    pub fn new(spec: Spec, nodes: usize, operators: usize, clocks: Clocks) -> Self {
        let now = at(0);
        let mut cluster = Self {
            now,
            clocks,
            pods: Store::new(now),
            nodes: Store::new(now),
            pool: Store::new(now),
            operators: vec![Operator::default(); operators],
            outage: false,
            servers: None,
            greatest_maximum: spec.maximum,
            made_by: HashMap::new(),
            claims: BTreeMap::new(),
            claimed: 0,
            removed_by: HashMap::new(),
            missed: HashMap::new(),
            lives: 0,
        };
        let version = String::new();
        let pool = Pool { version, generation: 1, spec, digest: 0, says: Says::Nothing, deleting: false };
        // The stores are empty, so that no name is taken.
        cluster.pool.create(pool).ok();
        for node in 0..nodes {
            cluster.add_node(&format!("node-{node}"));
        }
        for operator in 0..operators {
            cluster.restart(operator);
        }
        cluster
    }

    /// Its pods are asked from now on.
    pub fn asks(&mut self, asking: Asking) {
        self.servers = Some(Servers::new(asking));
        for operator in &mut self.operators {
            operator.prober = Some(Prober::new(asking));
        }
    }

    /// The time by the kubelets' clocks.
    pub fn kubelet(&self) -> Timestamp {
        self.now + self.clocks.kubelet
    }

    /// What a pod truly does.
    pub fn is_busy(&self, pod: &PodView) -> bool {
        match &self.servers {
            Some(servers) => servers.busy_since(&pod.uid).is_some(),
            None => says_busy(pod),
        }
    }

    /// Those who are asked, if any are.
    pub fn world(&self) -> Option<World<'_>> {
        self.servers.as_ref().map(|servers| World { servers, pods: &self.pods, now: self.now })
    }

    /// An operator asks a pod that it knows, chosen by a number, or all of them.
    pub fn ask(&mut self, operator: usize, choice: Option<usize>) {
        if let (Some(op), Some(servers)) = (self.operators.get_mut(operator), &self.servers) {
            op.ask(choice, &World { servers, pods: &self.pods, now: self.now });
        }
    }

    /// An operator hears an answer, chosen by a number, or all of them.
    pub fn hear(&mut self, operator: usize, choice: Option<usize>) {
        if let Some(op) = self.operators.get_mut(operator) {
            op.hear(choice, self.now);
        }
    }

    /// An operator asks all pods that it knows, and hears what they answer at once.
    pub fn ask_all(&mut self, operator: usize) {
        self.hear(operator, None);
        self.ask(operator, None);
        self.hear(operator, None);
    }

    /// Takes notice of pods that have become Ready.
    pub fn notice(&mut self) {
        let kubelet = self.kubelet();
        if let Some(servers) = &mut self.servers {
            servers.notice(&self.pods, kubelet);
        }
    }

    /// All pods answer, and say what they do.
    pub fn heal(&mut self) {
        let kubelet = self.kubelet();
        if let Some(servers) = &mut self.servers {
            servers.heal(&self.pods, kubelet);
        }
    }

    /// An operator asks all pods that it is about to remove for their last word.
    pub fn ask_last(&mut self, operator: usize) {
        let (Some(op), Some(servers)) = (self.operators.get_mut(operator), &self.servers) else { return };
        let Some(carrying) = op.carrying.clone() else { return };
        for step in &carrying.steps {
            op.ask_last(
                step,
                &carrying.look.removed(step),
                &World { servers, pods: &self.pods, now: self.now },
            );
        }
    }

    /// Time passes.
    pub fn pass(&mut self, time: SignedDuration) {
        self.now += time;
        self.pods.set_time(self.now);
        self.nodes.set_time(self.now);
        self.pool.set_time(self.now);
    }

    /// The pool's object.
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        self.pool.get(POOL)
    }

    /// The spec changes.
    pub fn respecify(&mut self, spec: Spec) {
        self.greatest_maximum = self.greatest_maximum.max(spec.maximum);
        self.change_pool(|pool| {
            pool.generation += u64::from(pool.spec != spec);
            pool.spec = spec;
        });
    }

    /// Another policy decides.
    pub fn swap_policy(&mut self, says: Says) {
        self.change_pool(|pool| {
            pool.digest += u64::from(pool.says != says);
            pool.says = says;
        });
    }

    /// The pool's object is deleted, its pods are to be drained.
    pub fn delete_pool(&mut self) {
        self.change_pool(Pool::terminate);
    }

    fn change_pool(&mut self, change: impl FnOnce(&mut Pool)) {
        // There is one, and nothing but its name says which.
        self.pool.change(POOL, None, change).ok();
    }

    /// A node joins.
    pub fn add_node(&mut self, name: &str) {
        let node = Node { name: name.to_owned(), version: String::new(), cordoned: false, lost: false };
        // A node that is there already goes on.
        self.nodes.create(node).ok();
    }

    /// A node is cordoned or not.
    pub fn cordon(&mut self, node: &str, cordoned: bool) {
        self.nodes.change(node, None, |node| node.cordoned = cordoned).ok();
    }

    /// A node no longer answers, so that nothing is known of its pods; or it answers again.
    pub fn lose(&mut self, node: &str, lost: bool) {
        self.nodes.change(node, None, |node| node.lost = lost).ok();
        for name in self.pods_on(node) {
            self.change(&name, |pod, now| {
                if lost {
                    set(pod, "Ready", "Unknown", now);
                } else if pod.condition("Ready").is_some_and(|c| c.status == "Unknown") {
                    start(pod, now);
                }
            });
        }
    }

    /// A node is removed, and its pods are collected, busy ones, too.
    pub fn remove_node(&mut self, node: &str) {
        self.nodes.erase(node);
        for name in self.pods_on(node) {
            self.pods.erase(&name);
        }
    }

    fn pods_on(&self, node: &str) -> Vec<String> {
        let there = self.pods.iter().filter(|p| p.node.as_deref() == Some(node));
        there.map(|p| p.name.clone()).collect()
    }

    /// The scheduler binds a pod to a node that takes pods, chosen by a number.
    pub fn schedule(&mut self, pod: &str, choice: usize) {
        let good: Vec<String> =
            self.nodes.iter().filter(|n| !n.cordoned && !n.lost).map(|n| n.name.clone()).collect();
        if let Some(node) = good.get(choice % good.len().max(1)) {
            self.change(pod, |pod, now| bind(pod, node, now));
        }
    }

    /// Changes a pod, unless it has ended: then nothing changes any more. The time is the kubelet's.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut PodView, Timestamp)) {
        let now = self.kubelet();
        if self.pods.get(name).is_some_and(|p| !p.phase.is_terminal()) {
            self.pods.change(name, None, |pod| change(pod, now)).ok();
        }
    }

    /// An operator starts anew: it remembers nothing but the target in its status, and lists everything.
    pub fn restart(&mut self, operator: usize) {
        self.lives += 1;
        let failing = self.pool().is_some_and(|pool| pool.says != Says::Nothing);
        let Some(op) = self.operators.get_mut(operator) else { return };
        let last = op.last.as_ref().map(|d| d.applied).filter(|_| failing);
        *op = Operator { life: self.lives, clock: op.clock, due: true, held: last, ..Operator::default() };
        op.prober = self.servers.as_ref().map(|servers| Prober::new(servers.asking));
        op.memory.last_good = last;
        op.pods.relist(&self.pods);
        op.nodes.relist(&self.nodes);
        op.pool.relist(&self.pool);
    }

    /// An operator is told all that it has not been told.
    pub fn tell_all(&mut self, operator: usize) {
        if let Some(op) = self.operators.get_mut(operator) {
            op.due |= op.pods.deliver(&self.pods, usize::MAX);
            op.due |= op.nodes.deliver(&self.nodes, usize::MAX);
            op.due |= op.pool.deliver(&self.pool, usize::MAX);
        }
    }

    /// An operator looks, unless it is carrying out a plan or knows of no pool.
    pub fn look(&mut self, operator: usize) -> Option<Arc<Look>> {
        let op = self.operators.get_mut(operator).filter(|op| op.carrying.is_none())?;
        let late_since = op.pods.late_since(&self.pods);
        op.look(self.outage, late_since, self.now)
    }

    /// An operator makes the next write of its plan. None when there is none.
    pub fn act(&mut self, operator: usize, fate: Fate) -> Option<Done> {
        let op = self.operators.get_mut(operator)?;
        let Some((action, look, sure)) = op.next_write() else {
            op.rest(self.now);
            return None;
        };
        let life = op.life;
        let before = match &action {
            Action::Create { .. } => None,
            Action::Remove { name, .. } | Action::Mark { name, .. } => self.pods.get(name).cloned(),
        };
        if let Some(servers) = &self.servers {
            op.ask_last(&action, &look.removed(&action), &World { servers, pods: &self.pods, now: self.now });
        }
        let (last_words, goes) = op.last_words(&action, self.now);
        let answer = match fate {
            _ if !goes => Answer::Spared,
            Fate::Passes => self.write(&action, &look, life),
            Fate::Lost => Answer::Nothing,
            Fate::Unanswered => {
                self.write(&action, &look, life);
                Answer::Nothing
            }
            Fate::Doubled => {
                self.write(&action, &look, life);
                self.write(&action, &look, life)
            }
            Fate::Refused if matches!(action, Action::Create { .. }) => Answer::Refused,
            Fate::Refused => Answer::Conflict,
        };
        if let Some(op) = self.operators.get_mut(operator) {
            op.learn(&action, &answer, self.now);
            if op.carrying.as_ref().is_some_and(|c| c.steps.is_empty()) {
                op.rest(self.now);
            }
        }
        let mut missed_before = false;
        if let (Answer::NotFound, Action::Remove { uid, .. } | Action::Mark { uid, .. }) = (&answer, &action)
        {
            let before = self.missed.insert((life, uid.clone()), self.now);
            missed_before = before.is_some_and(|at| self.now.duration_since(at) < BELIEVED);
        }
        Some(Done { operator, action, fate, answer, look, sure, missed_before, before, last_words })
    }

    /// Somebody claims a pod from an operator, which hands out one of those that stand by as it saw them last. Returns
    /// the pod as it truly was before if the claim is granted; it is then among [`Cluster::claims`].
    pub fn claim(
        &mut self,
        operator: usize,
        choice: usize,
        ttl: Option<i64>,
        fate: Fate,
    ) -> Option<Arc<PodView>> {
        let op = self.operators.get_mut(operator)?;
        let count = op.standby.len().max(1);
        if op.standby.is_empty() {
            return None;
        }
        let pod = op.standby.remove(choice % count);
        let now = self.now + op.clock;
        self.claimed += 1;
        let claim = Claim {
            id: format!("{}.{}", pod.name, self.claimed),
            by: String::new(),
            claimed_at: now,
            expires_at: ttl.map(|ttl| now + SignedDuration::from_secs(ttl)),
            worked_at: None,
            token: None,
            metadata: BTreeMap::new(),
        };
        let rules = self.pool().map(|pool| pool.spec.settings().marks).unwrap_or_default();
        let (labels, annotations) = marks_of(&claim, rules);
        let before = self.pods.get(&pod.name).cloned();
        let version = pod.resource_version.clone();
        let times = match fate {
            Fate::Lost | Fate::Refused => 0,
            Fate::Passes | Fate::Unanswered => 1,
            Fate::Doubled => 2,
        };
        for _ in 0..times {
            self.mark(&pod.name, &pod.uid, Some(&version), &labels, &annotations);
        }
        // Whatever the answer was, it is read whether the claim is there.
        let granted = self.pods.get(&pod.name).is_some_and(|p| Claim::of(p) == Some(Ok(claim.clone())));
        if !granted {
            return None;
        }
        before.inspect(|_| {
            self.claims.insert(pod.uid, claim.id);
        })
    }

    /// Whoever has a pod, chosen by a number, gives it back.
    pub fn release(&mut self, choice: usize) {
        let count = self.claims.len().max(1);
        let Some(uid) = self.claims.keys().nth(choice % count).cloned() else { return };
        self.claims.remove(&uid);
        let Some(pod) = self.pods.by_uid(&uid).cloned() else { return };
        let rules = self.pool().map(|pool| pool.spec.claims).unwrap_or_default();
        self.mark(&pod.name, &uid, Some(&pod.resource_version), &Marks::new(), &release(rules));
    }

    fn write(&mut self, action: &Action, look: &Look, life: u64) -> Answer {
        match action {
            Action::Create { slot } => self.create(*slot, look.spec, life),
            Action::Mark { name, uid, resource_version, labels, annotations } => {
                let answer = self.mark(name, uid, resource_version.as_deref(), labels, annotations);
                if answer == Answer::Marked && annotations.get(keys::CLAIM) == Some(&None) {
                    self.claims.remove(uid);
                }
                answer
            }
            Action::Remove { name, uid, resource_version, .. } => {
                match self.pods.delete(name, Some(uid), resource_version.as_deref()) {
                    Ok(_) => {
                        self.removed_by.insert(uid.clone(), life);
                        Answer::Removed
                    }
                    Err(Refusal::NotFound) => Answer::NotFound,
                    Err(_) => Answer::Conflict,
                }
            }
        }
    }

    fn create(&mut self, slot: u32, spec: Spec, life: u64) -> Answer {
        let created = pod(slot, self.now + self.clocks.api);
        let uid = format!("uid-{slot}-{}", self.made_by.len());
        let new = PodView { uid: uid.clone(), template_hash: Some(spec.hash()), ..created };
        let name = new.name.clone();
        match self.pods.create(new) {
            Ok(made) => {
                self.made_by.insert(uid, life);
                Answer::Made(PodView::clone(&made))
            }
            Err(_) => Answer::Existed(self.pods.get(&name).map(|pod| PodView::clone(pod))),
        }
    }

    pub(crate) fn mark(
        &mut self,
        name: &str,
        uid: &str,
        version: Option<&str>,
        labels: &Marks,
        annotations: &Marks,
    ) -> Answer {
        let stored = self.pods.get(name).filter(|pod| pod.uid == uid);
        if stored.is_some_and(|pod| version.is_some_and(|version| pod.resource_version != version)) {
            return Answer::Conflict;
        }
        let marked = self.pods.change(name, Some(uid), |pod| {
            for (map, marks) in [(&mut pod.labels, labels), (&mut pod.annotations, annotations)] {
                for (key, value) in marks {
                    match value {
                        Some(value) => map.insert(key.clone(), value.clone()),
                        None => map.remove(key),
                    };
                }
            }
        });
        match marked {
            Ok(_) => Answer::Marked,
            Err(Refusal::NotFound) => Answer::NotFound,
            Err(_) => Answer::Conflict,
        }
    }
}
