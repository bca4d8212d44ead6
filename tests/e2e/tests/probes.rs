//! Pods that are asked: by HTTP and by a command on the real node, by HTTP and by Redis for simulated pods, while
//! all goes well and while servers are dead, hang or lie.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, AttachParams, ListParams};
use serde_json::{Value, json};
use stoker_api::HotStandbyDeployment;
use stoker_e2e::audit::{PodEvent, pod_events};
use stoker_e2e::pod_server::{PodServer, Says};
use stoker_e2e::redis::{self, Redis};
use stoker_e2e::{World, condition, netns};
use tokio::io::AsyncReadExt as _;

fn http(port: u16, period: u32) -> Value {
    json!({"mode": "http", "http": {"port": port, "periodSeconds": period, "timeoutSeconds": period.min(5)}})
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(Pod::uid).collect()
}

/// UIDs of the pods that somebody asked the API server to delete.
fn deleted(world: &World) -> Result<BTreeSet<String>> {
    let events = pod_events(&world.namespace, "none")?;
    let deleted = |event| match event {
        PodEvent::Deleted { uid, .. } => Some(uid),
        PodEvent::Created { .. } => None,
    };
    Ok(events.into_iter().filter_map(deleted).collect())
}

fn unknown(count: u32) -> impl Fn(&HotStandbyDeployment) -> bool {
    move |pool| {
        pool.status.as_ref().is_some_and(|s| s.unknown_count == count)
            && condition(pool, "ProbesHealthy").is_some_and(|(status, ..)| (status == "True") == (count == 0))
    }
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn http_tells_who_is_busy_and_a_pool_at_rest_is_left_alone() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("http").await?;
    let server = PodServer::start(false)?;
    world.apply_pool("game", json!({"busyProbe": http(server.port, 1)})).await?;
    world.counts("game", 0, 2, 2).await?;
    let pods = world.alive("game").await?;
    server.set(&pods[..1], &Says::Busy);
    world.counts("game", 1, 2, 3).await?;
    let pool = world.status("game", "told to answer", unknown(0)).await?;
    assert_eq!(condition(&pool, "ProbesHealthy").unwrap().1, "Answering");

    // A whole round of answers, all as before, and nobody looks at the pool.
    let operator = world.operator();
    let answers = || operator.metric("stoker_probe_answers_total", "");
    let looks = || operator.metric("stoker_reconciles_total", "");
    let at_rest = || async {
        let (answered, looked) = (answers()?, looks()?);
        while answers()? < answered + 6.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(looks()? == looked)
    };
    world.until("game", "at rest", at_rest).await?;

    server.set(&pods[..1], &Says::Idle);
    world.counts("game", 0, 2, 2).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i3_half_the_servers_dead_changes_no_size_and_no_busy_pod_goes() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("dead").await?;
    let server = PodServer::start(false)?;
    world.apply_pool("game", json!({"idleTarget": 4, "busyProbe": http(server.port, 1)})).await?;
    world.counts("game", 0, 4, 4).await?;
    let busy = world.alive("game").await?[..3].to_vec();
    server.set(&busy, &Says::Busy);
    world.counts("game", 3, 4, 7).await?;
    let idle: Vec<Pod> = {
        let busy = uids(&busy);
        world.alive("game").await?.into_iter().filter(|p| !busy.contains(&p.uid().unwrap())).collect()
    };
    let all = uids(&world.alive("game").await?);

    // Two busy and two idle ones answer nothing any more, each in its own way.
    server.set(&busy[..1], &Says::Dead);
    server.set(&busy[1..2], &Says::Hangs);
    server.set(&idle[..1], &Says::Redirects);
    server.set(&idle[1..2], &Says::Dead);
    let pool = world.status("game", "half unknown", unknown(4)).await?;
    let (_, reason, words) = condition(&pool, "ProbesHealthy").unwrap();
    assert_eq!(reason, "NoAnswer");
    assert!(words.starts_with("4 pods give no clear answer"), "{words}");
    let status = pool.status.unwrap();
    assert_eq!((status.total_count, status.desired_replicas), (7, 7));
    let same = |pods: &[Pod]| uids(pods) == all;
    world.holds("game", Duration::from_secs(2), "no pod goes and none comes", same).await?;

    // With no standby wanted, those go that say that they are idle, and no others.
    world.patch_pool("game", json!({"idleTarget": 0})).await?;
    let stays = [uids(&busy), uids(&idle[..2])].concat_all();
    let down = || async { Ok(uids(&world.alive("game").await?) == stays) };
    world.until("game", "down to those at work or unknown", down).await?;
    let same = |pods: &[Pod]| uids(pods) == stays;
    world.holds("game", Duration::from_secs(2), "no busy or unknown pod goes", same).await?;

    server.set(&busy, &Says::Busy);
    server.set(&idle[..2], &Says::Idle);
    world.counts("game", 3, 0, 3).await?;
    assert!(deleted(&world)?.is_disjoint(&uids(&busy)), "a busy pod was deleted");
    world.finish().await
}

