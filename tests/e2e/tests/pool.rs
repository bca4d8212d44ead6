//! A HotStandbyDeployment keeps its idle target, whatever its pods do.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use stoker_api::keys;
use stoker_e2e::{World, condition};

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn busy_pods_are_replaced_and_the_surplus_goes_after_the_delay() -> Result<()> {
    let world = World::start("flip").await?;
    world.apply_pool("game", json!({"idleTarget": 3, "scaleDownDelaySeconds": 600})).await?;
    world.counts("game", 0, 3, 3).await?;
    let first = world.alive("game").await?;

    world.set_busy(&first[..2], true).await?;
    world.counts("game", 2, 3, 5).await?;

    world.set_busy(&first[..2], false).await?;
    world.counts("game", 0, 5, 5).await?;
    let told = world.pool("game").await?.status.unwrap().last_decision.unwrap();
    assert_eq!((told.applied, told.limited_by.as_str()), (3, "delay"), "the surplus waits");
    world.patch_pool("game", json!({"scaleDownDelaySeconds": 0})).await?;
    world.counts("game", 0, 3, 3).await?;
    let left: Vec<_> = world.alive("game").await?.iter().map(|p| p.uid()).collect();
    assert_eq!(left, first.iter().map(|p| p.uid()).collect::<Vec<_>>(), "the youngest go");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_lower_maximum_spares_busy_pods() -> Result<()> {
    let world = World::start("lower").await?;
    world.apply_pool("game", json!({"idleTarget": 3})).await?;
    world.counts("game", 0, 3, 3).await?;
    let pods = world.alive("game").await?;
    world.set_busy(&pods, true).await?;
    world.counts("game", 3, 3, 6).await?;

    world.patch_pool("game", json!({"maxReplicas": 1})).await?;
    world.counts("game", 3, 0, 3).await?;
    let same = |alive: &[Pod]| pods.iter().all(|p| alive.iter().any(|a| a.uid() == p.uid()));
    world.holds("game", Duration::from_secs(2), "the busy pods stay", same).await?;

    world.set_busy(&pods[..2], false).await?;
    world.counts("game", 1, 0, 1).await?;
    assert_eq!(world.alive("game").await?[0].uid(), pods[2].uid(), "the busy one is left");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i2_the_maximum_wins_over_the_idle_target() -> Result<()> {
    let world = World::start("max").await?;
    world.apply_pool("game", json!({"idleTarget": 5, "maxReplicas": 3})).await?;
    world.counts("game", 0, 3, 3).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 3, 0, 3).await?;
    let pool = world.pool("game").await?;
    assert_eq!(pool.status.as_ref().unwrap().last_decision.as_ref().unwrap().limited_by, "maximum");
    assert_eq!(condition(&pool, "StandbyAvailable").unwrap().0, "False");
    assert_eq!(condition(&pool, "Ready").unwrap().0, "True", "load does not flip Ready");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn pods_that_end_are_replaced() -> Result<()> {
    let world = World::start("ends").await?;
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    let pods = world.alive("game").await?;
    world.annotate(&pods[..1], "sim.stoker.dev/phase", Some("Failed")).await?;
    let gone = |uid: Option<String>| {
        let world = &world;
        async move {
            for _ in 0..600 {
                let alive = world.alive("game").await?;
                if alive.len() == 2 && alive.iter().all(|p| p.uid() != uid) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::bail!("an ended pod was not replaced\n{}", world.tell("game").await)
        }
    };
    gone(pods[0].uid()).await?;
    let params = DeleteParams::default();
    world.pods().delete(&pods[1].name_any(), &params).await?;
    gone(pods[1].uid()).await?;
    world.counts("game", 0, 2, 2).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_paused_pool_is_left_as_it_is() -> Result<()> {
    let world = World::start("paused").await?;
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.patch_pool("game", json!({"paused": true})).await?;
    world
        .status("game", "paused", |p| condition(p, "Ready").is_some_and(|(_, reason, _)| reason == "Paused"))
        .await?;
    world.set_busy(&world.alive("game").await?[..1], true).await?;
    world.counts("game", 1, 1, 2).await?;
    world.holds("game", Duration::from_secs(1), "two pods", |pods| pods.len() == 2).await?;
    world.patch_pool("game", json!({"paused": false})).await?;
    world.counts("game", 1, 2, 3).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i7_a_strangers_pod_is_left_alone_and_told() -> Result<()> {
    let mut world = World::without_operator("stranger").await?;
    let pool = world.apply_pool("game", json!({"idleTarget": 1})).await?;
    let name = stoker_name(&pool.uid().unwrap());
    let stranger: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "a", "image": "docker.io/local/busybox:1", "command": ["sleep", "9"]}]},
    }))?;
    let stranger = world.pods().create(&PostParams::default(), &stranger).await?;
    world.operator = Some(stoker_e2e::operator::Operator::start(&world.namespace, &[]).await?);

    let pool = world.status("game", "in conflict", |p| condition(p, "Conflict").is_some()).await?;
    assert!(condition(&pool, "Conflict").unwrap().2.contains(&name));
    // Another name takes its place at once, although nothing changes that would ask for a look.
    world.counts("game", 0, 1, 1).await?;
    let now = world.pods().get(&name).await?;
    assert_eq!((now.uid(), now.metadata.deletion_timestamp), (stranger.uid(), None));
    world.finish().await
}

