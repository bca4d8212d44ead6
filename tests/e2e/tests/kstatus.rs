//! Objects of all kinds as kstatus judges them, the library by which Flux and others wait for what they have applied.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use stoker_api::{
    DaemonJob, HotStandbyDeployment, HotStandbyJob, JobFlow, NodeBatchJob, PreScaledCronJob, StandbyClaim,
};
use stoker_e2e::crons::{FLAGS, cron, later};
use stoker_e2e::jobs::job_pool;
use stoker_e2e::node_batches::{self, ready_nodes};
use stoker_e2e::nodes::PrivateNode;
use stoker_e2e::{DEADLINE, World, merge, pool, root};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What keeps an object that is deleted.
const KEPT: &str = "e2e.stoker.dev/kept";

fn api(world: &World, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("stoker.dev", "v1alpha1", kind));
    Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
}

async fn apply(world: &World, kind: &str, spec: &Value) -> Result<()> {
    let name = kind.to_lowercase();
    let mut object = json!({"apiVersion": "stoker.dev/v1alpha1", "kind": kind, "metadata": {"name": name}});
    object["spec"] = spec.clone();
    api(world, kind).patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// What the library says of an object: its word, and why.
async fn judged(object: &DynamicObject) -> Result<(String, String)> {
    let mut judge = Command::new(root().join("target/cluster/bin/stoker-cluster"))
        .arg("kstatus")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = judge.stdin.take().context("no stdin")?;
    stdin.write_all(&serde_json::to_vec(object)?).await?;
    drop(stdin);
    let said = judge.wait_with_output().await?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stdout)?;
    let (word, why) = said.trim_end().split_once('\t').with_context(|| said.clone())?;
    Ok((word.to_owned(), why.to_owned()))
}

