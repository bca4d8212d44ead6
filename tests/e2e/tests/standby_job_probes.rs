//! HotStandbyJobs whose pods are asked, by HTTP and by Redis, on simulated nodes: while all goes well, and while nobody
//! answers, lies or knows anything.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use stoker_api::HotStandbyJob;
use stoker_e2e::jobs::{JobPool, condition};
use stoker_e2e::pod_server::{PodServer, Says};
use stoker_e2e::redis::{self, Redis};
use stoker_e2e::{World, netns};

fn pool<'a>(world: &'a World) -> JobPool<'a> {
    JobPool { world, name: "work" }
}

fn http(port: u16, period: u32, timeout: u32) -> Value {
    json!({"mode": "http", "http": {"port": port, "periodSeconds": period, "timeoutSeconds": timeout}})
}

/// UIDs of the Jobs that pods are of.
fn jobs_of(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(|p| p.owner_references()[0].uid.clone()).collect()
}

fn without(pods: &[Pod], others: &[Pod]) -> Vec<Pod> {
    pods.iter().filter(|p| others.iter().all(|o| o.uid() != p.uid())).cloned().collect()
}

fn unknown(count: u32) -> impl Fn(&HotStandbyJob) -> bool {
    move |pool| {
        pool.status.as_ref().is_some_and(|s| s.unknown_count == count)
            && condition(pool, "ProbesHealthy").is_some_and(|(status, ..)| (status == "True") == (count == 0))
    }
}

