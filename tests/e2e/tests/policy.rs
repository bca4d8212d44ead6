//! Policies from ConfigMaps: swapped while the operator runs, refused in words, and unable to shrink a pool
//! by failing.
#![allow(clippy::unwrap_used)]

mod policies;

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams};
use serde_json::json;
use stoker_e2e::guests::{Guest, SPIN, wants};
use stoker_e2e::{World, built_policy, condition};

use crate::policies::{from_map, healthy, unhealthy};

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn applying_another_config_map_changes_the_size_without_a_restart() -> Result<()> {
    let world = World::start_process("swap").await?;
    world.put_policy("rush-hour", &built_policy("buffer")?).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 2, 2, 4).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 4, 2, 6).await?;
    let pid = world.operator.as_ref().unwrap().pid();

    // 20 % of 4 is below the idle target of 2, so that a larger share shows the swap: a guest that wants 9.
    let began = Instant::now();
    world.put_policy("rush-hour", &wants(9)).await?;
    world
        .status("game", "sized by the new policy", |p| p.status.as_ref().unwrap().desired_replicas == 9)
        .await?;
    println!("size changed {:?} after the ConfigMap", began.elapsed());
    world.counts("game", 4, 5, 9).await?;

    world.put_policy("rush-hour", &built_policy("percent-buffer")?).await?;
    world.counts("game", 4, 2, 6).await?;
    let log = world.operator.as_ref().unwrap().log();
    assert_eq!(world.operator.as_ref().unwrap().pid(), pid);
    assert_eq!(log.matches(" running ").count(), 1, "no restart");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i3_a_trapping_policy_changes_nothing() -> Result<()> {
    let world = World::start("trap").await?;
    world.put_policy("rush-hour", &wants(7)).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    world.counts("game", 0, 7, 7).await?;

    world.put_policy("rush-hour", &Guest { scale: "unreachable", ..Guest::default() }.bytes()).await?;
    let pool = world.status("game", "unhealthy", unhealthy("CallFailed")).await?;
    let status = pool.status.as_ref().unwrap();
    assert_eq!(status.desired_replicas, 7);
    assert_eq!(status.last_decision.as_ref().unwrap().limited_by, "hold");
    assert!(status.policy.as_ref().unwrap().failures_in_a_row > 0);
    world.holds("game", Duration::from_secs(2), "seven pods", |pods| pods.len() == 7).await?;

    // It still grows by the formula, so that busy pods are replaced.
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 7, 2, 9).await?;

    world.put_policy("rush-hour", &wants(8)).await?;
    let pool = world.status("game", "healthy again", healthy).await?;
    assert_eq!(pool.status.unwrap().policy.unwrap().failures_in_a_row, 0);
    world.counts("game", 7, 1, 8).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i8_a_policy_that_never_ends_is_stopped_and_others_go_on() -> Result<()> {
    let world = World::start("loop").await?;
    world.put_policy("rush-hour", &Guest { scale: SPIN, ..Guest::default() }.bytes()).await?;
    world.apply_pool("stuck", json!({"policy": from_map()})).await?;
    world.apply_pool("game", json!({"policy": {"builtin": "buffer"}})).await?;
    let pool = world.status("stuck", "unhealthy", unhealthy("CallFailed")).await?;
    let (_, _, words) = condition(&pool, "PolicyHealthy").unwrap();
    assert!(words.contains("timeoutMilliseconds"), "{words}");
    world.counts("stuck", 0, 2, 2).await?;
    world.counts("game", 0, 2, 2).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 2, 2, 4).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_cannot_be_a_policy_is_refused_in_words_and_the_last_good_one_decides() -> Result<()> {
    let world = World::start("refused").await?;
    world.put_policy("rush-hour", &wants(5)).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    world.counts("game", 0, 5, 5).await?;

    world.put_policy("rush-hour", b"not wasm").await?;
    let pool = world.status("game", "refused", unhealthy("Refused")).await?;
    assert!(condition(&pool, "PolicyHealthy").unwrap().2.contains("not a WebAssembly component"));
    let policy = pool.status.unwrap().policy.unwrap();
    assert_ne!(policy.active_digest, policy.desired_digest);
    world.set_busy(&world.alive("game").await?[..1], true).await?;
    world.counts("game", 1, 4, 5).await?;

    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.namespace);
    maps.delete("rush-hour", &DeleteParams::default()).await?;
    let pool = world.status("game", "missing", unhealthy("NotFound")).await?;
    assert!(condition(&pool, "PolicyHealthy").unwrap().2.contains("kubectl create configmap rush-hour"));
    world.counts("game", 1, 4, 5).await?;

    world.put_policy("rush-hour", &wants(6)).await?;
    world.counts("game", 1, 5, 6).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_wrong_config_or_digest_is_refused_and_a_right_one_taken() -> Result<()> {
    let world = World::start("config").await?;
    let spec = json!({"policy": {"builtin": "percent-buffer", "config": {"percent": -5}}});
    world.apply_pool("game", spec).await?;
    let pool = world.status("game", "refused", unhealthy("ConfigInvalid")).await?;
    assert!(condition(&pool, "PolicyHealthy").unwrap().2.contains("percent"));
    world.counts("game", 0, 2, 2).await?;

    world.patch_pool("game", json!({"policy": {"config": {"percent": 100}}})).await?;
    world.status("game", "healthy", healthy).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 2, 2, 4).await?;
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 4, 4, 8).await?;

    let other = format!("sha256:{}", "0".repeat(64));
    world.patch_pool("game", json!({"policy": {"digest": other}})).await?;
    let pool = world.status("game", "mismatched", unhealthy("DigestMismatch")).await?;
    assert!(condition(&pool, "PolicyHealthy").unwrap().2.contains(&other));
    world.counts("game", 4, 4, 8).await?;

    world.patch_pool("game", json!({"policy": {"builtin": "no-such", "digest": null}})).await?;
    let pool = world.status("game", "unknown", unhealthy("UnknownBuiltin")).await?;
    assert!(condition(&pool, "PolicyHealthy").unwrap().2.contains("percent-buffer"));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i3_a_restart_without_the_policy_does_not_shrink_the_pool() -> Result<()> {
    let mut world = World::start_process("restart").await?;
    world.put_policy("rush-hour", &wants(6)).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    world.counts("game", 0, 6, 6).await?;
    world.status("game", "healthy", healthy).await?;

    world.operator.as_mut().unwrap().kill();
    world.put_policy("rush-hour", b"broken").await?;
    world.operator.as_mut().unwrap().restart()?;
    let pool = world.status("game", "refused", unhealthy("Refused")).await?;
    let (_, _, words) = condition(&pool, "PolicyHealthy").unwrap();
    for said in ["not a WebAssembly component", "--policy-cache", "the formula decides", "does not fall"] {
        assert!(words.contains(said), "{said}: {words}");
    }
    world.holds("game", Duration::from_secs(2), "six pods", |pods| pods.len() == 6).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_built_in_busyness_policy_takes_the_probes_word() -> Result<()> {
    let world = World::start("verdict").await?;
    world.apply_pool("game", json!({"policy": {"builtin": "probe-verdict"}})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.status("game", "healthy", healthy).await?;
    world.set_busy(&world.alive("game").await?[..1], true).await?;
    world.counts("game", 1, 2, 3).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_deleted_pool_leaves_its_policy() -> Result<()> {
    let world = World::start("forget").await?;
    for name in ["gone", "stays"] {
        world.put_policy(name, &wants(2)).await?;
        world.apply_pool(name, json!({"policy": {"configMap": {"name": name}}})).await?;
        world.counts(name, 0, 2, 2).await?;
        world.status(name, "healthy", healthy).await?;
    }
    world.pools().delete("gone", &DeleteParams::default()).await?;
    let gone = || async { world.pods().list(&Default::default()).await.map(|pods| pods.items.len() == 2) };
    for _ in 0..600 {
        if gone().await? {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(gone().await?, "pods are left\n{}", world.tell("stays").await);
    // The watch keeps the order, so that what is told of the second was known of the first.
    world.put_policy("gone", b"broken").await?;
    world.put_policy("stays", b"broken").await?;
    world.status("stays", "refused", unhealthy("Refused")).await?;
    let log = world.operator.as_ref().unwrap().log();
    assert!(!log.contains("configMap/gone/policy.wasm: "), "still read for a pool that is gone:\n{log}");
    world.finish().await
}
