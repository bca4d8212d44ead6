//! The threads that guests run on, and the order in which calls get them. A guest never runs on
//! an async worker, and a slow policy never holds every thread: I8, the worst policy affects only
//! the objects that reference it.
//!
//! Calls queue by policy, and the policies take turns. Those whose last call was not quick may
//! together hold all threads but one.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{CallError, HostError};
use crate::limits::STACK_BYTES;

/// A call up to this long is quick. Interpreted languages take up to some 10 ms.
const QUICK: Duration = Duration::from_millis(20);
/// For WebAssembly and for the host functions that it calls.
const THREAD_STACK: usize = STACK_BYTES + (2 << 20);

/// Runs a call and tells how long it took, or nothing when nobody waits for it any more.
pub(crate) type Job = Box<dyn FnOnce() -> Option<Duration> + Send>;

/// The calls of one policy.
#[derive(Debug)]
pub(crate) struct Lane {
    id: u64,
    /// Whether the last call was. A policy that has not answered yet is not trusted to be.
    quick: AtomicBool,
}

impl Lane {
    pub(crate) fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self { id: NEXT.fetch_add(1, Relaxed), quick: AtomicBool::new(false) })
    }
}

/// A fixed number of threads with their queue. Dropping it ends the threads after their call.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    max_waiting: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lanes: HashMap<u64, VecDeque<(Arc<Lane>, Job)>>,
    /// Lanes with calls, the next one first.
    turns: VecDeque<u64>,
    slow_running: usize,
    max_slow: usize,
    stopped: bool,
}

impl Queue {
    /// The next call that may run now, and whether it counts as slow.
    fn pick(&mut self) -> Option<(Arc<Lane>, Job, bool)> {
        for _ in 0..self.turns.len() {
            let id = self.turns.pop_front()?;
            let Some(calls) = self.lanes.get_mut(&id) else { continue };
            let slow = calls.front().is_some_and(|(lane, _)| !lane.quick.load(Relaxed));
            if slow && self.slow_running >= self.max_slow {
                self.turns.push_back(id);
                continue;
            }
            let next = calls.pop_front();
            if calls.is_empty() {
                self.lanes.remove(&id);
            } else {
                self.turns.push_back(id);
            }
            if let Some((lane, job)) = next {
                self.slow_running += usize::from(slow);
                return Some((lane, job, slow));
            }
        }
        None
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    /// Starts `threads` threads, at least two. Up to `max_waiting` calls of a policy may wait.
    pub(crate) fn start(threads: usize, max_waiting: usize) -> Result<Self, HostError> {
        let queue = Queue { max_slow: threads.saturating_sub(1).max(1), ..Queue::default() };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        // Made first, so that the threads end if one of them cannot be started.
        let workers = Self { shared, max_waiting };
        for number in 0..threads {
            let shared = Arc::clone(&workers.shared);
            thread::Builder::new()
                .name(format!("policy-{number}"))
                .stack_size(THREAD_STACK)
                .spawn(move || work(&shared))
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
        self.shared.changed.notify_one();
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
        self.shared.changed.notify_all();
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.queue();
    while !queue.stopped {
        let Some((lane, job, slow)) = queue.pick() else {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(queue);
        match catch_unwind(AssertUnwindSafe(job)) {
            Ok(Some(took)) => lane.quick.store(took <= QUICK, Relaxed),
            Ok(None) => {}
            Err(_) => tracing::error!("a call panicked in the policy host"),
        }
        queue = shared.queue();
        if slow {
            queue.slow_running -= 1;
            // Another slow call may have waited for this one with a thread at rest.
            if !queue.turns.is_empty() {
                shared.changed.notify_one();
            }
        }
    }
}
