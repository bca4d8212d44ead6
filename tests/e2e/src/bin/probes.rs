//! Measures the questions to pods: `probes [PODS]`, 10,000 simulated pods that are asked by HTTP every 10 s unless told
//! otherwise (which need `make cluster-up SIM_NODES=22`), then Redis, then commands on the real node.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};
use stoker_e2e::pod_server::{PodServer, Says};
use stoker_e2e::processes::{cluster_parts, processor_time};
use stoker_e2e::redis::Redis;
use stoker_e2e::{World, netns, root};

/// Pods of one pool.
const POOL: usize = 100;

const PERIOD: Duration = Duration::from_secs(10);
const PERIODS: u32 = 6;

/// Filling takes the API server minutes, not the minute that a test waits.
const PATIENCE: Duration = Duration::from_secs(1800);

#[tokio::main]
async fn main() -> Result<()> {
    anyhow::ensure!(netns::is_there(), "pods cannot be reached");
    let pods: usize = match std::env::args().nth(1) {
        Some(text) => text.parse().with_context(|| format!("{text} is not a number"))?,
        None => 10_000,
    };
    let world = World::start_inside("probes").await?;
    let server = PodServer::start(true)?;
    let names: Vec<String> = (0..pods.div_ceil(POOL)).map(|i| format!("pool-{i}")).collect();
    println!("memory of the operator at its start: {} MiB", world.operator().memory()? >> 20);
    fill(&world, &names, &server).await?;
    at_rest(&world, names.len() * POOL, &server).await?;
    flips(&world, &names, &server).await?;
    for name in &names {
        world.pools().delete(name, &Default::default()).await?;
    }
    gone(&world).await?;
    redis(&world).await?;
    commands(&world).await?;
    world.finish().await
}

async fn fill(world: &World, names: &[String], server: &PodServer) -> Result<()> {
    let began = Instant::now();
    let http = json!({"mode": "http", "http": {"port": server.port, "periodSeconds": PERIOD.as_secs()}});
    for name in names {
        let spec = json!({"idleTarget": POOL, "maxReplicas": 2 * POOL, "busyProbe": http, "scaleDownDelaySeconds": 600});
        world.apply_pool(name, spec).await?;
    }
    for name in names {
        while world.pool(name).await?.status.is_none_or(|s| s.idle_count as usize != POOL) {
            anyhow::ensure!(began.elapsed() < PATIENCE, "{}", world.tell(name).await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    println!("{} pods in {} pools idle after {:.0?}", names.len() * POOL, names.len(), began.elapsed());
    Ok(())
}

/// The counts of the lateness histogram: up to each bound.
fn lateness(world: &World) -> Result<Vec<(f64, f64)>> {
    let metrics = world.operator().metrics()?;
    let buckets = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("stoker_probe_lateness_seconds_bucket{le=\"")?;
        let (bound, count) = rest.split_once("\"} ")?;
        Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
    });
    Ok(buckets.collect())
}

async fn at_rest(world: &World, pods: usize, server: &Arc<PodServer>) -> Result<()> {
    // The first questions are over, and each pod has its own turn.
    tokio::time::sleep(PERIOD * 2).await;
    let pid = world.operator().pid();
    let left_out = || world.operator().metric("stoker_probes_left_out_total", "");
    let looks = || world.operator().metric("stoker_reconciles_total", "");
    let clear = || {
        if let Some(moments) = &server.moments {
            moments.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    };
    let (late, out, looked, used) = (lateness(world)?, left_out()?, looks()?, processor_time(pid)?);
    clear();
    let began = Instant::now();
    tokio::time::sleep(PERIOD * PERIODS).await;
    let took = began.elapsed();
    let moments =
        server.moments.as_ref().context("kept")?.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (used, late_now) = (processor_time(pid)? - used, lateness(world)?);
    let requests: usize = moments.values().map(Vec::len).sum();
    let gaps = moments.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]));
    let longest = gaps.max().unwrap_or_default();
    println!(
        "{requests} requests in {took:.1?} to {} of {pods} pods, the longest gap {longest:.3?}; left out {}; looks {}",
        moments.len(),
        left_out()? - out,
        looks()? - looked
    );
    let asked: Vec<(f64, f64)> = late_now
        .iter()
        .map(|(bound, count)| (*bound, count - late.iter().find(|l| l.0 == *bound).map_or(0.0, |l| l.1)))
        .collect();
    let all = asked.last().map_or(0.0, |(_, count)| *count);
    for quantile in [0.5, 0.99, 0.999] {
        let bound =
            asked.iter().find(|(_, count)| *count >= quantile * all).map_or(f64::NAN, |(bound, _)| *bound);
        println!("lateness p{}: at most {} ms", quantile * 100.0, bound * 1000.0);
    }
    println!(
        "operator: {:.2} cores, {} MiB",
        used.as_secs_f64() / took.as_secs_f64(),
        world.operator().memory()? >> 20
    );
    Ok(())
}

