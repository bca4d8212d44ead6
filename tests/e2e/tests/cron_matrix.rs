//! Runs on the real node, for several distances of instants and lengths of warm-up side by side: each is created its
//! warm-up before its instant, begins at it, and never before. `make test-long` runs all of them for 12 minutes; without
//! it the two shortest run once.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use kube::ResourceExt;
use serde_json::json;
use stoker_e2e::World;
use stoker_e2e::crons::{Cron, FLAGS, instant, work_began, work_that_tells};

/// Minutes from instant to instant, and of warm-up.
const MATRIX: [(u32, u32); 7] = [(1, 1), (3, 2), (4, 2), (4, 3), (5, 4), (5, 5), (10, 4)];

/// Work that has not begun by then after its instant is late.
const LATE: f64 = 30.0;

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i5_runs_begin_at_their_instants_for_all_distances_and_warm_ups() -> Result<()> {
    let world = World::start_with("matrix", &FLAGS).await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    let long = std::env::var_os("STOKER_TEST_LONG").is_some();
    let pairs = if long { &MATRIX[..] } else { &MATRIX[..2] };
    let span = Duration::from_secs(if long { 720 } else { 0 });
    let names: Vec<String> = pairs.iter().map(|(every, ahead)| format!("m{every}-{ahead}")).collect();
    for ((every, ahead), name) in pairs.iter().zip(&names) {
        let spec = json!({
            "schedule": format!("*/{every} * * * *"),
            "successfulJobsHistoryLimit": 20,
            "jobTemplate": {"spec": {"template": work_that_tells()}},
        });
        let fields = json!({"warmUp": null, "warmUpTimeMins": ahead, "cronJob": {"spec": spec}});
        Cron { world: &world, name }.apply(fields).await?;
    }
    let began = Instant::now();
    runs(&world, pairs, &names, span, began).await?;
    world.finish_crons().await
}

async fn runs(
    world: &World,
    pairs: &[(u32, u32)],
    names: &[String],
    span: Duration,
    began: Instant,
) -> Result<()> {
    let each = pairs.iter().zip(names).map(|((every, ahead), name)| async move {
        let cron = Cron { world, name };
        let patience = span.max(Duration::from_secs(u64::from(every * 2) * 60 + 90));
        let mut checked = 0;
        // Once the second has ended, one has had its whole warm-up.
        let enough = if span.is_zero() { 1 } else { 2 };
        while checked < enough || began.elapsed() < span {
            ensure!(
                began.elapsed() < patience + Duration::from_secs(120),
                "{name}: {checked} runs have ended"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
            checked = check(cron, *every, *ahead).await?;
        }
        println!("{name}: {checked} runs");
        anyhow::Ok(())
    });
    try_join_all(each).await.map(drop)
}

/// Checks all runs that have ended, and counts them.
async fn check(cron: Cron<'_>, every: u32, ahead: u32) -> Result<usize> {
    let (jobs, pods) = (cron.jobs().await?, cron.pods().await?);
    let mut ended = 0;
    let mut last = None;
    for job in &jobs {
        let (name, at) = (job.name_any(), instant(job).unwrap());
        let distance = last.map(|last| at.duration_since(last).as_secs());
        ensure!(
            distance.is_none_or(|d| d == i64::from(every) * 60),
            "{name}: {distance:?} s after the one before"
        );
        let created = job.metadata.creation_timestamp.as_ref().unwrap().0;
        let held = at.duration_since(created).as_secs();
        // Creation is told in whole seconds.
        ensure!(held <= i64::from(ahead) * 60 + 1, "{name}: created {held} s ahead");
        if last.is_some() {
            ensure!(held >= i64::from(ahead) * 60 - 10, "{name}: created only {held} s ahead");
        }
        last = Some(at);
        for began in work_began(&pods, &name)? {
            let late = began - at.as_millisecond() as f64 / 1000.0;
            ensure!((0.0..LATE).contains(&late), "{name}: its work began {late:.3} s after its instant");
            ended += 1;
        }
    }
    Ok(ended)
}