/// Checks over and over for a while that these Jobs stay, each with its pod, and that no other comes.
async fn stay(work: &JobPool<'_>, pods: &[Pod]) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let there = work.pods().await?;
        ensure!(
            jobs_of(&there) == jobs_of(pods) && without(pods, &there).is_empty(),
            "a Job goes or comes\n{}",
            work.world.tell(work.name).await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_i3_jobs_that_are_asked_by_http_stay_while_they_are_busy_or_do_not_answer() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("jobs-http").await?;
    let work = pool(&world);
    let server = PodServer::start(false)?;
    work.apply(json!({"idleTarget": 4, "busyProbe": http(server.port, 1, 1)})).await?;
    work.counts(0, 4, 4).await?;
    let busy = work.pods().await?[..2].to_vec();
    server.set(&busy, &Says::Busy);
    work.counts(2, 4, 6).await?;
    let all = work.pods().await?;
    let idle = without(&all, &busy);

    // A busy one and two idle ones no longer answer, each in its own way.
    server.set(&busy[..1], &Says::Dead);
    server.set(&idle[..1], &Says::Hangs);
    server.set(&idle[1..2], &Says::Redirects);
    let told = work.status("half unknown", unknown(3)).await?.status.unwrap();
    assert_eq!((told.desired_active, told.active_jobs), (6, 6));
    stay(&work, &all).await?;
    // With none wanted those go that say that they are idle, and no others.
    work.patch(json!({"idleTarget": 0, "maxReplicas": 1})).await?;
    let left = without(&all, &idle[2..]);
    let down = || async { Ok(jobs_of(&work.pods().await?) == jobs_of(&left)) };
    world.until("work", "down to those at work or unknown", down).await?;
    stay(&work, &left).await?;

    // Nobody answers at all, whatever is wanted.
    server.set(&left, &Says::Dead);
    work.status("all unknown", unknown(4)).await?;
    stay(&work, &left).await?;
    server.set(&busy, &Says::Busy);
    server.set(&idle[..2], &Says::Idle);
    work.counts(2, 0, 2).await?;
    assert_eq!(jobs_of(&work.pods().await?), jobs_of(&busy));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_a_job_whose_pod_turned_busy_is_spared_by_its_last_answer() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("jobs-last").await?;
    let work = pool(&world);
    let server = PodServer::start(false)?;
    // Asked so seldom that the operator believes all of them to be idle when they are to go.
    work.apply(json!({"idleTarget": 4, "busyProbe": http(server.port, 600, 5)})).await?;
    work.counts(0, 4, 4).await?;
    let pods = work.pods().await?;
    server.set(&pods[..2], &Says::Busy);
    server.set(&pods[2..3], &Says::Hangs);
    work.patch(json!({"idleTarget": 0})).await?;
    let one_gone = || async { Ok(jobs_of(&work.pods().await?) == jobs_of(&pods[..3])) };
    world.until("work", "without the one that is idle", one_gone).await?;
    work.status("told the truth", |p| {
        p.status.as_ref().is_some_and(|s| (s.busy_count, s.idle_count, s.unknown_count) == (2, 0, 1))
    })
    .await?;
    stay(&work, &pods[..3]).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_are_pods_asked_one_after_the_other_or_out_of_their_period() -> Result<()> {
    const PODS: usize = 6;
    const PERIOD: u32 = 2;
    const QUESTIONS: usize = 7;
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("jobs-asked").await?;
    let work = pool(&world);
    let server = PodServer::start(true)?;
    let moments = || server.moments.as_ref().unwrap().lock().unwrap().clone();
    // None ever answers, and each may take a minute for it: one after the other, the last is asked after five.
    server.set_others(Says::Hangs);
    work.apply(json!({"idleTarget": PODS, "busyProbe": http(server.port, 60, 60)})).await?;
    let all_asked = || async { Ok(moments().len() == PODS) };
    world.until("work", "all asked while none has answered", all_asked).await?;

    // Another question is asked at once, and then once in each period, whatever happens to the pool.
    server.set_others(Says::Idle);
    server.moments.as_ref().unwrap().lock().unwrap().clear();
    work.patch(json!({"busyProbe": http(server.port, PERIOD, 1)})).await?;
    let asked_often = || async {
        // Somebody writes to the pool's pods all the time, as clients do.
        world
            .annotate(&work.pods().await?, "example.org/now", Some(&format!("{:?}", Instant::now())))
            .await?;
        let moments = moments();
        Ok(moments.len() == PODS && moments.values().all(|times| times.len() >= QUESTIONS))
    };
    world.until("work", "asked often", asked_often).await?;
    for times in moments().values() {
        // The first is out of turn, and one may have been late.
        let span = *times.last().unwrap() - times[1];
        let periods = u32::try_from(times.len() - 3).unwrap();
        assert!(span >= Duration::from_secs(u64::from(periods * PERIOD)), "too often: {times:?}");
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn never_does_a_redis_outage_mean_that_nobody_is_busy() -> Result<()> {
    if !redis::is_installed() {
        return Ok(());
    }
    let world = World::start_process("jobs-redis").await?;
    let work = pool(&world);
    let mut redis = Redis::start(&[], &[], &[]);
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let probe = json!({"mode": "redis", "redis": {"url": url, "periodSeconds": 1}});
    work.apply(json!({"busyProbe": probe})).await?;
    let say = |redis: &Redis, pods: &[Pod], word: &str| {
        let value = json!({"status": word, "updated_at": jiff::Timestamp::now().as_second()}).to_string();
        for pod in pods {
            redis.tell(&["HSET", "mlgame-daemon-pod", &pod.name_any(), &value]);
        }
    };
    // Who never said anything is not taken for idle.
    work.status("unknown", unknown(2)).await?;
    let first = work.pods().await?;
    say(&redis, &first, "idle");
    work.counts(0, 2, 2).await?;
    say(&redis, &first[..1], "busy");
    work.until_jobs("three", |jobs| jobs.len() == 3).await?;
    let three = || async { Ok(work.pods().await?.len() == 3) };
    world.until("work", "three pods", three).await?;
    let pods = work.pods().await?;
    say(&redis, &without(&pods, &first), "idle");
    work.counts(1, 2, 3).await?;

    redis.kill();
    let told = work.status("unknown", unknown(3)).await?.status.unwrap();
    assert_eq!((told.desired_active, told.active_jobs), (3, 3));
    stay(&work, &pods).await?;
    // It comes again and knows nothing.
    assert!(redis.run(), "it does not start again on its port");
    let nothing = |p: &HotStandbyJob| {
        condition(p, "ProbesHealthy").is_some_and(|(_, _, words)| words.contains("Redis has no value for it"))
    };
    work.status("told that nothing is there", nothing).await?;
    stay(&work, &pods).await?;
    // Nor does any go when none is wanted.
    work.patch(json!({"idleTarget": 0, "maxReplicas": 1})).await?;
    let seen = |p: &HotStandbyJob| p.status.as_ref().unwrap().observed_generation == p.metadata.generation;
    work.status("told of the smaller size", seen).await?;
    stay(&work, &pods).await?;

    say(&redis, &first[..1], "busy");
    say(&redis, &without(&pods, &first[..1]), "idle");
    work.counts(1, 0, 1).await?;
    assert_eq!(jobs_of(&work.pods().await?), jobs_of(&first[..1]));
    world.finish().await
}