/// The name of slot 0, which the documented rule derives from the pool's UID.
fn stoker_name(uid: &str) -> String {
    stoker_core::names::pool_member("game", uid, 0)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_template_that_the_api_server_refuses_is_told_and_makes_nothing() -> Result<()> {
    let world = World::start("template").await?;
    let bad = json!({"podTemplate": {"spec": {"restartPolicy": "Sometimes"}}});
    world.apply_pool("game", bad).await?;
    let pool = world
        .status("game", "refused", |p| {
            condition(p, "TemplateValid").is_some_and(|(status, ..)| status == "False")
        })
        .await?;
    let (_, _, words) = condition(&pool, "TemplateValid").unwrap();
    assert!(words.contains("restartPolicy") && words.contains("Sometimes"), "{words}");
    assert_eq!(condition(&pool, "Stalled").unwrap().1, "TemplateRefused");
    assert!(world.alive("game").await?.is_empty());

    world.patch_pool("game", json!({"podTemplate": {"spec": {"restartPolicy": null}}})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn deleting_the_object_takes_its_pods() -> Result<()> {
    let world = World::start("delete").await?;
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 2, 2, 4).await?;
    world.pools().delete("game", &DeleteParams::default()).await?;
    let api: Api<Pod> = world.pods();
    for _ in 0..600 {
        if api.list(&Default::default()).await?.items.is_empty() {
            return world.finish().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("pods are left\n{}", world.tell("game").await)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_scale_subresource_is_the_standby() -> Result<()> {
    let world = World::start("scale").await?;
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.set_busy(&world.alive("game").await?[..1], true).await?;
    world.counts("game", 1, 2, 3).await?;
    let patch = json!({"spec": {"replicas": 4}});
    world.pools().patch_scale("game", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    world.counts("game", 1, 4, 5).await?;
    let scale = world.pools().get_scale("game").await?;
    let status = scale.status.unwrap();
    assert_eq!((status.replicas, status.selector.as_deref()), (4, Some("app=game")));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn pods_carry_the_labels_by_which_others_find_them() -> Result<()> {
    let world = World::start("labels").await?;
    world.apply_pool("game", json!({"podTemplate": {"metadata": {"labels": {"tier": "front"}}}})).await?;
    world.counts("game", 0, 2, 2).await?;
    for pod in world.alive("game").await? {
        let labels = pod.labels();
        for (key, value) in [("app", "game"), ("tier", "front"), (keys::HSD_NAME, "game")] {
            assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
        }
        let owner = &pod.owner_references()[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("HotStandbyDeployment", Some(true)));
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_quota_is_told_and_the_pool_fills_when_it_is_lifted() -> Result<()> {
    let world = World::without_operator("quota").await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client.clone(), &world.namespace);
    let quota: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}))?;
    quotas.create(&PostParams::default(), &quota).await?;
    let mut world = world;
    world.apply_pool("game", json!({})).await?;
    world.operator = Some(stoker_e2e::operator::Operator::start(&world.namespace, &[]).await?);
    let pool = world.status("game", "stalled", |p| condition(p, "Stalled").is_some()).await?;
    let (_, reason, words) = condition(&pool, "Stalled").unwrap();
    assert_eq!(reason, "CreationRefused");
    assert!(words.contains("exceeded quota"), "{words}");
    // Back-off, not a spin: a look every now and then.
    let tries = || world.operator.as_ref().unwrap().log().matches("refuses a member").count();
    let (before, began) = (tries(), Instant::now());
    assert!(before >= 1, "the log tells refusals");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (tried, span) = (tries() - before, began.elapsed());
    assert!(tried as u64 <= 1 + span.as_secs() / 4, "{tried} tries in {span:?}");

    quotas.delete("few", &DeleteParams::default()).await?;
    world.counts("game", 0, 2, 2).await?;
    let pool = world.status("game", "filled", |p| condition(p, "Stalled").is_none()).await?;
    assert_eq!(condition(&pool, "Ready").unwrap().0, "True");
    world.finish().await
}
