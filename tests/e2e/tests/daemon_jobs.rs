//! DaemonJobs: a Job on every node that is chosen, once, whatever nodes and operators do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use serde_json::{Value, json};
use stoker_api::{DaemonJob, DaemonJobState, DaemonJobStatus, keys};
use stoker_e2e::World;
use stoker_e2e::audit::operators_requests;
use stoker_e2e::jobs::finished;
use stoker_e2e::nodes::PrivateNode;
use stoker_e2e::operator::Operator;

/// On this test's own nodes, whose pods end after a second, well or badly, or when they are told to.
fn spec(world: &World, ends: Option<&str>, code: u32) -> Value {
    let mut annotations = json!({});
    if let Some(ends) = ends {
        annotations["sim.stoker.dev/complete-after"] = json!(ends);
        annotations["sim.stoker.dev/exit-code"] = json!(code.to_string());
    }
    json!({
        "nodeSelector": {"e2e": world.namespace},
        "template": {
            "metadata": {"annotations": annotations},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"key": "e2e", "operator": "Exists"}],
                "containers": [{
                    "name": "work",
                    "image": "docker.io/local/busybox:1",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                }],
            },
        },
    })
}

fn status(object: &DaemonJob) -> DaemonJobStatus {
    object.status.clone().unwrap_or_default()
}

async fn until_state(world: &World, name: &str, state: DaemonJobState, progress: &str) -> Result<DaemonJob> {
    let so = |object: &DaemonJob| status(object).state == Some(state) && status(object).progress == progress;
    world.object(name, &format!("{state:?} {progress}"), so).await
}

fn node(job: &Job) -> String {
    job.annotations().get(keys::NODE).cloned().unwrap_or_default()
}

async fn nodes(world: &World, names: &[&str]) -> Result<Vec<PrivateNode>> {
    let mut all = Vec::new();
    for name in names {
        all.push(PrivateNode::create(world, name).await?);
    }
    Ok(all)
}