trait ConcatAll {
    fn concat_all(self) -> BTreeSet<String>;
}

impl<const N: usize> ConcatAll for [BTreeSet<String>; N] {
    fn concat_all(self) -> BTreeSet<String> {
        self.into_iter().flatten().collect()
    }
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i3_a_total_outage_changes_no_size_also_over_a_restart() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let mut world = World::start_inside("outage").await?;
    let server = PodServer::start(false)?;
    world.apply_pool("game", json!({"idleTarget": 3, "busyProbe": http(server.port, 1)})).await?;
    world.counts("game", 0, 3, 3).await?;
    let busy = world.alive("game").await?[..2].to_vec();
    server.set(&busy, &Says::Busy);
    world.counts("game", 2, 3, 5).await?;
    let pods = world.alive("game").await?;
    let all = uids(&pods);
    server.set(&pods, &Says::Dead);
    let pool = world.status("game", "unknown", unknown(5)).await?;
    assert_eq!(pool.status.unwrap().desired_replicas, 5);
    let same = |pods: &[Pod]| uids(pods) == all;
    world.holds("game", Duration::from_secs(2), "no pod goes and none comes", same).await?;

    // An operator that never heard an answer makes none and removes none.
    world.operator.as_mut().unwrap().restart()?;
    let running = || async { Ok(world.operator().log().matches(" running ").count() == 2) };
    world.until("game", "running again", running).await?;
    let asked = || async { Ok(world.operator().metric("stoker_probe_answers_total", "unclear")? >= 15.0) };
    world.until("game", "asked in vain", asked).await?;
    world.status("game", "unknown", unknown(5)).await?;
    world.holds("game", Duration::from_secs(1), "no pod goes and none comes", same).await?;

