//! Pods are replaced without a gap and without an interruption: rollouts, use, nodes that are lost, deletion.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, EvictParams, PostParams};
use serde::Deserialize as _;
use serde_json::{Value, json};
use stoker_api::{HotStandbyDeployment, keys};
use stoker_e2e::audit::{PodEvent, PodWatch};
use stoker_e2e::guests::spends;
use stoker_e2e::nodes::{PrivateNode, node_of};
use stoker_e2e::{World, condition, stalled};

/// Another template: its pods carry this annotation.
fn template(version: &str, sim: Value) -> Value {
    let mut annotations = json!({"version": version});
    stoker_e2e::merge(&mut annotations, sim);
    json!({"podTemplate": {"metadata": {"annotations": annotations}}})
}

fn version(pod: &Pod) -> &str {
    pod.annotations().get("version").map_or("", String::as_str)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_rollout_replaces_idle_pods_at_once_and_busy_ones_when_they_turn_idle() -> Result<()> {
    let world = World::start("rollout").await?;
    let mut spec = template("1", json!({}));
    stoker_e2e::merge(&mut spec, json!({"idleTarget": 4}));
    world.apply_pool("game", spec).await?;
    world.counts("game", 0, 4, 4).await?;
    let busy = world.alive("game").await?[..2].to_vec();
    world.set_busy(&busy, true).await?;
    world.counts("game", 2, 4, 6).await?;
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;

    world.patch_pool("game", template("2", json!({}))).await?;
    let replaced = |p: &HotStandbyDeployment| {
        let status = p.status.as_ref().unwrap();
        status.observed_generation == p.metadata.generation
            && (status.replacing_count, status.idle_count, status.total_count) == (0, 4, 6)
    };
    world.status("game", "rolled out", replaced).await?;
    for pod in world.alive("game").await? {
        let old = busy.iter().any(|b| b.uid() == pod.uid());
        assert_eq!(version(&pod), if old { "1" } else { "2" }, "{}", pod.name_any());
    }
    // With a surge of one there were never fewer than the four idle and the two busy pods.
    let mut alive = 6_i32;
    for event in watch.events() {
        alive += if matches!(event, PodEvent::Created { .. }) { 1 } else { -1 };
        assert!((6..=7).contains(&alive), "{alive} pods at {event:?}");
    }

    world.set_busy(&busy, false).await?;
    world.status("game", "without old pods", |p| p.status.as_ref().unwrap().total_count == 4).await?;
    world.counts("game", 0, 4, 4).await?;
    assert!(world.alive("game").await?.iter().all(|p| version(p) == "2"));
    let at_work = watch.events().into_iter().find(|e| matches!(e, PodEvent::Deleted { busy: true, .. }));
    assert!(at_work.is_none(), "I1: {at_work:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_template_that_never_gets_ready_stops_the_rollout_and_the_old_standby_stays() -> Result<()> {
    let world = World::start("stuck").await?;
    let mut spec = template("1", json!({}));
    stoker_e2e::merge(
        &mut spec,
        json!({"idleTarget": 3, "startupTimeoutSeconds": 2, "replenish": {"maxSurge": 2}}),
    );
    world.apply_pool("game", spec).await?;
    world.counts("game", 0, 3, 3).await?;
    let old = world.alive("game").await?;

    world.patch_pool("game", template("2", json!({"sim.stoker.dev/ready": "false"}))).await?;
    // The one may be told a moment before the other.
    let both = |p: &HotStandbyDeployment| stalled(p).is_some_and(|w| w.contains("2 pods are not Ready"));
    let pool = world.status("game", "stalled", both).await?;
    let words = stalled(&pool).unwrap();
    for said in ["PodsNotStarting", "the pods that they should replace stay"] {
        assert!(words.contains(said), "{said}: {words}");
    }
    let stay =
        |alive: &[Pod]| old.iter().all(|p| alive.iter().any(|a| a.uid() == p.uid())) && alive.len() == 5;
    world.holds("game", Duration::from_secs(2), "three old and two new pods", stay).await?;

    // The next template works, and all is well.
    world.patch_pool("game", template("3", json!({"sim.stoker.dev/ready": "true"}))).await?;
    let fine = |p: &HotStandbyDeployment| {
        let status = p.status.as_ref().unwrap();
        stalled(p).is_none() && (status.replacing_count, status.idle_count, status.total_count) == (0, 3, 3)
    };
    world.status("game", "rolled out", fine).await?;
    assert!(world.alive("game").await?.iter().all(|p| version(p) == "3"));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_used_pod_is_replaced_also_after_a_restart_of_the_operator() -> Result<()> {
    let mut world = World::start_process("used").await?;
    world.apply_pool("game", json!({"afterUse": "Replace"})).await?;
    world.counts("game", 0, 2, 2).await?;
    let used = world.alive("game").await?[..1].to_vec();
    world.set_busy(&used, true).await?;
    world.counts("game", 1, 2, 3).await?;
    let marked = || async {
        let pod = world.pods().get(&used[0].name_any()).await?;
        anyhow::Ok(pod.annotations().get(keys::USED).map(String::as_str) == Some("true"))
    };
    world.until("game", "marked as used", marked).await?;

    world.operator.as_mut().unwrap().kill();
    world.set_busy(&used, false).await?;
    world.operator.as_mut().unwrap().restart()?;
    let gone = || async { Ok(world.alive("game").await?.iter().all(|p| p.uid() != used[0].uid())) };
    world.until("game", "rid of the used pod", gone).await?;
    world.counts("game", 0, 2, 2).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_drained_node_loses_its_idle_pods_to_others_and_keeps_its_busy_ones() -> Result<()> {
    let world = World::start("drain").await?;
    let nodes = [PrivateNode::create(&world, "a").await?, PrivateNode::create(&world, "b").await?];
    let spec = json!({
        "idleTarget": 4,
        "maxReplicas": 20,
        "podTemplate": {"spec": {
            "nodeSelector": {"e2e": world.namespace},
            "tolerations": [{"key": "e2e", "operator": "Exists"}],
        }},
    });
    world.apply_pool("game", spec).await?;
    world.counts("game", 0, 4, 4).await?;
    let pods = world.alive("game").await?;
    // The scheduler is free to put all of them on one.
    let lost = node_of(&pods[0]);
    let on_first: Vec<Pod> = pods.iter().filter(|p| node_of(p) == lost).cloned().collect();
    world.set_busy(&on_first[..1], true).await?;
    world.counts("game", 1, 4, 5).await?;
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;

    // A drain cordons first; Stoker moves the standby away before it evicts anything.
    nodes.iter().find(|n| n.name == lost).unwrap().cordon(true).await?;
    let moved = || async {
        let there: Vec<Pod> = world.alive("game").await?.into_iter().filter(|p| node_of(p) == lost).collect();
        Ok(there.len() == 1 && there[0].uid() == on_first[0].uid())
    };
    world.until("game", "moved away but for the busy pod", moved).await?;
    world.counts("game", 1, 4, 5).await?;
    // Elsewhere first: there were never fewer pods.
    let mut alive = 5_i32;
    for event in watch.events() {
        alive += if matches!(event, PodEvent::Created { .. }) { 1 } else { -1 };
        assert!(alive >= 5, "{alive} pods at {event:?}");
    }
    // The busy pod goes when it is done, for its node is being lost.
    world.set_busy(&on_first[..1], false).await?;
    world.counts("game", 0, 4, 4).await?;
    assert!(world.alive("game").await?.iter().all(|p| node_of(p) != lost));
    for node in nodes {
        node.delete().await?;
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_deleted_pool_that_drains_waits_for_its_busy_pods() -> Result<()> {
    let world = World::start("drains").await?;
    world.apply_pool("game", json!({"deletionPolicy": "Drain", "idleTarget": 3})).await?;
    world.counts("game", 0, 3, 3).await?;
    let busy = world.alive("game").await?[..1].to_vec();
    world.set_busy(&busy, true).await?;
    world.counts("game", 1, 3, 4).await?;

    world.pools().delete("game", &DeleteParams::default()).await?;
    let idle_gone = || async {
        let alive = world.alive("game").await?;
        Ok(alive.len() == 1 && alive[0].uid() == busy[0].uid())
    };
    world.until("game", "down to its busy pod", idle_gone).await?;
    let told =
        |p: &HotStandbyDeployment| condition(p, "Ready").is_some_and(|(_, reason, _)| reason == "Draining");
    world.status("game", "told to be draining", told).await?;
    let stays = |alive: &[Pod]| alive.len() == 1;
    world.holds("game", Duration::from_secs(2), "the busy pod stays", stays).await?;

    world.set_busy(&busy, false).await?;
    let gone = || async {
        let pods = world.pods().list(&Default::default()).await?.items.len();
        Ok(pods == 0 && world.pools().get_opt("game").await?.is_none())
    };
    world.until("game", "gone with its pods", gone).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn labels_and_annotations_tell_others_the_state_with_one_patch_a_transition() -> Result<()> {
    let world = World::start("labels").await?;
    world.apply_pool("game", json!({"stateLabels": true, "disruption": "Annotate"})).await?;
    world.counts("game", 0, 2, 2).await?;
    let pod = world.alive("game").await?[..1].to_vec();
    let name = pod[0].name_any();
    let told = |state: &'static str, evict: &'static str, disrupt: Option<&'static str>| {
        let (world, name) = (&world, name.clone());
        move || {
            let name = name.clone();
            async move {
                let pod = world.pods().get(&name).await?;
                let annotation = |key: &str| pod.annotations().get(key).cloned();
                Ok(pod.labels().get(keys::STATE).map(String::as_str) == Some(state)
                    && annotation(keys::SAFE_TO_EVICT).as_deref() == Some(evict)
                    && annotation(keys::DO_NOT_DISRUPT).as_deref() == disrupt)
            }
        }
    };
    world.until("game", "labelled idle", told("idle", "true", None)).await?;
    world.set_busy(&pod, true).await?;
    world.until("game", "labelled busy", told("busy", "false", Some("true"))).await?;
    world.set_busy(&pod, false).await?;
    world.until("game", "labelled idle again", told("idle", "true", None)).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_examples_budget_protects_busy_pods_and_lets_idle_ones_go() -> Result<()> {
    let world = World::start("budget").await?;
    let text = std::fs::read_to_string(
        stoker_e2e::root().join("examples/hot-standby-deployment/protect-busy-pods.yaml"),
    )?;
    let documents: Vec<Value> =
        serde_yaml::Deserializer::from_str(&text).map(|d| Value::deserialize(d).unwrap()).collect();
    let name = documents[0]["metadata"]["name"].as_str().unwrap();
    world.apply_pool(name, documents[0]["spec"].clone()).await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), &world.namespace);
    budgets.create(&PostParams::default(), &serde_json::from_value(documents[1].clone())?).await?;
    world.counts(name, 0, 2, 2).await?;
    let pods = world.alive(name).await?;
    world.set_busy(&pods[..1], true).await?;
    world.counts(name, 1, 2, 3).await?;
    let seen = || async {
        let budget = budgets.get(documents[1]["metadata"]["name"].as_str().unwrap()).await?;
        Ok(budget.status.is_some_and(|s| s.current_healthy == Some(1)))
    };
    world.until(name, "seen by its budget", seen).await?;

    let budget = budgets.get(documents[1]["metadata"]["name"].as_str().unwrap()).await?;
    assert_eq!(budget.status.unwrap().disruptions_allowed, Some(0), "no busy pod may be evicted");
    // The budget does not stand in the way of an idle one. (Evicting the busy one would be tried again by the
    // client for minutes, as the answer says that it might be allowed later.)
    world.pods().evict(&pods[1].name_any(), &EvictParams::default()).await?;
    world.counts(name, 1, 2, 3).await?;
    assert!(world.alive(name).await?.iter().any(|p| p.uid() == pods[0].uid()));
    // Nothing waits for the busy pod when the namespace goes.
    world.set_busy(&pods[..1], false).await?;
    world.pools().delete(name, &DeleteParams::default()).await?;
    let gone = || async { Ok(world.pools().get_opt(name).await?.is_none()) };
    world.until(name, "gone", gone).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn stale_standby_is_recycled_one_by_one_without_a_gap() -> Result<()> {
    let world = World::start("stale").await?;
    world.apply_pool("game", json!({"idleTarget": 3})).await?;
    world.counts("game", 0, 3, 3).await?;
    let old = world.alive("game").await?;
    world.set_busy(&old[..1], true).await?;
    world.counts("game", 1, 3, 4).await?;
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;

    world.patch_pool("game", json!({"maxIdleSeconds": 2})).await?;
    let recycled = || async {
        let alive = world.alive("game").await?;
        Ok(old[1..].iter().all(|o| alive.iter().all(|p| p.uid() != o.uid())))
    };
    world.until("game", "rid of its stale pods", recycled).await?;
    world.patch_pool("game", json!({"maxIdleSeconds": null})).await?;
    world.counts("game", 1, 3, 4).await?;
    // One more than is wanted at a time, and never fewer; the busy one is not idle, however long it lasts.
    let mut alive = 4_i32;
    for event in watch.events() {
        alive += if matches!(event, PodEvent::Created { .. }) { 1 } else { -1 };
        assert!((4..=5).contains(&alive), "{alive} pods at {event:?}");
    }
    assert!(world.alive("game").await?.iter().any(|p| p.uid() == old[0].uid()));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn pods_that_the_policy_calls_spent_are_replaced_when_they_are_idle() -> Result<()> {
    let world = World::start("spent").await?;
    world.apply_pool("game", json!({"idleTarget": 3})).await?;
    world.counts("game", 0, 3, 3).await?;
    let old = world.alive("game").await?;
    world.set_busy(&old[..1], true).await?;
    world.counts("game", 1, 3, 4).await?;

    world.put_policy("spender", &spends()).await?;
    world.patch_pool("game", json!({"policy": {"configMap": {"name": "spender"}}})).await?;
    let replaced = || async {
        let alive = world.alive("game").await?;
        Ok(old[1..].iter().all(|o| alive.iter().all(|p| p.uid() != o.uid())))
    };
    world.until("game", "rid of its spent pods", replaced).await?;
    assert!(world.alive("game").await?.iter().any(|p| p.uid() == old[0].uid()), "the busy one stays");
    // Nobody says so any more.
    world.patch_pool("game", json!({"policy": null})).await?;
    world.counts("game", 1, 3, 4).await?;
    world.finish().await
}