async fn finish(world: World, nodes: Vec<PrivateNode>) -> Result<()> {
    world.delete_all::<DaemonJob>().await?;
    for node in nodes {
        node.delete().await?;
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn every_chosen_node_runs_once_and_pods_are_where_they_belong() -> Result<()> {
    let world = World::start("dj-all").await?;
    // A dotted name beside its undotted twin, and one that is far too long for a Job.
    let long = "x".repeat(120);
    let all = nodes(&world, &["a.b", "a-b", &long, "out", "cordoned"]).await?;
    all[4].cordon(true).await?;
    let mut fields = spec(&world, Some("1s"), 0);
    fields["excludeNodeList"] = json!(format!("somewhere,  {} ", all[3].name));
    fields["completions"] = json!(2);
    world.apply::<DaemonJob>("all", fields).await?;
    let object = until_state(&world, "all", DaemonJobState::Succeed, "3/3").await?;
    assert!(status(&object).completion_time.is_some());
    let jobs = world.jobs_of::<DaemonJob>("all").await?;
    let of: BTreeSet<String> = jobs.iter().map(node).collect();
    assert_eq!(of, all[..3].iter().map(|node| node.name.clone()).collect());
    assert_eq!(jobs.len(), 3);
    for job in &jobs {
        assert_eq!(finished(job), Some(true), "completions > 1 end, too: {:?}", job.status);
        let uid = job.uid().unwrap();
        let pods = world.pods().list(&Default::default()).await?.items;
        let theirs: Vec<_> =
            pods.iter().filter(|pod| pod.owner_references().iter().any(|o| o.uid == uid)).collect();
        assert_eq!(theirs.len(), 2);
        assert!(theirs.iter().all(|pod| stoker_e2e::nodes::node_of(pod) == node(job)));
    }
    finish(world, all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn nodes_that_join_are_included_and_those_that_leave_are_gone_not_failed() -> Result<()> {
    let world = World::start("dj-nodes").await?;
    let mut all = nodes(&world, &["one", "two"]).await?;
    let mut fields = spec(&world, None, 0);
    fields["completionPolicy"] = json!("Always");
    world.apply::<DaemonJob>("nodes", fields).await?;
    world.until_jobs_of::<DaemonJob>("nodes", "on both", |jobs| jobs.len() == 2).await?;
    all.push(PrivateNode::create(&world, "three").await?);
    world.until_jobs_of::<DaemonJob>("nodes", "on the one that joined", |jobs| jobs.len() == 3).await?;
    all.remove(0).delete().await?;
    let gone = |object: &DaemonJob| {
        let counts = status(object).nodes;
        (counts.desired, counts.running, counts.gone, counts.failed) == (2, 2, 1, 0)
    };
    world.object::<DaemonJob>("nodes", "told of the one that left", gone).await?;
    let pods = world.alive_of(&world.api::<DaemonJob>().get("nodes").await?.uid().unwrap()).await?;
    world.annotate(&pods, "sim.stoker.dev/phase", Some("Succeeded")).await?;
    until_state(&world, "nodes", DaemonJobState::Succeed, "2/2").await?;
    all.push(PrivateNode::create(&world, "four").await?);
    until_state(&world, "nodes", DaemonJobState::Running, "2/3").await?;
    finish(world, all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i6_a_node_runs_once_whoever_is_killed_and_never_more_than_allowed_at_a_time() -> Result<()> {
    let mut world = World::start_process("dj-kills").await?;
    let names: Vec<String> = (0..16).map(|n| format!("n{n}")).collect();
    let all = nodes(&world, &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let second = Operator::start(&world.namespace, &[]).await?;
    let mut fields = spec(&world, Some("1s"), 0);
    fields["parallelism"] = json!("25%");
    fields["ttlSecondsAfterFinished"] = json!(0);
    world.apply::<DaemonJob>("kills", fields).await?;
    let mut most = 0;
    for done in [3, 6, 9, 12] {
        let so_far = |object: &DaemonJob| status(object).nodes.succeeded >= done;
        world.object::<DaemonJob>("kills", &format!("{done} nodes far"), so_far).await?;
        world.operator.as_mut().unwrap().restart()?;
        let jobs = world.jobs_of::<DaemonJob>("kills").await?;
        most = most.max(jobs.iter().filter(|job| finished(job).is_none()).count());
    }
    until_state(&world, "kills", DaemonJobState::Succeed, "16/16").await?;
    drop(second);
    assert!(most <= 4, "{most} at a time, a quarter of 16 is allowed");
    let requests = operators_requests(&world.namespace)?;
    let made = requests.iter().filter(|r| r.verb == "create" && r.resource == "jobs");
    let names: Vec<&String> = made.map(|r| &r.name).collect();
    let distinct: BTreeSet<&&String> = names.iter().collect();
    assert!(distinct.len() <= 16, "a Job for each node: {distinct:?}");
    finish(world, all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn failures_go_on_stop_or_pause_as_they_are_told_to() -> Result<()> {
    let world = World::start("dj-fails").await?;
    let all = nodes(&world, &["a", "b", "c"]).await?;
    let fails = |policy: &str| {
        let mut fields = spec(&world, Some("1s"), 3);
        fields["failurePolicy"] = json!(policy);
        fields["parallelism"] = json!(1);
        fields
    };
    world.apply::<DaemonJob>("goes-on", fails("Continue")).await?;
    world.apply::<DaemonJob>("stops", fails("FailFast")).await?;
    world.apply::<DaemonJob>("pauses", fails("Pause")).await?;
    let object = until_state(&world, "goes-on", DaemonJobState::Failed, "0/3").await?;
    let failed = status(&object).failed_nodes;
    assert_eq!(failed.len(), 3, "{failed:?}");
    assert!(failed.iter().all(|node| !node.reason.is_empty()));
    let one =
        |object: &DaemonJob, state| status(object).state == Some(state) && status(object).nodes.failed == 1;
    world.object::<DaemonJob>("stops", "stopped", |o| one(o, DaemonJobState::Failed)).await?;
    assert_eq!(world.jobs_of::<DaemonJob>("stops").await?.len(), 1);
    world.object::<DaemonJob>("pauses", "paused", |o| one(o, DaemonJobState::Paused)).await?;
    assert_eq!(world.jobs_of::<DaemonJob>("pauses").await?.len(), 1);
    // Mended, and resumed by the edit.
    let annotations = json!({"sim.stoker.dev/exit-code": "0"});
    let mended = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    world.merge::<DaemonJob>("pauses", mended).await?;
    until_state(&world, "pauses", DaemonJobState::Succeed, "3/3").await?;
    finish(world, all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_node_that_failed_is_tried_again_by_hand_while_others_run() -> Result<()> {
    let world = World::start("dj-resume").await?;
    let all = nodes(&world, &["a", "b"]).await?;
    world.apply::<DaemonJob>("resumed", spec(&world, None, 0)).await?;
    let jobs = world.until_jobs_of::<DaemonJob>("resumed", "on both", |jobs| jobs.len() == 2).await?;
    let bad = jobs.iter().find(|job| node(job) == all[0].name).and_then(|job| job.uid()).unwrap();
    let of_bad = |pod: &k8s_openapi::api::core::v1::Pod| pod.owner_references().iter().any(|o| o.uid == bad);
    world
        .until("resumed", "running on both", || async {
            let pods = world.pods().list(&Default::default()).await?.items;
            let theirs: Vec<_> = pods.into_iter().filter(of_bad).collect();
            world.annotate(&theirs, "sim.stoker.dev/phase", Some("Failed")).await?;
            Ok(!theirs.is_empty())
        })
        .await?;
    let failed = |object: &DaemonJob| (status(object).nodes.failed, status(object).nodes.running) == (1, 1);
    world.object::<DaemonJob>("resumed", "with one that failed", failed).await?;
    let again = json!({"metadata": {"annotations": {"stoker.dev/resume": "1"}}});
    world.merge::<DaemonJob>("resumed", again).await?;
    let on_both = |object: &DaemonJob| (status(object).nodes.failed, status(object).nodes.running) == (0, 2);
    world.object::<DaemonJob>("resumed", "on both again", on_both).await?;
    assert_eq!(world.jobs_of::<DaemonJob>("resumed").await?.len(), 3, "what runs is left to it");
    finish(world, all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_what_cannot_be_meant_is_refused_in_words() -> Result<()> {
    let world = World::start("dj-words").await?;
    let refused = async |change: Value| -> String {
        let mut fields = spec(&world, None, 0);
        stoker_e2e::merge(&mut fields, change);
        match world.apply::<DaemonJob>("words", fields).await {
            Err(kube::Error::Api(status)) => status.message.clone(),
            other => panic!("it was not refused: {other:?}"),
        }
    };
    for (change, words) in [
        (json!({"parallelism": 0}), "parallelism"),
        (json!({"parallelism": "0%"}), "parallelism"),
        (json!({"template": null}), "template"),
        (json!({"suspend": true}), "suspend"),
        (json!({"jobTemplateRef": "x"}), "not both"),
    ] {
        let said = refused(change.clone()).await;
        assert!(said.contains(words), "{change}: {said}");
    }
    world.finish().await
}
