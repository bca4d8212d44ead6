//! The threads that guests run on, and the order in which calls get them. A guest never runs on
//! an async worker, and a slow policy never holds every thread: I8, the worst policy affects only
//! the objects that reference it.
//!
//! Calls queue by policy, and the policies take turns. A call begins on a thread for quick ones, and
//! is cut off there when it takes long: as it depends on its input alone, it can begin anew on a
//! thread for slow ones, which gives way to everything else in the process. The policy's later calls
//! begin there until one is quick again.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{CallError, HostError};
use crate::limits::STACK_BYTES;

/// A call up to this long, in processor time, is quick, and none is longer on a thread for quick ones. Interpreted
/// languages take up to some 10 ms.
const QUICK: Duration = Duration::from_millis(20);
/// How much politer than the rest of the process the threads for slow policies are.
const NICE: i32 = 10;
/// For WebAssembly and for the host functions that it calls.
const THREAD_STACK: usize = STACK_BYTES + (2 << 20);

/// Runs a call, for so long at most if that is given.
pub(crate) type Job = Box<dyn FnMut(Option<Duration>) -> Ran + Send>;

/// How a call ended.
pub(crate) enum Ran {
    /// It was answered after this processor time.
    Done(Duration),
    /// It would have taken longer than was given. It can be run again.
    CutOff,
    /// Nobody waits for it any more.
    Unwanted,
}

/// The calls of one policy.
#[derive(Debug)]
pub(crate) struct Lane {
    id: u64,
    /// Whether the last call was.
    quick: AtomicBool,
    /// Nanoseconds of processor time that the last call took.
    cost: AtomicU64,
}

impl Lane {
    pub(crate) fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Relaxed),
            quick: AtomicBool::new(true),
            cost: AtomicU64::new(0),
        })
    }

    /// Notes the processor time that a call took.
    pub(crate) fn note(&self, cost: Duration) {
        self.cost.store(u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The processor time that the last call took.
    pub(crate) fn cost(&self) -> Duration {
        Duration::from_nanos(self.cost.load(Relaxed))
    }
}

/// A fixed number of threads with their queue. Dropping it ends the threads after their call.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    max_waiting: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Wakes a thread for quick policies.
    quick: Condvar,
    /// Wakes a thread for the others.
    slow: Condvar,
}

#[derive(Default)]
struct Queue {
    lanes: HashMap<u64, VecDeque<(Arc<Lane>, Job)>>,
    /// Lanes with calls, the next one first.
    turns: VecDeque<u64>,
    stopped: bool,
}

impl Queue {
    /// The next call of a policy that is quick, or of one that is not.
    fn pick(&mut self, quick: bool) -> Option<(Arc<Lane>, Job)> {
        let is_it = |id: &u64| {
            let first = self.lanes.get(id).and_then(VecDeque::front);
            first.is_some_and(|(lane, _)| lane.quick.load(Relaxed) == quick)
        };
        let place = self.turns.iter().position(is_it)?;
        let id = self.turns.remove(place)?;
        let calls = self.lanes.get_mut(&id)?;
        let next = calls.pop_front();
        if calls.is_empty() {
            self.lanes.remove(&id);
        } else {
            self.turns.push_back(id);
        }
        next
    }

    /// A call that was cut off comes before its policy's others.
    fn put_back(&mut self, lane: &Arc<Lane>, job: Job) {
        let calls = self.lanes.entry(lane.id).or_default();
        if calls.is_empty() {
            self.turns.push_back(lane.id);
        }
        calls.push_front((Arc::clone(lane), job));
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes a thread that may run the lane's calls.
    fn wake(&self, lane: &Lane) {
        if lane.quick.load(Relaxed) { self.quick.notify_one() } else { self.slow.notify_one() }
    }
}

impl Workers {
    /// Starts `threads` threads, at least two, half of them for quick policies. Up to `max_waiting`
    /// calls of a policy may wait.
    pub(crate) fn start(threads: usize, max_waiting: usize) -> Result<Self, HostError> {
        let shared = Shared { queue: Mutex::default(), quick: Condvar::new(), slow: Condvar::new() };
        let shared = Arc::new(shared);
        // Made first, so that the threads end if one of them cannot be started.
        let workers = Self { shared, max_waiting };
        for number in 0..threads.max(2) {
            let shared = Arc::clone(&workers.shared);
            let quick = number % 2 == 0;
            thread::Builder::new()
                .name(format!("policy-{number}"))
                .stack_size(THREAD_STACK)
                .spawn(move || work(&shared, quick))
                .map_err(|error| HostError::Thread(error.to_string()))?;
        }
        Ok(workers)
    }

    /// Puts a call into the queue.
    pub(crate) fn submit(&self, lane: &Arc<Lane>, job: Job) -> Result<(), CallError> {
        let mut queue = self.shared.queue();
        let calls = queue.lanes.entry(lane.id).or_default();
        if calls.len() >= self.max_waiting {
            return Err(CallError::Busy { waiting: calls.len() });
        }
        let first = calls.is_empty();
        calls.push_back((Arc::clone(lane), job));
        if first {
            queue.turns.push_back(lane.id);
        }
        drop(queue);
        self.shared.wake(lane);
        Ok(())
    }

    /// Calls that wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.queue().lanes.values().map(VecDeque::len).sum()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.stopped = true;
        let abandoned = std::mem::take(&mut queue.lanes);
        queue.turns.clear();
        drop(queue);
        // Outside the lock: the callers are told by the drop of what their calls hold.
        drop(abandoned);
        self.shared.quick.notify_all();
        self.shared.slow.notify_all();
    }
}

fn work(shared: &Shared, quick: bool) {
    if !quick {
        // Where it is not allowed, they compete with the rest, which is a pity and no more.
        let _ = rustix::process::nice(NICE);
    }
    let changed = if quick { &shared.quick } else { &shared.slow };
    let mut queue = shared.queue();
    while !queue.stopped {
        let Some((lane, mut job)) = queue.pick(quick) else {
            queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(queue);
        let limit = quick.then_some(QUICK);
        match catch_unwind(AssertUnwindSafe(|| job(limit))) {
            Ok(Ran::Done(took)) => {
                let now = took <= QUICK;
                if lane.quick.swap(now, Relaxed) != now {
                    // Its other calls are no longer for this thread.
                    shared.wake(&lane);
                }
            }
            Ok(Ran::CutOff) => {
                lane.quick.store(false, Relaxed);
                shared.queue().put_back(&lane, job);
                shared.wake(&lane);
            }
            Ok(Ran::Unwanted) => {}
            Err(_) => tracing::error!("a call panicked in the policy host"),
        }
        queue = shared.queue();
    }
}
