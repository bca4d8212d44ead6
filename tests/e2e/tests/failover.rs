//! Two replicas, of which one leads: it is stopped, killed and cut off from the API server, under load, and the other goes on.
//! Nothing is made twice, and no busy pod goes.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use stoker_api::keys;
use stoker_e2e::account::{self, OPERATOR};
use stoker_e2e::audit::{PodEvent, PodWatch, peak};
use stoker_e2e::operator::{LEASE, Operator, replica_flags};
use stoker_e2e::proxy::Proxy;
use stoker_e2e::random::Random;
use stoker_e2e::{DEADLINE, World};

/// Starts a replica of a name.
async fn replica(world: &World, name: &str, kubeconfig: std::path::PathBuf) -> Result<Operator> {
    let namespace = &world.namespace;
    Operator::start_through(namespace, kubeconfig, &replica_flags(namespace, name)).await
}

/// The way to the API server without a proxy.
fn direct(world: &World) -> std::path::PathBuf {
    account::kubeconfig(&world.namespace, OPERATOR)
}

/// Waits until a replica of a name leads. All write the same log.
async fn leads(operator: &Operator, name: &str) -> Result<()> {
    let began = Instant::now();
    let line = format!("leading lease=\"stoker\" identity=\"{name}\"");
    while !operator.log().contains(&line) {
        if began.elapsed() > DEADLINE {
            bail!("{name} does not lead:\n{}", operator.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A pool under two replicas, of which `a` leads, is looked after by `b` after `ends` has ended `a`. How long one pod that turns busy
/// just then waits for its replacement.
async fn fails_over(name: &str, ends: impl AsyncFn(&mut Operator, &Proxy) -> Result<()>) -> Result<Duration> {
    let world = World::without_operator(name).await?;
    let proxy = Proxy::start(&world.namespace, Random::new(1)).await?;
    let mut a = replica(&world, "a", proxy.kubeconfig()).await?;
    leads(&a, "a").await?;
    let b = replica(&world, "b", direct(&world)).await?;
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;
    world.apply_pool("game", json!({"idleTarget": 3, "maxReplicas": 12})).await?;
    world.counts("game", 0, 3, 3).await?;
    // Load: some turn busy, some idle again, all the time until the leader ends.
    for round in 0..6 {
        let pods = world.alive("game").await?;
        world.set_busy(&pods[..2], round % 2 == 0).await?;
        world
            .counts("game", if round % 2 == 0 { 2 } else { 0 }, 3, if round % 2 == 0 { 5 } else { 3 })
            .await?;
    }
    ends(&mut a, &proxy).await?;
    let began = Instant::now();
    world.set_busy(&world.alive("game").await?[..1], true).await?;
    let more = || async { Ok(world.alive("game").await?.len() == 4) };
    world.until("game", "replaced by the other replica", more).await?;
    let took = began.elapsed();
    leads(&b, "b").await?;
    world.counts("game", 1, 3, 4).await?;

    let events = watch.events();
    let at_work = events.iter().find(|e| matches!(e, PodEvent::Deleted { busy: true, .. }));
    ensure!(at_work.is_none(), "I1: {at_work:?}");
    let (most, twice) = peak(&events);
    ensure!(most <= 12 && twice.is_empty(), "I2: {most} pods at a time, made twice: {twice:?}");
    println!(
        "{name}: {:.2} s from the leader's end to the replacement of a pod, lease {} s",
        took.as_secs_f64(),
        LEASE.as_secs()
    );
    world.finish().await?;
    Ok(took)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_leader_that_is_stopped_gives_the_lease_back() -> Result<()> {
    let took = fails_over("fail-stop", async |a, _| {
        a.terminate();
        ensure!(a.ended().await?, "it does not end well:\n{}", a.log_tail());
        ensure!(a.log().contains("the lease is given back"), "{}", a.log_tail());
        Ok(())
    })
    .await?;
    // Nobody waited for the lease to run out.
    ensure!(took < LEASE, "{took:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_leader_that_is_killed_is_followed_when_its_lease_runs_out() -> Result<()> {
    fails_over("fail-kill", async |a, _| {
        a.kill();
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_leader_that_is_cut_off_ends_before_another_leads() -> Result<()> {
    let world = World::without_operator("fail-cut").await?;
    let proxy = Proxy::start(&world.namespace, Random::new(1)).await?;
    let mut a = replica(&world, "a", proxy.kubeconfig()).await?;
    leads(&a, "a").await?;
    let b = replica(&world, "b", direct(&world)).await?;
    world.apply_pool("game", json!({"idleTarget": 2})).await?;
    world.counts("game", 0, 2, 2).await?;
    proxy.cut_off();
    let began = Instant::now();
    ensure!(!a.ended().await?, "losing the lease is no good end");
    let ended = began.elapsed();
    leads(&b, "b").await?;
    println!(
        "fail-cut: ended after {:.2} s, the other leads after {:.2} s, lease {} s",
        ended.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        LEASE.as_secs()
    );
    let log = b.log();
    let lost = log.find("the lease was lost: it could not be renewed for");
    let next = log.find("leading lease=\"stoker\" identity=\"b\"");
    ensure!(lost.is_some() && lost < next, "{log}");
    world.set_busy(&world.alive("game").await?, true).await?;
    world.counts("game", 2, 2, 4).await?;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), &world.namespace);
    let spec = leases.get("stoker").await?.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(2)));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_replica_that_stands_by_does_nothing_and_says_so() -> Result<()> {
    let world = World::without_operator("standby").await?;
    let a = replica(&world, "a", direct(&world)).await?;
    leads(&a, "a").await?;
    let b = replica(&world, "b", direct(&world)).await?;
    world.apply_pool("game", json!({"idleTarget": 2, "policy": {"builtin": "buffer"}})).await?;
    world.counts("game", 0, 2, 2).await?;
    // Both serve where the same log tells; the last address is the second one's.
    assert_eq!(b.metric("stoker_leader", "")?, 0.0);
    assert_eq!(b.metric("stoker_pod_creations_total", "")?, 0.0);
    let compiled = || async { Ok(b.metric("stoker_policy_compile_duration_seconds_count", "")? >= 1.0) };
    world.until("game", "compiled by the one that stands by, too", compiled).await?;
    drop(a);
    leads(&b, "b").await?;
    let led = || async { Ok(b.metric("stoker_leader", "")? == 1.0) };
    world.until("game", "led by the other", led).await?;
    world.finish().await
}
