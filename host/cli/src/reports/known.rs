//! What watches have told, and the views of NodeBatchJobs made of it: made when they are asked for, and again once something
//! has changed. What is asked for here is in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stoker_api::NodeBatchJob;
use stoker_core::fan_out::NodeView;
use stoker_reports::{JobKey, JobView, NotReady, PodSlot};
use tokio::sync::watch;

use super::nodes::Nodes;
use super::pod::NodePod;
use super::view;

/// A view is made at most so often while its pods' states and nodes change. Pods that it does not know make it anew at once.
const TOGETHER: Duration = Duration::from_millis(50);

/// An error of a watch counts for so long, unless the watch tells something before: the next one comes within that time.
const BROKEN: Duration = Duration::from_secs(60);

/// What a watch is of, for each scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    Jobs(usize),
    Pods(usize),
    Nodes,
}

/// All that is known.
pub struct Known {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    watches: usize,
}

#[derive(Default)]
struct State {
    jobs: HashMap<JobKey, Job>,
    /// The names of jobs, by UID.
    keys: HashMap<String, JobKey>,
    /// By the UID of their job, then by name.
    pods: HashMap<String, BTreeMap<String, NodePod>>,
    nodes: Nodes,
    listed: HashSet<Watch>,
    /// When a watch broke, if it has told nothing since.
    broken: HashMap<Watch, Instant>,
}

struct Job {
    object: Arc<NodeBatchJob>,
    made: Option<Made>,
}

/// A view, and whether it still holds.
struct Made {
    view: Arc<JobView>,
    at: Instant,
    stale: Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    No,
    /// It is made again when it is old enough.
    Soon,
    /// It is made again before anybody sees it.
    Now,
}

impl Job {
    fn outdate(&mut self, how: Stale) {
        if let Some(made) = &mut self.made {
            made.stale = made.stale.max(how);
        }
    }

    /// Whether the view that there is knows the pod, so that its report is taken.
    fn shows(&self, pod: &NodePod) -> bool {
        let Some(made) = &self.made else { return false };
        let execution = pod.execution.parse().ok().and_then(|id| made.view.executions.get(&id));
        let node = execution.and_then(|execution| execution.nodes.get(&pod.node));
        node.is_some_and(|node| node.pod == pod.name || node.earlier.contains(&pod.name))
    }
}

