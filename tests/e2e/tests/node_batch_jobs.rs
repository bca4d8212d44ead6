//! NodeBatchJobs: executions that begin when they are to, a pod on every chosen node, once, a few at a time, whatever nodes,
//! pods and operators do. What pods report is in `node_batch_reports.rs`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stoker_api::{Execution, ExecutionCause, ExecutionState, NodeBatchJob, NodeBatchJobState, keys};
use stoker_e2e::audit::operators_requests;
use stoker_e2e::node_batches::{NodeBatch, attempt, condition, node, ready_nodes, runs, status, works};
use stoker_e2e::node_pods::NodePods;
use stoker_e2e::operator::{Operator, binary};
use stoker_e2e::{DEADLINE, World, kubeconfig, merge};

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(|pod| pod.uid()).collect()
}

fn under_way(execution: &&Execution) -> bool {
    execution.completion_time.is_none()
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn every_chosen_node_has_one_pod_and_never_more_run_at_a_time_than_allowed() -> Result<()> {
    let world = World::start("nbj-all").await?;
    // A dotted name beside its undotted twin, and one that is far too long for a pod.
    let long = "x".repeat(120);
    let names = ["a.b", "a-b", &long, "c", "d", "e", "f", "g", "h"];
    let all = ready_nodes(&world, &names).await?;
    let pods = NodePods::start(&world).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(Some("1s"), json!({"parallelism": 3})).await?;
    disks.run().await?;
    let execution = disks.over(ExecutionState::Succeeded, "9/9").await?;
    assert_eq!(execution.cause, ExecutionCause::Manual);
    pods.check()?;
    assert_eq!(pods.most(), 3);
    let made = pods.made();
    let of: BTreeSet<String> = made.iter().map(|pod| pod.node.clone()).collect();
    assert_eq!(of, all.iter().map(|node| node.name.clone()).collect());
    assert_eq!(made.len(), 9, "each node once");
    for pod in disks.pods().await? {
        assert_eq!(stoker_e2e::nodes::node_of(&pod), node(&pod), "pods are where they belong");
        assert_eq!(pod.labels()[keys::EXECUTION], execution.id);
        let plain = format!("disks-job-{}-{}", node(&pod), execution.id);
        assert!(pod.name_any() == plain || plain.contains('.') || plain.len() > 63, "{}", pod.name_any());
    }
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_node_that_failed_is_tried_again_and_then_has_failed_for_good() -> Result<()> {
    let world = World::start("nbj-retry").await?;
    let all = ready_nodes(&world, &["mends", "stays-bad"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"retry": {"limit": 1, "backoffSeconds": 1}})).await?;
    disks.run().await?;
    let first = disks.until_running(2).await?;
    disks.end(&first, false).await?;
    let second = |pods: &[Pod]| pods.iter().filter(|pod| runs(pod) && attempt(pod) == "2").count() == 2;
    let pods = disks.until_pods("trying both again", second).await?;
    let (mended, bad): (Vec<Pod>, Vec<Pod>) =
        pods.into_iter().filter(runs).partition(|pod| node(pod) == all[0].name);
    assert!(first.iter().all(|pod| pod.name_any() != mended[0].name_any()), "each attempt has a pod");
    disks.end(&mended, true).await?;
    disks.end(&bad, false).await?;
    let execution = disks.over(ExecutionState::Failed, "1/2").await?;
    let failed = &execution.failed_nodes[..];
    assert_eq!(failed.len(), 1, "{failed:?}");
    let told = (failed[0].node.as_str(), failed[0].pod.clone(), failed[0].attempts);
    assert_eq!(told, (all[1].name.as_str(), bad[0].name_any(), 2));
    assert!(failed[0].reason.contains("exit code 1"), "{failed:?}");
    assert!(world.event("disks", "ExecutionFailed").await?.contains("1 of 2"));
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_node_that_joins_is_included_and_one_that_leaves_is_gone_not_failed() -> Result<()> {
    let world = World::start("nbj-nodes").await?;
    let mut all = ready_nodes(&world, &["stays", "leaves"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({})).await?;
    disks.run().await?;
    disks.until_running(2).await?;
    all.extend(ready_nodes(&world, &["joins"]).await?);
    disks.until_running(3).await?;
    let left = all.remove(1);
    left.delete().await?;
    let gone = |e: &Execution| (e.nodes.desired, e.nodes.gone, e.nodes.failed) == (2, 1, 0);
    disks.newest("without the one that left", gone).await?;
    let pods: Vec<Pod> = disks.pods().await?.into_iter().filter(|pod| node(pod) != left.name).collect();
    disks.end(&pods, true).await?;
    let execution = disks.over(ExecutionState::Succeeded, "2/2").await?;
    assert_eq!(execution.nodes.gone, 1);
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn cordoned_nodes_take_part_by_choice() -> Result<()> {
    let world = World::start("nbj-cordon").await?;
    let all = ready_nodes(&world, &["open", "cordoned"]).await?;
    all[1].cordon(true).await?;
    let [without, with] = ["without", "with"].map(|name| NodeBatch { world: &world, name });
    without.apply(Some("1s"), json!({})).await?;
    with.apply(Some("1s"), json!({"nodes": {"includeUnschedulable": true}})).await?;
    // The cordon shows as a taint, a moment later.
    let tainted = || async {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(world.client.clone());
        let taints = nodes.get(&all[1].name).await?.spec.unwrap_or_default().taints.unwrap_or_default();
        Ok(taints.iter().any(|taint| taint.key == "node.kubernetes.io/unschedulable"))
    };
    world.until("cordoned", "tainted", tainted).await?;
    without.run().await?;
    with.run().await?;
    without.over(ExecutionState::Succeeded, "1/1").await?;
    assert_eq!(node(&without.pods().await?[0]), all[0].name);
    with.over(ExecutionState::Succeeded, "2/2").await?;
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_does_an_overlapping_tick_delete_running_pods() -> Result<()> {
    let world = World::start("nbj-ticks").await?;
    let all = ready_nodes(&world, &["a", "b"]).await?;
    let [forbid, allow] = ["forbid", "allow"].map(|name| NodeBatch { world: &world, name });
    for (batch, policy) in [(forbid, "Forbid"), (allow, "Allow")] {
        let fields = json!({"schedule": "* * * * *", "runOnStartup": true, "concurrencyPolicy": policy});
        batch.apply(None, fields).await?;
    }
    let mut first = BTreeSet::new();
    for batch in [forbid, allow] {
        first.extend(uids(&batch.until_running(2).await?));
    }
    let told = forbid.status("leaving an instant out", |s| s.skipped_count >= 1).await?;
    assert_eq!(told.executions.len(), 1, "{told:?}");
    assert!(world.event("forbid", "ExecutionSkipped").await?.contains("is under way"));
    allow.status("running two", |s| s.executions.iter().filter(under_way).count() >= 2).await?;
    allow.until_running(4).await?;
    let mut now = uids(&forbid.until_running(2).await?);
    now.extend(uids(&allow.until_running(4).await?));
    assert!(first.is_subset(&now), "what ran runs on: {first:?}, {now:?}");
    let deleted = operators_requests(&world.namespace)?;
    let deleted: Vec<_> = deleted.iter().filter(|r| r.verb == "delete" && r.resource == "pods").collect();
    assert!(deleted.is_empty(), "{deleted:?}");
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_later_execution_takes_the_place_of_an_earlier_one_with_replace() -> Result<()> {
    let world = World::start("nbj-replace").await?;
    let all = ready_nodes(&world, &["a", "b"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"concurrencyPolicy": "Replace"})).await?;
    let first = disks.run().await?;
    let before = uids(&disks.until_running(2).await?);
    let second = disks.run().await?;
    assert_ne!(first.id, second.id);
    let ended = |e: &Execution| {
        e.id == first.id && e.state == ExecutionState::Replaced && e.completion_time.is_some()
    };
    disks.status("through with the earlier one", |s| s.executions.iter().any(ended)).await?;
    let others = |pods: &[Pod]| {
        let working: Vec<&Pod> = pods.iter().filter(|pod| works(pod)).collect();
        working.len() == 2 && working.iter().all(|pod| !before.contains(&pod.uid().unwrap()))
    };
    let pods = disks.until_pods("running the later one's pods only", others).await?;
    assert!(pods.iter().filter(|pod| works(pod)).all(|pod| pod.labels()[keys::EXECUTION] == second.id));
    disks.end(&disks.until_running(2).await?, true).await?;
    disks.over(ExecutionState::Succeeded, "2/2").await?;
    assert!(world.event("disks", "ExecutionReplaced").await?.contains(&first.id));
    world.finish_node_batches(all).await
}

/// Has it that nobody has looked at an object's schedule for some time.
async fn unseen_for(batch: &NodeBatch<'_>, span: SignedDuration) -> Result<()> {
    let patch = json!({"status": {"decidedUntil": Timestamp::now() - span}});
    let api = batch.world.api::<NodeBatchJob>();
    api.patch_status(batch.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn of_instants_that_nobody_saw_the_latest_has_its_execution_if_it_is_not_too_late() -> Result<()> {
    let mut world = World::start_process("nbj-missed").await?;
    let all = ready_nodes(&world, &["a"]).await?;
    // The last instant was two to three minutes ago, the next one is far off.
    let last = Timestamp::now() - SignedDuration::from_mins(2);
    let schedule = format!("{} * * * *", last.to_zoned(jiff::tz::TimeZone::UTC).minute());
    let names = ["patient", "strict", "suspended"];
    for (name, deadline, suspend) in
        [(names[0], Value::Null, false), (names[1], json!(30), false), (names[2], Value::Null, true)]
    {
        let batch = NodeBatch { world: &world, name };
        let fields = json!({
            "schedule": schedule, "startingDeadlineSeconds": deadline, "suspend": suspend, "runOnStartup": suspend,
        });
        batch.apply(Some("1s"), fields).await?;
        batch.status("looked at", |s| s.timetable.is_some()).await?;
    }
    world.operator.as_mut().unwrap().kill();
    for name in names {
        unseen_for(&NodeBatch { world: &world, name }, SignedDuration::from_mins(150)).await?;
    }
    world.operator.as_mut().unwrap().restart()?;
    let [patient, strict, suspended] = names.map(|name| NodeBatch { world: &world, name });
    let told = patient.status("counting two", |s| s.missed_count == 2).await?;
    let instant = told.executions[0].instant.unwrap();
    assert_eq!(told.last_schedule_time, Some(instant));
    assert!(instant <= last && last.duration_since(instant).as_secs() < 60, "{instant} is the latest");
    patient.over(ExecutionState::Succeeded, "1/1").await?;
    let told = strict.status("counting three", |s| s.missed_count == 3).await?;
    assert!(told.executions.is_empty() && told.last_schedule_time.is_none(), "{told:?}");
    assert!(world.event("strict", "InstantsMissed").await?.contains("3 instants"));
    // One that is suspended begins none by itself, neither at an instant nor at its startup, and one by hand.
    let execution = suspended.run().await?;
    assert_eq!(execution.cause, ExecutionCause::Manual);
    suspended.over(ExecutionState::Succeeded, "1/1").await?;
    let rests = |s: &stoker_api::NodeBatchJobStatus| s.state == Some(NodeBatchJobState::Suspended);
    let told = suspended.status("at rest", rests).await?;
    assert_eq!((told.executions.len(), told.missed_count), (1, 0));
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_execution_at_the_startup_begins_once_after_its_delay() -> Result<()> {
    let mut world = World::start_process("nbj-startup").await?;
    let all = ready_nodes(&world, &["a"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    let object = disks.apply(Some("1s"), json!({"runOnStartup": true, "startupDelay": "3s"})).await?;
    let execution = disks.over(ExecutionState::Succeeded, "1/1").await?;
    assert_eq!(execution.cause, ExecutionCause::Startup);
    let born = object.metadata.creation_timestamp.unwrap().0;
    let after = execution.start_time.duration_since(born).as_millis();
    assert!((3_000..30_000).contains(&after), "{after} ms");
    // Neither an edit nor another operator begins a second one.
    let edited = disks.patch(json!({"startupDelay": "1s"})).await?.metadata.generation;
    disks.status("read again", |s| s.observed_generation == edited).await?;
    world.operator.as_mut().unwrap().restart()?;
    let disks = NodeBatch { world: &world, name: "disks" };
    let edited = disks.patch(json!({"parallelism": 5})).await?.metadata.generation;
    let told = disks.status("read once more", |s| s.observed_generation == edited).await?;
    assert_eq!(told.executions.len(), 1);
    world.finish_node_batches(all).await
}

/// What `stoker run-now NAME --wait` prints, and its exit code.
async fn run_now(batch: &NodeBatch<'_>) -> Result<(String, String, Option<i32>)> {
    let child = tokio::process::Command::new(binary())
        .args(["run-now", batch.name, "-n", &batch.world.namespace, "--wait"])
        .env("KUBECONFIG", kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    let ended = ended.context("run-now does not end")??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok((text(ended.stdout), text(ended.stderr), ended.status.code()))
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn an_execution_begins_by_hand_once_for_each_text_and_by_the_command() -> Result<()> {
    let world = World::start("nbj-by-hand").await?;
    let all = ready_nodes(&world, &["a"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({})).await?;
    let first = disks.run().await?;
    // Another one is asked for while it runs, and begins after it.
    let asked = disks.ask().await?;
    let waits = |object: &NodeBatchJob| {
        condition(object, "Ready", "True").is_some_and(|words| words.contains("begins after it"))
    };
    world.object("disks", "waiting with the one that was asked for", waits).await?;
    disks.end(&disks.until_running(1).await?, true).await?;
    let answered = |s: &stoker_api::NodeBatchJobStatus| s.run_now.as_ref() == Some(&asked);
    let told = disks.status("answering", answered).await?;
    assert_eq!(told.executions.len(), 2);
    assert!(told.executions[0].id > first.id && told.executions[1].id == first.id, "{told:?}");
    disks.end(&disks.until_running(1).await?, true).await?;
    disks.over(ExecutionState::Succeeded, "1/1").await?;

    let well = json!({"podTemplate": {"metadata": {"annotations": {"sim.stoker.dev/complete-after": "1s"}}}});
    disks.patch(well).await?;
    let (out, err, code) = run_now(&disks).await?;
    let told = status(&disks.get().await?);
    assert_eq!((out.as_str(), code), (told.executions[0].id.as_str(), Some(0)), "{err}");
    assert!(err.contains("succeeded: 1 of 1 nodes succeeded"), "{err}");
    assert_eq!(told.executions.len(), 3, "the same text asks for nothing more");
    let badly = json!({"podTemplate": {"metadata": {"annotations": {"sim.stoker.dev/exit-code": "3"}}}});
    disks.patch(badly).await?;
    let (_, err, code) = run_now(&disks).await?;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("failed") && err.contains("exit code 3"), "{err}");
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i6_no_node_runs_twice_and_no_slot_is_lost_whoever_is_killed_and_with_two_operators() -> Result<()> {
    let mut world = World::start_process("nbj-kills").await?;
    let names: Vec<String> = (0..16).map(|n| format!("n{n}")).collect();
    let all = ready_nodes(&world, &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let second = Operator::start(&world.namespace, &[]).await?;
    let pods = NodePods::start(&world).await?;
    {
        let disks = NodeBatch { world: &world, name: "disks" };
        disks.apply(Some("1s"), json!({"parallelism": "25%", "ttlSecondsAfterFinished": 0})).await?;
        disks.run().await?;
    }
    for done in [3, 6, 9, 12] {
        let disks = NodeBatch { world: &world, name: "disks" };
        disks.newest(&format!("{done} nodes far"), |e| e.nodes.succeeded >= done).await?;
        world.operator.as_mut().unwrap().restart()?;
    }
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.over(ExecutionState::Succeeded, "16/16").await?;
    pods.check()?;
    assert_eq!(pods.most(), 4, "a quarter of 16 at a time, to the end");
    let made = pods.made();
    let nodes: BTreeSet<&str> = made.iter().map(|pod| pod.node.as_str()).collect();
    assert_eq!((made.len(), nodes.len()), (16, 16), "each node once: {made:?}");
    // Nothing of it runs again once its pods are gone.
    disks.until_pods("rid of its pods", <[Pod]>::is_empty).await?;
    assert_eq!(pods.made().len(), 16);
    drop(second);
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_does_a_replica_without_work_fail_its_health_check() -> Result<()> {
    let world = World::start_process("nbj-health").await?;
    let second = Operator::start(&world.namespace, &[]).await?;
    let both = || async { Ok(second.addresses().len() == 2) };
    world.until("health", "served by both", both).await?;
    for address in second.addresses() {
        for path in ["/healthz", "/readyz"] {
            let fine = || async { Ok(second.get(&address, path)?.contains(" 200 ")) };
            world.until(&address, &format!("fine at {path}"), fine).await?;
        }
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_pod_that_takes_too_long_is_ended_and_its_node_has_failed() -> Result<()> {
    let world = World::start("nbj-deadline").await?;
    let all = ready_nodes(&world, &["a", "b"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"activeDeadlineSeconds": 2, "parallelism": 1})).await?;
    disks.run().await?;
    // The first gives its slot to the second.
    let execution = disks.over(ExecutionState::Failed, "0/2").await?;
    let failed = &execution.failed_nodes;
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().all(|node| node.reason.starts_with("DeadlineExceeded")), "{failed:?}");
    assert!(disks.pods().await?.iter().all(|pod| !works(pod)));
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_deleted_object_lets_all_its_pods_go() -> Result<()> {
    let world = World::start("nbj-deleted").await?;
    let all = ready_nodes(&world, &["a", "b"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"parallelism": 1})).await?;
    disks.run().await?;
    let first = disks.until_running(1).await?;
    disks.end(&first, true).await?;
    disks.newest("half through", |e| e.nodes.succeeded == 1 && e.nodes.running == 1).await?;
    let pods = disks.until_pods("there with both pods", |pods| pods.len() == 2).await?;
    assert!(pods.iter().all(|pod| pod.finalizers().iter().any(|f| f == keys::OUTCOME)), "both are kept");
    let uid = disks.get().await?.uid().unwrap();
    world.delete::<NodeBatchJob>("disks").await?;
    let gone = || async { Ok(disks.pods_of(&uid).await?.is_empty()) };
    world.until("disks", "rid of its pods", gone).await?;
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i7_a_pod_that_has_the_name_by_chance_is_left_alone_and_told() -> Result<()> {
    let world = World::start("nbj-taken").await?;
    let all = ready_nodes(&world, &["a", "b"]).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(Some("1s"), json!({})).await?;
    // Whichever of the next minutes it begins in.
    let mut theirs = Vec::new();
    for minute in 0..4 {
        let at = Timestamp::now() + SignedDuration::from_mins(minute);
        let id = at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d%H%M").to_string();
        let name = format!("disks-job-{}-{id}", all[0].name);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "nodeSelector": {"nowhere": "at-all"},
                "containers": [{"name": "app", "image": "docker.io/local/busybox:1"}],
            },
        }))?;
        theirs.push(world.pods().create(&PostParams::default(), &pod).await?);
    }
    let execution = disks.run().await?;
    let told = |object: &NodeBatchJob| condition(object, "Conflict", "True").is_some();
    let object = world.object("disks", "telling of the conflict", told).await?;
    let name = format!("disks-job-{}-{}", all[0].name, execution.id);
    assert!(condition(&object, "Conflict", "True").unwrap().contains(&name));
    assert!(world.event("disks", "ConflictNameTaken").await?.contains(&name));
    disks.newest("through with the other node", |e| e.nodes.succeeded == 1).await?;
    for before in &theirs {
        let now = world.pods().get(&before.name_any()).await?;
        let said = |pod: &Pod| (pod.uid(), pod.labels().clone(), pod.finalizers().to_vec());
        assert_eq!(said(&now), said(before));
        assert_eq!(now.metadata.deletion_timestamp, None);
    }
    // The name is free again, and its node gets its pod.
    world.pods().delete(&name, &DeleteParams::default().grace_period(0)).await?;
    disks.over(ExecutionState::Succeeded, "2/2").await?;
    let mended = |object: &NodeBatchJob| condition(object, "Conflict", "False").is_some();
    world.object("disks", "without a conflict", mended).await?;
    world.finish_node_batches(all).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_is_a_slot_leaked_when_a_pod_is_refused_or_deleted() -> Result<()> {
    let world = World::start("nbj-slots").await?;
    let all = ready_nodes(&world, &["a", "b", "c", "d"]).await?;
    let quotas: Api<ResourceQuota> = world.api();
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let in_force = || async {
        Ok(quotas.get("none").await?.status.and_then(|s| s.hard).is_some_and(|hard| !hard.is_empty()))
    };
    world.until("quota", "in force", in_force).await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.apply(None, json!({"parallelism": 2})).await?;
    disks.run().await?;
    let refused = |object: &NodeBatchJob| {
        condition(object, "TemplateValid", "False").is_some_and(|words| words.contains("quota"))
    };
    world.object("disks", "telling of the quota", refused).await?;
    let more = Patch::Merge(json!({"spec": {"hard": {"pods": "9"}}}));
    quotas.patch("none", &PatchParams::default(), &more).await?;

    let first = disks.until_running(2).await?;
    for pod in &first {
        world.pods().delete(&pod.name_any(), &DeleteParams::default()).await?;
    }
    let before = uids(&first);
    let others = |pods: &[Pod]| {
        pods.iter().filter(|pod| runs(pod) && !before.contains(&pod.uid().unwrap())).count() == 2
    };
    let pods = disks.until_pods("at work on the other two nodes", others).await?;
    disks.end(&pods.into_iter().filter(runs).collect::<Vec<_>>(), true).await?;
    let execution = disks.over(ExecutionState::Failed, "2/4").await?;
    assert_eq!(execution.failed_nodes.len(), 2, "a pod that was deleted has failed: {execution:?}");
    assert!(execution.failed_nodes.iter().all(|failed| failed.reason.starts_with("Deleted")));
    // The next one has all of its slots.
    disks.run().await?;
    disks.until_running(2).await?;
    world.finish_node_batches(all).await
}

/// The API server's words against these fields.
async fn refusal(world: &World, fields: Value) -> String {
    match (NodeBatch { world, name: "words" }).apply(None, fields.clone()).await {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("{fields} was not refused: {other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_is_a_parallelism_of_nothing_accepted() -> Result<()> {
    let world = World::start("nbj-nothing").await?;
    for nothing in [json!(0), json!(-1), json!("0%"), json!("0"), json!("101%"), json!("many")] {
        let said = refusal(&world, json!({"parallelism": nothing})).await;
        assert!(said.contains("a number from 1, or a percentage"), "{nothing}: {said}");
    }
    for some in [json!(1), json!("1%"), json!("100%")] {
        NodeBatch { world: &world, name: "some" }.apply(None, json!({"parallelism": some})).await?;
    }
    world.finish_node_batches(Vec::new()).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_what_cannot_be_meant_is_refused_in_words() -> Result<()> {
    let world = World::start("nbj-words").await?;
    let pod = |fields: Value| json!({"podTemplate": {"spec": fields}});
    let gauge = |name: &str| json!({"metrics": {"prefix": "disks", "gauges": {name: {"help": "x"}}}});
    for (fields, words) in [
        (
            pod(json!({"restartPolicy": "OnFailure"})),
            "restartPolicy is Never: to try a node again give retry",
        ),
        (pod(json!({"nodeName": "n1"})), "choose nodes by nodes.selector or nodes.affinity"),
        (json!({"timeZone": "Europe/Berlin"}), "give a schedule, too, or leave timeZone out"),
        (gauge("pods"), "take other names"),
        (gauge("processing"), "take other names"),
        (gauge("a-b"), "made of letters, digits and _"),
        (json!({"metrics": {"prefix": "9"}}), "spec.metrics.prefix"),
        (json!({"startupDelay": "soon"}), "spec.startupDelay"),
        (json!({"concurrencyPolicy": "Maybe"}), "spec.concurrencyPolicy"),
        (json!({"reports": {"history": 0}}), "spec.reports.history"),
        (json!({"reports": {"maxBytesPerUpload": 1}}), "spec.reports.maxBytesPerUpload"),
        (json!({"podTemplate": null}), "podTemplate"),
    ] {
        let said = refusal(&world, fields.clone()).await;
        assert!(said.contains(words), "{fields}: {said}");
    }
    // What no rule of the CRD can tell, the object's conditions do.
    for (name, fields, words) in [
        ("four", json!({"schedule": "* * * *"}), "spec.schedule `* * * *`"),
        ("mars", json!({"schedule": "@daily", "timeZone": "Mars/Base"}), "Europe/Berlin"),
    ] {
        let batch = NodeBatch { world: &world, name };
        batch.apply(None, fields).await?;
        let told = |object: &NodeBatchJob| {
            condition(object, "Ready", "False").is_some_and(|said| said.contains(words))
                && condition(object, "Stalled", "True").is_some()
        };
        world.object(name, "telling what is wrong", told).await?;
        assert!(world.event(name, "ReadySpecInvalid").await?.contains(words));
    }
    // A template that the API server refuses is told once there is something to make of it.
    let all = ready_nodes(&world, &["a"]).await?;
    let broken = NodeBatch { world: &world, name: "broken" };
    let mut template = json!({"podTemplate": {"spec": {}}});
    merge(&mut template["podTemplate"]["spec"], json!({"volumes": [{"name": "Not A Name", "emptyDir": {}}]}));
    broken.apply(None, template).await?;
    broken.run().await?;
    let told = |object: &NodeBatchJob| {
        condition(object, "TemplateValid", "False").is_some_and(|said| said.contains("volumes[0].name"))
    };
    world.object("broken", "telling what is wrong with the template", told).await?;
    world.finish_node_batches(all).await
}
