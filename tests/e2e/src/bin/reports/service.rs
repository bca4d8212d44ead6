//! The report service alone: durable results a second, and its memory while many uploads stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stoker_e2e::World;
use stoker_e2e::flips::Waits;
use stoker_e2e::node_batches::NodeBatch;
use stoker_e2e::node_pods::{NodePod, NodePods, What};
use stoker_e2e::processes::processor_time;
use stoker_e2e::reports::{Line, path};
use stoker_e2e::table::Table;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::{RESULT, fields, megabytes, milliseconds, posted, with_nodes};

/// Connections by which results are posted at once, and for how long.
const CONNECTIONS: usize = 64;
const POSTING: Duration = Duration::from_secs(15);
/// Uploads at once, and bytes of each.
const UPLOADS: usize = 200;
const UPLOAD: usize = 10 << 20;

/// Durable results a second.
const RESULTS: f64 = 2_000.0;
/// Megabytes of the report service while uploads stream.
const MEMORY: f64 = 100.0;

/// Pods that run on so many nodes, and go on to.
async fn running(world: &World, count: usize) -> Result<Vec<Arc<NodePod>>> {
    let batch = NodeBatch { world, name: "running" };
    let mut watch = NodePods::start(world).await?;
    batch.apply(None, fields(count)).await?;
    batch.ask().await?;
    let mut pods = Vec::new();
    while pods.len() < count {
        let seen = watch.next().await?;
        if seen.what == What::Runs {
            pods.push(seen.pod);
        }
    }
    Ok(pods)
}

pub async fn measure(table: &mut Table) -> Result<()> {
    with_nodes("reports-service", UPLOADS, async |world| {
        let idle = world.reports().memory()?;
        table.row("service: memory before, MB", megabytes(idle), None);
        let pods = running(world, UPLOADS).await?;
        results(table, world, &pods).await?;
        uploads(table, world, &pods).await
    })
    .await
}

/// Posts results as fast as they are answered.
async fn results(table: &mut Table, world: &World, pods: &[Arc<NodePod>]) -> Result<()> {
    let (to, began) = (world.reports().callbacks(), Instant::now());
    let used = processor_time(world.reports().pid())?;
    let mut posting = JoinSet::new();
    for pod in pods.iter().take(CONNECTIONS) {
        let pod = pod.clone();
        posting.spawn(async move {
            let (mut line, mut took) = (Line::open(to, false).await?, Vec::new());
            while began.elapsed() < POSTING {
                took.push(milliseconds(posted(&mut line, pod.url("RESULT")?, RESULT.into()).await?));
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(done) = posting.join_next().await {
        took.extend(done??);
    }
    let (span, took) = (began.elapsed().as_secs_f64(), Waits::new(took));
    println!("{} results from {CONNECTIONS} connections in {span:.1} s: {}", took.count(), took.told());
    let each =
        milliseconds(processor_time(world.reports().pid())?.saturating_sub(used)) / took.count() as f64;
    table.at_least("service: durable results a second", took.count() as f64 / span, RESULTS);
    table.row("service: answer to a result p50, ms", took.at(0.5), None);
    table.row("service: answer to a result p99, ms", took.at(0.99), None);
    table.row("service: processor time for each result, ms", each, None);
    Ok(())
}

/// Streams a file in the name of a pod, the first piece of it before all others have begun.
async fn upload(to: SocketAddr, pod: &NodePod, all_open: &Barrier) -> Result<()> {
    let (mut stream, piece) = (TcpStream::connect(to).await?, vec![b'x'; 256 << 10]);
    let head = format!(
        "POST {}?name=large.bin HTTP/1.1\r\nhost: {to}\r\ncontent-length: {UPLOAD}\r\nconnection: close\r\n\r\n",
        path(pod.url("FILE")?)
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&piece).await?;
    all_open.wait().await;
    for _ in 1..UPLOAD / piece.len() {
        stream.write_all(&piece).await?;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

/// Streams uploads from all pods at once.
async fn uploads(table: &mut Table, world: &World, pods: &[Arc<NodePod>]) -> Result<()> {
    let (to, began, all_open) =
        (world.reports().callbacks(), Instant::now(), Arc::new(Barrier::new(pods.len())));
    let mut streaming = JoinSet::new();
    for pod in pods {
        let (pod, all_open) = (pod.clone(), all_open.clone());
        streaming.spawn(async move { upload(to, &pod, &all_open).await });
    }
    let mut most = 0;
    while !streaming.is_empty() {
        most = most.max(world.reports().memory()?);
        tokio::time::sleep(Duration::from_millis(10)).await;
        while let Some(done) = streaming.try_join_next() {
            done??;
        }
    }
    println!(
        "{} uploads of {} MiB at once took {:.1} s",
        pods.len(),
        UPLOAD >> 20,
        began.elapsed().as_secs_f64()
    );
    table.row("service: memory while they stream, at most, MB", megabytes(most), Some(MEMORY));
    Ok(())
}
