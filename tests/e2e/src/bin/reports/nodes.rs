//! An execution on many nodes: how soon a slot is filled again, how long it takes beside bare pods, and what it costs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use stoker_api::{ExecutionState, NodeBatchJob};
use stoker_core::node_batch::{NewPod, body};
use stoker_e2e::World;
use stoker_e2e::answered::Answered;
use stoker_e2e::flips::Waits;
use stoker_e2e::node_batches::{NodeBatch, spec};
use stoker_e2e::node_pods::{NodePod, NodePods, What};
use stoker_e2e::operator::resident;
use stoker_e2e::processes::{Cost, processor_time};
use stoker_e2e::random::Random;
use stoker_e2e::reports::Line;
use stoker_e2e::table::Table;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{ENDED, FILE, RESULT, end, fields, megabytes, milliseconds, posted, with_nodes};

/// Pods in flight at a time.
const AT_ONCE: usize = 100;

/// Milliseconds from a pod's end to the pod in its place, of 99 in 100.
const REFILL: f64 = 50.0;

/// How long pods work: a third to five thirds of a time, so that they do not end in step.
struct Work {
    random: Random,
    milliseconds: u64,
}

impl Work {
    fn of(seconds: usize) -> Self {
        Self { random: Random::new(1), milliseconds: seconds as u64 * 1_000 }
    }

    fn next(&mut self) -> Duration {
        let third = self.milliseconds / 3;
        Duration::from_millis(third + self.random.below((4 * third).max(1)))
    }
}

/// Reports a result, a file and an Event in the name of a pod; how long each took.
async fn report(to: SocketAddr, pod: &NodePod) -> Result<[Duration; 3]> {
    let mut line = Line::open(to, false).await?;
    let result = posted(&mut line, pod.url("RESULT")?, RESULT.into()).await?;
    let file = format!("{}?name=data.bin", pod.url("FILE")?);
    let file = posted(&mut line, &file, vec![b'x'; FILE]).await?;
    let event = json!({"reason": "WorkDone", "message": "it took %s", "args": ["a while"]});
    let event = posted(&mut line, pod.url("EVENT")?, event.to_string().into()).await?;
    Ok([result, file, event])
}

/// What a measurement took.
struct Took {
    all: Duration,
    most: usize,
    refills: Waits,
    /// Of results, files and Events.
    answers: [Vec<f64>; 3],
    /// Bytes that the operator and the report service held at most.
    memory: [u64; 2],
}

/// What is gathered while pods are followed.
#[derive(Default)]
struct Gathered {
    came: Vec<Instant>,
    ended: Vec<Instant>,
    answers: [Vec<f64>; 3],
    memory: [u64; 2],
}

impl Gathered {
    fn answered(&mut self, took: Option<[Duration; 3]>) {
        for (into, took) in self.answers.iter_mut().zip(took.into_iter().flatten()) {
            into.push(milliseconds(took));
        }
    }

    fn look(&mut self, world: &World) -> Result<()> {
        for (most, pid) in self.memory.iter_mut().zip([world.operator().pid(), world.reports().pid()]) {
            *most = (*most).max(resident(pid)?);
        }
        Ok(())
    }

    /// From each end to the pod that took the slot: the first to end gives its slot to the first that comes once all have
    /// been filled.
    fn refills(&self, at_once: usize) -> Waits {
        let pairs = self.came.iter().skip(at_once).zip(&self.ended);
        Waits::new(pairs.map(|(came, ended)| milliseconds(came.saturating_duration_since(*ended))).collect())
    }
}

