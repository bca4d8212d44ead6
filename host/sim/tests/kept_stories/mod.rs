//! What can go wrong in a story of an object whose Jobs are kept, whatever its kind, and how it comes to rest.
#![allow(dead_code, clippy::unwrap_used)]

use std::fmt;

use crate::seeds::tell;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use stoker_api::{Retry, keys};
use stoker_sim::kept::Promises;
use stoker_sim::{KeptCluster, Own, Sabotage};

/// When stories begin.
const START: &str = "2026-06-01T10:00:07Z";

/// One thing that happens. Operators, Jobs and pods are chosen by a number, modulo how many there are. `U` is what users
/// do with the object, and what else the kind knows.
#[derive(Clone, Debug)]
pub enum Happens<U> {
    /// Milliseconds pass.
    Passes(i64),
    User(U),
    Deleted,
    JobDeleted(usize, bool),
    PodDeleted(usize),
    /// The API server answers nobody for some milliseconds.
    Down(i64),
    /// An operator dies, and is back after some milliseconds.
    Crashes(usize, i64),
    /// A watch of an operator is late by some milliseconds.
    Late(usize, usize, i64),
    ClockSet(usize, i64),
    /// Of a hundred things so many go wrong.
    Trouble(u32),
    /// Of a hundred pods so many fail.
    Failing(u32),
}

/// How it begins, and what happens then.
#[derive(Clone)]
pub struct Story<K: Promises, U> {
    pub spec: K::Spec,
    /// By how many milliseconds the API server's clock and the nodes' are wrong.
    pub clocks: [i64; 2],
    pub seed: u64,
    pub history: Vec<Happens<U>>,
}

/// A line for each thing that happens.
impl<K: Promises, U: fmt::Debug> fmt::Debug for Story<K, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}\nclocks {:?}, chance {}", self.spec, self.clocks, self.seed)?;
        self.history.iter().try_for_each(|what| writeln!(f, "  {what:?}"))
    }
}

/// What a kind adds to the stories.
pub trait Stories: Promises {
    /// What users do, and what else happens.
    type User: Clone + fmt::Debug;

    fn spec() -> BoxedStrategy<Self::Spec>;
    fn user() -> BoxedStrategy<Self::User>;
    /// For how many milliseconds at most the API server answers nobody.
    const OUTAGE: i64;

    /// Lets that happen.
    fn happen(cluster: &mut KeptCluster<Self>, what: Self::User);
    /// What there is before it begins.
    fn prepare(_: &mut KeptCluster<Self>) {}
    /// Nothing is in the way any more: what must have come by some time.
    fn ends(cluster: &mut KeptCluster<Self>) -> Result<(), TestCaseError>;
}

/// A JobSpec in some version.
pub fn job_template(version: u8, ttl: Option<u32>) -> Map<String, Value> {
    let container = json!({"name": "a", "image": format!("a:{version}")});
    let mut job = json!({"template": {"spec": {"containers": [container]}}});
    if let Some(ttl) = ttl {
        job["ttlSecondsAfterFinished"] = ttl.into();
    }
    job.as_object().unwrap().clone()
}

/// For how long Jobs stay after their end.
pub fn ttl() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(10)), 1 => Just(Some(90))]
}

pub fn ttl_of(job: &Map<String, Value>) -> Option<u32> {
    job.get("ttlSecondsAfterFinished").and_then(Value::as_u64).map(|ttl| ttl as u32)
}

pub fn retry() -> impl Strategy<Value = Option<Retry>> {
    let retry = (0..4u32, 0..20u32).prop_map(|(limit, backoff_seconds)| Retry {
        limit,
        backoff_seconds,
        max_backoff_seconds: 30,
    });
    prop::option::of(retry)
}

fn happens<K: Stories>() -> impl Strategy<Value = Happens<K::User>> {
    use Happens::*;
    let n = || 0..64usize;
    let short = || prop_oneof![3 => 0..3_000i64, 3 => 0..40_000i64, 1 => 0..240_000i64];
    let accidents = prop_oneof![
        3 => (n(), any::<bool>()).prop_map(|(j, foreground)| JobDeleted(j, foreground)),
        1 => n().prop_map(PodDeleted),
        2 => short().prop_map(|time| Down(time.min(K::OUTAGE))),
        4 => (n(), short()).prop_map(|(o, time)| Crashes(o, time)),
        5 => (n(), 0..4usize, 0..20_000i64).prop_map(|(o, watch, late)| Late(o, watch, late)),
        // What is known of the object late is read again before anything is created.
        1 => (n(), 0..120_000i64).prop_map(|(o, late)| Late(o, 0, late)),
        1 => (n(), -2_000..2_000i64).prop_map(|(o, by)| ClockSet(o, by)),
        3 => prop_oneof![Just(0), 1..20u32, Just(60)].prop_map(Trouble),
        1 => prop_oneof![Just(0), Just(20), Just(60), Just(100)].prop_map(Failing),
    ];
    prop_oneof![16 => short().prop_map(Passes), 6 => K::user().prop_map(User), 7 => accidents]
}

/// Any story.
pub fn stories<K: Stories>() -> impl Strategy<Value = Story<K, K::User>> {
    let clocks = [-250..250i64, -250..250i64];
    let deleted = prop::option::weighted(0.1, 0..100usize);
    let history = prop::collection::vec(happens::<K>(), 0..60);
    (K::spec(), clocks, any::<u64>(), history, deleted).prop_map(
        |(spec, clocks, seed, mut history, deleted)| {
            if let Some(place) = deleted {
                history.insert(place.min(history.len()), Happens::Deleted);
            }
            Story { spec, clocks, seed, history }
        },
    )
}