impl Known {
    /// Nothing yet. As many scopes are watched, each for jobs and pods, and the nodes.
    pub fn new(scopes: usize) -> Self {
        Self { state: Mutex::default(), changes: watch::channel(0).0, watches: 2 * scopes + 1 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Changes whenever something is told.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether no watch is broken.
    pub fn is_current(&self) -> bool {
        let mut state = self.state();
        state.broken.retain(|_, since| since.elapsed() < BROKEN);
        state.broken.is_empty()
    }

    /// A watch has broken.
    pub fn broke(&self, watch: Watch) {
        self.state().broken.insert(watch, Instant::now());
    }

    /// A watch has told something.
    pub fn works(&self, watch: Watch) {
        self.state().broken.remove(&watch);
    }

    /// A watch has listed all there is, once.
    pub fn listed(&self, watch: Watch) {
        if self.state().listed.insert(watch) {
            self.changed();
        }
    }

    /// Takes an object in.
    pub fn put_job(&self, object: NodeBatchJob) {
        let mut state = self.state();
        let key = view::key(&object);
        let uid = object.metadata.uid.clone().unwrap_or_default();
        state.keys.insert(uid, key.clone());
        let object = Arc::new(object);
        match state.jobs.get_mut(&key) {
            Some(job) => {
                job.object = object;
                job.outdate(Stale::Now);
            }
            None => drop(state.jobs.insert(key, Job { object, made: None })),
        }
        drop(state);
        self.changed();
    }

    /// Takes objects away that are not to be kept.
    pub fn retain_jobs(&self, keep: impl Fn(&JobKey) -> bool) {
        let mut state = self.state();
        state.jobs.retain(|key, _| keep(key));
        let State { jobs, keys, pods, .. } = &mut *state;
        keys.retain(|uid, key| {
            jobs.get(key).is_some_and(|job| job.object.metadata.uid.as_deref() == Some(uid))
        });
        // Nobody asks any more how they were at last.
        pods.retain(|job, pods| {
            pods.retain(|_, pod| !pod.gone || keys.contains_key(job));
            !pods.is_empty()
        });
        drop(state);
        self.changed();
    }

    /// Takes a pod in.
    pub fn put_pod(&self, pod: NodePod) {
        let mut state = self.state();
        state.outdate(&pod);
        state.pods.entry(pod.job.clone()).or_default().insert(pod.name.clone(), pod);
        drop(state);
        self.changed();
    }

    /// A pod was deleted. How it was at last is kept for as long as it may be asked for.
    pub fn pod_gone(&self, pod: NodePod) {
        let mut state = self.state();
        state.outdate(&pod);
        let known = state.keys.contains_key(&pod.job);
        if let Some(pods) = state.pods.get_mut(&pod.job)
            && pods.get(&pod.name).is_none_or(|last| last.uid == pod.uid)
        {
            if known {
                pods.insert(pod.name.clone(), NodePod { gone: true, ..pod });
            } else {
                pods.remove(&pod.name);
            }
        }
        drop(state);
        self.changed();
    }

    /// Takes a complete listing of the pods of some namespaces, by UID: the others there are gone.
    pub fn pods_listed(&self, in_scope: impl Fn(&str) -> bool, listed: &HashSet<String>) {
        let unlisted = |pod: &&NodePod| !pod.gone && in_scope(&pod.namespace) && !listed.contains(&pod.uid);
        let gone: Vec<NodePod> =
            self.state().pods.values().flat_map(BTreeMap::values).filter(unlisted).cloned().collect();
        gone.into_iter().for_each(|pod| self.pod_gone(pod));
    }

    /// Takes a node in.
    pub fn put_node(&self, node: NodeView) {
        self.change_nodes(|nodes| nodes.put(node));
    }

    /// Changes what is known of nodes; true = something has changed.
    pub fn change_nodes(&self, change: impl FnOnce(&mut Nodes) -> bool) {
        let mut state = self.state();
        if change(&mut state.nodes) {
            state.jobs.values_mut().for_each(|job| job.outdate(Stale::Soon));
            drop(state);
            self.changed();
        }
    }

    /// A job, as far as it is known now.
    pub fn job(&self, key: &JobKey) -> Result<Option<Arc<JobView>>, NotReady> {
        let mut state = self.state();
        state.ready(self.watches)?;
        Ok(state.view(key))
    }

    /// All jobs.
    pub fn jobs(&self) -> Result<Vec<Arc<JobView>>, NotReady> {
        let mut state = self.state();
        state.ready(self.watches)?;
        let keys: Vec<JobKey> = state.jobs.keys().cloned().collect();
        Ok(keys.iter().filter_map(|key| state.view(key)).collect())
    }

    /// The UID of a pod that there is.
    pub fn pod(&self, slot: &PodSlot) -> Option<String> {
        let state = self.state();
        let pod = state.pods.get(&slot.uid)?.get(&slot.pod)?;
        (!pod.gone).then(|| pod.uid.clone())
    }
}

impl State {
    fn ready(&self, watches: usize) -> Result<(), NotReady> {
        if self.listed.len() < watches { Err(NotReady) } else { Ok(()) }
    }

    fn outdate(&mut self, pod: &NodePod) {
        let job = self.keys.get(&pod.job).and_then(|key| self.jobs.get_mut(key));
        if let Some(job) = job {
            let how = if job.shows(pod) { Stale::Soon } else { Stale::Now };
            job.outdate(how);
        }
    }

    /// The view of a job, made if there is none that holds.
    fn view(&mut self, key: &JobKey) -> Option<Arc<JobView>> {
        let Self { jobs, pods, nodes, .. } = self;
        let job = jobs.get_mut(key)?;
        let holds = |made: &&Made| match made.stale {
            Stale::No => true,
            Stale::Soon => made.at.elapsed() < TOGETHER,
            Stale::Now => false,
        };
        if let Some(made) = job.made.as_ref().filter(holds) {
            return Some(made.view.clone());
        }
        let object = &job.object;
        let own = pods.get_mut(object.metadata.uid.as_deref().unwrap_or_default());
        let own = own.map(|own| {
            own.retain(|_, pod| !pod.gone || view::needs_gone_pods(object, &pod.execution));
            &*own
        });
        let made = Arc::new(view::view(object, own.into_iter().flat_map(BTreeMap::values), nodes));
        job.made = Some(Made { view: made.clone(), at: Instant::now(), stale: Stale::No });
        Some(made)
    }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