/// Follows pods until so many have ended: each works for a time once it runs, reports if it is to, and is ended. `next` is
/// called for each that ends.
async fn follow(
    world: &World,
    mut watch: NodePods,
    count: usize,
    mut work: Work,
    reports: bool,
    mut next: impl FnMut(),
) -> Result<Took> {
    let (began, at_once, to) = (Instant::now(), AT_ONCE.min(count), world.reports().callbacks());
    let (mut gathered, mut tasks, mut looked) = (Gathered::default(), JoinSet::new(), Instant::now());
    // Nobody ends before all slots have been filled once: what is measured is how they are filled again.
    let (fill, filled) = watch::channel(false);
    while gathered.ended.len() < count {
        let seen = watch.next().await?;
        match seen.what {
            What::Came => {
                gathered.came.push(seen.at);
                fill.send_if_modified(|full| {
                    let now = gathered.came.len() >= at_once;
                    !std::mem::replace(full, now) && now
                });
            }
            What::Runs => {
                let (pods, span, mut filled) = (world.pods(), work.next(), filled.clone());
                tasks.spawn(async move {
                    filled.wait_for(|full| *full).await?;
                    tokio::time::sleep(span).await;
                    let took = if reports { Some(report(to, &seen.pod).await?) } else { None };
                    end(&pods, &seen.pod.name).await?;
                    anyhow::Ok(took)
                });
            }
            What::Ended { well } => {
                ensure!(well, "pod {} has failed", seen.pod.name);
                gathered.ended.push(seen.at);
                next();
            }
        }
        while let Some(done) = tasks.try_join_next() {
            gathered.answered(done??);
        }
        if looked.elapsed() > Duration::from_millis(500) {
            looked = Instant::now();
            gathered.look(world)?;
        }
    }
    let all = began.elapsed();
    while let Some(done) = tasks.join_next().await {
        gathered.answered(done??);
    }
    let (most, refills) = (watch.most(), gathered.refills(at_once));
    let Gathered { answers, memory, .. } = gathered;
    Ok(Took { all, most, refills, answers, memory })
}

/// The yardstick: pods that nobody but Kubernetes looks after, so many at a time, another as soon as one is seen to have
/// ended. They are made as Stoker makes those of the object, and report nothing.
async fn bare(world: &World, count: usize, seconds: usize) -> Result<Took> {
    let object = json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "NodeBatchJob",
        "metadata": {"name": "bare", "namespace": world.namespace, "uid": "none"},
        "spec": spec(world, None),
    });
    let object: NodeBatchJob = serde_json::from_value(object)?;
    let pod = |n: usize| -> Result<Pod> {
        let node = format!("{}-{n}", world.namespace);
        let new = NewPod {
            name: format!("bare-{n}"),
            node,
            node_uid: String::new(),
            execution: "none".to_owned(),
            attempt: 1,
        };
        let mut pod = body(&object, &new, None);
        for field in ["finalizers", "ownerReferences"] {
            pod["metadata"].as_object_mut().context("no metadata")?.remove(field);
        }
        Ok(serde_json::from_value(pod)?)
    };
    let pods: Vec<Pod> = (0..count).map(pod).collect::<Result<_>>()?;
    let (mut left, mut requests) = (pods.into_iter(), JoinSet::new());
    let watch = NodePods::start(world).await?;
    let mut create = |pod: Pod| {
        let api = world.pods();
        requests.spawn(async move { api.create(&PostParams::default(), &pod).await });
    };
    left.by_ref().take(AT_ONCE).for_each(&mut create);
    let took = follow(world, watch, count, Work::of(seconds), false, || {
        left.next().into_iter().for_each(&mut create);
    })
    .await?;
    while let Some(created) = requests.join_next().await {
        created??;
    }
    emptied(world).await?;
    Ok(took)
}

