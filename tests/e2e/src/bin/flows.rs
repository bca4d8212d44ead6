//! Measures JobFlows and DaemonJobs on simulated nodes: how soon a step's Job is asked for once those that it waits for are
//! complete, with hundreds of flows at once; and how much longer a wide flow, or work on a thousand nodes, takes than as
//! many bare Jobs that this program keeps going itself.
//!
//! `flows many [FLOWS] [SECONDS] [alone]`, `flows wide` or `flows nodes [NODES]`; all three if nothing is given. With few
//! SECONDS a step the machine is busy throughout, and what is measured is how long requests wait for it. What `many`
//! compares with takes as long as it does itself, and is left out with `alone`.
//! `many` wants `make cluster-up SIM_NODES=10`; the nodes of `nodes` are made and removed by the program.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Map, Value, json};
use stoker_api::{DaemonJob, DaemonJobState, FlowState, JobFlow, JobTemplate};
use stoker_core::job_body::{Additions, pin, spec};
use stoker_e2e::World;
use stoker_e2e::answered::Answered;
use stoker_e2e::flips::Waits;
use stoker_e2e::job_watch::JobWatch;
use stoker_e2e::nodes::PrivateNodes;
use stoker_e2e::objects::Object;
use stoker_e2e::processes::{Cost, processor_time};
use stoker_e2e::random::Random;
use stoker_e2e::table::Table;
use tokio::task::JoinSet;

/// A flow of `many` has so many layers of so many steps, each of which waits for all of the layer before.
const LAYERS: usize = 10;
const ACROSS: usize = 2;
/// Steps of the wide flow.
const STEPS: usize = 1_000;
/// Jobs at work at a time.
const AT_ONCE: usize = 100;
/// Requests of this program at a time.
const AT_A_TIME: usize = 16;
/// Everything comes to its end within this time, however large.
const ENDED: Duration = Duration::from_secs(1_800);

/// Milliseconds from the end of what a step waits for to its Job, of 99 in 100.
const DELAY: f64 = 50.0;
/// So many times as long as bare Jobs.
const RATIO: f64 = 1.25;
/// A step costs its Job, the Job's finalizer, and a write of the status when it starts and when it ends.
const WRITES: f64 = 4.0;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next();
    let mut number = || arguments.next().map(|text| text.parse::<usize>()).transpose();
    let mut table = Table::default();
    match what.as_deref() {
        None => {
            many(&mut table, 500, 100, true).await?;
            wide(&mut table).await?;
            nodes(&mut table, 1_000).await?;
        }
        Some("many") => {
            let (flows, seconds) = (number()?.unwrap_or(500), number()?.unwrap_or(100));
            let compares = match arguments.next().as_deref() {
                None => true,
                Some("alone") => false,
                Some(other) => bail!("{other:?} is not alone"),
            };
            many(&mut table, flows, seconds, compares).await?;
        }
        Some("wide") => wide(&mut table).await?,
        Some("nodes") => nodes(&mut table, number()?.unwrap_or(1_000)).await?,
        Some(other) => bail!("{other:?} is not many, wide or nodes"),
    }
    table.end();
    Ok(())
}

/// A JobSpec whose simulated pod ends so long after its start.
fn job(ends: Duration) -> Value {
    json!({"template": {
        "metadata": {"annotations": {"sim.stoker.dev/complete-after": format!("{}ms", ends.as_millis())}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "work",
                "image": "docker.io/local/busybox:1",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"],
            }],
        },
    }})
}

