//! Measures PreScaledCronJobs: on the real node how long after its instant the work of a run begins, by either gate and
//! beside plain CronJobs with the same work; on simulated nodes thousands that fire at the same minute, while the
//! operator is killed over and over, and as many plain CronJobs.
//!
//! ```text
//! crons skew [RUNS] [OBJECTS]           30 runs of each sort, of 5 objects at a time
//! crons crowd [OBJECTS] [KILLS] [APART] 5,000; 10 kills, 12 seconds apart, from the first warm-up on
//! crons plain [OBJECTS]                 as many plain CronJobs
//! crons bare [OBJECTS]                  as many Jobs, created as fast as they are taken
//! ```
//!
//! All of them if nothing is given.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_api::{PreScaledCronJob, keys};
use stoker_e2e::World;
use stoker_e2e::crons::{Cron, FLAGS, cron, instant, work_began, work_that_tells};
use stoker_e2e::flips::Waits;
use stoker_e2e::merge;
use stoker_e2e::operator::Operator;
use stoker_e2e::processes::{Cost, peak_memory, processor_time};

/// Runs of each sort on the real node, and the objects whose runs begin at the same second.
const RUNS: usize = 30;
const EACH: usize = 5;
const AT_A_TIME: usize = 16;
/// Objects of one minute.
const CROWD: usize = 5_000;
/// Kills of the operator while they are warmed up and at work, and the seconds between them: some of each.
const KILLS: usize = 10;
const APART: usize = 12;
const LEAD: SignedDuration = SignedDuration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next();
    let mut number = |otherwise: usize| -> Result<usize> {
        Ok(arguments.next().map(|n| n.parse()).transpose()?.unwrap_or(otherwise))
    };
    match what.as_deref() {
        Some("skew") => skew(number(RUNS)?, number(EACH)?).await,
        Some("crowd") => crowd(number(CROWD)?, number(KILLS)?, number(APART)?).await,
        Some("plain") => plain_crowd(number(CROWD)?).await,
        Some("bare") => bare(number(CROWD)?).await,
        Some(other) => bail!("{other} is none of skew, crowd, plain and bare"),
        None => {
            skew(RUNS, EACH).await?;
            crowd(CROWD, KILLS, APART).await?;
            plain_crowd(CROWD).await?;
            bare(CROWD).await
        }
    }
}

fn told(waits: &Waits) -> String {
    let [min, p50, p99] = [0.0, 0.5, 0.99].map(|q| waits.at(q));
    format!("min {min:.1} ms, p50 {p50:.1} ms, p99 {p99:.1} ms")
}

fn plain(name: &str, template: &Value, schedule: &str) -> Result<CronJob> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "schedule": schedule,
            "successfulJobsHistoryLimit": 100,
            "jobTemplate": {"spec": {"backoffLimit": 0, "template": template}},
        },
    }))?)
}

