//! When something is tried again, or an object looked at again, although no change asks for it: after errors, for
//! what was left undone, and for watches that broke. Waits double and are spread, so that thousands of objects do
//! not ask an API server that has just come back all at once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::utils::Backoff;
use kube::runtime::watcher;

use crate::object::Key;

/// Waits that double.
pub struct BackOff {
    first: Duration,
    longest: Duration,
}

/// After errors, and for what was left undone.
pub const ERRORS: BackOff = BackOff { first: Duration::from_secs(1), longest: Duration::from_secs(16) };

/// After the API server refused what will most likely be refused again: quota, webhooks, templates.
pub const REFUSALS: BackOff = BackOff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };

/// For a watch that broke: until it is back, the operator is blind.
const WATCHES: BackOff = BackOff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

impl BackOff {
    /// How long to wait after so many failures in a row: between three quarters of the full wait and all of it.
    pub fn after(&self, failures: u32) -> Duration {
        let full = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        // A fresh state hashes nothing to a number by chance.
        let chance = RandomState::new().build_hasher().finish() % 1000;
        full.mul_f64(0.75 + 0.25 * chance as f64 / 1000.0)
    }
}

/// How objects are listed and watched: in one piece, as of now. Pages of 500, as kube asks for otherwise, come one after the
/// other, and each is a way to the API server and back.
pub fn watches() -> watcher::Config {
    watcher::Config { page_size: None, ..watcher::Config::default() }
}

/// The waits of one watch; an event of it sets them back.
#[derive(Default)]
pub struct WatchBackOff(u32);

impl Iterator for WatchBackOff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0.saturating_add(1);
        Some(WATCHES.after(self.0))
    }
}

impl Backoff for WatchBackOff {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Looks in a row that ended in an error or left something undone, by object.
#[derive(Default)]
pub struct Unfinished(Mutex<HashMap<Key, u32>>);

impl Unfinished {
    fn looks(&self) -> MutexGuard<'_, HashMap<Key, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes one more, and says when to look again.
    pub fn note(&self, key: &Key) -> Duration {
        let mut looks = self.looks();
        let count = looks.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        ERRORS.after(*count)
    }

    /// Notes a look that did all it wanted, or that there is nothing to look at any more.
    pub fn done(&self, key: &Key) {
        self.looks().remove(key);
    }
}

/// How long a policy that failed so many times in a row is not asked again: 2, 4, 8 … 64 s, and longer where
/// failing takes processor time, so that even hundreds of loops leave the processor to others: each takes a
/// thousandth of one. The first time it is half a minute at most; one that was mended by hand is tried at once.
pub fn patience(failures: u32, cost: Duration) -> Duration {
    let doubling = Duration::from_secs(1 << failures.min(6));
    let longest = Duration::from_secs(if failures <= 1 { 30 } else { 300 });
    doubling.max((cost * 1000).min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn full(wait: Duration) -> impl Fn(u64) -> bool {
        move |milliseconds| {
            let full = Duration::from_millis(milliseconds);
            full.mul_f64(0.75) <= wait && wait <= full
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (failures, milliseconds) in [(1, 1000), (2, 2000), (5, 16_000), (6, 16_000), (u32::MAX, 16_000)] {
            let wait = ERRORS.after(failures);
            assert!(full(wait)(milliseconds), "{failures}: {wait:?}");
        }
    }

    #[test]
    fn waits_are_spread() {
        let waits: Vec<Duration> = (0..100).map(|_| ERRORS.after(5)).collect();
        assert!(waits.iter().any(|w| *w != waits[0]), "{waits:?}");
    }

    #[test]
    fn a_watch_is_tried_again_after_five_seconds_at_most_and_begins_anew_once_it_works() {
        let mut watch = WatchBackOff::default();
        assert!(watch.by_ref().take(20).all(|wait| wait <= Duration::from_secs(5)));
        watch.reset();
        assert!(watch.next().is_some_and(|wait| full(wait)(250)));
    }

    #[test]
    fn an_object_that_is_done_begins_anew() {
        let unfinished = Unfinished::default();
        let key = Key { kind: Kind::HotStandbyDeployment, namespace: "a".into(), name: "b".into() };
        assert!(full(unfinished.note(&key))(1000));
        assert!(full(unfinished.note(&key))(2000));
        unfinished.done(&key);
        assert!(full(unfinished.note(&key))(1000));
    }

    #[test]
    fn a_failing_policy_is_asked_again_the_later_the_more_it_costs() {
        let seconds =
            |failures, milliseconds| patience(failures, Duration::from_millis(milliseconds)).as_secs_f64();
        assert_eq!([1, 2, 3, 6, 60].map(|failures| seconds(failures, 0)), [2.0, 4.0, 8.0, 64.0, 64.0]);
        assert_eq!([1, 2, 9].map(|failures| seconds(failures, 10)), [10.0, 10.0, 64.0]);
        assert_eq!([1, 2, 9].map(|failures| seconds(failures, 100)), [30.0, 100.0, 100.0]);
        assert_eq!([1, 2].map(|failures| seconds(failures, 10_000)), [30.0, 300.0]);
    }
}
