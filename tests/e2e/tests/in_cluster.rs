//! The operator as Helm installs it: two replicas in pods that are kept to what the chart grants, on a node that really runs them.
//! They are upgraded under load, one is deleted, and all goes again.
#![allow(clippy::unwrap_used)]

use std::process::Output;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stoker_api::{HotStandbyDeployment, JobFlow, keys};
use stoker_e2e::audit::{PodEvent, PodWatch, peak};
use stoker_e2e::operator::binary;
use stoker_e2e::{DEADLINE, World, kubeconfig, root};
use tokio::process::Command;

/// Runs a program that needs the cluster, and tells what it said if it fails.
async fn run(program: &str, words: &[&str]) -> Result<String> {
    let path = root().join("target/cluster/bin");
    let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default());
    let ended = Command::new(program)
        .args(words)
        .env("KUBECONFIG", kubeconfig())
        .env("PATH", path)
        .kill_on_drop(true)
        .output();
    let Output { status, stdout, stderr } =
        tokio::time::timeout(DEADLINE, ended).await.with_context(|| format!("{program} does not end"))??;
    let said = String::from_utf8_lossy(&stdout).into_owned();
    ensure!(status.success(), "{program} {words:?}: {said}\n{}", String::from_utf8_lossy(&stderr));
    Ok(said)
}

/// The release, in the namespace `own`, which looks after `watched`.
struct Release<'a> {
    own: &'a World,
    watched: &'a World,
}

impl Release<'_> {
    async fn helm(&self, verb: &str, more: &[&str]) -> Result<String> {
        let chart = root().join("deploy/helm/stoker").display().to_string();
        let namespaces = format!("namespaces={{{}}}", self.watched.namespace);
        // Other tests share the cluster's definitions.
        let mut words =
            vec![verb, "stoker", &chart, "--namespace", &self.own.namespace, "--wait", "--timeout", "150s"];
        for set in [
            namespaces.as_str(),
            "crds.install=false",
            "image.repository=docker.io/stoker/stoker",
            "image.tag=test",
            "image.pullPolicy=Never",
            "gateImage.repository=docker.io/stoker/gate",
            "gateImage.tag=dev",
            "nodeSelector.stoker\\.dev/node=real",
            "tolerations[0].key=stoker.dev/node",
            "tolerations[0].operator=Exists",
        ] {
            words.extend(["--set", set]);
        }
        words.extend(more);
        run("helm", &words).await
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.own.client.clone(), &self.own.namespace)
    }

    async fn leader(&self) -> Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.own.client.clone(), &self.own.namespace);
        let spec = leases.get_opt("stoker").await?.and_then(|lease| lease.spec);
        Ok(spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
    }

    async fn logs(&self) -> String {
        let mut all = String::new();
        let list = self.pods().list(&ListParams::default()).await;
        for pod in list.into_iter().flat_map(|list| list.items) {
            let log = self.pods().logs(&pod.name_any(), &Default::default()).await;
            all += &format!("{}:\n{}\n", pod.name_any(), log.unwrap_or_else(|error| error.to_string()));
        }
        all
    }
}

async fn restrict(client: &Client, namespace: &str) -> Result<()> {
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(labels)).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_chart_installs_upgrades_fails_over_and_goes_without_a_loss() -> Result<()> {
    let own = World::without_operator("chart").await?;
    if !own.has_real_node().await? {
        println!("skipped: the cluster has no node that runs containers (make cluster-up REAL_NODE=1)");
        return own.finish().await;
    }
    let watched = World::without_operator("charted").await?;
    let release = Release { own: &own, watched: &watched };
    let outcome = all(&release).await;
    if outcome.is_err() {
        println!("{}", release.logs().await);
    }
    run("helm", &["uninstall", "stoker", "--namespace", &own.namespace, "--wait", "--ignore-not-found"])
        .await?;
    outcome?;
    watched.finish().await?;
    own.finish().await
}

