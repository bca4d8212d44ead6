//! Signals: numbers from outside that policies are given. They are fetched beside the looks, each at its own pace, and dated.
//! A source that fails is told as that, never as a number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stoker_api::Signal;
use stoker_policy::contract::scaling;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::context::{Context, SignalOptions};
use crate::object::{Key, Pool};
use crate::signal_source::Fetcher;

/// Fetches at a time.
const AT_A_TIME: usize = 32;

/// Signals of all pools, by the pools' UIDs.
pub struct Signals {
    pools: Mutex<HashMap<String, Followed>>,
    fetcher: Fetcher,
    permits: Semaphore,
}

/// A pool's signals.
struct Followed {
    spec: Vec<Signal>,
    readings: Arc<Mutex<Vec<Reading>>>,
    work: Vec<AbortHandle>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.work.iter().for_each(AbortHandle::abort);
    }
}

/// What is known of a signal.
#[derive(Clone, Debug)]
struct Reading {
    /// The last number, and when it was asked for.
    value: Option<(f64, Instant)>,
    /// Why the last fetch brought none.
    error: Option<String>,
    since: Instant,
}

/// What a look gets.
#[derive(Debug, Default)]
pub struct Given {
    /// For the policy.
    pub values: Vec<scaling::Signal>,
    /// Whether all have a number; None = there are none, or nothing is known yet. In words what is wrong with the first
    /// that has none.
    pub health: Option<Option<String>>,
    /// When a number becomes too old.
    pub wake: Option<Duration>,
}

impl Signals {
    pub fn new(client: kube::Client, options: SignalOptions, roots: Option<Vec<u8>>) -> Self {
        Self {
            pools: Mutex::default(),
            fetcher: Fetcher::new(client, options.hosts, roots),
            permits: Semaphore::new(AT_A_TIME),
        }
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<String, Followed>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a pool's signals fetched, and tells what is known of them.
    pub fn keep(&self, context: &Arc<Context>, pool: &Pool) -> Given {
        let spec = &pool.spec().signals;
        let mut pools = self.pools();
        if spec.is_empty() || pool.spec().policy.is_none() {
            pools.remove(pool.uid());
            return Given::default();
        }
        if pools.get(pool.uid()).is_none_or(|followed| followed.spec != *spec) {
            pools.insert(pool.uid().to_owned(), follow(context, &pool.key(), spec));
        }
        let Some(followed) = pools.get(pool.uid()) else { return Given::default() };
        let readings = followed.readings.lock().unwrap_or_else(PoisonError::into_inner);
        given(spec, &readings, Instant::now())
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, uid: &str) {
        self.pools().remove(uid);
    }
}

/// What is given to a policy of what is known.
fn given(spec: &[Signal], readings: &[Reading], now: Instant) -> Given {
    let mut given = Given::default();
    let (mut wrong, mut known) = (None, true);
    for (signal, reading) in spec.iter().zip(readings) {
        let age = |at: Instant| now.saturating_duration_since(at);
        let limit = Duration::from_secs(u64::from(signal.max_age()));
        let fresh = reading.value.filter(|(_, at)| age(*at) <= limit);
        let (value, since) = match (fresh, &reading.error) {
            (Some((value, at)), _) => {
                let left = limit.saturating_sub(age(at));
                given.wake = Some(given.wake.map_or(left, |wake| wake.min(left)));
                (Ok(value), at)
            }
            (None, error) => {
                known &= error.is_some();
                let words = error.clone().unwrap_or_else(|| "not fetched yet".to_owned());
                wrong.get_or_insert_with(|| format!("signal {}: {words}", signal.name));
                (Err(words), reading.value.map_or(reading.since, |(_, at)| at))
            }
        };
        let age = u64::try_from(age(since).as_millis()).unwrap_or(u64::MAX);
        given.values.push(scaling::Signal { name: signal.name.clone(), value, age });
    }
    given.health = known.then_some(wrong);
    given
}

/// Begins to fetch.
fn follow(context: &Arc<Context>, key: &Key, spec: &[Signal]) -> Followed {
    let since = Instant::now();
    let readings = vec![Reading { value: None, error: None, since }; spec.len()];
    let readings = Arc::new(Mutex::new(readings));
    let one = |(index, signal): (usize, &Signal)| {
        let fetching =
            fetch_all(Arc::downgrade(context), key.clone(), signal.clone(), readings.clone(), index);
        tokio::spawn(fetching).abort_handle()
    };
    let work = spec.iter().enumerate().map(one).collect();
    Followed { spec: spec.to_vec(), readings, work }
}

/// Fetches a signal each period, and has the pool looked at when it says something else.
async fn fetch_all(
    context: std::sync::Weak<Context>,
    key: Key,
    signal: Signal,
    readings: Arc<Mutex<Vec<Reading>>>,
    index: usize,
) {
    let mut turns = tokio::time::interval(Duration::from_secs(u64::from(signal.period_seconds)));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut credentials = None;
    loop {
        turns.tick().await;
        let Some(context) = context.upgrade() else { return };
        // The semaphore is never closed.
        let permit = context.signals.permits.acquire().await;
        let asked = Instant::now();
        let timeout = Duration::from_secs(u64::from(signal.timeout_seconds));
        let fetching = context.signals.fetcher.fetch(&key.namespace, &signal, &mut credentials);
        let fetched = tokio::time::timeout(timeout, fetching).await;
        drop(permit);
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs())));
        context.metrics.signals.fetched(fetched.is_ok(), asked.elapsed());
        let news = {
            let mut readings = readings.lock().unwrap_or_else(PoisonError::into_inner);
            readings.get_mut(index).is_some_and(|reading| reading.take(fetched, asked))
        };
        if news {
            context.trigger(&key);
        }
    }
}

