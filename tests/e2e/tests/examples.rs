//! The examples do what their texts say.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::Value;
use stoker_api::{DaemonJob, FlowState, HotStandbyJob, JobFlow, JobTemplate, StepState};
use stoker_e2e::World;
use stoker_e2e::crons::{Cron, FLAGS};
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

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn cron_jobs_of_the_examples_are_scheduled_and_one_learns_its_lead() -> Result<()> {
    let world = World::start_in_cluster("cron-examples", &FLAGS).await?;
    for (file, name) in
        [("nightly.yaml", "nightly-report"), ("primed.yaml", "primed"), ("every-minute.yaml", "every-minute")]
    {
        let path = stoker_e2e::root().join("examples/pre-scaled-cron-job").join(file);
        let object: Value = serde_yaml::from_str(&std::fs::read_to_string(path)?)?;
        let cron = Cron { world: &world, name };
        cron.api().patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await?;
        let ready = |s: &stoker_api::PreScaledCronJobStatus| {
            let is = |type_: &str, status: &str| {
                s.conditions.iter().any(|c| c.type_ == type_ && c.status == status)
            };
            is("Ready", "True") && !is("PolicyHealthy", "False")
        };
        let status = cron.status("ready", ready).await?;
        let (next, begins) = (status.next_instant.unwrap(), status.next_warm_up.unwrap());
        let ahead = next.duration_since(begins).as_mins();
        match name {
            "nightly-report" => assert_eq!(ahead, 5),
            "primed" => assert_eq!(ahead, 5),
            _ => {
                assert!(status.lead_reason.is_some_and(|why| why.contains("run")), "the policy says why");
                let started = |s: &stoker_api::PreScaledCronJobStatus| s.last_schedule_time.is_some();
                cron.status("a run has started", started).await?;
            }
        }
    }
    world.finish_crons().await
}

/// A flow that has ended, by its state and its steps.
async fn flow(world: &World, name: &str, state: FlowState) -> Result<JobFlow> {
    let ended = |flow: &JobFlow| {
        flow.status.as_ref().is_some_and(|s| s.state == Some(state) && s.completion_time.is_some())
    };
    world.object(name, &format!("{state:?}"), ended).await
}

fn steps(flow: &JobFlow) -> Vec<(String, StepState)> {
    let all = flow.status.iter().flat_map(|status| status.job_status_list.values());
    let mut all: Vec<_> = all.map(|entry| (entry.step.clone(), entry.state)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn flows_of_the_examples_run_on_a_real_node() -> Result<()> {
    let world = World::start("flow-examples").await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    for file in ["five-steps", "failing-step", "same-node", "shared-volume", "template", "template-override"]
    {
        world.apply_example(&format!("job-flow/{file}.yaml")).await?;
    }
    let release = flow(&world, "release", FlowState::Succeed).await?;
    assert_eq!(release.status.as_ref().unwrap().progress.as_deref(), Some("5/5"));
    let failing = flow(&world, "failing", FlowState::Failed).await?;
    let expected = [
        ("broken", StepState::Failed),
        ("clean-up", StepState::Succeeded),
        ("fetch", StepState::Succeeded),
        ("independent", StepState::Succeeded),
        ("never", StepState::Skipped),
        ("onFailure", StepState::Succeeded),
    ];
    assert_eq!(steps(&failing), expected.map(|(step, state)| (step.to_owned(), state)));
    flow(&world, "same-node", FlowState::Succeed).await?;
    let pods = world.pods().list(&Default::default()).await?.items;
    let together = pods.iter().filter(|pod| pod.name_any().starts_with("same-node-"));
    let nodes: Vec<_> = together.map(stoker_e2e::nodes::node_of).collect();
    assert_eq!(nodes, ["real", "real", "real"]);
    let told = pods.iter().filter(|pod| pod.name_any().starts_with("failing-on-failure"));
    let said: Vec<_> = told
        .flat_map(|pod| pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()))
        .filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.message.clone())
        .collect();
    assert_eq!(said, ["Failed because of broken\n"]);
    flow(&world, "shared-volume", FlowState::Succeed).await?;
    flow(&world, "from-template", FlowState::Succeed).await?;
    let listed = |template: &JobTemplate| {
        template
            .status
            .as_ref()
            .is_some_and(|s| s.dependency_list == ["from-template-one", "from-template-two"])
    };
    world.object::<JobTemplate>("shell", "listing its Jobs", listed).await?;
    flow(&world, "overridden", FlowState::Succeed).await?;
    world.delete_all::<JobFlow>().await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_daemon_job_of_the_examples_leaves_out_the_nodes_that_it_names() -> Result<()> {
    let world = World::start("dj-example").await?;
    world.apply_example("daemon-job/exclusions.yaml").await?;
    let ended = |object: &DaemonJob| {
        object.status.as_ref().is_some_and(|s| s.state == Some(stoker_api::DaemonJobState::Succeed))
    };
    let object = world.object::<DaemonJob>("warm-caches", "through", ended).await?;
    assert!(object.status.unwrap().nodes.succeeded >= 1);
    let jobs = world.jobs_of::<DaemonJob>("warm-caches").await?;
    let nodes: Vec<_> =
        jobs.iter().filter_map(|job| job.annotations().get(stoker_api::keys::NODE).cloned()).collect();
    assert!(!nodes.iter().any(|node| node == "sim-0" || node == "sim-1"), "{nodes:?}");
    if world.has_real_node().await? {
        assert!(nodes.contains(&"real".to_owned()), "{nodes:?}");
    }
    world.delete_all::<DaemonJob>().await?;
    world.finish().await
}
