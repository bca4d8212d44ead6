//! A policy's whole life: swapped, broken, deleted, repaired and restarted over, under load. A pool changes only
//! as the good versions decide.
#![allow(clippy::unwrap_used)]

mod policies;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams};
use serde_json::json;
use stoker_api::{HotStandbyDeployment, PreScaledCronJob};
use stoker_e2e::guests::{bad_policies, padded, wants, wants_slowly};
use stoker_e2e::{DEADLINE, World, condition, root};
use stoker_policy::Digest;

use crate::policies::{active, from_map, healthy, unhealthy};

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i4_a_decision_for_an_older_generation_is_dropped() -> Result<()> {
    let began = Instant::now();
    // The spec changes while a call runs, which takes about a second: on a machine that is busy it may be over before.
    while !decision_is_dropped().await? {
        ensure!(began.elapsed() < DEADLINE, "the spec never changed while the policy was asked");
    }
    Ok(())
}

/// Changes a spec while its policy is asked, and checks what follows; false = it was answered before.
async fn decision_is_dropped() -> Result<bool> {
    let world = World::start("fence").await?;
    world.put_policy("rush-hour", &wants_slowly(8, 2_000_000_000)).await?;
    let policy = json!({"configMap": {"name": "rush-hour"}, "limits": {"timeoutMilliseconds": 10_000}});
    world.apply_pool("game", json!({"policy": policy})).await?;
    let began = |o: &stoker_e2e::operator::Operator| Ok(o.log().contains("policy in use"));
    world.wait("game", "asking the policy", began).await?;
    world.patch_pool("game", json!({"maxReplicas": 4})).await?;
    world.counts("game", 0, 4, 4).await?;
    let dropped = world.operator().metric("stoker_decisions_dropped_total", "reason=\"generation\"")? >= 1.0;
    // Two by the formula while the policy was loaded, and two by the decision for the new maximum. More, if an answer came
    // before the change, and it was another question's that was dropped.
    let made = stoker_e2e::audit::pod_events(&world.namespace, "")?.len();
    world.finish().await?;
    Ok(dropped && made == 4)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_last_good_policy_is_found_again_after_a_restart() -> Result<()> {
    let folder = root().join(format!("target/e2e/policy-cache-{}", std::process::id()));
    let mut world = World::start_with("cache", &["--policy-cache", folder.to_str().unwrap()]).await?;
    let good = wants(6);
    world.put_policy("rush-hour", &good).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    world.counts("game", 0, 6, 6).await?;
    world.status("game", "healthy", healthy).await?;

    world.operator.as_mut().unwrap().kill();
    world.put_policy("rush-hour", b"broken").await?;
    world.operator.as_mut().unwrap().restart()?;
    let pool = world.status("game", "refused", unhealthy("Refused")).await?;
    assert_eq!(active(&pool), Some(Digest::of(&good).to_string()));
    let (_, _, words) = condition(&pool, "PolicyHealthy").unwrap();
    assert!(words.contains(&format!("{} goes on deciding", Digest::of(&good).short())), "{words}");
    // It decides still: the formula would want 8 for 6 busy pods, and nothing would be held at 6.
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 6, 0, 6).await?;
    assert_eq!(world.pool("game").await?.status.unwrap().desired_replicas, 6);
    std::fs::remove_dir_all(folder)?;
    world.finish().await
}

