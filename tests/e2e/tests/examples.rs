//! The examples do what their texts say.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::Value;
use stoker_api::HotStandbyJob;
use stoker_e2e::World;
use stoker_e2e::jobs::JobPool;

/// Applies a file of examples/hot-standby-job as it is.
async fn apply<'a>(world: &'a World, file: &str, name: &'a str) -> Result<JobPool<'a>> {
    let path = stoker_e2e::root().join("examples/hot-standby-job").join(file);
    let object: Value = serde_yaml::from_str(&std::fs::read_to_string(path)?)?;
    assert_eq!(object["metadata"]["name"], name);
    let pool = JobPool { world, name };
    pool.api().patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await?;
    Ok(pool)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn twenty_game_workers_stand_by_whatever_they_play() -> Result<()> {
    let world = World::start("workers").await?;
    if !world.answers_commands().await? {
        println!("skipped: simulated pods of this cluster run no commands");
        return world.finish().await;
    }
    let workers = apply(&world, "game-workers.yaml", "game-workers").await?;
    workers.counts(0, 20, 20).await?;
    let pods = workers.pods().await?;
    world.annotate(&pods[..3], "sim.stoker.dev/exec-code", Some("0")).await?;
    workers.counts(3, 20, 23).await?;
    world.annotate(&pods[..2], "sim.stoker.dev/phase", Some("Succeeded")).await?;
    let told = workers
        .status("through with two matches", |p| {
            let status = p.status.clone().unwrap_or_default();
            (status.completed_jobs, status.busy_count, status.idle_count) == (2, 1, 20)
        })
        .await?;
    assert_eq!(told.status.unwrap().failed_jobs, 0);
    assert!(workers.pods().await?.iter().any(|p| p.uid() == pods[2].uid()), "the third plays on");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn playing_workers_wait_play_and_end_by_themselves() -> Result<()> {
    let world = World::start("playing").await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    let workers = apply(&world, "playing-workers.yaml", "playing-workers").await?;
    let status = |p: &HotStandbyJob| p.status.clone().unwrap_or_default();
    workers.status("standing by", |p| status(p).idle_count >= 1).await?;
    workers.status("playing", |p| status(p).busy_count >= 1).await?;
    let told = workers.status("through with two matches", |p| status(p).completed_jobs >= 2).await?;
    assert_eq!(status(&told).failed_jobs, 0, "a worker that plays is not removed");
    workers.status("standing by again", |p| status(p).idle_count >= 1).await?;
    world.finish().await
}
