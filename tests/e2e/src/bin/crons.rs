//! Measures PreScaledCronJobs: on the real node how long after its instant the work of a run begins, by either gate and
//! beside plain CronJobs with the same work; on simulated nodes thousands that fire at the same minute, while the
//! operator is killed over and over, and as many plain CronJobs.
//!
//! `crons skew [RUNS]` or `crons crowd [OBJECTS]`; both if nothing is given.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use stoker_api::{PreScaledCronJob, keys};
use stoker_e2e::World;
use stoker_e2e::crons::{Cron, FLAGS, cron, instant, work_began, work_that_tells};
use stoker_e2e::flips::Waits;
use stoker_e2e::merge;
use stoker_e2e::processes::{Cost, processor_time};

/// Objects of each sort on the real node.
const EACH: usize = 5;
const AT_A_TIME: usize = 16;
/// Kills of the operator while thousands are warmed up.
const KILLS: u32 = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (what, count) = (arguments.next(), arguments.next().map(|n| n.parse::<usize>()).transpose()?);
    if what.as_deref().is_none_or(|what| what == "skew") {
        skew(count.unwrap_or(30)).await?;
    }
    if what.as_deref().is_none_or(|what| what == "crowd") {
        crowd(count.unwrap_or(5_000)).await?;
    }
    Ok(())
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

async fn skew(runs: usize) -> Result<()> {
    let world = World::start_with("skew", &FLAGS).await?;
    ensure!(world.has_real_node().await?, "this cluster has no real node");
    let template = work_that_tells();
    let sorts = ["InitContainer", "Exec", "CronJob"];
    let plain_api: Api<CronJob> = Api::namespaced(world.client.clone(), &world.namespace);
    let name = |sort: &str, n: usize| format!("{}-{n}", sort.to_lowercase());
    for n in 0..EACH {
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
    let limit = Duration::from_secs(120 + 90 * runs.div_ceil(EACH) as u64);
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
        "{EACH} objects of each sort, every minute, warmed up 30 s before, side by side on the real node:"
    );
    for sort in sorts {
        let all = delays.remove(sort).unwrap_or_default();
        println!("  {sort}: {} runs, work began after its instant by {}", all.len(), told(&Waits::new(all)));
    }
    for n in 0..EACH {
        plain_api.delete(&name("CronJob", n), &DeleteParams::background()).await?;
    }
    world.finish_crons().await
}

async fn crowd(count: usize) -> Result<()> {
    let mut world = World::start_with("crowd", &FLAGS).await?;
    let began = Instant::now();
    // The minute must come after all objects are there.
    let at = Timestamp::now() + SignedDuration::from_secs(120 + count as i64 / 25);
    let at = at.round(jiff::Unit::Minute)?.checked_add(1.minute())?;
    let zoned = at.to_zoned(jiff::tz::TimeZone::UTC);
    let schedule = format!("{} {} * * *", zoned.minute(), zoned.hour());
    let api: Api<PreScaledCronJob> = Api::namespaced(world.client.clone(), &world.namespace);
    let object = |n: usize| -> Result<PreScaledCronJob> {
        let mut object = cron(&format!("crowd-{n}"));
        merge(&mut object["spec"], json!({"warmUp": "60s", "cronJob": {"spec": {"schedule": schedule}}}));
        Ok(serde_json::from_value(object)?)
    };
    stream::iter(0..count)
        .map(|n| {
            let (api, object) = (api.clone(), object(n));
            async move { anyhow::Ok(api.create(&PostParams::default(), &object?).await.map(drop)?) }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;
    println!("{count} PreScaledCronJobs after {:.0?}, all for {at}", began.elapsed());
    let settled = at - SignedDuration::from_secs(75);
    ensure!(Timestamp::now() < settled, "they took too long");
    sleep_until(settled - SignedDuration::from_secs(10)).await;
    let (used, rest) = (processor_time(world.operator().pid())?, Instant::now());
    sleep_until(settled).await;
    let cores = (processor_time(world.operator().pid())? - used).as_secs_f64() / rest.elapsed().as_secs_f64();
    println!("at rest: {cores:.3} cores, {} MiB", world.operator().memory()? >> 20);

    let cost = Cost::begin(&world)?;
    sleep_until(at - SignedDuration::from_secs(60)).await;
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_secs(4)).await;
        if let Some(operator) = world.operator.as_mut() {
            operator.restart()?;
        }
    }
    sleep_until(at + SignedDuration::from_secs(1)).await;
    println!("processor time for each, ms, without the operators that were killed: {}", cost.each(count)?);
    let jobs: Api<Job> = Api::namespaced(world.client.clone(), &world.namespace);
    let limit = Instant::now();
    let all = loop {
        let all = jobs.list(&ListParams::default()).await?.items;
        if all.len() >= count {
            break all;
        }
        ensure!(limit.elapsed() < Duration::from_secs(300), "{} of {count} Jobs are there", all.len());
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let mut owners = HashMap::<String, usize>::new();
    for job in &all {
        let owner = job.owner_references().first().map(|o| o.name.clone()).unwrap_or_default();
        *owners.entry(owner).or_default() += 1;
    }
    let early =
        all.iter().filter(|job| job.metadata.creation_timestamp.as_ref().is_some_and(|t| t.0 < at)).count();
    let doubles = owners.values().filter(|n| **n > 1).count();
    println!(
        "{early} of {count} Jobs were there before the instant, across {KILLS} kills; {doubles} doubles"
    );
    drop(world);

    let world = World::without_operator("plain").await?;
    let at = Timestamp::now() + SignedDuration::from_secs(60 + count as i64 / 25);
    let at = at.round(jiff::Unit::Minute)?.checked_add(1.minute())?;
    let zoned = at.to_zoned(jiff::tz::TimeZone::UTC);
    let schedule = format!("{} {} * * *", zoned.minute(), zoned.hour());
    let template = cron("x")["spec"]["cronJob"]["spec"]["jobTemplate"]["spec"]["template"].clone();
    let api: Api<CronJob> = Api::namespaced(world.client.clone(), &world.namespace);
    stream::iter(0..count)
        .map(|n| {
            let (api, object) = (api.clone(), plain(&format!("plain-{n}"), &template, &schedule));
            async move { anyhow::Ok(api.create(&PostParams::default(), &object?).await.map(drop)?) }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;
    sleep_until(at).await;
    let jobs: Api<Job> = Api::namespaced(world.client.clone(), &world.namespace);
    let (limit, mut last) = (Instant::now(), 0.0);
    loop {
        let all = jobs.list(&ListParams::default()).await?.items;
        for job in &all {
            let created = job.metadata.creation_timestamp.as_ref().map_or(at, |t| t.0);
            last = f64::max(last, created.duration_since(at).as_secs_f64());
        }
        if all.len() >= count {
            println!(
                "{count} plain CronJobs at the same minute: the last Job was created {last:.0} s after the instant"
            );
            break;
        }
        if limit.elapsed() > Duration::from_secs(300) {
            println!("{count} plain CronJobs: {} Jobs are there 300 s after the instant", all.len());
            break;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    println!("namespaces are left behind: take the cluster down");
    Ok(())
}

async fn sleep_until(at: Timestamp) {
    let left = at.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
}
