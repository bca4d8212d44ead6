//! Who compiles next. Tenants take turns, and components that have shown to be costly never hold
//! all the places.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What is known of a component's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Nothing yet.
    Quick,
    /// It did not end within [`super::CompileLimits::QUICK`].
    Slow,
}

/// The places, and those who wait for one.
pub(crate) struct Queue {
    places: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    slow_running: usize,
    quick: Turns,
    slow: Turns,
}

/// Tenants take turns; each one's own wait in order.
#[derive(Default)]
struct Turns {
    order: VecDeque<String>,
    waiting: HashMap<String, VecDeque<oneshot::Sender<Place>>>,
}

/// A place to compile at, until it is dropped.
pub(crate) struct Place {
    queue: Arc<Queue>,
    pace: Pace,
}

impl Queue {
    /// At least two places, so that one is left for what is quick.
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places: places.max(2), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. Whoever drops the future no longer waits.
    pub(crate) async fn place(self: &Arc<Self>, tenant: &str, pace: Pace) -> Place {
        loop {
            let (sender, receiver) = oneshot::channel();
            self.state().turns(pace).wait(tenant, sender);
            self.grant();
            if let Ok(place) = receiver.await {
                return place;
            }
        }
    }

    /// Hands free places out.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some((sender, pace)) = state.pick(self.places) else { return };
            state.running += 1;
            state.slow_running += usize::from(pace == Pace::Slow);
            drop(state);
            // Comes back by its drop, which grants it to another, if nobody waits for it any more.
            let _ = sender.send(Place { queue: Arc::clone(self), pace });
        }
    }
}

impl State {
    fn turns(&mut self, pace: Pace) -> &mut Turns {
        match pace {
            Pace::Quick => &mut self.quick,
            Pace::Slow => &mut self.slow,
        }
    }

    fn pick(&mut self, places: usize) -> Option<(oneshot::Sender<Place>, Pace)> {
        if self.running >= places {
            return None;
        }
        if let Some(sender) = self.quick.pick() {
            return Some((sender, Pace::Quick));
        }
        if self.slow_running + 1 >= places {
            return None;
        }
        self.slow.pick().map(|sender| (sender, Pace::Slow))
    }
}

impl Turns {
    fn wait(&mut self, tenant: &str, sender: oneshot::Sender<Place>) {
        let own = self.waiting.entry(tenant.to_owned()).or_default();
        if own.is_empty() {
            self.order.push_back(tenant.to_owned());
        }
        own.push_back(sender);
    }

    fn pick(&mut self) -> Option<oneshot::Sender<Place>> {
        while let Some(tenant) = self.order.pop_front() {
            let Some(mut own) = self.waiting.remove(&tenant) else { continue };
            let next = std::iter::from_fn(|| own.pop_front()).find(|sender| !sender.is_closed());
            if !own.is_empty() {
                self.order.push_back(tenant.clone());
                self.waiting.insert(tenant, own);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.running -= 1;
        state.slow_running -= usize::from(self.pace == Pace::Slow);
        drop(state);
        self.queue.grant();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Polls once; waiting begins with the first poll.
    fn now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn tenants_take_turns() {
        let queue = Queue::new(2);
        let first = now(pin!(queue.place("many", Pace::Quick))).unwrap();
        let second = now(pin!(queue.place("many", Pace::Quick))).unwrap();
        let mut third = pin!(queue.place("many", Pace::Quick));
        let mut fourth = pin!(queue.place("many", Pace::Quick));
        let mut other = pin!(queue.place("other", Pace::Quick));
        assert!(now(third.as_mut()).is_none() && now(fourth.as_mut()).is_none());
        assert!(now(other.as_mut()).is_none());
        drop(first);
        let third = now(third).unwrap();
        assert!(now(fourth.as_mut()).is_none(), "it is the other's turn");
        drop(second);
        assert!(now(fourth.as_mut()).is_none());
        assert!(now(other).is_some());
        drop(third);
        assert!(now(fourth).is_some());
    }

    #[test]
    fn what_is_slow_leaves_a_place() {
        let queue = Queue::new(2);
        let slow = now(pin!(queue.place("a", Pace::Slow))).unwrap();
        let mut more = pin!(queue.place("b", Pace::Slow));
        assert!(now(more.as_mut()).is_none());
        let quick = now(pin!(queue.place("a", Pace::Quick))).unwrap();
        drop(quick);
        assert!(now(more.as_mut()).is_none());
        drop(slow);
        assert!(now(more).is_some());
    }

    #[test]
    fn who_gave_up_is_passed_over() {
        let queue = Queue::new(2);
        let places: Vec<_> = (0..2).map(|_| now(pin!(queue.place("a", Pace::Quick))).unwrap()).collect();
        let mut last = pin!(queue.place("a", Pace::Quick));
        {
            let mut gone = pin!(queue.place("a", Pace::Quick));
            assert!(now(gone.as_mut()).is_none());
            assert!(now(last.as_mut()).is_none());
        }
        drop(places);
        assert!(now(last).is_some());
        assert_eq!(queue.state().running, 0);
    }
}