impl Reading {
    /// Takes note of what a fetch brought. Whether it says something else than before.
    fn take(&mut self, fetched: Result<f64, String>, asked: Instant) -> bool {
        match fetched {
            Ok(value) => {
                let before = self.value.replace((value, asked));
                self.error.take().is_some()
                    || before.is_none_or(|(before, _)| before.to_bits() != value.to_bits())
            }
            Err(words) => {
                let news = self.error.as_ref() != Some(&words);
                self.error = Some(words);
                news
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn signal(period: u32) -> Signal {
        let http = json!({"url": "http://shop.example/queue", "pointer": "/length"});
        serde_json::from_value(json!({"name": "queue", "http": http, "periodSeconds": period})).unwrap()
    }

    #[test]
    fn i3_a_number_counts_for_its_time_and_then_it_is_an_error_with_its_age_and_never_a_zero() {
        let (spec, began) = ([signal(10)], Instant::now());
        let mut readings = [Reading { value: None, error: None, since: began }];
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let told = |readings: &[Reading], seconds: u64| {
            let mut given = given(&spec, readings, at(seconds));
            let signal = given.values.remove(0);
            (signal.value, signal.age, given.health, given.wake.map(|wake| wake.as_secs()))
        };
        assert_eq!(told(&readings, 1), (Err("not fetched yet".to_owned()), 1000, None, None));
        assert!(readings[0].take(Ok(7.0), at(2)));
        assert_eq!(told(&readings, 5), (Ok(7.0), 3000, Some(None), Some(27)));
        assert!(!readings[0].take(Ok(7.0), at(12)) && readings[0].take(Ok(8.0), at(22)));
        // One fetch fails: the number stands, for three periods.
        assert!(readings[0].take(Err("HTTP 503".to_owned()), at(32)));
        assert!(!readings[0].take(Err("HTTP 503".to_owned()), at(42)));
        assert_eq!(told(&readings, 52), (Ok(8.0), 30_000, Some(None), Some(0)));
        let wrong = Some(Some("signal queue: HTTP 503".to_owned()));
        assert_eq!(told(&readings, 53), (Err("HTTP 503".to_owned()), 31_000, wrong, None));
        assert!(readings[0].take(Ok(8.0), at(60)));
        assert_eq!(told(&readings, 60), (Ok(8.0), 0, Some(None), Some(30)));
    }
}