/// Deletes all pods, and waits until they are gone, so that the next measurement begins as this one did.
async fn emptied(world: &World) -> Result<()> {
    let (pods, began) = (world.pods(), Instant::now());
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
    while !pods.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
        ensure!(began.elapsed() < ENDED, "pods do not go");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// An execution on all nodes, by hand.
async fn execution(world: &World, name: &str, count: usize, seconds: usize) -> Result<Took> {
    let batch = NodeBatch { world, name };
    let watch = NodePods::start(world).await?;
    batch.apply(None, fields(AT_ONCE)).await?;
    batch.ask().await?;
    let took = follow(world, watch, count, Work::of(seconds), true, || {}).await?;
    batch.over(ExecutionState::Succeeded, &format!("{count}/{count}")).await?;
    Ok(took)
}

pub async fn measure(table: &mut Table, count: usize, seconds: usize) -> Result<()> {
    with_nodes("reports-nodes", count, async |world| on_nodes(table, world, count, seconds).await).await
}

async fn on_nodes(table: &mut Table, world: &World, count: usize, seconds: usize) -> Result<()> {
    let idle = [world.operator().memory()?, world.reports().memory()?];
    let bare = bare(world, count, seconds).await?;
    let (counted, cost) = (Answered::so_far(&world.client).await?, Cost::begin(world)?);
    let used = [processor_time(world.operator().pid())?, processor_time(world.reports().pid())?];
    let took = execution(world, "everywhere", count, seconds).await?;
    println!("processor time for each pod, ms: {}", cost.each(count)?);
    let after = let_go(world, &counted, count).await?;
    println!(
        "{count} nodes, {AT_ONCE} at a time, {seconds} s of work each: {:.1} s; bare pods that report nothing {:.1} s, at most {} in flight",
        took.all.as_secs_f64(),
        bare.all.as_secs_f64(),
        bare.most
    );
    println!(
        "from a pod's end to the pod in its place: {}; of bare pods: {}",
        took.refills.told(),
        bare.refills.told()
    );
    let within = world.operator().metric("stoker_node_batch_refill_seconds_bucket", r#"le="0.05""#)?;
    let all = world.operator().metric("stoker_node_batch_refill_seconds_count", "")?;
    table.row("nodes: pods in flight at a time, at most", took.most as f64, Some(AT_ONCE as f64));
    table.row("nodes: slot refill p50, ms", took.refills.at(0.5), None);
    table.row("nodes: slot refill p99, ms", took.refills.at(0.99), Some(REFILL));
    table.row("nodes: slot refill at most, ms", took.refills.at(1.0), None);
    table.row(
        "nodes: asked for within 50 ms, as the operator counts, %",
        100.0 * within / all.max(1.0),
        None,
    );
    let ratio = took.all.as_secs_f64() / bare.all.as_secs_f64();
    table.row("nodes: time, as a multiple of bare pods'", ratio, None);
    for (what, took) in ["result", "file of 100 KiB", "Event"].iter().zip(took.answers) {
        let took = Waits::new(took);
        table.row(&format!("nodes: answer to a {what} p50, ms"), took.at(0.5), None);
        table.row(&format!("nodes: answer to a {what} p99, ms"), took.at(0.99), None);
    }
    writes(table, world, &counted, &after, count).await?;
    for (what, before, (most, (pid, used))) in [
        ("operator", idle[0], (took.memory[0], (world.operator().pid(), used[0]))),
        ("report service", idle[1], (took.memory[1], (world.reports().pid(), used[1]))),
    ] {
        table.row(&format!("nodes: {what}'s memory before, MB"), megabytes(before), None);
        table.row(&format!("nodes: {what}'s memory at most, MB"), megabytes(most), None);
        let used = milliseconds(processor_time(pid)?.saturating_sub(used)) / count as f64;
        table.row(&format!("nodes: {what}'s processor time for each pod, ms"), used, None);
    }
    let object = NodeBatch { world, name: "everywhere" }.get().await?;
    let size = serde_json::to_vec(&object.status)?.len() as f64;
    table.row("nodes: size of the status, bytes", size, None);
    Ok(())
}

/// Waits until the operator has let all pods go; what was answered until then. This program patches each pod once itself.
async fn let_go(world: &World, before: &Answered, count: usize) -> Result<Answered> {
    let began = Instant::now();
    loop {
        let now = Answered::so_far(&world.client).await?;
        if now.since(before, "PATCH", "pods") >= 2 * count as u64 {
            return Ok(now);
        }
        ensure!(began.elapsed() < ENDED, "pods are not let go");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// What was written to the API server for each pod.
async fn writes(
    table: &mut Table,
    world: &World,
    before: &Answered,
    after: &Answered,
    count: usize,
) -> Result<()> {
    let each = |writes: u64| writes as f64 / count as f64;
    let own = |verb: &str, resource: &str| after.since(before, verb, resource);
    let mut rows = vec![
        ("pods created", own("POST", "pods")),
        // The other one ended the pod.
        ("pods let go", own("PATCH", "pods").saturating_sub(count as u64)),
        ("writes of the status", own("PUT", "nodebatchjobs/status")),
    ];
    for (what, who) in [("Events of the operator", "stoker"), ("Events of pods", "stoker-reports")] {
        let params = ListParams::default().fields(&format!("reportingComponent={who}"));
        rows.push((what, world.api::<Event>().list_metadata(&params).await?.items.len() as u64));
    }
    let all = rows.iter().map(|(_, writes)| writes).sum();
    for (what, writes) in rows {
        table.row(&format!("nodes: {what} for each pod"), each(writes), None);
    }
    table.row("nodes: all of these writes for each pod", each(all), None);
    Ok(())
}
