//! A HotStandbyJob keeps idle Jobs, whatever they and their pods do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stoker_api::keys;
use stoker_e2e::World;
use stoker_e2e::audit::{PodEvent, PodWatch};
use stoker_e2e::jobs::{JobPool, condition, finished};
use stoker_e2e::nodes::{PrivateNode, node_of};

fn pool<'a>(world: &'a World) -> JobPool<'a> {
    JobPool { world, name: "work" }
}

fn uids<K: ResourceExt>(objects: &[K]) -> BTreeSet<String> {
    objects.iter().filter_map(ResourceExt::uid).collect()
}

/// Ends pods as if their work were done, or had failed.
async fn end(world: &World, pods: &[Pod], well: bool) -> Result<()> {
    let phase = if well { "Succeeded" } else { "Failed" };
    world.annotate(pods, "sim.stoker.dev/phase", Some(phase)).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn busy_jobs_are_replaced_and_the_surplus_goes_after_the_delay() -> Result<()> {
    let world = World::start("jobs").await?;
    let work = pool(&world);
    work.apply(json!({"idleTarget": 3, "scaleDownDelaySeconds": 600})).await?;
    work.counts(0, 3, 3).await?;
    let (first, pods) = (work.jobs().await?, work.pods().await?);

    world.set_busy(&pods[..2], true).await?;
    work.counts(2, 3, 5).await?;
    world.set_busy(&pods[..2], false).await?;
    let told = work.counts(0, 5, 5).await?.status.unwrap().last_decision.unwrap();
    assert_eq!((told.applied, told.limited_by.as_str()), (3, "delay"), "the surplus waits");
    work.patch(json!({"scaleDownDelaySeconds": 0})).await?;
    work.counts(0, 3, 3).await?;
    assert_eq!(uids(&work.jobs().await?), uids(&first), "the youngest go");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_neither_a_lower_target_nor_a_lower_maximum_takes_busy_jobs() -> Result<()> {
    let world = World::start("jobs-lower").await?;
    let work = pool(&world);
    work.apply(json!({"idleTarget": 3})).await?;
    work.counts(0, 3, 3).await?;
    let (jobs, pods) = (work.jobs().await?, work.pods().await?);
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;
    world.set_busy(&pods, true).await?;
    work.counts(3, 3, 6).await?;
    work.patch(json!({"idleTarget": 0, "maxReplicas": 1})).await?;
    work.counts(3, 0, 3).await?;
    assert_eq!(uids(&work.jobs().await?), uids(&jobs), "the busy ones stay");
    world.set_busy(&pods[..2], false).await?;
    work.counts(1, 0, 1).await?;
    assert_eq!(work.pods().await?[0].uid(), pods[2].uid(), "the busy one is left");
    let busy = |e: &PodEvent| matches!(e, PodEvent::Deleted { busy: true, .. });
    assert!(!watch.events().iter().any(busy), "I1: {:?}", watch.events());
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_job_that_finishes_is_replaced_at_once_and_left_to_its_ttl() -> Result<()> {
    let world = World::start("jobs-finish").await?;
    let work = pool(&world);
    work.apply(json!({"jobTemplate": {"ttlSecondsAfterFinished": 3600}})).await?;
    work.counts(0, 2, 2).await?;
    let pods = work.pods().await?;
    world.set_busy(&pods[..1], true).await?;
    work.counts(1, 2, 3).await?;
    end(&world, &pods[..1], true).await?;
    let done = |p: &stoker_api::HotStandbyJob| p.status.as_ref().is_some_and(|s| s.completed_jobs == 1);
    let told = work.status("told of the completed Job", done).await?.status.unwrap();
    assert_eq!((told.child_jobs, told.failed_jobs), (told.active_jobs + 1, 0));
    // A unit that ends while it stands by is replaced.
    let idle = work.pods().await?;
    let idle = idle.iter().find(|p| p.uid() != pods[0].uid()).cloned().unwrap();
    end(&world, std::slice::from_ref(&idle), true).await?;
    let jobs = work
        .until_jobs("two completed, two at hand", |jobs| {
            let ended = jobs.iter().filter(|j| finished(j).is_some()).count();
            ended == 2 && jobs.len() == 4
        })
        .await?;
    work.counts(0, 2, 2).await?;
    let over = json!({"spec": {"ttlSecondsAfterFinished": 0}});
    for job in jobs.iter().filter(|j| finished(j).is_some()) {
        work.job_api().patch(&job.name_any(), &PatchParams::default(), &Patch::Merge(&over)).await?;
    }
    // Kubernetes removes them when their time is over, and nothing is made again.
    let left = work.until_jobs("left to the TTL", |jobs| jobs.len() == 2).await?;
    assert!(left.iter().all(|j| finished(j).is_none()));
    work.counts(0, 2, 2).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn failed_jobs_are_kept_as_far_as_the_limit_says_and_replaced_by_back_off() -> Result<()> {
    let world = World::start("jobs-failed").await?;
    let work = pool(&world);
    work.apply(json!({"idleTarget": 1, "failedJobsHistoryLimit": 1, "successfulJobsHistoryLimit": 0}))
        .await?;
    work.counts(0, 1, 1).await?;
    for _ in 0..2 {
        let pods = work.pods().await?;
        end(&world, &pods, false).await?;
        let replaced = |jobs: &[Job]| {
            let at_hand: Vec<_> = jobs.iter().filter(|j| finished(j).is_none()).collect();
            let same =
                |j: &Job| pods.iter().any(|p| Some(&p.owner_references()[0].uid) == j.metadata.uid.as_ref());
            jobs.len() == 2 && at_hand.len() == 1 && !same(at_hand[0])
        };
        work.until_jobs("replaced, and one failed is kept", replaced).await?;
        work.counts(0, 1, 1).await?;
    }
    // Of completed ones none is kept.
    let last = work.jobs().await?.into_iter().find(|j| finished(j).is_none()).unwrap();
    end(&world, &work.pods().await?, true).await?;
    work.until_jobs("without completed ones", |jobs| {
        let failed = |j: &Job| finished(j) == Some(false);
        jobs.len() == 2
            && jobs.iter().filter(|j| failed(j)).count() == 1
            && jobs.iter().filter(|j| finished(j).is_none()).all(|j| j.uid() != last.uid())
    })
    .await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_a_job_is_busy_if_any_of_its_pods_is() -> Result<()> {
    let world = World::start("jobs-parallel").await?;
    let work = pool(&world);
    work.apply(json!({"idleTarget": 2, "jobTemplate": {"parallelism": 3}})).await?;
    let filled = work.counts(0, 2, 2).await?;
    assert_eq!(filled.status.unwrap().active_count, 6, "three pods each");
    let pods = work.pods().await?;
    world.set_busy(&pods[..1], true).await?;
    work.counts(1, 2, 3).await?;
    let owner = |p: &Pod| p.owner_references()[0].uid.clone();
    work.patch(json!({"idleTarget": 0})).await?;
    work.counts(1, 0, 1).await?;
    let left = work.jobs().await?;
    assert_eq!(uids(&left), BTreeSet::from([owner(&pods[0])]), "the one whose pod is at work");
    assert_eq!(work.pods().await?.len(), 3, "all of its pods are left");
    // A pod that has done its work is work begun: the Job stays until it is through.
    end(&world, &pods[..1], true).await?;
    work.counts(1, 0, 1).await?;
    end(&world, &work.pods().await?, true).await?;
    work.status("done", |p| p.status.as_ref().is_some_and(|s| s.completed_jobs == 1 && s.active_jobs == 0))
        .await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_pod_that_is_still_pending_is_no_standby() -> Result<()> {
    let world = World::start("jobs-pending").await?;
    let work = pool(&world);
    let nowhere = json!({"template": {"spec": {"nodeSelector": {"no": "where"}}}});
    work.apply(json!({"jobTemplate": nowhere, "startupTimeoutSeconds": 1})).await?;
    let told = work.status("stalled", |p| condition(p, "Stalled").is_some()).await?;
    let status = told.status.clone().unwrap();
    assert_eq!((status.idle_count, status.starting_count, status.active_jobs), (0, 2, 2));
    assert_eq!(condition(&told, "StandbyAvailable").unwrap().0, "False");
    let (_, reason, words) = condition(&told, "Stalled").unwrap();
    assert_eq!(reason, "PodsNotStarting");
    assert!(words.contains("no node has room"), "{words}");
    assert_eq!(work.jobs().await?.len(), 2, "and no more are made for it");
    // Nobody needs what no node runs: it goes at once.
    work.patch(json!({"idleTarget": 0})).await?;
    work.counts(0, 0, 0).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i2_nothing_is_made_twice_while_jobs_are_so_fresh_that_they_have_no_pods() -> Result<()> {
    const JOBS: usize = 20;
    let mut world = World::start_process("jobs-fresh").await?;
    pool(&world).apply(json!({"idleTarget": JOBS, "maxReplicas": 60})).await?;
    // Each operator that starts finds Jobs without status.active.
    for made in [1, 8, 15] {
        pool(&world).until_jobs("making Jobs", |jobs| jobs.len() >= made).await?;
        world.operator.as_mut().unwrap().restart()?;
    }
    let told = pool(&world).counts(0, JOBS as u32, JOBS as u32).await?.status.unwrap();
    assert_eq!((told.child_jobs as usize, told.active_count as usize), (JOBS, JOBS));
    let jobs = pool(&world).jobs().await?;
    let slots: BTreeSet<usize> = jobs.iter().map(|j| j.labels()[keys::SLOT].parse().unwrap()).collect();
    assert_eq!(slots, (0..JOBS).collect(), "one for each slot");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn jobs_carry_the_names_labels_and_fields_that_clients_know() -> Result<()> {
    let world = World::start("jobs-names").await?;
    let work = pool(&world);
    let object =
        work.apply(json!({"jobTemplate": {"template": {"metadata": {"labels": {"tier": "batch"}}}}})).await?;
    work.counts(0, 2, 2).await?;
    for job in work.jobs().await? {
        assert!(job.name_any().starts_with("work-w-"), "{}", job.name_any());
        let owner = &job.owner_references()[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("HotStandbyJob", Some(true)));
        assert_eq!(Some(&owner.uid), object.metadata.uid.as_ref());
        assert_eq!(job.labels()[keys::HSJ_NAME], "work");
        let spec = job.spec.unwrap();
        assert_eq!((spec.parallelism, spec.completions), (Some(1), Some(1)));
        assert_eq!(spec.pod_replacement_policy.as_deref(), Some("Failed"));
        assert_eq!(spec.template.spec.unwrap().restart_policy.as_deref(), Some("Never"));
    }
    for pod in work.pods().await? {
        let labels = pod.labels();
        for (key, value) in [("app", "work"), ("tier", "batch"), (keys::HSJ_NAME, "work")] {
            assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
        }
    }
    // A changed template is for new Jobs.
    let before = uids(&work.jobs().await?);
    work.patch(json!({"jobTemplate": {"template": {"metadata": {"labels": {"tier": "night"}}}}})).await?;
    world.set_busy(&work.pods().await?[..1], true).await?;
    work.counts(1, 2, 3).await?;
    let tiers: Vec<_> = work.pods().await?.iter().map(|p| p.labels()["tier"].clone()).collect();
    assert_eq!(tiers.iter().filter(|t| *t == "night").count(), 1, "{tiers:?}");
    assert!(uids(&work.jobs().await?).is_superset(&before));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_columns_of_a_pool_of_jobs_are_filled() -> Result<()> {
    let world = World::start("jobs-columns").await?;
    let work = pool(&world);
    work.apply(json!({"minReplicas": 1})).await?;
    work.counts(0, 2, 2).await?;
    let path = format!("/apis/stoker.dev/v1alpha1/namespaces/{}/hotstandbyjobs/work", world.namespace);
    let request = http::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Value = world.client.request(request).await?;
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    let known = [
        "Name",
        "Mode",
        "IdleTarget",
        "Min",
        "Max",
        "Busy",
        "Idle",
        "ActivePods",
        "DesiredActive",
        "ChildJobs",
        "ActiveJobs",
        "CompletedJobs",
        "FailedJobs",
        "LastSync",
        "Age",
    ];
    assert_eq!(names[..known.len()], known);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[..13],
        json!(["work", "annotation", 2, 1, 10, 0, 2, 2, 2, 2, 2, 0, 0]).as_array().unwrap()[..]
    );
    assert!(cells[13].as_str().is_some_and(|age| !age.is_empty()), "LastSync: {cells:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_deadline_that_counts_standby_is_told() -> Result<()> {
    let world = World::start("jobs-deadline").await?;
    let work = pool(&world);
    work.apply(json!({"jobTemplate": {"activeDeadlineSeconds": 3600}})).await?;
    let told = work.status("told", |p| condition(p, "DeadlineEndsWork").is_some()).await?;
    let (status, _, words) = condition(&told, "DeadlineEndsWork").unwrap();
    assert_eq!(status, "True");
    assert!(words.contains("the time as standby counts"), "{words}");
    work.counts(0, 2, 2).await?;
    work.patch(json!({"jobTemplate": {"activeDeadlineSeconds": null}})).await?;
    work.status("untold", |p| condition(p, "DeadlineEndsWork").is_none()).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_pools_of_jobs_that_cannot_work_are_refused_in_words() -> Result<()> {
    let world = World::without_operator("jobs-refuse").await?;
    let work = pool(&world);
    let template = |fields: Value| json!({"jobTemplate": fields});
    let cases: &[(&str, Value, &str)] = &[
        ("negative idleTarget", json!({"idleTarget": -1}), "greater than or equal to 0"),
        ("negative maximum", json!({"maxReplicas": -1}), "greater than or equal to 0"),
        ("negative history", json!({"failedJobsHistoryLimit": -1}), "greater than or equal to 0"),
        ("an empty selector", json!({"selector": {"matchLabels": {"app": null}}}), "would select every pod"),
        (
            "the flat form",
            template(json!({"template": null, "image": "busybox", "command": ["sh"]})),
            "belong into jobTemplate.template.spec.containers",
        ),
        ("no containers", template(json!({"template": {"spec": {"containers": null}}})), "containers"),
        ("suspended", template(json!({"suspend": true})), "set paused: true"),
        (
            "a selector of its own",
            template(json!({"manualSelector": true})),
            "Jobs would take each other's pods",
        ),
        (
            "eager replacement",
            template(json!({"podReplacementPolicy": "TerminatingOrFailed"})),
            "must be Failed or left out",
        ),
        ("no parallelism", template(json!({"parallelism": 0})), "greater than or equal to 1"),
        (
            "labels that contradict",
            template(json!({"template": {"metadata": {"labels": {"app": "other"}}}})),
            "contradict selector.matchLabels",
        ),
        (
            "two policies",
            json!({"policy": {"builtin": "buffer", "configMap": {"name": "a"}}}),
            "exactly one source",
        ),
        ("an unknown deletion", json!({"deletionPolicy": "Keep"}), "Unsupported value: \"Keep\""),
    ];
    for (what, fields, words) in cases {
        match work.apply(fields.clone()).await {
            Ok(_) => panic!("{what} was accepted"),
            Err(error) => assert!(error.to_string().contains(words), "{what}: {error}"),
        }
    }
    // As in the older system the maximum wins, and there need be none.
    work.apply(json!({"minReplicas": 5, "maxReplicas": 4})).await?;
    work.apply(json!({"idleTarget": null, "maxReplicas": null, "selector": null})).await?;
    assert_eq!(work.get().await?.spec.idle_target, 0);
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_job_template_that_kubernetes_refuses_is_told_and_makes_nothing() -> Result<()> {
    let world = World::start("jobs-template").await?;
    let work = pool(&world);
    work.apply(json!({"jobTemplate": {"template": {"spec": {"restartPolicy": "Always"}}}})).await?;
    let refused =
        |p: &stoker_api::HotStandbyJob| condition(p, "TemplateValid").is_some_and(|c| c.0 == "False");
    let told = work.status("refused", refused).await?;
    let (_, _, words) = condition(&told, "TemplateValid").unwrap();
    assert!(words.contains("spec.jobTemplate") && words.contains("restartPolicy"), "{words}");
    assert!(work.jobs().await?.is_empty());
    work.patch(json!({"jobTemplate": {"template": {"spec": {"restartPolicy": "OnFailure"}}}})).await?;
    work.counts(0, 2, 2).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_drained_pool_goes_when_its_last_job_is_through() -> Result<()> {
    let world = World::start("jobs-drain").await?;
    let work = pool(&world);
    work.apply(json!({"deletionPolicy": "Drain"})).await?;
    work.counts(0, 2, 2).await?;
    let pods = work.pods().await?;
    world.set_busy(&pods[..1], true).await?;
    work.counts(1, 2, 3).await?;
    work.api().delete("work", &DeleteParams::default()).await?;
    let left = work.until_jobs("drained of idle Jobs", |jobs| jobs.len() == 1).await?;
    assert_eq!(uids(&left), BTreeSet::from([pods[0].owner_references()[0].uid.clone()]));
    end(&world, &pods[..1], true).await?;
    world.until("work", "gone", || async { Ok(work.api().get_opt("work").await?.is_none()) }).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_pods_of_jobs_carry_their_state_and_used_ones_are_replaced() -> Result<()> {
    let world = World::start("jobs-marks").await?;
    let work = pool(&world);
    work.apply(json!({"stateLabels": true, "afterUse": "Replace"})).await?;
    work.counts(0, 2, 2).await?;
    let pods = work.pods().await?;
    let state = |state: &'static str| {
        let (world, name) = (&world, pods[0].name_any());
        move || {
            let name = name.clone();
            async move {
                let pod = world.pods().get(&name).await?;
                Ok(pod.labels().get(keys::STATE).map(String::as_str) == Some(state))
            }
        }
    };
    world.until("work", "labelled idle", state("idle")).await?;
    world.set_busy(&pods[..1], true).await?;
    world.until("work", "labelled busy", state("busy")).await?;
    work.counts(1, 2, 3).await?;
    let marked = || async {
        let pod = world.pods().get(&pods[0].name_any()).await?;
        Ok(pod.annotations().get(keys::USED).is_some_and(|v| v == "true"))
    };
    world.until("work", "marked as used", marked).await?;
    world.set_busy(&pods[..1], false).await?;
    work.counts(0, 2, 2).await?;
    assert!(work.pods().await?.iter().all(|p| p.uid() != pods[0].uid()), "it is not used again");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn idle_jobs_on_a_cordoned_node_are_replaced_elsewhere_and_busy_ones_stay() -> Result<()> {
    let world = World::start("jobs-cordon").await?;
    let work = pool(&world);
    let nodes = [PrivateNode::create(&world, "a").await?, PrivateNode::create(&world, "b").await?];
    let there = json!({"jobTemplate": {"template": {"spec": {
        "nodeSelector": {"e2e": world.namespace},
        "tolerations": [{"key": "e2e", "operator": "Exists"}],
    }}}});
    work.apply(there).await?;
    work.patch(json!({"idleTarget": 6})).await?;
    work.counts(0, 6, 6).await?;
    let pods = work.pods().await?;
    let lost = node_of(&pods[0]);
    world.set_busy(&pods[..1], true).await?;
    work.counts(1, 6, 7).await?;
    nodes.iter().find(|n| n.name == lost).unwrap().cordon(true).await?;
    let moved = || async {
        let there: Vec<Pod> = work.pods().await?.into_iter().filter(|p| node_of(p) == lost).collect();
        Ok(there.len() == 1 && there[0].uid() == pods[0].uid())
    };
    world.until("work", "moved, but for the busy one", moved).await?;
    work.counts(1, 6, 7).await?;
    world.set_busy(&pods[..1], false).await?;
    work.counts(0, 6, 6).await?;
    assert!(work.pods().await?.iter().all(|p| node_of(p) != lost));
    for node in nodes {
        node.delete().await?;
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i7_a_strangers_job_is_left_alone_and_told() -> Result<()> {
    let mut world = World::without_operator("jobs-stranger").await?;
    let object = pool(&world).apply(json!({"idleTarget": 1})).await?;
    let name = stoker_core::names::pool_job("work", &object.uid().unwrap(), 0, None);
    let stranger: Job = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "a", "image": "docker.io/local/busybox:1", "command": ["sleep", "9"]},
        ]}}},
    }))?;
    let stranger = pool(&world).job_api().create(&PostParams::default(), &stranger).await?;
    world.operator = Some(stoker_e2e::operator::Operator::start(&world.namespace, &[]).await?);
    let work = pool(&world);
    let told = work.status("in conflict", |p| condition(p, "Conflict").is_some()).await?;
    assert!(condition(&told, "Conflict").unwrap().2.contains(&name));
    // Another name takes its place at once, although nothing changes that would ask for a look.
    work.counts(0, 1, 1).await?;
    let now = work.job_api().get(&name).await?;
    assert_eq!((now.uid(), now.metadata.deletion_timestamp), (stranger.uid(), None));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_policy_sizes_a_pool_of_jobs() -> Result<()> {
    let world = World::start("jobs-policy").await?;
    let work = pool(&world);
    work.apply(json!({"idleTarget": 1, "policy": {"builtin": "percent-buffer", "config": {"percent": 100}}}))
        .await?;
    work.counts(0, 1, 1).await?;
    world.set_busy(&work.pods().await?, true).await?;
    work.counts(1, 1, 2).await?;
    world.set_busy(&work.pods().await?, true).await?;
    let told = work.counts(2, 2, 4).await?.status.unwrap();
    assert_eq!(told.last_decision.unwrap().by, "builtin/percent-buffer");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_for_jobs_when_the_operator_is_killed_over_and_over() -> Result<()> {
    const KILLS: u64 = 16;
    let mut world = World::start_process("jobs-kills").await?;
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;
    pool(&world).apply(json!({"idleTarget": 3})).await?;
    pool(&world).counts(0, 3, 3).await?;
    for kill in 0..KILLS {
        let busy = kill % 2 == 0;
        let pods = pool(&world).pods().await?;
        world.set_busy(&pods, busy).await?;
        // At another moment of its work each time.
        tokio::time::sleep(Duration::from_millis(kill * 9)).await;
        world.operator.as_mut().unwrap().restart()?;
        if busy {
            pool(&world).counts(3, 3, 6).await?;
        } else {
            pool(&world).counts(0, 3, 3).await?;
        }
    }
    let events = watch.events();
    let created = events.iter().filter(|e| matches!(e, PodEvent::Created { .. })).count();
    let wanted = 3 + 3 * KILLS as usize / 2;
    if created != wanted {
        println!("{}", world.operator().log());
        panic!(
            "each scale-up makes what is missing and no more: {created} made, {wanted} wanted: {events:#?}"
        );
    }
    let at_work = events.iter().find(|e| matches!(e, PodEvent::Deleted { busy: true, .. }));
    assert!(at_work.is_none(), "I1: {at_work:?}");
    world.finish().await
}