    // Nor does it when it has heard of the idle ones and of no others.
    let idle: Vec<Pod> = pods.iter().filter(|p| !uids(&busy).contains(&p.uid().unwrap())).cloned().collect();
    server.set(&idle, &Says::Idle);
    world.status("game", "two unknown", unknown(2)).await?;
    world.holds("game", Duration::from_secs(1), "no pod goes and none comes", same).await?;
    server.set(&busy, &Says::Busy);
    world.counts("game", 2, 3, 5).await?;
    assert_eq!(uids(&world.alive("game").await?), all);
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i1_a_pod_that_turned_busy_is_spared_by_its_last_answer() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("last").await?;
    let server = PodServer::start(false)?;
    // Asked so seldom that the operator believes all of them to be idle when they are to go.
    let spec = json!({"idleTarget": 4, "busyProbe": http(server.port, 600)});
    world.apply_pool("game", spec).await?;
    world.counts("game", 0, 4, 4).await?;
    let pods = world.alive("game").await?;
    server.set(&pods[..2], &Says::Busy);
    server.set(&pods[2..3], &Says::Hangs);
    world.patch_pool("game", json!({"idleTarget": 0, "maxReplicas": 1})).await?;
    let one_gone = || async { Ok(uids(&world.alive("game").await?) == uids(&pods[..3])) };
    world.until("game", "without the one that is idle", one_gone).await?;
    world
        .status("game", "told the truth", |p| {
            p.status.as_ref().is_some_and(|s| (s.busy_count, s.idle_count, s.unknown_count) == (2, 0, 1))
        })
        .await?;
    assert_eq!(deleted(&world)?, uids(&pods[3..]));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_policy_reads_the_body_and_has_the_last_word() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("json").await?;
    let server = PodServer::start(false)?;
    let body = |state: &str| Says::Body(json!({"game": {"state": state}}).to_string());
    server.set_others(body("lobby"));
    let config = json!({"pointer": "/game/state", "busy": ["playing"], "idle": ["lobby"]});
    let policy = json!({"builtin": "json-status", "config": config});
    // To the probe's own settings every one of these answers is HTTP 200, and so busy.
    world.apply_pool("game", json!({"policy": policy, "busyProbe": http(server.port, 1)})).await?;
    world.counts("game", 0, 2, 2).await?;
    let pods = world.alive("game").await?;
    server.set(&pods[..1], &body("playing"));
    world.counts("game", 1, 2, 3).await?;
    server.set(&pods[..1], &body("crashed"));
    world.status("game", "unknown", |p| p.status.as_ref().is_some_and(|s| s.unknown_count == 1)).await?;
    server.set(&pods[..1], &body("lobby"));
    world.counts("game", 0, 2, 2).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn who_gives_no_answer_may_count_as_busy() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("treat").await?;
    let server = PodServer::start(false)?;
    let mut probe = http(server.port, 3);
    probe["probeFailure"] = json!({"threshold": 1, "treatAs": "Busy"});
    world.apply_pool("game", json!({"busyProbe": probe})).await?;
    world.counts("game", 0, 2, 2).await?;
    server.set(&world.alive("game").await?[..1], &Says::Dead);
    world.counts("game", 1, 2, 3).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i3_a_redis_that_is_killed_or_flushed_changes_no_size() -> Result<()> {
    if !redis::is_installed() {
        return Ok(());
    }
    let world = World::start_process("redis").await?;
    let mut redis = Redis::start(&[], &[], &[]);
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let probe = json!({"mode": "redis", "redis": {"url": url, "key": "games", "periodSeconds": 1}});
    world.apply_pool("game", json!({"busyProbe": probe})).await?;
    let say = |redis: &Redis, pods: &[Pod], word: &str| {
        let value = json!({"status": word, "updated_at": jiff::Timestamp::now().as_second()}).to_string();
        for pod in pods {
            redis.tell(&["HSET", "games", &pod.name_any(), &value]);
        }
    };
    // Who never said anything is not taken for idle.
    world.status("game", "unknown", unknown(2)).await?;
    let first = world.alive("game").await?;
    say(&redis, &first, "idle");
    world.counts("game", 0, 2, 2).await?;
    say(&redis, &first[..1], "busy");
    let three = || async { Ok(world.alive("game").await?.len() == 3) };
    world.until("game", "three", three).await?;
    let pods = world.alive("game").await?;
    let more: Vec<Pod> = pods.iter().filter(|p| !uids(&first).contains(&p.uid().unwrap())).cloned().collect();
    say(&redis, &more, "idle");
    world.counts("game", 1, 2, 3).await?;

    let all = uids(&pods);
    let same = |pods: &[Pod]| uids(pods) == all;
    redis.kill();
    let pool = world.status("game", "unknown", unknown(3)).await?;
    assert_eq!(pool.status.unwrap().desired_replicas, 3);
    world.holds("game", Duration::from_secs(2), "no pod goes and none comes", same).await?;

    // It comes again and knows nothing: that is no pool of fresh pods.
    assert!(redis.run(), "it does not start again on its port");
    let nothing = |p: &HotStandbyDeployment| {
        condition(p, "ProbesHealthy").is_some_and(|(_, _, words)| words.contains("Redis has no value for it"))
    };
    world.status("game", "told that nothing is there", nothing).await?;
    world.holds("game", Duration::from_secs(1), "no pod goes and none comes", same).await?;
    // The busy one first: an operator that has heard of the others alone must not think that it is idle, too.
    let rest: Vec<Pod> = pods.iter().filter(|p| p.uid() != first[0].uid()).cloned().collect();
    let say_all = |redis: &Redis| {
        say(redis, &first[..1], "busy");
        say(redis, &rest, "idle");
    };
    say_all(&redis);
    world.counts("game", 1, 2, 3).await?;
    redis.tell(&["FLUSHALL"]);
    world.status("game", "unknown", unknown(3)).await?;
    world.holds("game", Duration::from_secs(1), "no pod goes and none comes", same).await?;
    say_all(&redis);
    world.counts("game", 1, 2, 3).await?;
    assert_eq!(deleted(&world)?, BTreeSet::new());
    world.finish().await
}

/// False on clusters that came up without a real node; they say why when they start.
async fn has_real_node(world: &World) -> Result<bool> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let found = nodes.list(&ListParams::default().labels("stoker.dev/node=real")).await?;
    if found.items.is_empty() {
        println!("skipped: this cluster has no real node");
    }
    Ok(!found.items.is_empty())
}

