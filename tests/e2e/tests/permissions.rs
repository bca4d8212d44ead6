//! What the chart grants is what is used: with each feature on, work that needs it is done under an account that may do what
//! the chart grants and nothing else. Nothing is refused, and no permission lies idle, save those that are named here with
//! the reason.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use stoker_api::{
    DaemonJob, ExecutionState, HotStandbyDeployment, HotStandbyJob, JobFlow, JobTemplate, NodeBatchJob,
    PreScaledCronJob, StandbyClaim,
};
use stoker_e2e::account::{Deed, Features, OPERATOR, REPORTS};
use stoker_e2e::claims::{CLAIMS, account};
use stoker_e2e::crons::{Cron, FLAGS, later};
use stoker_e2e::guests::wants;
use stoker_e2e::jobs::JobPool;
use stoker_e2e::node_batches::{NodeBatch, ready_nodes, spec};
use stoker_e2e::operator::{Operator, replica_flags};
use stoker_e2e::redis::{self, Redis};
use stoker_e2e::{World, condition, netns};

/// Permissions that no request of the log shows, and why they are granted all the same.
type Idle<'a> = &'a [(&'a str, &'a str)];

const FINALIZERS: &str = "asked for by an admission plug-in only, in the place of a request";

/// What every installation has and this cluster never asks for.
const ALWAYS_IDLE: Idle = &[
    ("update hotstandbydeployments.stoker.dev/finalizers", FINALIZERS),
    ("update hotstandbyjobs.stoker.dev/finalizers", FINALIZERS),
    ("update prescaledcronjobs.stoker.dev/finalizers", FINALIZERS),
    ("update jobflows.stoker.dev/finalizers", FINALIZERS),
    ("update daemonjobs.stoker.dev/finalizers", FINALIZERS),
    ("update nodebatchjobs.stoker.dev/finalizers", FINALIZERS),
];

/// What an account is granted beyond what it would be with other features.
fn beyond(world: &World, account: &str, without: &Features) -> Result<BTreeSet<Deed>> {
    let less = without.granted(&world.namespace, &world.namespace)?.deeds(account);
    Ok(&world.accounts.granted.deeds(account) - &less)
}

/// Checks that all of this was used but for what is idle, and that what is said to be idle is.
fn all_used(world: &World, account: &str, granted: &BTreeSet<Deed>, idle: Idle) -> Result<()> {
    ensure!(!granted.is_empty(), "nothing is granted to {account}");
    let asked = world.asked(account)?.allowed;
    let used = |deed: &&Deed| asked.iter().any(|asked| deed.allows(asked));
    let reasons: BTreeMap<&str, &str> = idle.iter().copied().collect();
    let mut wrong = Vec::new();
    for deed in granted {
        match reasons.get(deed.what.as_str()) {
            None if !used(&deed) => wrong.push(format!("`{deed}` is granted and never used")),
            Some(reason) if used(&deed) => {
                wrong.push(format!("`{deed}` was used, and is said not to be: {reason}"))
            }
            _ => {}
        }
    }
    for (what, _) in idle {
        if !granted.iter().any(|deed| deed.what == *what) {
            wrong.push(format!("`{what}` is said to be granted without being used, and is not granted"));
        }
    }
    let asked: Vec<String> = asked.iter().map(Deed::to_string).collect();
    ensure!(wrong.is_empty(), "{account}: {}\nIt asked for:\n{}", wrong.join("\n"), asked.join("\n"));
    Ok(())
}

/// Whether an account has used a permission.
fn has_used(world: &World, account: &str, what: &str) -> Result<bool> {
    Ok(world.asked(account)?.allowed.iter().any(|deed| deed.what == what))
}

/// Has something done until the operator has used a permission, of which it is in need now and then only.
async fn until_used<F: Future<Output = Result<()>>>(
    world: &World,
    account: &str,
    what: &str,
    does: impl Fn() -> F,
) -> Result<()> {
    let done = || async {
        does().await?;
        has_used(world, account, what)
    };
    world.until("game", &format!("in need of `{what}`"), done).await
}

/// A JobSpec whose simulated pod ends a second after its start.
fn short() -> Value {
    json!({"template": {
        "metadata": {"annotations": {"sim.stoker.dev/complete-after": "1s"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"key": "e2e", "operator": "Exists"}],
            "containers": [{"name": "work", "image": "docker.io/local/busybox:1", "command": ["sleep", "infinity"]}],
        },
    }})
}