async fn all(release: &Release<'_>) -> Result<()> {
    let Release { own, watched } = release;
    restrict(&own.client, &own.namespace).await?;
    release.helm("install", &[]).await?;
    let deployments: Api<Deployment> = Api::namespaced(own.client.clone(), &own.namespace);
    // Helm is content with one fewer, as an upgrade may have.
    let both = || async {
        let ready = deployments.get("stoker").await?.status.and_then(|status| status.ready_replicas);
        Ok(ready == Some(2))
    };
    own.until("stoker", "two replicas that are Ready", both).await?;

    let watch = PodWatch::start(watched.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;
    watched
        .apply_pool("game", json!({"idleTarget": 2, "maxReplicas": 12, "policy": {"builtin": "buffer"}}))
        .await?;
    watched.counts("game", 0, 2, 2).await?;
    watched.set_busy(&watched.alive("game").await?[..1], true).await?;
    watched.counts("game", 1, 2, 3).await?;

    // What it decided comes through a forwarded port, and the doctor finds it well.
    let stoker = binary().display().to_string();
    let told = || async {
        let words = ["explain", "hsd/game", "-n", &watched.namespace, "--operator-namespace", &own.namespace];
        let told = run(&stoker, &words).await?;
        Ok(told.contains("Decisions, the newest last:")
            && told.contains("  3 by builtin/buffer: 1 busy + 2 idle"))
    };
    watched.until("game", "explained through a forwarded port", told).await?;
    let leader = release.leader().await?.context("nobody leads")?;
    let said = Command::new(&stoker)
        .args(["doctor", "--operator-namespace", &own.namespace])
        .env("KUBECONFIG", kubeconfig())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for words in [
        format!("2 of 2 operator pods in {} are Ready", own.namespace),
        format!("{leader} leads, and renewed its Lease "),
    ] {
        ensure!(said.contains(&words), "{words}: {said}");
    }

    // Work that its account must be allowed.
    let step = json!({"template": {"metadata": {"annotations": {"sim.stoker.dev/complete-after": "100ms"}},
        "spec": {"containers": [{"name": "main", "image": "docker.io/local/busybox:1"}]}}});
    let steps = json!([{"name": "a", "jobTemplate": step.clone()}, {"name": "b", "dependencies": ["a"], "jobTemplate": step}]);
    watched.apply::<JobFlow>("flow", json!({"flows": steps})).await?;
    let ended = |flow: &JobFlow| flow.status.as_ref().is_some_and(|status| status.completion_time.is_some());
    watched.object::<JobFlow>("flow", "ended", ended).await?;

    // The leader's pod goes.
    let began = Instant::now();
    release.pods().delete(&leader, &DeleteParams::default()).await?;
    let other = || async { Ok(release.leader().await?.is_some_and(|now| now != leader)) };
    watched.until("game", "led by another", other).await?;
    println!("another leads {:.2} s after the leader's pod was deleted", began.elapsed().as_secs_f64());

    // An upgrade, while pods turn busy and idle all the time.
    let load = async {
        let mut round = 0;
        loop {
            round += 1;
            let pods = watched.alive("game").await?;
            watched.set_busy(&pods[..pods.len().min(2)], round % 2 == 0).await?;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        #[allow(unreachable_code)]
        anyhow::Ok(())
    };
    tokio::select! {
        upgraded = release.helm("upgrade", &["--set", "podAnnotations.round=second"]) => { upgraded?; }
        failed = load => failed?,
    }
    watched.set_busy(&watched.alive("game").await?, false).await?;
    watched.set_busy(&watched.alive("game").await?[..2], true).await?;
    watched.counts("game", 2, 2, 4).await?;
    let events = watch.events();
    let at_work = events.iter().find(|event| matches!(event, PodEvent::Deleted { busy: true, .. }));
    ensure!(at_work.is_none(), "I1: {at_work:?}");
    let (most, twice) = peak(&events);
    ensure!(most <= 12 && twice.is_empty(), "I2: {most} pods at a time, made twice: {twice:?}");

    // Nothing that it tried was refused.
    let refused = stoker_e2e::audit::refused(&format!("system:serviceaccount:{}:stoker", own.namespace))?;
    ensure!(refused.is_empty(), "{refused:?}");
    watched.delete_all::<JobFlow>().await?;
    watched.delete_all::<HotStandbyDeployment>().await
}
