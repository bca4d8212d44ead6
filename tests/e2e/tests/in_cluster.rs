//! Operator and report service as Helm installs them: in pods that are kept to what the chart grants, on a node that really runs
//! them. They come with the chart of the commit before, are upgraded under load, the pod that leads is deleted, and all goes again.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use stoker_api::{ExecutionState, HotStandbyDeployment, JobFlow, NodeBatchJob, keys};
use stoker_e2e::audit::{PodEvent, PodWatch, asked, peak};
use stoker_e2e::deployed::ON_THE_REAL_NODE;
use stoker_e2e::node_batches::NodeBatch;
use stoker_e2e::operator::binary;
use stoker_e2e::{DEADLINE, World, alive, kubeconfig, merge, root};
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

/// The chart of the commit before, which whoever upgrades has; the present one where there is no history.
async fn chart_before(present: &Path) -> Result<PathBuf> {
    let folder = root().join("target/e2e/chart-before");
    // What an earlier test left, if any.
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder)?;
    let (archive, chart) = (folder.join("chart.tar"), "deploy/helm/stoker");
    let packed = Command::new("git")
        .current_dir(root())
        .args(["archive", "--format=tar", "HEAD~1", chart, "--output"])
        .arg(&archive)
        .output()
        .await;
    let why = match packed {
        Ok(packed) if packed.status.success() => {
            let (archive, folder) = (archive.display().to_string(), folder.display().to_string());
            run("tar", &["-xf", &archive, "-C", &folder]).await?;
            return Ok(Path::new(&folder).join(chart));
        }
        Ok(packed) => String::from_utf8_lossy(&packed.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    println!("there is no chart of the commit before ({why}), so the upgrade begins with the present one");
    Ok(present.to_owned())
}

/// A volume of the real node for the claim that the chart makes: the local cluster has nobody who provides volumes.
struct Volume {
    api: Api<PersistentVolume>,
    name: String,
    folder: PathBuf,
}

impl Volume {
    async fn create(own: &World) -> Result<Self> {
        let folder = root().join("target/e2e").join(format!("{}.volume", own.namespace));
        std::fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let name = own.namespace.clone();
        let term =
            json!({"matchExpressions": [{"key": "stoker.dev/node", "operator": "In", "values": ["real"]}]});
        let volume = json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": folder},
                "claimRef": {"namespace": own.namespace, "name": "reports-stoker-reports-0"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            },
        });
        let api: Api<PersistentVolume> = Api::all(own.client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
        Ok(Self { api, name, folder })
    }

    /// It is gone once its claim is, which the namespace takes along.
    async fn delete(&self) -> Result<()> {
        self.api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// The release, in the namespace `own`, which looks after `watched`.
struct Release<'a> {
    own: &'a World,
    watched: &'a World,
}

impl Release<'_> {
    async fn helm(&self, verb: &str, chart: &Path, more: &[&str]) -> Result<String> {
        let chart = chart.display().to_string();
        let namespaces = format!("namespaces={{{}}}", self.watched.namespace);
        // Other tests share the cluster's definitions.
        let mut words =
            vec![verb, "stoker", &chart, "--namespace", &self.own.namespace, "--wait", "--timeout", "150s"];
        for set in [
            namespaces.as_str(),
            "crds.install=false",
            "reports.enabled=true",
            "reports.nodeSelector.stoker\\.dev/node=real",
            "reports.tolerations[0].key=stoker.dev/node",
            "reports.tolerations[0].operator=Exists",
        ]
        .into_iter()
        .chain(ON_THE_REAL_NODE)
        {
            words.extend(["--set", set]);
        }
        words.extend(more);
        run("helm", &words).await
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.own.client.clone(), &self.own.namespace)
    }

    /// Names of the operator's pods that are Ready and stay.
    async fn replicas(&self) -> Result<Vec<String>> {
        let of_operator = ListParams::default().labels("app.kubernetes.io/name=stoker");
        let pods = self.pods().list(&of_operator).await?.items.into_iter();
        Ok(pods.filter(alive).filter(is_ready).map(|pod| pod.name_any()).collect())
    }

    async fn leader(&self) -> Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.own.client.clone(), &self.own.namespace);
        let spec = leases.get_opt("stoker").await?.and_then(|lease| lease.spec);
        Ok(spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
    }

    /// Waits until both replicas are Ready, and one of them leads: Helm is content with one fewer, as an upgrade may have.
    async fn settled(&self) -> Result<()> {
        let both = || async {
            let (replicas, leader) = (self.replicas().await?, self.leader().await?);
            Ok(replicas.len() == 2 && leader.is_some_and(|leader| replicas.contains(&leader)))
        };
        self.own.until("stoker", "two replicas that are Ready, of which one leads", both).await
    }

    /// Waits until the report service shows this, as the API server gets it.
    async fn shows(&self, path: &str, wanted: &str) -> Result<()> {
        let (own, watched) = (&self.own.namespace, &self.watched.namespace);
        let service = format!("/api/v1/namespaces/{own}/services/stoker-reports:readers/proxy");
        let is_shown = || async {
            let request =
                http::Request::get(format!("{service}/reports/{watched}/{path}")).body(Vec::new())?;
            match self.own.client.request_text(request).await {
                Ok(text) => Ok(text == wanted),
                // So it is while the pod starts.
                Err(kube::Error::Api(_)) => Ok(false),
                Err(error) => Err(error.into()),
            }
        };
        self.watched.until(path, "shown", is_shown).await
    }

    /// The logs and Events of its pods.
    async fn tell(&self) -> String {
        let mut all = String::new();
        let list = self.pods().list(&ListParams::default()).await;
        for pod in list.into_iter().flat_map(|list| list.items) {
            let log = self.pods().logs(&pod.name_any(), &Default::default()).await;
            all += &format!("{}:\n{}\n", pod.name_any(), log.unwrap_or_else(|error| error.to_string()));
        }
        all + &self.own.tell("stoker").await
    }
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
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
    let volume = Volume::create(&own).await?;
    let release = Release { own: &own, watched: &watched };
    let outcome = all(&release).await;
    if outcome.is_err() {
        println!("{}", release.tell().await);
    }
    run("helm", &["uninstall", "stoker", "--namespace", &own.namespace, "--wait", "--ignore-not-found"])
        .await?;
    volume.delete().await?;
    outcome?;
    let gone = || async { Ok(release.pods().list(&ListParams::default()).await?.items.is_empty()) };
    own.until("stoker", "rid of its pods", gone).await?;
    std::fs::remove_dir_all(&volume.folder)?;
    watched.finish().await?;
    own.finish().await
}