/// One pod of each pool turns busy; how long until the request that creates its replacement.
async fn flips(world: &World, names: &[String], server: &PodServer) -> Result<()> {
    let mut flipped: HashMap<String, Timestamp> = HashMap::new();
    let since = Timestamp::now();
    for name in names {
        let pod = world.alive(name).await?.into_iter().next().context("a pod")?;
        server.set(&[pod], &Says::Busy);
        flipped.insert(name.clone(), Timestamp::now());
        tokio::time::sleep(Duration::from_millis(37)).await;
    }
    let began = Instant::now();
    for name in names {
        let grown = |p: &stoker_api::HotStandbyDeployment| {
            p.status.as_ref().is_some_and(|s| (s.busy_count, s.idle_count as usize) == (1, POOL))
        };
        while !grown(&world.pool(name).await?) {
            anyhow::ensure!(began.elapsed() < PATIENCE, "{}", world.tell(name).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let file = std::fs::File::open(root().join("target/cluster/logs/audit.log"))?;
    let mut waits: Vec<f64> = Vec::new();
    for line in BufReader::new(file).lines().map_while(Result::ok).filter(|l| l.contains(&world.namespace)) {
        let event: Value = serde_json::from_str(&line)?;
        let about = &event["objectRef"];
        let dry = event["requestURI"].as_str().is_some_and(|u| u.contains("dryRun"));
        if event["verb"] != "create" || about["resource"] != "pods" || !about["subresource"].is_null() || dry
        {
            continue;
        }
        let owner =
            event["responseObject"]["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default();
        let at: Timestamp = event["requestReceivedTimestamp"].as_str().unwrap_or_default().parse()?;
        if at >= since
            && let Some(flip) = flipped.remove(owner)
        {
            waits.push(at.duration_since(flip).as_secs_f64());
        }
    }
    waits.sort_by(f64::total_cmp);
    let at = |quantile: f64| waits[((waits.len() as f64 - 1.0) * quantile).round() as usize];
    println!(
        "busy by HTTP → create request, {} flips: p50 {:.2} s, p99 {:.3} s, max {:.3} s",
        waits.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

async fn gone(world: &World) -> Result<()> {
    let began = Instant::now();
    while !world.pods().list(&ListParams::default().limit(1)).await?.items.is_empty() {
        anyhow::ensure!(began.elapsed() < PATIENCE, "pods stay");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn redis(world: &World) -> Result<()> {
    const POOLS: usize = 20;
    const SECONDS: u64 = 20;
    let redis = Redis::start(&netns::command(), &[], &[]);
    let names: Vec<String> = (0..POOLS).map(|i| format!("redis-{i}")).collect();
    for name in &names {
        let url = format!("redis://127.0.0.1:{}", redis.port);
        let probe = json!({"mode": "redis", "redis": {"url": url, "key": name, "periodSeconds": 2}});
        world.apply_pool(name, json!({"idleTarget": 10, "maxReplicas": 20, "busyProbe": probe})).await?;
    }
    for name in &names {
        world.until(name, "full", || async { Ok(world.alive(name).await?.len() == 10) }).await?;
        for pod in world.alive(name).await? {
            redis.tell(&["HSET", name, &pod.name_any(), "idle"]);
        }
    }
    for name in &names {
        world.counts(name, 0, 10, 10).await?;
    }
    let (before, began) = (redis.calls("hmget"), Instant::now());
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let (calls, periods) = (redis.calls("hmget") - before, began.elapsed().as_secs_f64() / 2.0);
    println!(
        "Redis: {calls} HMGET for {POOLS} pools of 10 pods in {periods:.1} periods: {:.2} a period and pool",
        calls as f64 / periods / POOLS as f64
    );
    for name in &names {
        world.pools().delete(name, &Default::default()).await?;
    }
    gone(world).await
}

async fn commands(world: &World) -> Result<()> {
    const PODS: usize = 10;
    const SPAN: Duration = Duration::from_secs(30);
    let parts: HashMap<String, u32> = cluster_parts()?.into_iter().collect();
    let Some(&kubelet) = parts.get("kubelet") else {
        println!("commands: there is no real node");
        return Ok(());
    };
    let (api, operator) = (parts["kube-apiserver"], world.operator().pid());
    let template = json!({"spec": {
        "nodeSelector": {"stoker.dev/node": "real"},
        "tolerations": [{"key": "stoker.dev/node", "operator": "Exists"}],
    }});
    let spec = json!({"idleTarget": PODS, "maxReplicas": 2 * PODS, "podTemplate": template});
    world.apply_pool("exec", spec).await?;
    world.counts("exec", 0, PODS as u32, PODS as u32).await?;
    let measure = async || -> Result<[f64; 3]> {
        let before = [processor_time(api)?, processor_time(kubelet)?, processor_time(operator)?];
        tokio::time::sleep(SPAN).await;
        let after = [processor_time(api)?, processor_time(kubelet)?, processor_time(operator)?];
        Ok([0, 1, 2].map(|i| (after[i] - before[i]).as_secs_f64() * 1000.0))
    };
    let without = measure().await?;
    let probe = json!({"mode": "exec", "exec": {"command": ["test", "-e", "/tmp/busy"], "periodSeconds": 1}});
    world.patch_pool("exec", json!({"busyProbe": probe})).await?;
    world.counts("exec", 0, PODS as u32, PODS as u32).await?;
    let answers = || world.operator().metric("stoker_probe_answers_total", "exec");
    let before = answers()?;
    let with = measure().await?;
    let count = answers()? - before;
    let each = |i: usize| (with[i] - without[i]) / count;
    println!(
        "commands: {count} in {SPAN:?} at {PODS} pods; processor time each: API server {:.1} ms, kubelet {:.1} ms, operator {:.1} ms",
        each(0),
        each(1),
        each(2)
    );
    let pods: Vec<Pod> = world.alive("exec").await?;
    anyhow::ensure!(pods.len() == PODS, "{}", world.tell("exec").await);
    world.pools().delete("exec", &Default::default()).await?;
    gone(world).await
}