/// A flow has ended well.
fn succeeded(flow: &JobFlow) -> bool {
    let status = flow.status.as_ref();
    status.is_some_and(|s| s.state == Some(FlowState::Succeed) && s.completion_time.is_some())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The number of a step of `many` and of those that it waits for.
fn layered(step: usize) -> std::ops::Range<usize> {
    let layer = step / ACROSS;
    layer.saturating_sub(1) * ACROSS..layer * ACROSS
}

/// The yardstick of `many`: this program plays all flows by itself. It asks for the Jobs of a layer as soon as it sees that the
/// one before is complete, and writes nothing else.
async fn played(world: &World, flows: &[Vec<Value>]) -> Result<Waits> {
    let mut watch = JobWatch::start(world).await?;
    let mut requests = JoinSet::new();
    let mut create = |flow: usize, layer: usize| -> Result<()> {
        for step in &flows[flow][layer * ACROSS..(layer + 1) * ACROSS] {
            let template = step["jobTemplate"].as_object().context("a step without a Job")?;
            let name = format!("played-{flow}-{}", step["name"].as_str().unwrap_or_default());
            let spec = spec(template, &Additions::default());
            let job: Job = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
            let api = world.api::<Job>();
            requests.spawn(async move { api.create(&PostParams::default(), &job).await });
        }
        Ok(())
    };
    for flow in 0..flows.len() {
        create(flow, 0)?;
    }
    let mut left = vec![[ACROSS; LAYERS]; flows.len()];
    for _ in 0..flows.len() * LAYERS * ACROSS {
        let name = watch.next_completed().await?;
        let numbers = name.strip_prefix("played-").and_then(|rest| rest.split_once("-s"));
        let (flow, step) = numbers.with_context(|| format!("{name} is nobody's"))?;
        let (flow, layer) = (flow.parse::<usize>()?, step.parse::<usize>()? / ACROSS);
        left[flow][layer] -= 1;
        if left[flow][layer] == 0 && layer + 1 < LAYERS {
            create(flow, layer + 1)?;
        }
    }
    while let Some(created) = requests.join_next().await {
        created??;
    }
    delays(&watch, "played", flows.len())
}

async fn many(table: &mut Table, flows: usize, seconds: usize, compares: bool) -> Result<()> {
    let world = World::start_process("flows-many").await?;
    let idle = world.operator().memory()?;
    let count = flows * LAYERS * ACROSS;
    let (mut random, spread) = (Random::new(1), seconds as u64 * 1_000);
    let mut steps = || -> Vec<Value> {
        let mut step = |n: usize| {
            // Two thirds to four thirds of the time, so that steps do not end in step.
            let ends = Duration::from_millis(spread * 2 / 3 + random.below((spread * 2 / 3).max(1)));
            let after: Vec<String> = layered(n).map(|on| format!("s{on}")).collect();
            json!({"name": format!("s{n}"), "dependencies": after, "jobTemplate": job(ends)})
        };
        (0..LAYERS * ACROSS).map(&mut step).collect()
    };
    let all: Vec<Vec<Value>> = (0..flows).map(|_| steps()).collect();
    if compares {
        let cost = Cost::begin(&world)?;
        let yardstick = played(&world, &all).await?;
        println!("played by this program alone, which only creates Jobs: {}", yardstick.told());
        println!("processor time for each of its Jobs, ms: {}", cost.each(count)?);
        table.row("many: played by the measurer alone, p50, ms", yardstick.at(0.5), None);
        table.row("many: played by the measurer alone, p99, ms", yardstick.at(0.99), None);
        emptied::<JobFlow>(&world).await?;
    }
    let mut watch = JobWatch::start(&world).await?;
    let specs: Vec<Value> = all.into_iter().map(|steps| json!({"flows": steps})).collect();
    let before = Answered::so_far(&world.client).await?;
    let (cost, used) = (Cost::begin(&world)?, processor_time(world.operator().pid())?);
    let began = Instant::now();
    stream::iter(specs.into_iter().enumerate())
        .map(|(n, spec)| {
            let world = &world;
            async move {
                let object = json!({
                    "apiVersion": "stoker.dev/v1alpha1",
                    "kind": "JobFlow",
                    "metadata": {"name": format!("flow-{n}")},
                    "spec": spec,
                });
                let object: JobFlow = serde_json::from_value(object)?;
                anyhow::Ok(world.api::<JobFlow>().create(&PostParams::default(), &object).await.map(drop)?)
            }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;
    let applied = began.elapsed();
    let (mut peak, mut looked) = (0, Instant::now());
    for _ in 0..count {
        watch.next_completed().await?;
        if looked.elapsed() > Duration::from_secs(1) {
            (peak, looked) = (peak.max(world.operator().memory()?), Instant::now());
        }
    }
    let took = began.elapsed();
    until_ended(&world, succeeded).await?;
    let parts = cost.each(count)?;
    // Each Job is let go some time after its end.
    let after = loop {
        let now = Answered::so_far(&world.client).await?;
        if now.since(&before, "PATCH", "jobs") >= count as u64 {
            break now;
        }
        ensure!(began.elapsed() < took + ENDED, "Jobs are not let go");
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let used = processor_time(world.operator().pid())?.saturating_sub(used);

    println!(
        "{flows} flows of {LAYERS} layers of {ACROSS} steps, each waiting for the layer before, {seconds} s a step; all applied after {applied:.0?}, all complete after {took:.0?}: {:.1} Jobs a second, at most {} at work",
        count as f64 / took.as_secs_f64(),
        watch.most()
    );
    let delays = delays(&watch, "flow", flows)?;
    println!(
        "from the last end to the Job that waited for it, {} of them: {}",
        delays.count(),
        delays.told()
    );
    println!("processor time for each Job, ms: {parts}");
    table.row("many: delay p50, ms", delays.at(0.5), None);
    table.row("many: delay p99, ms", delays.at(0.99), Some(DELAY));
    let within = world.operator().metric("stoker_flow_step_seconds_bucket", r#"le="0.05""#)?;
    let all = world.operator().metric("stoker_flow_step_seconds_count", "")?;
    table.row("many: asked for within 50 ms, as the operator counts, %", 100.0 * within / all.max(1.0), None);
    let events = events(&world).await?;
    writes(table, &before, &after, events, count);
    table.row("many: reads of a flow for each Job", of(&before, &after, "GET", "jobflows", count), None);
    table.row("many: operator's memory before, MiB", mib(idle), None);
    table.row("many: operator's memory at most, MiB", mib(peak), None);
    table.row(
        "many: operator's processor time for each Job, ms",
        used.as_secs_f64() * 1e3 / count as f64,
        None,
    );
    drop(watch);
    world.api::<JobFlow>().delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    emptied::<JobFlow>(&world).await?;
    world.finish().await
}

/// How long after the last end of what it waits for each step's Job came, in milliseconds.
fn delays(watch: &JobWatch, whose: &str, flows: usize) -> Result<Waits> {
    let mut delays = Vec::new();
    for flow in 0..flows {
        let of = |step: usize| watch.of(&format!("{whose}-{flow}-s{step}"));
        for step in ACROSS..LAYERS * ACROSS {
            let mut ready = None;
            for on in layered(step) {
                ready = ready.max(of(on)?.completed);
            }
            let delay = ready.and_then(|ready| of(step).ok()?.came.checked_duration_since(ready));
            let Some(delay) = delay else { bail!("step {step} of flow {flow} began too early") };
            delays.push(delay.as_secs_f64() * 1000.0);
        }
    }
    Ok(Waits::new(delays))
}

fn of(before: &Answered, after: &Answered, verb: &str, resource: &str, count: usize) -> f64 {
    after.since(before, verb, resource) as f64 / count as f64
}

/// What the operator wrote for each Job. Nobody else writes to these in a measurement: Kubernetes' controller writes
/// `jobs/status`.
fn writes(table: &mut Table, before: &Answered, after: &Answered, events: usize, count: usize) {
    let rows = [("POST", "jobs"), ("PATCH", "jobs"), ("PATCH", "jobflows"), ("PUT", "jobflows/status")];
    let mut all = events as f64 / count as f64;
    for (verb, resource) in rows {
        let each = of(before, after, verb, resource, count);
        all += each;
        table.row(&format!("many: {verb} {resource} for each Job"), each, None);
    }
    table.row("many: Events for each Job", events as f64 / count as f64, None);
    table.row("many: all of these writes for each Job", all, Some(WRITES));
}

/// Events that the operator wrote.
async fn events(world: &World) -> Result<usize> {
    let params = ListParams::default().fields("reportingComponent=stoker");
    Ok(world.api::<Event>().list_metadata(&params).await?.items.len())
}

/// Waits until all objects of a kind are done.
async fn until_ended<K: Object>(world: &World, done: impl Fn(&K) -> bool) -> Result<()> {
    let began = Instant::now();
    loop {
        let all = world.api::<K>().list(&ListParams::default()).await?.items;
        if all.iter().all(&done) {
            return Ok(());
        }
        ensure!(began.elapsed() < ENDED, "{} have not ended", all.iter().filter(|one| !done(one)).count());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until the objects of a kind are gone, and deletes all Jobs and their pods, so that the next measurement begins
/// as this one did.
async fn emptied<K: Object>(world: &World) -> Result<()> {
    let (one, began) = (ListParams::default().limit(1), Instant::now());
    while !world.api::<K>().list_metadata(&one).await?.items.is_empty() {
        ensure!(began.elapsed() < ENDED, "{}s do not go", K::kind(&()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let jobs = world.api::<Job>();
    jobs.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    while !jobs.list_metadata(&one).await?.items.is_empty()
        || !world.api::<Pod>().list_metadata(&one).await?.items.is_empty()
    {
        ensure!(began.elapsed() < ENDED, "Jobs or pods do not go");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// What a measurement took.
struct Took {
    all: Duration,
    /// Jobs at work at a time, at most.
    most: usize,
}

/// The yardstick: Jobs that nobody but Kubernetes looks after, so many at a time, another as soon as one is seen to be
/// complete.
async fn bare(world: &World, jobs: Vec<Job>) -> Result<Took> {
    let mut watch = JobWatch::start(world).await?;
    let (count, mut left, mut requests) = (jobs.len(), jobs.into_iter(), JoinSet::new());
    let mut create = |job: Job| {
        let api = world.api::<Job>();
        requests.spawn(async move { api.create(&PostParams::default(), &job).await });
    };
    let began = Instant::now();
    left.by_ref().take(AT_ONCE).for_each(&mut create);
    for _ in 0..count {
        watch.next_completed().await?;
        left.next().into_iter().for_each(&mut create);
    }
    let took = Took { all: began.elapsed(), most: watch.most() };
    while let Some(created) = requests.join_next().await {
        created??;
    }
    Ok(took)
}

/// An object whose operator makes so many Jobs.
async fn kept<K: Object>(world: &World, name: &str, spec: Value, count: usize) -> Result<Took> {
    let mut watch = JobWatch::start(world).await?;
    let began = Instant::now();
    world.apply::<K>(name, spec).await?;
    for _ in 0..count {
        watch.next_completed().await?;
    }
    Ok(Took { all: began.elapsed(), most: watch.most() })
}

/// Bare Jobs made as Stoker makes those of a template, and named so.
fn bare_jobs(
    name: &str,
    template: &Value,
    count: usize,
    node: impl Fn(usize) -> Option<String>,
) -> Result<Vec<Job>> {
    let job = |n: usize| {
        let mut spec = spec(template.as_object().unwrap_or(&Map::new()), &Additions::default());
        let pod = spec.get_mut("template").and_then(|pod| pod["spec"].as_object_mut());
        if let (Some(pod), Some(node)) = (pod, node(n)) {
            pin(pod, &node);
        }
        Ok(serde_json::from_value(json!({"metadata": {"name": format!("{name}-{n}")}, "spec": spec}))?)
    };
    (0..count).map(job).collect()
}

/// Tells how a measurement compares with the yardstick, which was taken before and after it.
fn compare(table: &mut Table, what: &str, took: &Took, bare: &[Took; 2]) {
    let mean = (bare[0].all + bare[1].all).as_secs_f64() / 2.0;
    println!(
        "{what}: {:.1} s, at most {} at work; bare Jobs {:.1} s before and {:.1} s after, at most {} at work",
        took.all.as_secs_f64(),
        took.most,
        bare[0].all.as_secs_f64(),
        bare[1].all.as_secs_f64(),
        bare[0].most.max(bare[1].most)
    );
    table.row(
        &format!("{what}: time, as a multiple of bare Jobs'"),
        took.all.as_secs_f64() / mean,
        Some(RATIO),
    );
    table.row(&format!("{what}: Jobs at work at a time, at most"), took.most as f64, Some(AT_ONCE as f64));
}

/// What a wide object cost besides time.
async fn costs(
    table: &mut Table,
    world: &World,
    what: &str,
    before: &Answered,
    used: Duration,
    count: usize,
) -> Result<()> {
    let used = processor_time(world.operator().pid())?.saturating_sub(used);
    table.row(
        &format!("{what}: operator's processor time for each Job, ms"),
        used.as_secs_f64() * 1e3 / count as f64,
        None,
    );
    table.row(&format!("{what}: operator's memory, MiB"), mib(world.operator().memory()?), None);
    let after = Answered::so_far(&world.client).await?;
    for resource in ["jobflows/status", "daemonjobs/status"] {
        let written = after.since(before, "PUT", resource);
        if written > 0 {
            table.row(&format!("{what}: writes of its status"), written as f64, None);
        }
    }
    Ok(())
}

async fn wide(table: &mut Table) -> Result<()> {
    let world = World::start_process("flows-wide").await?;
    let template = job(Duration::from_secs(1));
    world.apply::<JobTemplate>("step", template.clone()).await?;
    let step = |n: usize| json!({"name": format!("s{n}"), "jobTemplateRef": "step"});
    let free: Vec<Value> = (0..STEPS).map(step).collect();
    let layers: Vec<Value> = (0..STEPS)
        .map(|n| {
            let mut step = step(n);
            if let Some(on) = n.checked_sub(AT_ONCE) {
                // The one above, and its neighbour.
                let row = on / AT_ONCE * AT_ONCE;
                let beside = row + (on + 1) % AT_ONCE;
                step["dependencies"] = json!([format!("s{on}"), format!("s{beside}")]);
            }
            step
        })
        .collect();
    let shapes = [
        (
            "limited",
            format!("1 flow of {STEPS} steps, maxParallel {AT_ONCE}"),
            json!({"maxParallel": AT_ONCE, "flows": free}),
        ),
        ("layers", format!("1 flow of {} layers of {AT_ONCE}", STEPS / AT_ONCE), json!({"flows": layers})),
    ];
    let yardstick = async |round: usize| -> Result<Took> {
        let jobs = bare_jobs(&format!("bare-{round}"), &template, STEPS, |_| None)?;
        let took = bare(&world, jobs).await?;
        emptied::<JobFlow>(&world).await?;
        Ok(took)
    };
    let mut last = yardstick(0).await?;
    for (round, (name, what, spec)) in shapes.into_iter().enumerate() {
        let before = Answered::so_far(&world.client).await?;
        let used = processor_time(world.operator().pid())?;
        let took = kept::<JobFlow>(&world, name, spec, STEPS).await?;
        let flow = world.object::<JobFlow>(name, "through", succeeded).await?;
        costs(table, &world, &what, &before, used, STEPS).await?;
        table.row(
            &format!("{what}: size of its status, bytes"),
            serde_json::to_vec(&flow.status)?.len() as f64,
            None,
        );
        world.delete::<JobFlow>(name).await?;
        emptied::<JobFlow>(&world).await?;
        let after = yardstick(round + 1).await?;
        let around = [last, after];
        compare(table, &what, &took, &around);
        [_, last] = around;
    }
    world.finish().await
}

async fn nodes(table: &mut Table, count: usize) -> Result<()> {
    let world = World::start_process("flows-nodes").await?;
    let nodes = PrivateNodes::create(&world, count).await?;
    // They go whatever comes of it.
    let measured = on_nodes(table, &world, &nodes, count).await;
    nodes.delete().await?;
    measured?;
    world.finish().await
}

async fn on_nodes(table: &mut Table, world: &World, nodes: &PrivateNodes, count: usize) -> Result<()> {
    let began = Instant::now();
    nodes.ready().await?;
    println!("{count} nodes are Ready after {:.0?}", began.elapsed());
    let mut template = job(Duration::from_secs(1));
    template["template"]["spec"]["tolerations"] = json!([{"key": "e2e", "operator": "Exists"}]);
    let yardstick = async |round: usize| -> Result<Took> {
        let node = |n: usize| Some(format!("{}-{n}", world.namespace));
        let took = bare(world, bare_jobs(&format!("bare-{round}"), &template, count, node)?).await?;
        emptied::<DaemonJob>(world).await?;
        Ok(took)
    };
    let first = yardstick(0).await?;
    let mut spec = template.clone();
    spec["nodeSelector"] = json!({"e2e": world.namespace});
    spec["parallelism"] = json!(AT_ONCE);
    let before = Answered::so_far(&world.client).await?;
    let used = processor_time(world.operator().pid())?;
    let took = kept::<DaemonJob>(world, "everywhere", spec, count).await?;
    let succeeded =
        |object: &DaemonJob| object.status.as_ref().is_some_and(|s| s.state == Some(DaemonJobState::Succeed));
    let object = world.object::<DaemonJob>("everywhere", "through", succeeded).await?;
    let what = format!("DaemonJob on {count} nodes, parallelism {AT_ONCE}");
    costs(table, world, &what, &before, used, count).await?;
    table.row(
        &format!("{what}: size of its status, bytes"),
        serde_json::to_vec(&object.status)?.len() as f64,
        None,
    );
    world.delete::<DaemonJob>("everywhere").await?;
    emptied::<DaemonJob>(world).await?;
    let last = yardstick(1).await?;
    compare(table, &what, &took, &[first, last]);
    Ok(())
}