async fn all(release: &Release<'_>) -> Result<()> {
    let Release { own, watched } = release;
    restrict(&own.client, &own.namespace).await?;
    let chart = root().join("deploy/helm/stoker");
    release.helm("install", &chart_before(&chart).await?, &[]).await?;
    release.settled().await?;

    let watch = PodWatch::start(watched.pods(), keys::DEFAULT_BUSY_ANNOTATION).await?;
    watched
        .apply_pool("game", json!({"idleTarget": 2, "maxReplicas": 12, "policy": {"builtin": "buffer"}}))
        .await?;
    watched.counts("game", 0, 2, 2).await?;
    upgrade_under_load(release, &chart).await?;
    // What the chart before did not grant is none of the present one's.
    let upgraded = Timestamp::now();

    all_idle(watched).await?;
    watched.set_busy(&watched.alive("game").await?[..1], true).await?;
    watched.counts("game", 1, 2, 3).await?;
    it_is_told(release).await?;
    it_works(release).await?;
    one_after_the_other_goes(release).await?;
    all_idle(watched).await?;
    watched.set_busy(&watched.alive("game").await?[..2], true).await?;
    watched.counts("game", 2, 2, 4).await?;

    let events = watch.events();
    let at_work = events.iter().find(|event| matches!(event, PodEvent::Deleted { busy: true, .. }));
    ensure!(at_work.is_none(), "I1: {at_work:?}");
    let (most, twice) = peak(&events);
    ensure!(most <= 12 && twice.is_empty(), "I2: {most} pods at a time, made twice: {twice:?}");
    let accounts =
        ["stoker", "stoker-reports"].map(|name| format!("system:serviceaccount:{}:{name}", own.namespace));
    let refused = asked(&accounts.each_ref().map(String::as_str), upgraded)?.refused;
    ensure!(refused.is_empty(), "{refused:?}");
    watched.delete_all::<NodeBatchJob>().await?;
    watched.delete_all::<JobFlow>().await?;
    watched.delete_all::<HotStandbyDeployment>().await
}

