//! Measures claims, from the request to the answer as a claimant on the same machine sees it: steadily, in a burst, and
//! many more at once than stand by.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use stoker_e2e::World;
use stoker_e2e::claims::{Answer, Claimant};
use stoker_e2e::flips::Waits;

/// Pods that stand by before it begins.
const STANDBY: u32 = 1_050;
/// Claims a second, and for so many seconds.
const RATE: u32 = 75;
const SECONDS: u32 = 20;
/// Claims in a burst.
const BURST: usize = 300;
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
    filled(&world, "game", STANDBY).await?;
    println!("{STANDBY} pods stand by after {:.0?}", began.elapsed());
    let claimant = world.claimant(&token, "game")?;
    // The account is reviewed, and the pool looked at.
    claimant.claim(json!({"waitSeconds": 60})).await?.id()?;

    let (steady, began) = (steadily(&claimant).await?, Instant::now());
    println!("{RATE} claims a second for {SECONDS} s: {}", told(&steady));
    filled(&world, "game", STANDBY).await?;
    println!("refilled {:.1?} after the last of them", began.elapsed());

    let (burst, took) = at_once(&claimant, BURST).await?;
    println!("{BURST} claims at once: {}, all after {took:.2?}", told(&burst));
    let began = Instant::now();
    filled(&world, "game", STANDBY).await?;
    let rate = BURST as f64 / (began.elapsed() + took).as_secs_f64();
    println!("refilled: {rate:.0} pods a second");

    world.pools().delete("game", &Default::default()).await?;
    world.apply_pool("few", json!({"idleTarget": FEW, "maxReplicas": 2_000})).await?;
    filled(&world, "few", FEW).await?;
    let claimant = world.claimant(&token, "few")?;
    claimant.get("").await?;
    let (crowd, took) = at_once(&claimant, CROWD).await?;
    let rate = (CROWD - FEW as usize) as f64 / took.as_secs_f64();
    println!("{CROWD} claims at once on {FEW} pods: {}, all after {took:.2?}", told(&crowd));
    println!("each has a pod of its own; {rate:.0} a second of those that came too late for the first {FEW}");
    println!("memory of the operator: {} MiB", world.operator().memory()? >> 20);
    let conflicts = world.operator().metric("stoker_claim_conflicts_total", "")?;
    println!("pods that were offered and had changed: {conflicts}");
    world.finish().await
}

fn told(waits: &Waits) -> String {
    let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|q| waits.at(q));
    format!("p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")
}

async fn filled(world: &World, pool: &str, standby: u32) -> Result<()> {
    let began = Instant::now();
    loop {
        let status = world.pool(pool).await?.status.unwrap_or_default();
        if status.idle_count >= standby {
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

async fn at_once(claimant: &Claimant, count: usize) -> Result<(Waits, Duration)> {
    let began = Instant::now();
    let answers = try_join_all((0..count).map(|_| timed(claimant.clone()))).await?;
    Ok((distinct(answers)?, began.elapsed()))
}

/// The waits, once it is sure that each got a pod of its own.
fn distinct(answers: Vec<(f64, Answer)>) -> Result<Waits> {
    let pods = answers.iter().map(|(_, answer)| answer.pod()).collect::<Result<BTreeSet<_>>>()?;
    ensure!(pods.len() == answers.len(), "{} pods for {} claims", pods.len(), answers.len());
    Ok(Waits::new(answers.into_iter().map(|(wait, _)| wait).collect()))
}
