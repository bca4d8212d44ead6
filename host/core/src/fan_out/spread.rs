//! What is done on which node now: a pure function of the nodes, of what was made for them, and of the record.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use stoker_api::{NodeCounts, Parallelism, Retry};

use super::choose::{PassedOver, Rules};
use super::node::NodeView;
use super::record::{Fate, NodeKey, Record};
use crate::kept::SHOWN;

/// What was made for a node, a Job or a pod.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The node's UID.
    pub uid: &'a str,
    /// Which attempt of the node it is, from 1.
    pub attempt: u16,
    /// It is of an earlier run: only its end is awaited.
    pub stale: bool,
    /// When it was created.
    pub created: Timestamp,
    /// What it does.
    pub state: TaskState,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It has not ended. One whose creation is not confirmed is one of these.
    Running,
    /// It has ended well.
    Succeeded,
    /// It has ended badly.
    Failed {
        /// Why, in words.
        why: String,
        /// When.
        at: Option<Timestamp>,
    },
    /// It was deleted before it had ended: a failure, unless the whole was to end.
    Deleted {
        /// When.
        at: Option<Timestamp>,
    },
}

/// What becomes of the others when a node has failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterFailure {
    /// They go on.
    #[default]
    GoOn,
    /// Nothing more starts.
    Hold,
    /// Nothing more starts, and what runs is cancelled.
    End,
}

/// How the work is spread.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// How many nodes are at work at a time; None = all. What is no number of nodes counts as one.
    pub at_a_time: Option<Parallelism>,
    /// How often a node is tried again.
    pub retry: Option<Retry>,
    /// What becomes of the others when a node has failed for good.
    pub after_failure: AfterFailure,
    /// Nothing starts now.
    pub hold: bool,
    /// Nothing starts any more, and what runs is cancelled.
    pub end: bool,
    /// Nodes that have left are not counted, and are forgotten in the end: the work goes on for ever.
    pub endless: bool,
}

/// Something to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The node's name.
    pub node: String,
    /// Its UID.
    pub uid: String,
    /// Which attempt it is, from 1.
    pub attempt: u16,
}

/// An attempt that has failed, seen for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which of the tasks.
    pub task: usize,
    /// The node has failed for good.
    pub for_good: bool,
}

/// What is done, and what is known then.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// To start, by the nodes' names.
    pub starts: Vec<Start>,
    /// Tasks that run and are to end.
    pub cancels: Vec<usize>,
    /// Attempts that have failed.
    pub failures: Vec<Failure>,
    /// What became of each node.
    pub record: Record,
    /// Nodes by what became of them; `gone` is how many were found gone now.
    pub counts: NodeCounts,
    /// Tasks that have not ended, of earlier runs and of nodes that left, too: no more than are allowed at a time, unless
    /// that was lowered.
    pub in_flight: usize,
    /// Tasks that have failed, and whose node the watch may yet show.
    pub undecided: usize,
    /// Nodes that are chosen.
    pub chosen: usize,
    /// How many nodes are not, by why.
    pub passed_over: BTreeMap<PassedOver, usize>,
    /// Until when nodes wait for another attempt.
    pub waiting: HashMap<NodeKey, Timestamp>,
    /// When to look again at the latest.
    pub wake_at: Option<Timestamp>,
}

/// Nodes that have left are forgotten once the record knows this many, and twice as many as there are. None of them can
/// be one that a late watch has yet to show: its task was kept for longer than that.
const FORGET_FROM: usize = 1_024;

/// Spreads the work. `before` is what is known so far; `may_start` is asked of each node that is due, by name, and told
/// whether there is room for it: one for which nothing can be made now takes none.
pub fn spread(
    rules: &Rules,
    limits: &Limits,
    nodes: &[NodeView],
    before: &Record,
    tasks: &[Task<'_>],
    now: Timestamp,
    may_start: &mut dyn FnMut(&Start, bool) -> bool,
) -> Spread {
    let mut by_name: Vec<(&NodeView, NodeKey)> =
        nodes.iter().map(|node| (node, NodeKey::of(&node.uid))).collect();
    by_name.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let keys = tasks.iter().map(|task| NodeKey::of(task.uid)).collect();
    let there = by_name.iter().map(|(_, key)| *key).collect();
    let out = Spread { record: before.clone(), ..Spread::default() };
    let mut look = Look { limits, tasks, keys, there, now, out };
    look.settle();
    look.stop();
    look.fly();
    look.forget();
    look.count(rules, &by_name);
    look.start(rules, &by_name, may_start);
    look.out
}

struct Look<'a> {
    limits: &'a Limits,
    tasks: &'a [Task<'a>],
    /// The node of each task.
    keys: Vec<NodeKey>,
    there: HashSet<NodeKey>,
    now: Timestamp,
    out: Spread,
}