async fn all_idle(watched: &World) -> Result<()> {
    watched.set_busy(&watched.alive("game").await?, false).await?;
    watched.counts("game", 0, 2, 2).await
}

/// Upgrades to the present chart, with other pods of all, while pods turn busy and idle all the time.
async fn upgrade_under_load(release: &Release<'_>, chart: &Path) -> Result<()> {
    let watched = release.watched;
    let load = async {
        let mut round = 0;
        loop {
            round += 1;
            let pods = watched.alive("game").await?;
            watched.set_busy(&pods[..pods.len().min(2)], round % 2 == 0).await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        #[allow(unreachable_code)]
        anyhow::Ok(())
    };
    let anew = ["--set", "podAnnotations.round=second", "--set", "reports.podAnnotations.round=second"];
    let upgrade = async {
        release.helm("upgrade", chart, &anew).await?;
        release.settled().await
    };
    tokio::select! {
        upgraded = upgrade => upgraded,
        failed = load => failed,
    }
}

/// What was decided comes through a forwarded port, and the doctor finds all well.
async fn it_is_told(release: &Release<'_>) -> Result<()> {
    let Release { own, watched } = release;
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
    Ok(())
}

/// A flow runs, and a pod reports: what operator and report service need for it, they may.
async fn it_works(release: &Release<'_>) -> Result<()> {
    let Release { own, watched } = release;
    let step = json!({"template": {"metadata": {"annotations": {"sim.stoker.dev/complete-after": "100ms"}},
        "spec": {"containers": [{"name": "main", "image": "docker.io/local/busybox:1"}]}}});
    let steps = json!([{"name": "a", "jobTemplate": step.clone()}, {"name": "b", "dependencies": ["a"], "jobTemplate": step}]);
    watched.apply::<JobFlow>("flow", json!({"flows": steps})).await?;

    // The local cluster resolves no names of Services.
    let services: Api<Service> = Api::namespaced(own.client.clone(), &own.namespace);
    let address = services.get("stoker-reports").await?.spec.and_then(|spec| spec.cluster_ip);
    let text = std::fs::read_to_string(root().join("examples/node-batch-job/first.yaml"))?;
    let mut spec = serde_yaml::from_str::<Value>(&text)?["spec"].take();
    let known =
        json!({"hostAliases": [{"ip": address, "hostnames": [format!("stoker-reports.{}", own.namespace)]}]});
    merge(&mut spec, json!({"schedule": null, "podTemplate": {"spec": known}}));
    watched.apply::<NodeBatchJob>("first", spec).await?;
    let first = NodeBatch { world: watched, name: "first" };
    first.run().await?;
    first.over(ExecutionState::Succeeded, "1/1").await?;
    let pod = first.pods().await?.remove(0).name_any();
    ensure!(watched.event(&pod, "TestReason").await? == "test message with an argument");
    release.shows("first/latest/real-test.txt", "a file from real\n").await?;

    let ended = |flow: &JobFlow| flow.status.as_ref().is_some_and(|status| status.completion_time.is_some());
    watched.object::<JobFlow>("flow", "ended", ended).await?;
    Ok(())
}

/// The leader's pod goes, and another leads; the report service's pod goes, and another shows what was reported.
async fn one_after_the_other_goes(release: &Release<'_>) -> Result<()> {
    let leader = release.leader().await?.context("nobody leads")?;
    let began = Instant::now();
    release.pods().delete(&leader, &DeleteParams::default()).await?;
    let other = || async { Ok(release.leader().await?.is_some_and(|now| now != leader)) };
    release.watched.until("game", "led by another", other).await?;
    println!("another leads {:.2} s after the leader's pod was deleted", began.elapsed().as_secs_f64());

    let name = "stoker-reports-0";
    let uid = release.pods().get(name).await?.uid();
    release.pods().delete(name, &DeleteParams::default()).await?;
    let another = || async {
        let now = release.pods().get_opt(name).await?;
        Ok(now.is_some_and(|pod| pod.uid() != uid && is_ready(&pod)))
    };
    release.own.until(name, "another", another).await?;
    release.shows("first/latest/real-test.txt", "a file from real\n").await
}
