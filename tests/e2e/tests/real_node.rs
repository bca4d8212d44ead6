//! Real pods on the real node, which say by themselves that they are busy: through the API server with their
//! own service account, or by dropping their readiness.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Result;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use stoker_api::{Gate, RunOutcome};
use stoker_e2e::crons::{Cron, FLAGS, instant, later, work_that_tells};
use stoker_e2e::{World, netns};

fn template(env: Value, probe: Value) -> Value {
    let mut all = vec![
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}),
    ];
    all.extend(env.as_array().unwrap().iter().cloned());
    json!({"spec": {
        "serviceAccountName": "self-annotator",
        "nodeSelector": {"stoker.dev/node": "real"},
        "tolerations": [{"key": "stoker.dev/node", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "app",
            "image": "docker.io/local/busy-server:1",
            "imagePullPolicy": "IfNotPresent",
            "command": null,
            "env": all,
            "readinessProbe": probe,
        }],
    }})
}

async fn service_account(world: &World) -> Result<()> {
    let (client, namespace) = (world.client.clone(), world.namespace.as_str());
    let name = json!({"name": "self-annotator"});
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": name}))?;
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &account).await?;
    let role: Role = serde_json::from_value(json!({
        "metadata": name,
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch"]}],
    }))?;
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &role).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": name,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "self-annotator"},
        "subjects": [{"kind": "ServiceAccount", "name": "self-annotator", "namespace": namespace}],
    }))?;
    Api::namespaced(client, namespace).create(&PostParams::default(), &binding).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn pods_annotate_themselves_with_their_own_service_account() -> Result<()> {
    let world = World::start("self").await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    service_account(&world).await?;
    // Each turns busy two seconds after its start and idle after some more, so that the pool breathes.
    let env = json!([
        {"name": "SELF_ANNOTATE", "value": "paia.tech/busy"},
        {"name": "FLIP_AFTER", "value": "2s"},
    ]);
    let probe = json!({"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1});
    let fields = json!({"idleTarget": 1, "maxReplicas": 3, "podTemplate": template(env, probe)});
    world.apply_pool("game", fields).await?;
    world.status("game", "busy", |p| p.status.as_ref().is_some_and(|s| s.busy_count >= 1)).await?;
    // The first one's replacement turns busy, too, until the maximum is reached.
    world.counts("game", 3, 0, 3).await?;
    for pod in world.alive("game").await? {
        assert_eq!(pod.annotations().get("paia.tech/busy").map(String::as_str), Some("true"));
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn pods_that_drop_their_readiness_are_busy_not_broken() -> Result<()> {
    let world = World::start("unready").await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    service_account(&world).await?;
    let env = json!([{"name": "UNREADY_WHEN_BUSY", "value": "1"}, {"name": "FLIP_AFTER", "value": "6s"}]);
    let probe =
        json!({"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    let fields = json!({
        "idleTarget": 1,
        "maxReplicas": 2,
        "busyProbe": {"mode": "condition", "condition": {"type": "Ready", "busyStatus": "False"}},
        "podTemplate": template(env, probe),
    });
    world.apply_pool("game", fields).await?;
    world.status("game", "standing by", |p| p.status.as_ref().is_some_and(|s| s.idle_count == 1)).await?;
    world.counts("game", 2, 0, 2).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_claimed_pods_server_answers_the_claimant() -> Result<()> {
    let (world, token) = World::with_claims("real-claim").await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    service_account(&world).await?;
    let probe = json!({"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1});
    let mut template = template(json!([]), probe);
    template["spec"]["containers"][0]["ports"] = json!([{"name": "game", "containerPort": 8080}]);
    world.apply_pool("game", json!({"idleTarget": 1, "maxReplicas": 2, "podTemplate": template})).await?;
    let answer = world.claimant(&token, "game")?.claim(json!({"waitSeconds": 170})).await?;
    answer.id()?;
    let pod = &answer.body["pod"];
    let address = format!("{}:{}", pod["ip"].as_str().unwrap(), pod["ports"]["game"]);
    let status = netns::inside(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&address)?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    })??;
    assert!(status.ends_with("200 OK"), "{status}");
    world.finish().await
}

/// When a run's work began, as it wrote down itself, and for which instant.
fn began(cron: &Cron<'_>, pods: &[k8s_openapi::api::core::v1::Pod]) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    for pod in pods {
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        for state in statuses.filter_map(|c| c.state.as_ref()?.terminated.as_ref()) {
            let said = state.message.as_deref().unwrap_or_default().trim();
            let at = said.parse().unwrap_or_else(|_| panic!("{}: the work says {said:?}", cron.name));
            all.push((at, pod.labels().get("job-name").cloned().unwrap_or_default()));
        }
    }
    all
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i5_gated_work_begins_at_its_instant_and_never_before() -> Result<()> {
    let world = World::start_in_cluster("gate", &FLAGS).await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    // Seconds by time(2), the coarsest clock that there is.
    let work = json!({"spec": {
        "nodeSelector": {"stoker.dev/node": "real"},
        "tolerations": [{"key": "stoker.dev/node", "operator": "Exists"}],
        "initContainers": [{
            "name": "prepare",
            "image": "docker.io/local/busybox:1",
            "imagePullPolicy": "IfNotPresent",
            "command": ["true"],
        }],
        "containers": [{
            "name": "work",
            "image": "docker.io/local/busybox:1",
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "date +%s > /dev/termination-log; exec \"$@\"", "sh"],
            "args": ["true"],
        }],
    }});
    let crons = ["InitContainer", "Exec"].map(|gate| (gate, format!("gate-{}", gate.to_lowercase())));
    for (gate, name) in &crons {
        let spec = json!({"jobTemplate": {"spec": {"template": work}}});
        Cron { world: &world, name }
            .apply(json!({"warmUp": "40s", "gate": gate, "cronJob": {"spec": spec}}))
            .await?;
    }
    for (gate, name) in &crons {
        let cron = Cron { world: &world, name };
        let ended = cron.status("a run has ended", |s| !s.last_runs.is_empty()).await?;
        let run = ended.last_runs.last().unwrap();
        assert_eq!(run.outcome, RunOutcome::Succeeded, "{gate}: {run:?}");
        assert!(run.schedule_milliseconds.is_some() && run.pull_milliseconds.is_some(), "{gate}: {run:?}");
        let pods = cron.pods().await?;
        let all = began(&cron, &pods);
        let jobs = cron.jobs().await?;
        assert!(!all.is_empty(), "{gate}: {pods:?}");
        for (at, job) in all {
            let of = jobs.iter().find(|j| j.name_any() == job).and_then(instant).unwrap();
            assert!(at >= of.as_second(), "{gate}: {job} began at {at}, before {of}");
        }
    }
    world.finish_crons().await
}

/// The gate that is told to end says that all is well, which must not be taken for the work's end.
#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i5_a_pod_that_is_deleted_at_the_gate_has_not_done_its_work() -> Result<()> {
    let world = World::start_in_cluster("gate-deleted", &FLAGS).await?;
    if !world.has_real_node().await? {
        println!("skipped: this cluster has no real node");
        return world.finish().await;
    }
    for gate in [Gate::InitContainer, Gate::Exec] {
        let name = format!("deleted-{gate:?}").to_lowercase();
        let cron = Cron { world: &world, name: &name };
        let spec = json!({"schedule": later(), "jobTemplate": {"spec": {"template": work_that_tells()}}});
        cron.apply(json!({"warmUp": "6h", "gate": gate, "cronJob": {"spec": spec}})).await?;
        let pod = cron.at_the_gate(gate).await?;
        world.pods().delete(&pod.name_any(), &DeleteParams::default()).await?;
        let ended = cron.status("a run has ended", |s| !s.last_runs.is_empty()).await?;
        assert_eq!(ended.last_runs[0].outcome, RunOutcome::Failed, "{gate:?}: {ended:?}");
    }
    world.finish_crons().await
}
