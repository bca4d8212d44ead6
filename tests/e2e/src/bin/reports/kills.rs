//! Operator and report service are killed while pods report: nothing of what was answered with 2xx is lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hyper::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::json;
use stoker_api::ExecutionState;
use stoker_e2e::World;
use stoker_e2e::node_batches::NodeBatch;
use stoker_e2e::node_pods::{NodePod, NodePods, What};
use stoker_e2e::random::Random;
use stoker_e2e::reports::{Line, path};
use stoker_e2e::table::Table;
use tokio::task::JoinSet;

use crate::{ENDED, FILE, end, fields, with_nodes};

/// Kills while an execution goes on, of so many pods at a time, each of which sends so many files.
const KILLS: u32 = 10;
const AT_ONCE: usize = 30;
const FILES: usize = 4;

/// What was answered with 2xx, by the name under which it is served.
type Kept = BTreeMap<String, Vec<u8>>;

/// A body that no other name has.
fn unlike_others(name: &str) -> Vec<u8> {
    let line = format!("{name}\n");
    line.repeat(FILE / line.len()).into_bytes()
}

/// Posts something until it is taken, however often nobody is there. What is refused for good is an error.
async fn insist(to: SocketAddr, url: &str, body: &[u8]) -> Result<()> {
    let began = Instant::now();
    loop {
        let answer =
            async { Line::open(to, false).await?.send(Method::POST, path(url), body.to_vec()).await };
        match answer.await {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) if answer.status < 500 => bail!("{url}: {} {}", answer.status, answer.text()),
            _ => {}
        }
        ensure!(began.elapsed() < ENDED, "{url} is not taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A pod's work: files, and a result at the end.
async fn report_through_kills(to: SocketAddr, pods: Api<Pod>, pod: Arc<NodePod>) -> Result<Kept> {
    let mut kept = Kept::new();
    for number in 0..FILES {
        let name = format!("{}-{number}.txt", pod.node);
        let body = unlike_others(&name);
        insist(to, &format!("{}?name={number}.txt", pod.url("FILE")?), &body).await?;
        kept.insert(name, body);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let result = json!({"g": [{"value": pod.node.len(), "labels": {"a": pod.node}}]}).to_string();
    insist(to, pod.url("RESULT")?, result.as_bytes()).await?;
    kept.insert(format!("{}.json", pod.node), result.into());
    end(&pods, &pod.name).await?;
    Ok(kept)
}

/// Kills the operator, the report service, or both, and starts them again.
fn kill(world: &mut World, which: u64) -> Result<()> {
    if which != 0 {
        world.operator.as_mut().context("no operator")?.restart()?;
    }
    if which != 1 {
        world.reports.as_mut().context("no report service")?.restart()?;
    }
    Ok(())
}

pub async fn measure(table: &mut Table, count: usize) -> Result<()> {
    with_nodes("reports-kills", count, async |world| through_kills(table, world, count).await).await
}

async fn through_kills(table: &mut Table, world: &mut World, count: usize) -> Result<()> {
    let mut random = Random::from_environment(3);
    let (to, pods, began) = (world.reports().callbacks(), world.pods(), Instant::now());
    let mut watch = NodePods::start(world).await?;
    let id = {
        let batch = NodeBatch { world, name: "killed" };
        batch.apply(None, fields(AT_ONCE)).await?;
        batch.run().await?.id
    };
    let (mut ended, mut killed, mut tasks) = (0, 0, JoinSet::new());
    let mut pause = || tokio::time::Instant::now() + Duration::from_millis(500 + random.below(2_500));
    let mut next = pause();
    while ended < count {
        tokio::select! {
            seen = watch.next() => {
                let seen = seen?;
                match seen.what {
                    What::Came => {}
                    What::Runs => drop(tasks.spawn(report_through_kills(to, pods.clone(), seen.pod))),
                    What::Ended { well } => {
                        ensure!(well, "pod {} has failed", seen.pod.name);
                        ended += 1;
                    }
                }
            }
            () = tokio::time::sleep_until(next), if killed < KILLS => {
                kill(world, u64::from(killed) % 3)?;
                killed += 1;
                next = pause();
            }
        }
    }
    let mut kept = Kept::new();
    while let Some(done) = tasks.join_next().await {
        kept.extend(done??);
    }
    NodeBatch { world, name: "killed" }.over(ExecutionState::Succeeded, &format!("{count}/{count}")).await?;
    println!("{count} nodes, {AT_ONCE} at a time, {killed} kills: {:.1} s", began.elapsed().as_secs_f64());
    table.row("kills: pods in flight at a time, at most", watch.most() as f64, Some(AT_ONCE as f64));
    table.row("kills: pods made for each node", watch.made().len() as f64 / count as f64, Some(1.0));
    table.row("kills: reports that were answered with 2xx", kept.len() as f64, None);
    table.row("kills: of these lost or changed", lost(world, &id, &kept).await? as f64, Some(0.0));
    Ok(())
}

/// How many of the reports are not served as they were sent.
async fn lost(world: &World, id: &str, kept: &Kept) -> Result<usize> {
    world.reports().ready().await?;
    let lost: Vec<bool> = stream::iter(kept)
        .map(|(name, body)| async move {
            let answer = world.reports().kept(&format!("killed/{id}/{name}")).await?;
            anyhow::Ok(answer.status != 200 || answer.body != body[..])
        })
        .buffer_unordered(16)
        .try_collect()
        .await?;
    Ok(lost.into_iter().filter(|lost| *lost).count())
}
