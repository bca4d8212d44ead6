//! What Stoker must never do, each by a test of its own: the defects of the systems that it replaces. Some of the tests
//! stand elsewhere:
//!
//! | never | test |
//! |---|---|
//! | a scale-down removes a busy pod | here; `pool.rs` i1_lower_maximum_spares_busy_pods; `kills.rs`, `faults.rs`, `outage.rs` |
//! | a rollout removes a busy pod | `replacing.rs` a_rollout_replaces_idle_pods_at_once_and_busy_ones_when_they_turn_idle |
//! | a failed probe looks like idle | here |
//! | a template is patched at every tick | here |
//! | an empty selector selects every pod | `admission.rs` i11_specs_that_cannot_work_are_refused_in_words |
//! | children are matched by name alone | here |
//! | another owner's object is taken over | here; `pool.rs` i7_a_strangers_pod_is_left_alone_and_told |
//! | state is kept in memory alone | `replacing.rs` a_used_pod_is_replaced_also_after_a_restart_of_the_operator; `policy_life.rs`; `kills.rs` |
//! | it polls with fixed sleeps | here: a pool at rest costs no request |
//! | a spec that cannot work is accepted | `admission.rs` |
//!
//! And of pools of Jobs:
//!
//! | never | test |
//! |---|---|
//! | busy Jobs are scaled down | `standby_job.rs` i1_neither_a_lower_target_nor_a_lower_maximum_takes_busy_jobs; `faults.rs` |
//! | scaleDownDelaySeconds is ignored | `standby_job.rs` busy_jobs_are_replaced_and_the_surplus_goes_after_the_delay |
//! | periodSeconds is ignored | `standby_job_probes.rs` never_are_pods_asked_one_after_the_other_or_out_of_their_period |
//! | a Job is made twice, as a fresh one has no status.active | `standby_job.rs` i2_nothing_is_made_twice_while_jobs_are_so_fresh_that_they_have_no_pods |
//! | a pending pod counts as ready standby | `standby_job.rs` a_pod_that_is_still_pending_is_no_standby |
//! | pods are asked one after the other | `standby_job_probes.rs` never_are_pods_asked_one_after_the_other_or_out_of_their_period |
//! | status columns stay empty | `standby_job.rs` the_columns_of_a_pool_of_jobs_are_filled |
//! | a Redis outage means that nobody is busy | `standby_job_probes.rs` never_does_a_redis_outage_mean_that_nobody_is_busy |
//!
//! And of work on nodes that reports back; what needs no cluster stands in `host/reports` and `host/core`:
//!
//! | never | test |
//! |---|---|
//! | an overlapping tick deletes running pods | `node_batch_jobs.rs` never_does_an_overlapping_tick_delete_running_pods |
//! | a slot is leaked when a pod cannot be created or is deleted | `node_batch_jobs.rs` never_is_a_slot_leaked_when_a_pod_is_refused_or_deleted |
//! | it blocks with a pool of no pods | `node_batch_jobs.rs` never_is_a_parallelism_of_nothing_accepted |
//! | it writes outside the report directory | `host/reports/tests/callbacks.rs` never_a_file_outside_the_store |
//! | bodies without a limit are accepted | `host/reports/tests/callbacks.rs` bodies_without_a_limit_are_never_accepted |
//! | callbacks are taken from anybody who can guess an address | `node_batch_reports.rs` never_is_a_report_taken_from_who_guesses_its_address |
//! | pods that were running when a service restarted get 406 | `node_batch_reports.rs` never_is_a_running_pod_turned_away_after_a_restart |
//! | a standby replica fails its health check | `node_batch_jobs.rs` never_does_a_replica_without_work_fail_its_health_check |
//! | nodes that share a first DNS label collide | `node_batch_reports.rs` never_do_nodes_that_share_a_first_dns_label_share_a_pod_or_a_report |
//! | metrics grow without bound | `host/reports/tests/reading.rs` never_grows_metrics_without_bound |
//! | a late report hides a failure | `node_batch_reports.rs` never_does_a_late_report_hide_a_failure |
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stoker_api::{HotStandbyDeployment, keys};
use stoker_e2e::audit::{PodEvent, operators_requests, pod_events};
use stoker_e2e::{World, condition};

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_does_a_scale_down_remove_a_busy_pod() -> Result<()> {
    let world = World::start("never-busy").await?;
    world.apply_pool("game", json!({"idleTarget": 4})).await?;
    world.counts("game", 0, 4, 4).await?;
    let busy = world.alive("game").await?[..3].to_vec();
    world.set_busy(&busy, true).await?;
    world.counts("game", 3, 4, 7).await?;

    // Whatever asks for fewer: the idle target, the maximum, a policy.
    for fewer in [
        json!({"idleTarget": 0}),
        json!({"maxReplicas": 1}),
        json!({"policy": {"builtin": "expression", "config": {"desired": "0"}}}),
    ] {
        world.patch_pool("game", fewer).await?;
        world.counts("game", 3, 0, 3).await?;
    }
    let same = |alive: &[Pod]| busy.iter().all(|p| alive.iter().any(|a| a.uid() == p.uid()));
    world.holds("game", Duration::from_secs(2), "the busy pods stay", same).await?;
    let events = pod_events(&world.namespace, keys::DEFAULT_BUSY_ANNOTATION)?;
    let at_work = events.iter().find(|e| matches!(e, PodEvent::Deleted { busy: true, .. }));
    assert!(at_work.is_none(), "{at_work:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_does_a_failed_probe_look_like_idle() -> Result<()> {
    let world = World::start("never-unknown").await?;
    let probe = json!({"mode": "condition", "condition": {"type": "example.org/Busy", "busyStatus": "True"}});
    world.apply_pool("game", json!({"idleTarget": 3, "busyProbe": probe})).await?;
    world.counts("game", 0, 3, 3).await?;
    let pods = world.alive("game").await?;
    for pod in &pods {
        set_condition(&world, pod, "Unknown").await?;
    }
    // None of the three is standby any more, and none goes or comes for that (I3).
    let unknown = |p: &HotStandbyDeployment| {
        let status = p.status.as_ref().unwrap();
        (status.unknown_count, status.idle_count, status.total_count) == (3, 0, 3)
    };
    world.status("game", "told to be unknown", unknown).await?;

    world.patch_pool("game", json!({"idleTarget": 0, "maxReplicas": 1})).await?;
    let seen =
        |p: &HotStandbyDeployment| p.status.as_ref().unwrap().observed_generation == p.metadata.generation;
    world.status("game", "told of the smaller size", seen).await?;
    let stay =
        |alive: &[Pod]| alive.len() == 3 && pods.iter().all(|p| alive.iter().any(|a| a.uid() == p.uid()));
    world.holds("game", Duration::from_secs(2), "pods of which nothing is known stay", stay).await?;

    // An answer is needed to remove them.
    for pod in &pods[..2] {
        set_condition(&world, pod, "False").await?;
    }
    let one = || async { Ok(world.alive("game").await?.iter().map(ResourceExt::uid).eq([pods[2].uid()])) };
    world.until("game", "down to the pod that gave no answer", one).await?;
    world.finish().await
}

async fn set_condition(world: &World, pod: &Pod, status: &str) -> Result<()> {
    let patch = json!({"status": {"conditions": [{"type": "example.org/Busy", "status": status}]}});
    world.pods().patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i10_a_pool_at_rest_costs_no_request() -> Result<()> {
    let world = World::start("never-asks").await?;
    let policy = |name: &str, config: Value| {
        // A machine with other work to do may take long for a call; a policy that fails is not at rest.
        json!({"policy": {"builtin": name, "config": config, "limits": {"timeoutMilliseconds": 10000}}})
    };
    let kinds: [(&str, Value); 5] = [
        ("plain", json!({})),
        ("told", json!({"stateLabels": true, "disruption": "Annotate", "afterUse": "Replace"})),
        ("drains", json!({"deletionPolicy": "Drain"})),
        ("share", policy("percent-buffer", json!({"percent": 50}))),
        ("steady", policy("hysteresis", json!({"probes": 3, "seconds": 1}))),
    ];
    for (name, spec) in &kinds {
        world.apply_pool(name, spec.clone()).await?;
    }
    for (name, _) in &kinds {
        world.counts(name, 0, 2, 2).await?;
        world.set_busy(&world.alive(name).await?[..1], true).await?;
    }
    for (name, _) in &kinds {
        world.counts(name, 1, 2, 3).await?;
    }
    for name in ["share", "steady"] {
        let healthy = |p: &HotStandbyDeployment| {
            condition(p, "PolicyHealthy").is_some_and(|(status, ..)| status == "True")
        };
        world.status(name, "decided by its policy", healthy).await?;
    }
    // They are at rest when nothing was asked for a while: the last of the statuses and labels are written.
    let quiet = Duration::from_secs(3);
    let at_rest = || async {
        let last = operators_requests(&world.namespace)?.into_iter().map(|r| r.at).max().unwrap();
        Ok(Timestamp::now().duration_since(last).unsigned_abs() > quiet)
    };
    world.until("plain", "at rest", at_rest).await?;

    let since = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked: Vec<_> = operators_requests(&world.namespace)?.into_iter().filter(|r| r.at > since).collect();
    assert!(asked.is_empty(), "I10: {asked:#?}");

    // Nor is a template or a pod patched: of the objects only what is asked for is ever written.
    for request in operators_requests(&world.namespace)? {
        let allowed = match (request.verb.as_str(), request.resource.as_str()) {
            ("create", "pods" | "events") | ("patch", "hotstandbydeployments/status" | "events") => true,
            ("list", _) => true,
            // The one label and annotation of each transition, and the finalizer.
            ("patch", "pods") => request.name.starts_with("told-"),
            ("patch", "hotstandbydeployments") => request.name == "drains",
            _ => false,
        };
        assert!(allowed, "{request:?}");
    }
    for (name, _) in &kinds {
        assert_eq!(world.pool(name).await?.metadata.generation, Some(1), "{name}: its spec was not touched");
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_are_children_matched_by_name_alone() -> Result<()> {
    let world = World::start("never-names").await?;
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    let old = world.alive("game").await?;
    // The pods stay when their pool goes, and are nobody's then.
    world.pools().delete("game", &DeleteParams::orphan()).await?;
    let gone = || async { Ok(world.pools().get_opt("game").await?.is_none()) };
    world.until("game", "gone", gone).await?;

    world.apply_pool("game", json!({"idleTarget": 3})).await?;
    world.counts("game", 0, 3, 3).await?;
    let new = world.alive("game").await?;
    assert!(new.iter().all(|p| old.iter().all(|o| o.uid() != p.uid())), "pods of another pool of that name");
    world.patch_pool("game", json!({"idleTarget": 0})).await?;
    world.counts("game", 0, 0, 0).await?;
    for pod in old {
        let left = world.pods().get(&pod.name_any()).await?;
        assert_eq!((left.uid(), left.metadata.deletion_timestamp), (pod.uid(), None));
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_is_an_object_taken_over_that_has_another_owner() -> Result<()> {
    let world = World::start("never-owners").await?;
    let pool = world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.namespace);
    let owner: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}}))?;
    let owner = maps.create(&PostParams::default(), &owner).await?;
    // It looks like one of the pool's pods in all but its owner.
    let mut labels = world.alive("game").await?[0].labels().clone();
    labels.insert(keys::SLOT.to_owned(), "7".to_owned());
    assert_eq!(labels.get(keys::OWNER_UID), pool.uid().as_ref());
    let theirs: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": "theirs",
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid(), "controller": true,
            }],
        },
        "spec": {"containers": [{"name": "app", "image": "docker.io/local/busybox:1"}]},
    }))?;
    let theirs = world.pods().create(&PostParams::default(), &theirs).await?;

    // It is no standby of the pool, and is not removed with the pool's own.
    world.patch_pool("game", json!({"idleTarget": 3})).await?;
    world.counts("game", 0, 3, 3).await?;
    world.patch_pool("game", json!({"idleTarget": 0})).await?;
    world.counts("game", 0, 0, 0).await?;
    let left = world.pods().get("theirs").await?;
    assert_eq!(left.labels(), theirs.labels(), "it is not marked, either");
    assert_eq!((left.uid(), left.metadata.deletion_timestamp), (theirs.uid(), None));
    world.finish().await
}
