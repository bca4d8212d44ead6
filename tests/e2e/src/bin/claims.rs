//! Measures claims, from the request to the answer as a claimant on the same machine sees it: steadily, in a burst, and
//! many more at once than stand by.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use stoker_e2e::World;
use stoker_e2e::audit::operators_requests_since;
use stoker_e2e::claims::{Answer, Claimant};
use stoker_e2e::flips::Waits;
use stoker_e2e::processes::Cost;

/// Pods that stand by before it begins.
const STANDBY: u32 = 1_050;
/// Claims a second, and for so many seconds.
const RATE: u32 = 75;
const SECONDS: u32 = 20;
/// Claims in a burst.
const BURST: usize = 300;
/// Changes that are on their way at a time when nobody claims.
const AT_A_TIME: usize = 16;
/// Claims at once on so many pods.
const CROWD: usize = 1_000;
const FEW: u32 = 500;

/// Filling takes no longer than this, however slow the machine is.
const FILLED: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> Result<()> {
    let (world, token) = World::with_claims("claims").await?;
    let began = Instant::now();
    world.apply_pool("game", json!({"idleTarget": STANDBY, "maxReplicas": 4_000})).await?;
    filled(&world, "game", STANDBY, 0).await?;
    println!("{STANDBY} pods stand by after {:.0?}", began.elapsed());
    let claimant = world.claimant(&token, "game")?;
    // The account is reviewed, and the pool looked at.
    claimant.claim(json!({"waitSeconds": 60})).await?.id()?;

    let claimed = 1 + (RATE * SECONDS) as usize;
    let (steady, began) = (steadily(&claimant).await?, Instant::now());
    println!("{RATE} claims a second for {SECONDS} s: {}", steady.told());
    filled(&world, "game", STANDBY, claimed).await?;
    println!("refilled {:.1?} after the last of them", began.elapsed());

    let since = Timestamp::now();
    let (burst, took) = at_once(&world, &claimant, BURST).await?;
    println!("{BURST} claims at once: {}, all after {took:.2?}", burst.told());
    filled(&world, "game", STANDBY, claimed + BURST).await?;
    println!("refilled by {:.0} pods a second", created_a_second(&world, since)?);

    let bare = bare_changes(&world).await?;
    let ratio = burst.at(0.9) / bare.at(0.9);
    println!(
        "{BURST} bare changes of pods, {AT_A_TIME} at a time: {}; the claims' p90 is {ratio:.2} of it",
        bare.told()
    );

    world.pools().delete("game", &Default::default()).await?;
    world.apply_pool("few", json!({"idleTarget": FEW, "maxReplicas": 2_000})).await?;
    filled(&world, "few", FEW, 0).await?;
    let claimant = world.claimant(&token, "few")?;
    claimant.get("").await?;
    let first: BTreeSet<String> = world.alive("few").await?.iter().map(ResourceExt::name_any).collect();
    let (crowd, took) = at_once(&world, &claimant, CROWD).await?;
    let claims = claimant.get("").await?;
    let pods: Vec<&str> = claims.body["claims"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|claim| claim["pod"]["name"].as_str())
        .collect();
    let of_the_first = pods.iter().filter(|pod| first.contains(**pod)).count();
    let rate = (CROWD - FEW as usize) as f64 / took.as_secs_f64();
    println!("{CROWD} claims at once on {FEW} pods: {}, all after {took:.2?}", crowd.told());
    println!(
        "each has a pod of its own: {of_the_first} of the {FEW}, the others of their replacements; {rate:.0} a second of those that came too late for the first {FEW}"
    );
    println!("memory of the operator: {} MiB", world.operator().memory()? >> 20);
    let conflicts = world.operator().metric("stoker_claim_conflicts_total", "")?;
    println!("pods that were offered and had changed: {conflicts}");
    world.finish().await
}

/// How fast pods were asked for since then, from the first to the last.
fn created_a_second(world: &World, since: Timestamp) -> Result<f64> {
    let requests = operators_requests_since(&world.namespace, since)?.into_iter();
    let mut made: Vec<Timestamp> =
        requests.filter(|r| r.verb == "create" && r.resource == "pods").map(|r| r.at).collect();
    made.sort();
    let (Some(first), Some(last)) = (made.first(), made.last()) else { return Ok(0.0) };
    Ok(made.len() as f64 / last.duration_since(*first).as_secs_f64())
}

/// Waits until so many pods stand by beside so many that are claimed, as the status tells, which is not older than that.
async fn filled(world: &World, pool: &str, standby: u32, claimed: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let status = world.pool(pool).await?.status.unwrap_or_default();
        if status.idle_count >= standby && status.claimed_count as usize >= claimed {
            return Ok(());
        }
        ensure!(began.elapsed() < FILLED, "{pool} has {} of {standby} pods", status.idle_count);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn timed(claimant: Claimant) -> Result<(f64, Answer)> {
    let began = Instant::now();
    let answer = claimant.claim(json!({"waitSeconds": 300})).await?;
    Ok((began.elapsed().as_secs_f64() * 1000.0, answer))
}

async fn steadily(claimant: &Claimant) -> Result<Waits> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut claims = Vec::new();
    for _ in 0..RATE * SECONDS {
        ticks.tick().await;
        claims.push(tokio::spawn(timed(claimant.clone())));
    }
    let mut answers = Vec::new();
    for claim in claims {
        answers.push(claim.await??);
    }
    distinct(answers)
}

async fn at_once(world: &World, claimant: &Claimant, count: usize) -> Result<(Waits, Duration)> {
    let (cost, began) = (Cost::begin(world)?, Instant::now());
    let answers = try_join_all((0..count).map(|_| timed(claimant.clone()))).await?;
    println!("processor time for each, ms: {}", cost.each(count)?);
    Ok((distinct(answers)?, began.elapsed()))
}

/// What the API server takes for as many changes of pods' annotations, by nobody but this program.
async fn bare_changes(world: &World) -> Result<Waits> {
    let pods: Vec<String> =
        world.alive("game").await?.iter().take(BURST).map(ResourceExt::name_any).collect();
    ensure!(pods.len() == BURST, "only {} pods", pods.len());
    let (api, cost, began) = (world.pods(), Cost::begin(world)?, Instant::now());
    let change = |pod: String| {
        let api = api.clone();
        async move {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"example.com/changed": "yes"}}}));
            api.patch_metadata(&pod, &PatchParams::default(), &patch).await?;
            anyhow::Ok(began.elapsed().as_secs_f64() * 1000.0)
        }
    };
    let changed = stream::iter(pods).map(change).buffer_unordered(AT_A_TIME).try_collect().await?;
    println!("processor time for each, ms: {}", cost.each(BURST)?);
    Ok(Waits::new(changed))
}

/// The waits, once it is sure that each got a pod of its own.
fn distinct(answers: Vec<(f64, Answer)>) -> Result<Waits> {
    let pods = answers.iter().map(|(_, answer)| answer.pod()).collect::<Result<BTreeSet<_>>>()?;
    ensure!(pods.len() == answers.len(), "{} pods for {} claims", pods.len(), answers.len());
    Ok(Waits::new(answers.into_iter().map(|(wait, _)| wait).collect()))
}
