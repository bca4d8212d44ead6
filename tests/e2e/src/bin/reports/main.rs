//! Measures NodeBatchJobs and their report service on simulated nodes: how soon a slot is filled again and how much longer an
//! execution takes than as many bare pods that this program keeps going itself; how many durable results a second the
//! service takes, and what memory hundreds of uploads at once take; and whether anything is lost of what was answered
//! with 2xx while operator and report service are killed.
//!
//! `reports nodes [NODES] [SECONDS]`, `reports service` or `reports kills [NODES]`; all three if nothing is given. A pod works for
//! so many SECONDS before it reports: with few of them the machine is busy throughout, and what is measured is how long
//! requests wait for it. This program reports in the pods' names. It makes its nodes itself.

mod kills;
mod nodes;
mod service;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use hyper::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::NodeBatchJob;
use stoker_e2e::World;
use stoker_e2e::nodes::PrivateNodes;
use stoker_e2e::reports::{Line, path};
use stoker_e2e::table::Table;

/// Bytes of the file that each pod sends.
const FILE: usize = 100 << 10;
/// A result that pods report.
const RESULT: &str = r#"{"g":[{"value":1.5,"labels":{"a":"x"}}]}"#;
/// Everything comes to its end within this time, however large.
const ENDED: Duration = Duration::from_secs(1_800);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next();
    let mut number = || arguments.next().map(|text| text.parse::<usize>()).transpose();
    let mut table = Table::default();
    match what.as_deref() {
        None => {
            nodes::measure(&mut table, 1_000, 15).await?;
            service::measure(&mut table).await?;
            kills::measure(&mut table, 300).await?;
        }
        Some("nodes") => {
            nodes::measure(&mut table, number()?.unwrap_or(1_000), number()?.unwrap_or(15)).await?
        }
        Some("service") => service::measure(&mut table).await?,
        Some("kills") => kills::measure(&mut table, number()?.unwrap_or(300)).await?,
        Some(other) => bail!("{other:?} is not nodes, service or kills"),
    }
    table.end();
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// A namespace with so many nodes of its own. They go whatever comes of the measurement.
async fn with_nodes(
    name: &str,
    count: usize,
    measure: impl AsyncFnOnce(&mut World) -> Result<()>,
) -> Result<()> {
    let mut world = World::with_reports(name).await?;
    let nodes = PrivateNodes::create(&world, count).await?;
    let began = Instant::now();
    let measured = async {
        nodes.ready().await?;
        println!("{count} nodes are Ready after {:.0?}", began.elapsed());
        measure(&mut world).await
    };
    let measured = measured.await;
    let deleted = world.delete_all::<NodeBatchJob>().await;
    nodes.delete().await?;
    measured?;
    deleted?;
    world.finish().await
}

/// Fields of the object that is measured.
fn fields(at_once: usize) -> Value {
    let gauges = json!({"g": {"help": "A value", "labels": ["a"]}});
    json!({"parallelism": at_once, "metrics": {"prefix": "bench", "latestLabel": true, "gauges": gauges}})
}

/// Has a pod end well.
async fn end(pods: &Api<Pod>, name: &str) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {"sim.stoker.dev/phase": "Succeeded"}}});
    pods.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// What a pod posts: an address, and what is behind it; how long the answer takes is measured.
async fn posted(line: &mut Line, url: &str, body: Vec<u8>) -> Result<Duration> {
    let began = Instant::now();
    let answer = line.send(Method::POST, path(url), body).await?;
    ensure!(answer.status == 200, "{url}: {} {}", answer.status, answer.text());
    Ok(began.elapsed())
}