/// A pool of Jobs whose first name a stranger's Job has taken. The operator must not run yet.
async fn taken_name(world: &World) -> Result<()> {
    let object = JobPool { world, name: "taken" }.apply(json!({"idleTarget": 1})).await?;
    let name = stoker_core::names::pool_job("taken", &object.uid().unwrap(), 0, None);
    let job = json!({"metadata": {"name": name}, "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "a", "image": "docker.io/local/busybox:1", "command": ["sleep", "9"]},
        ]}},
    }});
    let stranger: Job = serde_json::from_value(job)?;
    world.api::<Job>().create(&PostParams::default(), &stranger).await?;
    Ok(())
}

/// Pools of pods and of Jobs that grow, shrink, hand out a pod and are drained.
async fn pools(world: &World) -> Result<()> {
    world.put_policy("wants-three", &wants(3)).await?;
    let policy = json!({"configMap": {"name": "wants-three", "key": "policy.wasm"}});
    world.apply_pool("game", json!({"policy": policy, "deletionPolicy": "Drain"})).await?;
    world.counts("game", 0, 3, 3).await?;
    world.apply::<StandbyClaim>("mine", json!({"poolRef": {"name": "game"}})).await?;
    world.claimed("game", 1, 0, 2).await?;
    world.delete::<StandbyClaim>("mine").await?;
    world.claimed("game", 0, 0, 3).await?;
    world.put_policy("wants-three", &wants(2)).await?;
    world.counts("game", 0, 2, 2).await?;
    // What is told a second time is no other Event.
    for _ in 0..2 {
        for (bytes, healthy) in [(b"no policy".to_vec(), "False"), (wants(2), "True")] {
            world.put_policy("wants-three", &bytes).await?;
            let told = |pool: &HotStandbyDeployment| {
                condition(pool, "PolicyHealthy").is_some_and(|(is, why, _)| is == healthy && why != "Loading")
            };
            world.status("game", &format!("told of the policy: {healthy}"), told).await?;
        }
    }
    until_used(world, OPERATOR, "patch events.events.k8s.io", async || Ok(())).await?;
    world.delete::<HotStandbyDeployment>("game").await?;

    let work = JobPool { world, name: "work" };
    work.apply(json!({"deletionPolicy": "Drain"})).await?;
    work.counts(0, 2, 2).await?;
    work.patch(json!({"idleTarget": 1})).await?;
    work.counts(0, 1, 1).await?;
    world.delete::<HotStandbyJob>("work").await
}

/// Work on every node, and what flows and cron jobs do.
async fn jobs(world: &mut World) -> Result<()> {
    flows(world).await?;
    let mut nodes = ready_nodes(world, &["a"]).await?;
    let mut daemon = short();
    daemon["nodeSelector"] = json!({"e2e": world.namespace});
    daemon["completionPolicy"] = json!("Always");
    world.apply::<DaemonJob>("each", daemon).await?;
    let done = |progress: &'static str| {
        move |object: &DaemonJob| object.status.as_ref().is_some_and(|status| status.progress == progress)
    };
    world.object("each", "done", done("1/1")).await?;
    // One that has just begun asks whether an object is still as the watch shows it, before it makes something.
    for (name, progress) in [("b", "2/2"), ("c", "3/3"), ("d", "4/4")] {
        world.operator.as_mut().unwrap().restart()?;
        nodes.extend(ready_nodes(world, &[name]).await?);
        world.object("each", "done on the one that joined, too", done(progress)).await?;
        if has_used(world, OPERATOR, "get daemonjobs.stoker.dev")? {
            break;
        }
    }
    world.delete::<DaemonJob>("each").await?;

    let disks = NodeBatch { world, name: "disks" };
    let progress = format!("{0}/{0}", nodes.len());
    // Not if its status was written a moment ago: one pod waits for the end of the other.
    until_used(world, OPERATOR, "get nodebatchjobs.stoker.dev", async || {
        disks.apply(Some("4s"), json!({"parallelism": 1})).await?;
        disks.run().await?;
        disks.over(ExecutionState::Succeeded, &progress).await?;
        world.delete::<NodeBatchJob>("disks").await
    })
    .await?;
    for node in nodes {
        node.delete().await?;
    }
    Ok(())
}