async fn skew(runs: usize, each: usize) -> Result<()> {
    let world = World::start_with("skew", &FLAGS).await?;
    ensure!(world.has_real_node().await?, "this cluster has no real node");
    let template = work_that_tells();
    let sorts = ["InitContainer", "Exec", "CronJob"];
    let plain_api: Api<CronJob> = Api::namespaced(world.client.clone(), &world.namespace);
    let name = |sort: &str, n: usize| format!("{}-{n}", sort.to_lowercase());
    for n in 0..each {
        for sort in sorts {
            let name = name(sort, n);
            if sort == "CronJob" {
                plain_api.create(&PostParams::default(), &plain(&name, &template, "* * * * *")?).await?;
                continue;
            }
            let spec =
                json!({"successfulJobsHistoryLimit": 100, "jobTemplate": {"spec": {"template": template}}});
            let fields = json!({"warmUp": "30s", "gate": sort, "cronJob": {"spec": spec}});
            Cron { world: &world, name: &name }.apply(fields).await?;
        }
    }
    let jobs_api: Api<Job> = Api::namespaced(world.client.clone(), &world.namespace);
    let began = Instant::now();
    let limit = Duration::from_secs(120 + 90 * runs.div_ceil(each) as u64);
    let mut delays = BTreeMap::<&str, Vec<f64>>::new();
    while sorts.iter().any(|sort| delays.get(sort).is_none_or(|all| all.len() < runs)) {
        ensure!(began.elapsed() < limit, "too few runs have ended");
        tokio::time::sleep(Duration::from_secs(2)).await;
        delays.clear();
        let pods: Vec<Pod> = world.pods().list(&ListParams::default()).await?.items;
        for job in jobs_api.list(&ListParams::default()).await? {
            let scheduled =
                job.annotations().get(keys::SCHEDULED).and_then(|at| at.parse::<Timestamp>().ok());
            let Some(at) = instant(&job).or(scheduled) else { continue };
            let job_name = job.name_any();
            let Some(sort) = sorts.iter().find(|sort| job_name.starts_with(&sort.to_lowercase())) else {
                continue;
            };
            for work in work_began(&pods, &job_name)? {
                let delay = (work - at.as_nanosecond() as f64 / 1e9) * 1000.0;
                // The first minute's may have been applied too late to be warmed up.
                let created = job.metadata.creation_timestamp.as_ref().map(|t| t.0);
                if *sort == "CronJob"
                    || created.is_some_and(|created| at.duration_since(created).as_secs() >= 15)
                {
                    delays.entry(sort).or_default().push(delay);
                }
            }
        }
    }
    println!(
        "{each} objects of each sort, every minute, warmed up 30 s before, side by side on the real node:"
    );
    for sort in sorts {
        let all = delays.remove(sort).unwrap_or_default();
        println!("  {sort}: {} runs, work began after its instant by {}", all.len(), told(&Waits::new(all)));
    }
    for n in 0..each {
        plain_api.delete(&name("CronJob", n), &DeleteParams::background()).await?;
    }
    world.finish_crons().await
}

/// A minute that comes after so many objects are there, and the schedule that names it.
fn minute_after(wait: SignedDuration) -> Result<(Timestamp, String)> {
    let at = (Timestamp::now() + wait).round(jiff::Unit::Minute)?.checked_add(1.minute())?;
    let zoned = at.to_zoned(jiff::tz::TimeZone::UTC);
    Ok((at, format!("{} {} * * *", zoned.minute(), zoned.hour())))
}