/// Every promise was kept so far.
pub fn kept<K: Stories>(cluster: &mut KeptCluster<K>) -> Result<(), TestCaseError> {
    if let Some(told) = &mut cluster.world.told {
        for line in std::mem::take(told) {
            tell(|| line);
        }
    }
    prop_assert!(cluster.world.broken.is_empty(), "{}", cluster.world.broken.join("\n"));
    Ok(())
}

/// Time passes, and every promise is kept meanwhile.
pub fn until<K: Stories>(cluster: &mut KeptCluster<K>, time: Timestamp) -> Result<(), TestCaseError> {
    cluster.until(time);
    kept(cluster)
}

pub fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// Time passes until something is so. An error if it is not so in time.
pub fn comes<K: Stories>(
    cluster: &mut KeptCluster<K>,
    within: SignedDuration,
    so: impl Fn(&KeptCluster<K>) -> Result<(), String>,
) -> Result<(), TestCaseError> {
    let end = cluster.now() + within;
    while let Err(words) = so(cluster) {
        prop_assert!(cluster.now() < end, "{words}, {within:#} after everything went well");
        let next = cluster.now() + seconds(10);
        until(cluster, next)?;
    }
    Ok(())
}

fn happen<K: Stories>(cluster: &mut KeptCluster<K>, what: Happens<K::User>) -> Result<(), TestCaseError> {
    tell(|| format!("  {what:?}"));
    let milliseconds = SignedDuration::from_millis;
    let operators = cluster.operators.len();
    match what {
        Happens::Passes(time) => cluster.until(cluster.now() + milliseconds(time)),
        Happens::User(what) => K::happen(cluster, what),
        Happens::Deleted => cluster.delete(),
        Happens::JobDeleted(j, foreground) => cluster.delete_job(j, foreground),
        Happens::PodDeleted(p) => cluster.delete_pod(p),
        Happens::Down(time) => cluster.goes_down(milliseconds(time)),
        Happens::Crashes(o, time) => cluster.crash(o % operators, milliseconds(time)),
        Happens::Late(o, watch, late) => cluster.delay(o % operators, watch, milliseconds(late)),
        Happens::ClockSet(o, by) => cluster.operators[o % operators].clock = milliseconds(by),
        Happens::Trouble(trouble) => cluster.trouble(trouble),
        Happens::Failing(failing) => cluster.world.failing = failing,
    }
    kept(cluster)
}

/// Tells a story: every promise is kept whatever happens; and once nothing goes wrong any more, everything comes to its end,
/// after which nothing is written.
pub fn comes_to_rest<K: Stories>(
    story: Story<K, K::User>,
    operators: usize,
    sabotage: Option<Sabotage>,
) -> Result<(), TestCaseError> {
    let own = Own::new(story.spec, Default::default());
    let mut cluster: KeptCluster<K> =
        KeptCluster::new(own, START.parse().unwrap(), operators, story.clocks, story.seed);
    tell(|| {
        cluster.world.told = Some(Vec::new());
        START.to_owned()
    });
    sabotage.into_iter().for_each(|what| cluster.sabotage(what));
    K::prepare(&mut cluster);
    for what in story.history {
        happen(&mut cluster, what)?;
    }
    cluster.heal();
    tell(|| format!("  healed at {}", cluster.now()));
    if cluster.own().is_some_and(|own| !own.deleted) {
        K::ends(&mut cluster)?;
    }
    match cluster.own().is_some_and(|own| !own.deleted) {
        true => rests(&mut cluster),
        false => is_gone(&mut cluster),
    }
}

/// What has ended is let go, and then nothing is written any more (I10).
fn rests<K: Stories>(cluster: &mut KeptCluster<K>) -> Result<(), TestCaseError> {
    let kept = |cluster: &KeptCluster<K>| {
        let jobs = cluster.world.jobs.iter();
        let left = jobs.filter(|job| {
            job.finished.is_none() || job.terminating || job.finalizers.iter().any(|f| f == keys::OUTCOME)
        });
        let left: Vec<_> = left.map(|job| job.name.as_str()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are kept")) }
    };
    comes(cluster, seconds(1_200), kept)?;
    // Ended Jobs, and those of nodes that are gone, have their time.
    let rest = cluster.now() + seconds(600);
    until(cluster, rest)?;
    let writes = cluster.writes;
    let looks: Vec<usize> = cluster.operators.iter().map(|o| o.looks).collect();
    until(cluster, rest + seconds(7_200))?;
    if cluster.own().is_none() {
        return is_gone(cluster);
    }
    prop_assert!(cluster.writes == writes, "I10: {} writes at rest", cluster.writes - writes);
    for (operator, before) in cluster.operators.iter().zip(looks) {
        prop_assert!(operator.looks <= before + 3, "I10: {} looks at rest", operator.looks - before);
    }
    Ok(())
}

/// Nothing is left of an object that was deleted.
fn is_gone<K: Stories>(cluster: &mut KeptCluster<K>) -> Result<(), TestCaseError> {
    comes(cluster, seconds(1_200), |cluster| {
        let jobs: Vec<_> = cluster.world.jobs.names();
        if cluster.own().is_none() && jobs.is_empty() && cluster.world.pods.is_empty() {
            return Ok(());
        }
        Err(format!("left of what was deleted: {jobs:?} and {} pods", cluster.world.pods.len()))
    })
}
