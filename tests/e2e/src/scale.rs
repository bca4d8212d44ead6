//! An operator at scale: many pools of 5 idle pods in one namespace, of which some turn busy, one by one and all at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use stoker_api::keys;

use crate::World;
use crate::audit::operators_requests_since;
use crate::flips::{Waits, waits};
use crate::load::Members;
use crate::processes::processor_time;

/// Idle pods of each pool.
const IDLE: u32 = 5;

/// A flip every so often is steady work.
const STEADY: Duration = Duration::from_millis(25);

/// Flips at once are a burst.
const BURST: usize = 500;

/// Flips one by one.
const FLIPS: usize = 500;

/// Requests of this program at a time.
const AT_A_TIME: usize = 32;

/// An operator that asked nothing for so long is at rest.
const QUIET: Duration = Duration::from_secs(5);

/// Everything is in its place within this time, however large.
const FILLED: Duration = Duration::from_secs(900);

/// Measures a number of pools: figures by name.
pub async fn measure(pools: usize) -> Result<Vec<(&'static str, f64)>> {
    let mut world = World::start_process(&format!("scale-{pools}")).await?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut figures = vec![("idleMemoryMiB", mib(world.operator().memory()?))];

    let began = Instant::now();
    let names: Vec<String> = (0..pools).map(|i| format!("pool-{i}")).collect();
    stream::iter(&names)
        .map(|name| {
            let spec = json!({"idleTarget": IDLE, "maxReplicas": 40, "scaleDownDelaySeconds": 600});
            world.apply_pool(name, spec)
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect::<Vec<_>>()
        .await?;
    filled(&world, pools).await?;
    println!("{pools} pools are filled after {:.0?}", began.elapsed());

    at_rest(&world).await?;
    figures.push(("memoryMiB", mib(world.operator().memory()?)));
    let since = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = operators_requests_since(&world.namespace, since)?.len();
    figures.push(("requestsAMinuteAtRest", asked as f64));

    let (since, processor) = (Timestamp::now(), processor_time(world.operator().pid())?.as_secs_f64());
    let steady = phase(&world, FLIPS.min(pools * IDLE as usize), Some(STEADY)).await?;
    let burst = phase(&world, BURST.min(pools * IDLE as usize), None).await?;
    println!("{pools} pools, one by one: {steady}\n{pools} pools, in a burst: {burst}");
    at_rest(&world).await?;
    let flips = (steady.count() + burst.count()) as f64;
    let used = processor_time(world.operator().pid())?.as_secs_f64() - processor;
    let requests = operators_requests_since(&world.namespace, since)?;
    let writes = |resource: &str| {
        let written = |r: &&crate::audit::Request| r.resource == resource && r.verb != "get";
        requests.iter().filter(written).count() as f64 / flips
    };
    figures.extend([
        ("steadyP50Milliseconds", steady.at(0.5)),
        ("steadyP99Milliseconds", steady.at(0.99)),
        ("burstP50Milliseconds", burst.at(0.5)),
        ("burstP99Milliseconds", burst.at(0.99)),
        ("podWritesAFlip", writes("pods")),
        ("statusWritesAFlip", writes("hotstandbydeployments/status")),
        ("processorSecondsAThousandFlips", used * 1000.0 / flips),
    ]);
    figures.push(("restartSeconds", restart(&mut world, pools).await?));

    let params = DeleteParams::default();
    world.pools().delete_collection(&params, &ListParams::default()).await?;
    let began = Instant::now();
    while !world.pods().list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
        ensure!(began.elapsed() < FILLED, "the pods do not go");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.finish().await?;
    Ok(figures)
}

/// Flips so many pods, and waits until each pool is refilled: how long each replacement took.
async fn phase(world: &World, flips: usize, pace: Option<Duration>) -> Result<Waits> {
    let pods = idle_pods(world, flips).await?;
    let since = Timestamp::now();
    match pace {
        Some(pace) => {
            let mut ticks = tokio::time::interval(pace);
            for pod in pods {
                ticks.tick().await;
                world.set_busy(&[pod], true).await?;
            }
        }
        None => {
            stream::iter(pods)
                .map(|pod| async move { world.set_busy(&[pod], true).await })
                .buffer_unordered(BURST)
                .try_collect::<Vec<_>>()
                .await?;
        }
    }
    let pools = world.pools().list_metadata(&ListParams::default()).await?.items.len();
    filled(world, pools).await?;
    waits(&world.namespace, Members::Pods, since)
}

/// So many idle pods, of as many pools as there are.
async fn idle_pods(world: &World, wanted: usize) -> Result<Vec<Pod>> {
    let mut by_pool: BTreeMap<String, VecDeque<Pod>> = BTreeMap::new();
    for pod in world.pods().list(&ListParams::default()).await?.items {
        if !pod.annotations().contains_key(keys::DEFAULT_BUSY_ANNOTATION) {
            let owner = pod.labels().get(keys::HSD_NAME).cloned().unwrap_or_default();
            by_pool.entry(owner).or_default().push_back(pod);
        }
    }
    let mut chosen = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        let before = chosen.len();
        chosen.extend(by_pool.values_mut().filter_map(VecDeque::pop_front).take(wanted - before));
        ensure!(chosen.len() > before, "only {before} of {wanted} idle pods");
    }
    Ok(chosen)
}

/// Waits until so many pools have their idle pods, and say so.
async fn filled(world: &World, pools: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let listed = world.pools().list(&ListParams::default()).await?.items;
        let full = |pool: &&stoker_api::HotStandbyDeployment| {
            pool.status.as_ref().is_some_and(|s| s.idle_count == IDLE && s.starting_count == 0)
        };
        let done = listed.iter().filter(full).count();
        if done == pools {
            return Ok(());
        }
        if began.elapsed() > FILLED {
            bail!("{done} of {pools} pools are filled after {FILLED:?}\n{}", world.operator().log_tail());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until the operator has asked nothing for a while.
async fn at_rest(world: &World) -> Result<()> {
    let began = Instant::now();
    loop {
        let quiet = Timestamp::now() - QUIET;
        if operators_requests_since(&world.namespace, quiet)?.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < FILLED, "the operator does not come to rest");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// The operator is killed, pods turn busy while nobody looks, and it comes back: seconds from its start until the last of
/// their replacements is asked for.
async fn restart(world: &mut World, pools: usize) -> Result<f64> {
    world.operator.as_mut().context("no operator")?.kill();
    let missed = idle_pods(world, pools.min(100)).await?;
    let expected = missed.len();
    world.set_busy(&missed, true).await?;
    let since = Timestamp::now();
    world.operator.as_mut().context("no operator")?.restart()?;
    // The statuses still tell of the time before: the requests are waited for.
    let began = Instant::now();
    let made: Vec<Timestamp> = loop {
        let requests = operators_requests_since(&world.namespace, since)?.into_iter();
        let creations = requests.filter(|r| r.verb == "create" && r.resource == "pods");
        let made: Vec<Timestamp> = creations.map(|r| r.at).collect();
        if made.len() >= expected {
            break made;
        }
        ensure!(began.elapsed() < FILLED, "{} of {expected} replacements", made.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    filled(world, pools).await?;
    let last = made.into_iter().max().context("nothing was made")?;
    Ok(last.duration_since(since).as_secs_f64())
}
