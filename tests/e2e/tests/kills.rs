//! The operator dies at any moment, and nothing is made twice or taken from its work.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use stoker_api::keys;
use stoker_e2e::World;
use stoker_e2e::audit::{PodEvent, PodWatch, peak, pod_events};
use stoker_e2e::operator::Operator;
use stoker_e2e::random::Random;

const KILLS: u64 = 50;
const MAXIMUM: u32 = 12;

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_when_the_operator_is_killed_at_random_moments() -> Result<()> {
    let mut random = Random::from_environment(7);
    let mut world = World::start_process("kills").await?;
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;
    world.apply_pool("game", json!({"idleTarget": 4, "maxReplicas": MAXIMUM})).await?;
    world.counts("game", 0, 4, 4).await?;

    for kill in 0..KILLS {
        // Up and down by turns, so that kills fall into both.
        let busy = kill % 2 == 0;
        world.set_busy(&world.alive("game").await?, busy).await?;
        // The kill comes while the operator is at it: that is what a random moment means here.
        tokio::time::sleep(Duration::from_millis(random.below(120))).await;
        world.operator.as_mut().unwrap().restart()?;
        if busy {
            world.counts("game", 4, 4, 8).await?;
        } else {
            world.counts("game", 0, 4, 4).await?;
        }
    }

    // The store's own order, and the API server's log of requests: one knows what a killed client's last request
    // did, the other who asked.
    let events = watch.events();
    let created = events.iter().filter(|e| matches!(e, PodEvent::Created { .. })).count();
    assert_eq!(created, 4 + 4 * KILLS as usize / 2, "each scale-up made what was missing and no more");
    let logged = pod_events(&world.namespace, keys::DEFAULT_BUSY_ANNOTATION)?;
    for events in [&events, &logged] {
        let at_work: Vec<_> =
            events.iter().filter(|e| matches!(e, PodEvent::Deleted { busy: true, .. })).collect();
        assert!(at_work.is_empty(), "I1: {at_work:?}");
    }
    let (most, twice) = peak(&events);
    assert!(most <= MAXIMUM as usize, "I2: {most} pods at a time, at most {MAXIMUM} are allowed");
    assert!(twice.is_empty(), "I2: made twice: {twice:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_with_two_operators_at_once() -> Result<()> {
    let world = World::start_process("two").await?;
    // No election: both act on every change, on views of their own.
    let _other = Operator::start(&world.namespace, &[]).await?;
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;
    world.apply_pool("game", json!({"idleTarget": 4, "maxReplicas": MAXIMUM})).await?;
    world.counts("game", 0, 4, 4).await?;
    for round in 0..10 {
        let busy = round % 2 == 0;
        world.set_busy(&world.alive("game").await?, busy).await?;
        if busy {
            world.counts("game", 4, 4, 8).await?;
        } else {
            world.counts("game", 0, 4, 4).await?;
        }
    }
    let events = watch.events();
    let at_work = events.iter().find(|e| matches!(e, PodEvent::Deleted { busy: true, .. }));
    assert!(at_work.is_none(), "I1: {at_work:?}");
    let (most, twice) = peak(&events);
    assert!(most <= MAXIMUM as usize, "I2: {most} pods at a time, at most {MAXIMUM} are allowed");
    assert!(twice.is_empty(), "I2: made twice: {twice:?}");
    world.finish().await
}