/// A held run that is cancelled, and a flow with a template that is removed when its time is over.
async fn flows(world: &World) -> Result<()> {
    let cron = Cron { world, name: "nightly" };
    until_used(world, OPERATOR, "get prescaledcronjobs.stoker.dev", async || {
        cron.apply(json!({"warmUp": "24h", "cronJob": {"spec": {"schedule": later()}}})).await?;
        cron.held().await?;
        world.delete::<PreScaledCronJob>("nightly").await
    })
    .await?;

    world.apply::<JobTemplate>("step", short()).await?;
    let steps = json!([{"name": "a", "jobTemplateRef": "step"}, {"name": "b", "dependencies": ["a"], "jobTemplate": short()}]);
    until_used(world, OPERATOR, "get jobflows.stoker.dev", async || {
        world.apply::<JobFlow>("flow", json!({"flows": steps, "ttlSecondsAfterFinished": 1})).await?;
        let gone = async || Ok(world.api::<JobFlow>().get_opt("flow").await?.is_none());
        world.until("flow", "removed after its end", gone).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_every_installation_may_do_is_what_pools_jobs_flows_and_nodes_need() -> Result<()> {
    let mut world = World::with_features("may-base", &Features::base()).await?;
    taken_name(&world).await?;
    world.operator = Some(Operator::start(&world.namespace, &FLAGS).await?);
    pools(&world).await?;
    jobs(&mut world).await?;
    // The condition goes once the pool has another name and needs that one no more.
    world.event("taken", "ConflictNameTaken").await?;
    JobPool { world: &world, name: "taken" }.counts(0, 1, 1).await?;
    world.delete::<HotStandbyJob>("taken").await?;
    all_used(&world, OPERATOR, &world.accounts.granted.deeds(OPERATOR), ALWAYS_IDLE)?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_lease_needs_what_is_granted_for_it() -> Result<()> {
    let mut world = World::with_features("may-lease", &Features::base().lease()).await?;
    let flags = |name| replica_flags(&world.namespace, name);
    let first = Operator::start(&world.namespace, &flags("a")).await?;
    let second = Operator::start(&world.namespace, &flags("b")).await?;
    world.operator = Some(first);
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    // Somebody else's write is in the leader's way, which reads what there is then.
    until_used(&world, OPERATOR, "get leases.coordination.k8s.io", async || {
        let now = json!({"metadata": {"annotations": {"example.org/now": Timestamp::now().to_string()}}});
        world.merge::<Lease>("stoker", now).await.map(drop).map_err(Into::into)
    })
    .await?;
    all_used(&world, OPERATOR, &beyond(&world, OPERATOR, &Features::base())?, &[])?;
    drop(second);
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn commands_in_pods_are_run_where_that_is_granted_and_nowhere_else() -> Result<()> {
    let probe =
        json!({"mode": "exec", "exec": {"command": ["busy"], "periodSeconds": 1, "timeoutSeconds": 1}});
    let spec = json!({"idleTarget": 1, "maxReplicas": 2, "busyProbe": probe, "podTemplate": {
        "metadata": {"annotations": {"sim.stoker.dev/exec-code": "0"}},
    }});
    let features = Features::base().here("execProbes");
    let mut world = World::with_features("may-exec", &features).await?;
    if !world.answers_commands().await? {
        println!("skipped: this cluster's simulated pods answer no commands");
        return world.finish().await;
    }
    world.operator = Some(Operator::start(&world.namespace, &[]).await?);
    world.apply_pool("game", spec.clone()).await?;
    world.counts("game", 2, 0, 2).await?;
    let idle: Idle =
        &[("create pods/exec", "the API server asks for it beside the request's own verb, which is get")];
    all_used(&world, OPERATOR, &beyond(&world, OPERATOR, &Features::base())?, idle)?;
    world.finish().await?;

    let mut world = World::with_features("may-not-exec", &Features::base()).await?;
    world.operator = Some(Operator::start(&world.namespace, &[]).await?);
    world.apply_pool("game", spec).await?;
    let told = |pool: &HotStandbyDeployment| {
        condition(pool, "ProbesHealthy").is_some_and(|(_, _, words)| {
            words.contains("the operator may not run commands in pods: grant `create` and `get` of pods/exec")
        })
    };
    world.status("game", "told what is not granted", told).await?;
    // It asks on, and is refused each time, until it is no more.
    world.operator = None;
    world.refusals = world.asked(OPERATOR)?.refused;
    assert!(!world.refusals.is_empty() && world.refusals.iter().all(|deed| deed.what == "get pods/exec"));
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_named_secret_is_read_and_another_is_refused_in_words() -> Result<()> {
    if !redis::is_installed() {
        return Ok(());
    }
    let features =
        Features::base().here("redisCredentials").with("features.redisCredentials.secretNames={redis}");
    let mut world = World::with_features("may-secret", &features).await?;
    for name in ["redis", "other"] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"password": "open sesame"}});
        let secret: Secret = serde_json::from_value(secret)?;
        world.api::<Secret>().create(&PostParams::default(), &secret).await?;
    }
    world.operator = Some(Operator::start(&world.namespace, &[]).await?);
    let redis =
        Redis::start(&[], &["--requirepass", "open sesame"], &["-a", "open sesame", "--no-auth-warning"]);
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let probe = |secret: &str| {
        json!({"busyProbe": {"mode": "redis", "redis": {
            "url": url, "key": "games", "periodSeconds": 1, "credentials": {"name": secret},
        }}})
    };
    world.apply_pool("game", json!({"idleTarget": 1})).await?;
    world.counts("game", 0, 1, 1).await?;
    let pod = world.alive("game").await?.remove(0).name_any();
    let value = json!({"status": "busy", "updated_at": Timestamp::now().as_second()}).to_string();
    redis.tell(&["HSET", "games", &pod, &value]);
    world.patch_pool("game", probe("redis")).await?;
    world
        .status("game", "told by Redis", |pool| pool.status.as_ref().is_some_and(|s| s.busy_count == 1))
        .await?;

    world.apply_pool("refused", probe("other")).await?;
    let words = format!("the operator may not read Secret {}/other", world.namespace);
    let told = |pool: &HotStandbyDeployment| {
        condition(pool, "ProbesHealthy").is_some_and(|(_, _, said)| said.contains(&words))
    };
    world.status("refused", "told what is not granted", told).await?;
    world.refusals = BTreeSet::from([Deed::new("get", "", "secrets", Some("other"))]);
    all_used(&world, OPERATOR, &beyond(&world, OPERATOR, &Features::base())?, &[])?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn claims_need_what_is_granted_for_them() -> Result<()> {
    let mut world = World::with_features("may-claim", &Features::base().claims()).await?;
    world.operator = Some(Operator::start(&world.namespace, &["--claims", "127.0.0.1:0"]).await?);
    let token = account(&world, "claimant", &CLAIMS).await?;
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    let claimant = world.claimant(&token, "game")?;
    let granted = || async { Ok(claimant.claim(json!({})).await?.status == 201) };
    world.until("game", "claimed from", granted).await?;
    all_used(&world, OPERATOR, &beyond(&world, OPERATOR, &Features::base())?, &[])?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_report_service_and_the_logs_of_pods_need_what_is_granted_for_them() -> Result<()> {
    if !netns::is_there() {
        return Ok(());
    }
    let features = Features::base().reports().here("podLogs");
    let world = World::with_features("may-report", &features).await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    let world = world.reporting(true).await?;
    world.apply_example("node-batch-job/disks.yaml").await?;
    let disks = NodeBatch { world: &world, name: "disks" };
    disks.run().await?;
    disks.over(ExecutionState::Succeeded, "1/1").await?;
    let reports = world.reports();
    let saved = || async { Ok(reports.kept("disks/latest/real-container-df.log").await?.status == 200) };
    world.until("disks", "keeping the log", saved).await?;

    // A pod that the watch does not show (any more) is asked for, before its Event is put on it.
    let nodes = ready_nodes(&world, &["a"]).await?;
    let other = NodeBatch { world: &world, name: "other" };
    let mut fields = spec(&world, None);
    fields["podTemplate"]["spec"]["restartPolicy"] = json!("Never");
    world.apply::<NodeBatchJob>("other", fields).await?;
    other.run().await?;
    let pods = other.until_running(1).await?;
    let event = json!({"reason": "HasReported", "message": "so it has"}).to_string();
    assert_eq!(other.report(&pods[0], "EVENT", "", &event).await?.status, 200);
    world.pods().delete(&pods[0].name_any(), &DeleteParams::default()).await?;
    until_used(&world, REPORTS, "get pods", async || {
        other.report(&pods[0], "EVENT", "", &event).await.map(drop)
    })
    .await?;

    all_used(&world, REPORTS, &world.accounts.granted.deeds(REPORTS), &[])?;
    all_used(&world, OPERATOR, &beyond(&world, OPERATOR, &Features::base())?, &[])?;
    world.finish_node_batches(nodes).await
}
