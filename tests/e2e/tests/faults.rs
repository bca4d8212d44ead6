//! Between the operator and the API server things go wrong in every way that a network and a server know, and
//! the pool stays right: no pod is taken from its work, none is made twice, and it finds back to its size.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::Result;
use stoker_api::keys;
use stoker_e2e::World;
use stoker_e2e::audit::{PodEvent, PodWatch, peak, pod_events};
use stoker_e2e::load::{Load, Members};
use stoker_e2e::operator::Operator;
use stoker_e2e::proxy::{Fault, Proxy};
use stoker_e2e::random::Random;

const IDLE: u32 = 4;
const MAXIMUM: u32 = 12;

/// A phase lasts until so many requests and watches went wrong. An operator at work asks something every second.
const ENOUGH: usize = 20;
const PHASE: Duration = Duration::from_secs(300);

/// Load under each set of faults in turn; after each the pool must find back to its size.
async fn ordeal(name: &str, members: Members, phases: &[&[Fault]]) -> Result<()> {
    let mut random = Random::from_environment(11);
    let mut world = World::without_operator(name).await?;
    let proxy = Proxy::start(&world.namespace, Random::new(random.below(u64::MAX))).await?;
    world.operator = Some(Operator::start_through(&world.namespace, proxy.kubeconfig(), &[]).await?);
    let watch = PodWatch::start(world.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;
    let mut load = Load::start(&world, members, IDLE, MAXIMUM, random).await?;

    for faults in phases {
        let before: usize = proxy.done().values().sum();
        proxy.spoil(faults);
        let began = Instant::now();
        while proxy.done().values().sum::<usize>() < before + ENOUGH {
            load.shift(&world).await?;
            if began.elapsed() > PHASE {
                let told = world.tell("game").await;
                anyhow::bail!(
                    "the operator asks nothing any more under {faults:?}: {:?}\n{told}",
                    proxy.done()
                );
            }
            // Load comes in steps, as work does.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        load.shift(&world).await?;
        proxy.spoil(&[]);
        let healed = Instant::now();
        load.settled(&world).await?;
        println!("{name}: settled {:.1?} after {faults:?}", healed.elapsed());
    }
    println!("{name}: {:?}", proxy.done());
    load.rest(&world).await?;

    let events = watch.events();
    for events in [&events, &pod_events(&world.namespace, keys::DEFAULT_BUSY_ANNOTATION)?] {
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
async fn i1_i2_hold_when_requests_are_refused_for_no_reason() -> Result<()> {
    ordeal("refused", Members::Pods, &[&[Fault::Conflict], &[Fault::TooMany], &[Fault::Broken]]).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_when_nobody_learns_that_a_request_was_carried_out() -> Result<()> {
    ordeal("unheard", Members::Pods, &[&[Fault::CutAfter], &[Fault::BrokenAfter], &[Fault::Timeout]]).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_when_answers_are_slow_and_connections_cut() -> Result<()> {
    ordeal(
        "network",
        Members::Pods,
        &[&[Fault::Slow], &[Fault::CutBefore], &[Fault::Slow, Fault::CutBefore, Fault::CutAfter]],
    )
    .await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_when_watches_are_cut_expired_and_late() -> Result<()> {
    ordeal("watches", Members::Pods, &[&[Fault::WatchCut], &[Fault::Gone], &[Fault::Late]]).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_when_everything_goes_wrong_at_once() -> Result<()> {
    ordeal("all", Members::Pods, &[&Fault::ALL, &Fault::ALL]).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_for_jobs_when_nobody_learns_that_a_request_was_carried_out() -> Result<()> {
    ordeal("jobs-unheard", Members::Jobs, &[&[Fault::CutAfter], &[Fault::BrokenAfter], &[Fault::Timeout]])
        .await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i2_hold_for_jobs_when_everything_goes_wrong_at_once() -> Result<()> {
    ordeal("jobs-all", Members::Jobs, &[&Fault::ALL, &Fault::ALL]).await
}