impl<'a> Look<'a> {
    fn wake(&mut self, at: Timestamp) {
        let at = at.max(self.now);
        self.out.wake_at = Some(self.out.wake_at.map_or(at, |before| before.min(at)));
    }

    fn runs(&self) -> impl Iterator<Item = (&'a Task<'a>, NodeKey)> {
        let running = |(task, _): &(&Task<'_>, NodeKey)| task.state == TaskState::Running;
        self.tasks.iter().zip(self.keys.iter().copied()).filter(running)
    }

    /// Records what has ended and who has left. A success always counts; otherwise the first that is known of an attempt.
    fn settle(&mut self) {
        let tasks = self.tasks;
        for (index, task) in tasks.iter().enumerate() {
            let key = self.keys[index];
            if task.stale {
                continue;
            }
            if task.state == TaskState::Succeeded {
                self.out.record.succeed(key);
                continue;
            }
            if !self.there.contains(&key) && !self.final_fate(key) {
                let shown = task.created.saturating_add(SHOWN).unwrap_or(Timestamp::MAX);
                if shown <= self.now {
                    self.out.record.leave(key);
                    self.out.counts.gone += 1;
                } else {
                    // The node may have joined a moment ago.
                    self.out.undecided += usize::from(task.state != TaskState::Running);
                    self.wake(shown);
                }
                continue;
            }
            if matches!(task.state, TaskState::Failed { .. }) {
                self.fail(index);
            }
        }
        // What was deleted because the whole is to end has not failed.
        if !self.ends() {
            for (index, task) in tasks.iter().enumerate() {
                let counts = !task.stale && self.there.contains(&self.keys[index]);
                if counts && matches!(task.state, TaskState::Deleted { .. }) {
                    self.fail(index);
                }
            }
        }
    }

    /// An attempt has failed, which is counted once.
    fn fail(&mut self, index: usize) {
        let (key, attempt) = (self.keys[index], self.tasks[index].attempt);
        if !self.out.record.settles(key, attempt) {
            let limit = self.limits.retry.as_ref().map_or(0, |retry| retry.limit);
            let for_good = self.out.record.fail(key, attempt, limit);
            self.out.failures.push(Failure { task: index, for_good });
        }
    }

    /// What runs is to end.
    fn ends(&self) -> bool {
        self.limits.end || self.limits.after_failure == AfterFailure::End && self.failed()
    }

    /// How long a node waits after so many failures.
    fn delay(&self, failures: u8) -> SignedDuration {
        self.limits.retry.as_ref().map_or(SignedDuration::ZERO, |retry| retry.delay(failures.into()))
    }

    fn final_fate(&self, key: NodeKey) -> bool {
        matches!(self.out.record.of(key), Some(Fate::Succeeded | Fate::Failed(_) | Fate::Gone))
    }

    /// Cancels what runs where the whole is to end, and where an attempt is settled in another way.
    fn stop(&mut self) {
        let end = self.ends();
        for (index, task) in self.tasks.iter().enumerate() {
            let (key, attempt) = (self.keys[index], task.attempt);
            let stops = matches!(task.state, TaskState::Running | TaskState::Deleted { .. });
            if end && stops && !task.stale && !self.out.record.settles(key, attempt) {
                self.out.record.cancel(key, attempt);
            }
            let settled = task.stale || self.out.record.settles(key, attempt);
            if settled && task.state == TaskState::Running {
                self.out.cancels.push(index);
            }
        }
    }

    /// Some node has failed for good, and counts.
    fn failed(&self) -> bool {
        let counts = |key: NodeKey| !self.limits.endless || self.there.contains(&key);
        self.out.record.iter().any(|(key, fate)| matches!(fate, Fate::Failed(_)) && counts(key))
    }

    fn fly(&mut self) {
        self.out.in_flight = self.runs().count();
    }

    fn forget(&mut self) {
        let known = self.out.record.len();
        if self.limits.endless && known > FORGET_FROM && known > 2 * self.there.len() {
            let mut keep = self.there.clone();
            keep.extend(self.keys.iter().copied());
            self.out.record.retain(|key| keep.contains(&key));
        }
    }

    fn count(&mut self, rules: &Rules, nodes: &[(&NodeView, NodeKey)]) {
        let counts = |key: &NodeKey| !self.limits.endless || self.there.contains(key);
        let (mut succeeded, mut failed) = (0, 0);
        for (_, fate) in self.out.record.iter().filter(|(key, _)| counts(key)) {
            match fate {
                Fate::Succeeded => succeeded += 1,
                Fate::Failed(_) => failed += 1,
                Fate::Tried(_) | Fate::Gone => {}
            }
        }
        let at_work: HashSet<NodeKey> = self
            .runs()
            .filter(|(task, key)| !task.stale && !self.final_fate(*key))
            .map(|(_, key)| key)
            .collect();
        let mut pending = 0;
        for (node, key) in nodes {
            match rules.choose(node) {
                Ok(()) => {
                    self.out.chosen += 1;
                    pending += u32::from(!self.final_fate(*key) && !at_work.contains(key));
                }
                Err(why) => *self.out.passed_over.entry(why).or_default() += 1,
            }
        }
        let running = u32::try_from(at_work.len()).unwrap_or(u32::MAX);
        let desired = running + succeeded + failed + pending;
        let gone = self.out.counts.gone;
        self.out.counts = NodeCounts { desired, running, succeeded, failed, pending, gone };
    }

    /// Starts as many as there is room for.
    fn start(
        &mut self,
        rules: &Rules,
        nodes: &[(&NodeView, NodeKey)],
        may_start: &mut dyn FnMut(&Start, bool) -> bool,
    ) {
        let tasks = self.tasks;
        let busy: HashSet<&str> = self.runs().flat_map(|(task, _)| [task.node, task.uid]).collect();
        let mut last_end: HashMap<NodeKey, Timestamp> = HashMap::new();
        for (task, key) in tasks.iter().zip(&self.keys) {
            let (TaskState::Failed { at, .. } | TaskState::Deleted { at }) = &task.state else { continue };
            if let (false, Some(at)) = (task.stale, at) {
                let latest = last_end.entry(*key).or_insert(*at);
                *latest = (*latest).max(*at);
            }
        }
        let stopped = self.limits.hold
            || self.limits.end
            || self.limits.after_failure != AfterFailure::GoOn && self.failed();
        let desired = self.out.counts.desired as usize;
        let room = self.limits.at_a_time.as_ref().map_or(usize::MAX, |at| at.of(desired).unwrap_or(1));
        let mut room = room.saturating_sub(self.out.in_flight);
        for (node, key) in nodes {
            if rules.choose(node).is_err() || self.final_fate(*key) {
                continue;
            }
            let tries = match self.out.record.of(*key) {
                Some(Fate::Tried(tries)) => tries,
                _ => super::Tries::default(),
            };
            let until = last_end
                .get(key)
                .map(|at| at.saturating_add(self.delay(tries.failures)).unwrap_or(Timestamp::MAX));
            if let Some(until) = until.filter(|until| *until > self.now) {
                self.out.waiting.insert(*key, until);
                if !stopped {
                    self.wake(until);
                }
                continue;
            }
            let taken = busy.contains(node.name.as_str()) || busy.contains(node.uid.as_str());
            if stopped || taken || tries.last == u16::MAX {
                continue;
            }
            let start = Start { node: node.name.clone(), uid: node.uid.clone(), attempt: tries.last + 1 };
            if may_start(&start, room > 0) && room > 0 {
                room -= 1;
                self.out.starts.push(start);
            }
        }
    }
}