/// Waits until an object is judged so.
async fn is(world: &World, kind: &str, wanted: &str) -> Result<()> {
    let (name, began) = (kind.to_lowercase(), Instant::now());
    loop {
        let object = api(world, kind).get(&name).await?;
        let (word, why) = judged(&object).await?;
        if word == wanted {
            return Ok(());
        }
        if began.elapsed() > DEADLINE {
            let object = serde_json::to_string_pretty(&object)?;
            bail!("{kind} is {word} ({why}), not {wanted}\n{object}\n{}", world.tell(&name).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The smallest object of each kind that can work, with nothing that ends by itself.
fn all(world: &World) -> Vec<(&'static str, Value)> {
    let template = json!({"spec": {
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"key": "e2e", "operator": "Exists"}],
        "containers": [{"name": "main", "image": "docker.io/local/busybox:1", "command": ["sleep", "infinity"]}],
    }});
    let job = json!({"backoffLimit": 0, "template": template});
    let mut daemon = json!({"nodeSelector": {"e2e": world.namespace}});
    merge(&mut daemon, job.clone());
    let mut nightly = cron("nightly")["spec"].take();
    merge(&mut nightly, json!({"cronJob": {"spec": {"schedule": later()}}}));
    vec![
        ("HotStandbyDeployment", pool("hotstandbydeployment")["spec"].take()),
        ("HotStandbyJob", job_pool("hotstandbyjob")["spec"].take()),
        ("StandbyClaim", json!({"poolRef": {"name": "hotstandbydeployment"}})),
        ("PreScaledCronJob", nightly),
        ("JobTemplate", job.clone()),
        ("JobFlow", json!({"flows": [{"name": "a", "jobTemplate": job}]})),
        ("DaemonJob", daemon),
        ("NodeBatchJob", node_batches::spec(world, None)),
    ]
}

/// The same, and what runs to an end does so at once, and well.
fn all_that_end(world: &World) -> Vec<(&'static str, Value)> {
    let ends = json!({"metadata": {"annotations": {"sim.stoker.dev/complete-after": "100ms"}}});
    let mut all = all(world);
    for (kind, spec) in &mut all {
        match *kind {
            "JobFlow" => merge(&mut spec["flows"][0]["jobTemplate"]["template"], ends.clone()),
            "DaemonJob" => merge(&mut spec["template"], ends.clone()),
            _ => {}
        }
    }
    all
}

/// Something of each kind's spec that may be changed and changes little.
fn edit(kind: &str) -> Value {
    match kind {
        "HotStandbyDeployment" | "HotStandbyJob" => json!({"maxReplicas": 11}),
        "StandbyClaim" => json!({"ttlSeconds": 3600}),
        "PreScaledCronJob" => json!({"warmUp": "40s"}),
        "JobFlow" => json!({"ttlSecondsAfterFinished": 3600}),
        "DaemonJob" => json!({"excludeNodeList": "nowhere"}),
        "NodeBatchJob" => json!({"parallelism": 7}),
        _ => json!({"backoffLimit": 3}),
    }
}

async fn finish(world: World, nodes: Vec<PrivateNode>) -> Result<()> {
    world.delete_all::<StandbyClaim>().await?;
    world.delete_all::<PreScaledCronJob>().await?;
    world.delete_all::<JobFlow>().await?;
    world.delete_all::<DaemonJob>().await?;
    world.delete_all::<HotStandbyDeployment>().await?;
    world.delete_all::<HotStandbyJob>().await?;
    world.delete_all::<NodeBatchJob>().await?;
    for node in nodes {
        node.delete().await?;
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_is_well_is_current_and_what_changed_is_in_progress_until_it_is_looked_at() -> Result<()> {
    let mut world = World::start_with("kstatus-well", &FLAGS).await?;
    let nodes = ready_nodes(&world, &["a"]).await?;
    let objects = all_that_end(&world);
    for (kind, spec) in &objects {
        apply(&world, kind, spec).await?;
    }
    try_join_all(objects.iter().map(|(kind, _)| is(&world, kind, "Current"))).await?;

    world.operator.as_mut().unwrap().kill();
    for (kind, _) in &objects {
        let patch = Patch::Merge(json!({"spec": edit(kind)}));
        api(&world, kind).patch(&kind.to_lowercase(), &PatchParams::default(), &patch).await?;
        is(&world, kind, "InProgress").await?;
    }
    world.operator.as_mut().unwrap().restart()?;
    try_join_all(objects.iter().map(|(kind, _)| is(&world, kind, "Current"))).await?;
    finish(world, nodes).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_is_being_made_is_in_progress() -> Result<()> {
    let world = World::start("kstatus-going").await?;
    let nodes = ready_nodes(&world, &["a"]).await?;
    // No such node comes.
    let nowhere = json!({"spec": {"nodeSelector": {"e2e": "nowhere"}}});
    for (kind, mut spec) in all(&world) {
        match kind {
            "HotStandbyDeployment" => merge(&mut spec["podTemplate"], nowhere.clone()),
            "HotStandbyJob" => merge(&mut spec["jobTemplate"]["template"], nowhere.clone()),
            // There is no pod for the claim.
            "JobFlow" | "DaemonJob" | "StandbyClaim" => {}
            _ => continue,
        }
        apply(&world, kind, &spec).await?;
        let seen = || async {
            let object = api(&world, kind).get(&kind.to_lowercase()).await?;
            Ok(object.data["status"]["observedGeneration"] == 1)
        };
        world.until(kind, "looked at", seen).await?;
        is(&world, kind, "InProgress").await?;
    }
    finish(world, nodes).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_cannot_go_on_is_failed() -> Result<()> {
    let world = World::start_in_cluster("kstatus-failed", &FLAGS).await?;
    let nodes = ready_nodes(&world, &["a"]).await?;
    let refused = json!([{"name": "Main", "image": "docker.io/local/busybox:1"}]);
    let fails = json!({"metadata": {"annotations": {
        "sim.stoker.dev/complete-after": "100ms",
        "sim.stoker.dev/exit-code": "1",
    }}});
    for (kind, mut spec) in all(&world) {
        match kind {
            "HotStandbyDeployment" => spec["podTemplate"]["spec"]["containers"] = refused.clone(),
            "HotStandbyJob" => spec["jobTemplate"]["template"]["spec"]["containers"] = refused.clone(),
            "PreScaledCronJob" => spec["cronJob"]["spec"]["schedule"] = json!("61 * * * *"),
            "NodeBatchJob" => spec["schedule"] = json!("61 * * * *"),
            "JobFlow" => merge(&mut spec["flows"][0]["jobTemplate"]["template"], fails.clone()),
            "DaemonJob" => merge(&mut spec["template"], fails.clone()),
            _ => continue,
        }
        apply(&world, kind, &spec).await?;
    }
    for (kind, _) in all(&world) {
        if !["StandbyClaim", "JobTemplate"].contains(&kind) {
            is(&world, kind, "Failed").await?;
        }
    }
    finish(world, nodes).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_nobody_has_looked_at_is_in_progress_and_what_is_deleted_is_terminating() -> Result<()> {
    let world = World::without_operator("kstatus-alone").await?;
    for (kind, spec) in all(&world) {
        let name = kind.to_lowercase();
        apply(&world, kind, &spec).await?;
        is(&world, kind, "InProgress").await?;
        let kept = Patch::Merge(json!({"metadata": {"finalizers": [KEPT]}}));
        api(&world, kind).patch(&name, &PatchParams::default(), &kept).await?;
        api(&world, kind).delete(&name, &DeleteParams::background()).await?;
        is(&world, kind, "Terminating").await?;
        let given_up = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        api(&world, kind).patch(&name, &PatchParams::default(), &given_up).await?;
    }
    world.finish().await
}