/// The one that was tried and now decides is the last good one.
#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i3_a_policy_that_was_promoted_is_found_again_after_a_restart() -> Result<()> {
    let folder = root().join(format!("target/e2e/policy-cache-promoted-{}", std::process::id()));
    let mut world = World::start_with("promoted", &["--policy-cache", folder.to_str().unwrap()]).await?;
    let (old, new) = (wants(6), wants(3));
    world.put_policy("old", &old).await?;
    world.put_policy("new", &new).await?;
    let places = |decides: &str, tried: &str| json!({"policy": {"configMap": {"name": decides}, "shadow": {"configMap": {"name": tried}}}});
    world.apply_pool("game", places("old", "new")).await?;
    world.counts("game", 0, 6, 6).await?;
    let tried = |pool: &HotStandbyDeployment| {
        let policy = pool.status.as_ref().and_then(|status| status.policy.as_ref());
        policy.and_then(|policy| policy.shadow.as_ref()).is_some_and(|shadow| shadow.compared > 0)
    };
    world.status("game", "trying the new one", tried).await?;
    world.apply_pool("game", places("new", "old")).await?;
    world.counts("game", 0, 3, 3).await?;
    world.status("game", "trying the old one", tried).await?;

    world.operator.as_mut().unwrap().kill();
    world.put_policy("new", b"broken").await?;
    world.operator.as_mut().unwrap().restart()?;
    let pool = world.status("game", "refused", unhealthy("Refused")).await?;
    assert_eq!(active(&pool), Some(Digest::of(&new).to_string()));
    world.holds("game", Duration::from_secs(1), "three pods", |pods| pods.len() == 3).await?;
    std::fs::remove_dir_all(folder)?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_was_noted_of_a_policy_goes_with_its_object() -> Result<()> {
    let folder = root().join(format!("target/e2e/policy-cache-notes-{}", std::process::id()));
    let world = World::start_with("notes", &["--policy-cache", folder.to_str().unwrap()]).await?;
    world.put_policy("rush-hour", &wants(2)).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox", "command": ["true"]}]});
    let cron_job =
        json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": pod}}}}});
    let spec = json!({"warmUp": "60s", "cronJob": cron_job, "policy": {"builtin": "fixed-lead"}});
    world.apply::<PreScaledCronJob>("nightly", spec).await?;
    let notes = || {
        let names = std::fs::read_dir(folder.join("pools"))?;
        let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        anyhow::Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect::<Vec<_>>())
    };
    world.until("game", "noted, and nightly with it", async || Ok(notes()?.len() == 2)).await?;
    world.delete_all::<PreScaledCronJob>().await?;
    world.until("nightly", "forgotten", async || Ok(notes()?.len() == 1)).await?;
    world.delete_all::<HotStandbyDeployment>().await?;
    world.until("game", "forgotten", async || Ok(notes()?.is_empty())).await?;
    std::fs::remove_dir_all(folder)?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_policy_deleted_recreated_corrupted_and_repaired_never_changes_a_pool() -> Result<()> {
    let world = World::start("repair").await?;
    let good = wants(6);
    world.put_policy("rush-hour", &good).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    world.counts("game", 0, 6, 6).await?;
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.namespace);

    // Half of a component, a component with a hole, and none at all.
    let half = good[..good.len() / 2].to_vec();
    let mut bent = good.clone();
    bent[good.len() / 4..good.len() / 2].fill(0);
    for round in 0..3 {
        // Load: some pods turn busy, others idle, all the time.
        let pods = world.alive("game").await?;
        world.set_busy(&pods[..round + 1], true).await?;
        for broken in [&half, &bent, &b"junk".to_vec()] {
            world.put_policy("rush-hour", broken).await?;
            let digest = Digest::of(broken).to_string();
            let refused = |pool: &HotStandbyDeployment| {
                let policy = pool.status.as_ref().and_then(|s| s.policy.as_ref());
                unhealthy("Refused")(pool)
                    && policy.is_some_and(|p| p.desired_digest.as_ref() == Some(&digest))
            };
            let pool = world.status("game", "refused", refused).await?;
            assert_eq!(active(&pool), Some(Digest::of(&good).to_string()));
            world.set_busy(&pods[..round + 1], false).await?;
            world.set_busy(&pods[3..], true).await?;
        }
        maps.delete("rush-hour", &DeleteParams::default()).await?;
        let pool = world.status("game", "without its ConfigMap", unhealthy("NotFound")).await?;
        assert_eq!(active(&pool), Some(Digest::of(&good).to_string()));
        world.set_busy(&pods[3..], false).await?;
        world.put_policy("rush-hour", &good).await?;
        world.status("game", "healthy again", healthy).await?;
    }
    world.counts("game", 0, 6, 6).await?;
    // Not one pod came or went in all that time.
    let events = stoker_e2e::audit::pod_events(&world.namespace, "")?;
    ensure!(events.len() == 6, "{events:?}\n{}", world.tell("game").await);
    world.put_policy("rush-hour", &wants(7)).await?;
    world.counts("game", 0, 7, 7).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn two_policies_swapped_a_thousand_times_compile_once_each_and_leave_memory_flat() -> Result<()> {
    const SWAPS: u64 = 1_000;
    let world = World::start_process("swaps").await?;
    let versions = [wants(3), wants(4)];
    world.put_policy("rush-hour", &versions[0]).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    world.counts("game", 0, 3, 3).await?;
    let mut settled = 0;
    for swap in 1..=SWAPS {
        world.put_policy("rush-hour", &versions[(swap % 2) as usize]).await?;
        // Each is read before the next comes.
        let read = |o: &stoker_e2e::operator::Operator| {
            Ok(o.metric("stoker_policy_fetch_duration_seconds_count", "ok")? as u64 > swap)
        };
        world.wait("game", "read", read).await?;
        if swap == SWAPS / 4 {
            settled = world.operator().memory()?;
        }
    }
    world.counts("game", 0, 3, 3).await?;
    let grown = world.operator().memory()?.saturating_sub(settled);
    ensure!(grown < 8 << 20, "memory grew by {} KiB in the last {} swaps", grown >> 10, SWAPS * 3 / 4);
    for version in &versions {
        let digest = Digest::of(version);
        let compiled =
            world.operator().metric("stoker_policy_compile_duration_seconds_count", digest.short())?;
        assert_eq!(compiled, 1.0, "{}", digest.short());
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i8_forty_bad_policies_leave_forty_good_pools_alone() -> Result<()> {
    const POOLS: usize = 40;
    let world = World::start_process("worst").await?;
    let pid = world.operator().pid();
    let bad = bad_policies();
    for number in 0..POOLS {
        let (kind, bytes) = &bad[number % bad.len()];
        let name = format!("bad-{number}");
        // A digest of its own each, so that each one is compiled.
        world.put_policy(&name, &padded(bytes, number as u8)).await?;
        let policy = json!({"configMap": {"name": name}, "limits": {"timeoutMilliseconds": 10_000}});
        world.apply_pool(&name, json!({"idleTarget": 1, "policy": policy})).await?;
        println!("{name}: {kind}");
    }
    world.put_policy("good", &wants(2)).await?;
    for number in 0..POOLS {
        let policy = json!({"configMap": {"name": "good"}});
        world.apply_pool(&format!("good-{number}"), json!({"policy": policy})).await?;
    }
    for number in 0..POOLS {
        let name = format!("good-{number}");
        world.counts(&name, 0, 2, 2).await?;
        world.status(&name, "healthy", healthy).await?;
    }
    for number in 0..POOLS {
        let name = format!("bad-{number}");
        // What fails does not keep the pool from its formula.
        world.counts(&name, 0, 1, 1).await?;
        let not_healthy = |p: &HotStandbyDeployment| {
            condition(p, "PolicyHealthy")
                .is_some_and(|(status, reason, _)| status == "False" && reason != "Loading")
        };
        world.status(&name, "told to be bad", not_healthy).await?;
    }
    assert_eq!(world.operator().pid(), pid);
    assert_eq!(world.operator().log().matches(" running ").count(), 1, "no restart");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_watch_tells_only_what_changed() -> Result<()> {
    let world = World::start("quiet").await?;
    world.put_policy("rush-hour", &wants(2)).await?;
    world.apply_pool("game", json!({"policy": from_map()})).await?;
    world.counts("game", 0, 2, 2).await?;
    world.status("game", "healthy", healthy).await?;
    let fetches = || world.operator().metric("stoker_policy_fetch_duration_seconds_count", "");
    let before = fetches()?;
    // Other ConfigMaps, and the same bytes again, are not worth a read.
    world.put_policy("another", &wants(5)).await?;
    world.put_policy("rush-hour", &wants(2)).await?;
    world.holds("game", Duration::from_secs(1), "two pods", |pods| pods.len() == 2).await?;
    assert_eq!(fetches()?, before);
    world.finish().await
}