/// Creates objects, some at a time.
async fn create_all<K>(api: &Api<K>, count: usize, object: impl Fn(usize) -> Result<K>) -> Result<()>
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    stream::iter(0..count)
        .map(|n| {
            let object = object(n);
            async move { anyhow::Ok(api.create(&PostParams::default(), &object?).await.map(drop)?) }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await
}

/// The Jobs of a namespace, once there are so many; what there is after five minutes otherwise.
async fn jobs(world: &World, count: usize) -> Result<Vec<Job>> {
    let api: Api<Job> = Api::namespaced(world.client.clone(), &world.namespace);
    let began = Instant::now();
    loop {
        let all = api.list(&ListParams::default()).await?.items;
        if all.len() >= count || began.elapsed() > Duration::from_secs(300) {
            return Ok(all);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// How long after an instant the last of them was created, in seconds.
fn last(jobs: &[Job], at: Timestamp) -> f64 {
    let created = jobs.iter().filter_map(|job| Some(job.metadata.creation_timestamp.as_ref()?.0));
    created.map(|created| created.duration_since(at).as_secs_f64()).fold(f64::NEG_INFINITY, f64::max)
}

async fn crowd(count: usize, kills: usize, apart: usize) -> Result<()> {
    let mut world = World::start_with("crowd", &FLAGS).await?;
    let began = Instant::now();
    let (at, schedule) = minute_after(SignedDuration::from_secs(120 + count as i64 / 25))?;
    let api: Api<PreScaledCronJob> = Api::namespaced(world.client.clone(), &world.namespace);
    let lead = format!("{}s", LEAD.as_secs());
    let object = |n: usize| -> Result<PreScaledCronJob> {
        let mut object = cron(&format!("crowd-{n}"));
        merge(&mut object["spec"], json!({"warmUp": lead, "cronJob": {"spec": {"schedule": schedule}}}));
        Ok(serde_json::from_value(object)?)
    };
    create_all(&api, count, object).await?;
    println!("{count} PreScaledCronJobs after {:.0?}, all for {at}", began.elapsed());
    let settled = at - LEAD - SignedDuration::from_secs(15);
    ensure!(Timestamp::now() < settled, "they took too long");
    sleep_until(settled - SignedDuration::from_secs(10)).await;
    let (used, rest) = (processor_time(world.operator().pid())?, Instant::now());
    sleep_until(settled).await;
    let cores = (processor_time(world.operator().pid())? - used).as_secs_f64() / rest.elapsed().as_secs_f64();
    println!("at rest: {cores:.3} cores, {} MiB", world.operator().memory()? >> 20);

    let cost = Cost::begin(&world)?;
    let first = at - LEAD;
    let mut before = 0;
    for kill in 1..=kills {
        let when = first + SignedDuration::from_secs((kill * apart) as i64);
        sleep_until(when).await;
        before += usize::from(when < at);
        if let Some(operator) = world.operator.as_mut() {
            operator.restart()?;
        }
    }
    sleep_until(at + SignedDuration::from_secs(1)).await;
    println!("processor time for each, ms, without the operators that were killed: {}", cost.each(count)?);
    let all = jobs(&world, count).await?;
    let mut owners = HashMap::<String, usize>::new();
    for job in &all {
        let owner = job.owner_references().first().map(|o| o.name.clone()).unwrap_or_default();
        *owners.entry(owner).or_default() += 1;
    }
    let early =
        all.iter().filter(|job| job.metadata.creation_timestamp.as_ref().is_some_and(|t| t.0 < at)).count();
    let doubles = owners.values().filter(|n| **n > 1).count();
    println!(
        "{} Jobs, {early} of {count} there before the instant, the last {:+.0} s from it; {kills} kills {apart} s apart, {before} of them before the instant; {doubles} doubles",
        all.len(),
        last(&all, at),
    );
    if let Some(operator) = world.operator.as_mut() {
        operator.restart()?;
    }
    world.wait("crowd", "running again", |operator| Ok(operator.metrics().is_ok())).await?;
    // Whoever leads looks at all of them, and lists what there is before.
    let ready = |operator: &Operator| {
        let address = operator.addresses().pop().unwrap_or_default();
        Ok(operator.get(&address, "/readyz").is_ok_and(|answer| answer.contains("200 OK")))
    };
    world.wait("crowd", "Ready again", ready).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (most, now) = (peak_memory(world.operator().pid())?, world.operator().memory()?);
    println!(
        "started anew with as many objects, Jobs and pods: {} MiB at most, {} MiB after 10 s",
        most >> 20,
        now >> 20
    );
    println!("the namespace is left behind: take the cluster down");
    Ok(())
}

async fn plain_crowd(count: usize) -> Result<()> {
    let world = World::without_operator("plain").await?;
    let (at, schedule) = minute_after(SignedDuration::from_secs(60 + count as i64 / 25))?;
    let template = simulated();
    let api: Api<CronJob> = Api::namespaced(world.client.clone(), &world.namespace);
    create_all(&api, count, |n| plain(&format!("plain-{n}"), &template, &schedule)).await?;
    sleep_until(at).await;
    let all = jobs(&world, count).await?;
    println!(
        "{} of {count} plain CronJobs have a Job, the last {:.0} s after the instant",
        all.len(),
        last(&all, at)
    );
    println!("the namespace is left behind: take the cluster down");
    Ok(())
}

async fn bare(count: usize) -> Result<()> {
    let world = World::without_operator("bare").await?;
    let template = simulated();
    let api: Api<Job> = Api::namespaced(world.client.clone(), &world.namespace);
    let began = Instant::now();
    let object = |n: usize| -> Result<Job> {
        let name = format!("bare-{n}");
        Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"template": template}}))?)
    };
    create_all(&api, count, object).await?;
    println!("{count} Jobs, {AT_A_TIME} at a time: {:.1} s", began.elapsed().as_secs_f64());
    println!("the namespace is left behind: take the cluster down");
    Ok(())
}

/// The template of a run on simulated nodes.
fn simulated() -> Value {
    cron("x")["spec"]["cronJob"]["spec"]["jobTemplate"]["spec"]["template"].clone()
}

async fn sleep_until(at: Timestamp) {
    let left = at.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
}