fn on_real_node(container: Value) -> Value {
    json!({"spec": {
        "nodeSelector": {"stoker.dev/node": "real"},
        "tolerations": [{"key": "stoker.dev/node", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }})
}

/// Runs a command in a pod.
async fn run(world: &World, pod: &Pod, command: &[&str]) -> Result<String> {
    let params = AttachParams::default().stderr(false);
    let mut process = world.pods().exec(&pod.name_any(), command.to_vec(), &params).await?;
    let mut text = String::new();
    process.stdout().unwrap().read_to_string(&mut text).await?;
    process.join().await?;
    Ok(text)
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn real_pods_are_asked_by_http_at_a_named_port() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let world = World::start_inside("real-http").await?;
    if !has_real_node(&world).await? {
        return world.finish().await;
    }
    // It is busy for good a few seconds after its start.
    let template = on_real_node(json!({
        "name": "app",
        "image": "docker.io/local/busy-server:1",
        "command": null,
        "env": [{"name": "FLIP_AFTER", "value": "3s"}],
        "ports": [{"name": "state", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
    }));
    let probe = json!({"mode": "http", "http": {"port": "state", "periodSeconds": 1}});
    let spec = json!({"idleTarget": 1, "maxReplicas": 2, "busyProbe": probe, "podTemplate": template});
    world.apply_pool("game", spec).await?;
    world.counts("game", 2, 0, 2).await?;
    world.status("game", "told to answer", unknown(0)).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn real_pods_are_asked_by_a_command() -> Result<()> {
    let world = World::start("real-exec").await?;
    if !has_real_node(&world).await? {
        return world.finish().await;
    }
    let probe = json!({"mode": "exec", "exec": {
        "command": ["test", "-e", "/tmp/busy"], "periodSeconds": 5, "timeoutSeconds": 5,
    }});
    let template = on_real_node(json!({
        "name": "app",
        "image": "docker.io/local/busybox:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
    }));
    let spec = json!({"idleTarget": 1, "maxReplicas": 3, "busyProbe": probe, "podTemplate": template});
    world.apply_pool("game", spec).await?;
    world.counts("game", 0, 1, 1).await?;
    let pod = world.alive("game").await?.remove(0);
    run(&world, &pod, &["touch", "/tmp/busy"]).await?;
    world.counts("game", 1, 1, 2).await?;
    run(&world, &pod, &["rm", "/tmp/busy"]).await?;
    world.counts("game", 0, 1, 1).await?;

    let probe = json!({"mode": "exec", "exec": {
        "command": ["no-such-program"], "periodSeconds": 5, "timeoutSeconds": 5,
    }});
    world.patch_pool("game", json!({"busyProbe": probe})).await?;
    let pool = world.status("game", "unknown", unknown(1)).await?;
    let (_, _, words) = condition(&pool, "ProbesHealthy").unwrap();
    assert!(words.contains("no-such-program"), "{words}");
    world.finish().await
}
