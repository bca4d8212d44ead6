//! The API server and its store die under load, and the pool is right when they are back. The one test of this
//! file kills what all others use, so that it has the cluster for itself.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use stoker_api::keys;
use stoker_e2e::account::OPERATOR;
use stoker_e2e::audit::{PodEvent, pod_events};
use stoker_e2e::load::{Load, Members};
use stoker_e2e::random::Random;
use stoker_e2e::{World, cluster};

const MAXIMUM: u32 = 12;

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_when_the_api_server_and_etcd_die_under_load() -> Result<()> {
    let mut world = World::start_process("outage").await?;
    let mut load = Load::start(&world, Members::Pods, 4, MAXIMUM, Random::from_environment(5)).await?;
    for part in ["kube-apiserver", "etcd", "kube-apiserver", "etcd"] {
        for _ in 0..5 {
            load.shift(&world).await?;
        }
        // The operator is at it; work goes on meanwhile as far as it can.
        let killed = tokio::task::spawn_blocking(move || cluster::kill(part));
        while !killed.is_finished() {
            load.shift(&world).await?;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        killed.await??;
        cluster::ready().await?;
        // The simulator of nodes loses pods when its watches break; it begins anew, as a kubelet would.
        tokio::task::spawn_blocking(|| cluster::kill("kwok")).await??;
        load.shift(&world).await?;
        load.settled(&world).await?;
    }
    load.rest(&world).await?;

    // The log holds what was answered; of numbers the load's own looks and the names of the slots tell.
    let events = pod_events(&world.namespace, keys::DEFAULT_BUSY_ANNOTATION)?;
    let at_work: Vec<_> =
        events.iter().filter(|e| matches!(e, PodEvent::Deleted { busy: true, .. })).collect();
    assert!(at_work.is_empty(), "I1: {at_work:?}");
    world.forgive_refusals_of_what_is_granted(OPERATOR)?;
    world.finish().await
}
