//! An operator as the chart installs it: a Deployment on the node that runs containers, in a namespace of its own.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::account::Features;
use crate::operator::binary;
use crate::{DEADLINE, kubeconfig, root};

/// Values of the chart by which the operator that was built runs on the real node of the local cluster.
pub const ON_THE_REAL_NODE: [&str; 8] = [
    "image.repository=docker.io/stoker/stoker",
    "image.tag=test",
    "image.pullPolicy=Never",
    "gateImage.repository=docker.io/stoker/gate",
    "gateImage.tag=dev",
    "nodeSelector.stoker\\.dev/node=real",
    "tolerations[0].key=stoker.dev/node",
    "tolerations[0].operator=Exists",
];

/// Where an operator's Deployment lives that looks after a namespace.
pub fn own_namespace(namespace: &str) -> String {
    format!("{namespace}-stoker")
}

/// A Deployment of one replica, and whoever copies what it logs.
pub struct Deployed {
    own: String,
    /// Of its pod, for health and metrics.
    pub address: String,
    follower: Child,
}

impl Deployed {
    /// Makes it, with flags of its own, and waits until it has a pod that runs.
    pub async fn start(client: &Client, namespace: &str, flags: &[&str], log: &Path) -> Result<Self> {
        image_is_current()?;
        let own = own_namespace(namespace);
        let mut features = Features::base().with("log.format=text").with("resources.requests.cpu=20m");
        for value in ON_THE_REAL_NODE {
            features = features.with(value);
        }
        let mut all = features.objects(&own, namespace)?.into_iter();
        let mut deployment = all.find(|object| object["kind"] == "Deployment").context("no Deployment")?;
        let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
        let words = ["run"].iter().chain(flags).copied().collect::<Vec<_>>();
        container["args"] = json!(words);
        let api: Api<Deployment> = Api::namespaced(client.clone(), &own);
        api.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
        let (name, ip) = running(client, &own).await?;
        let file = File::options().create(true).append(true).open(log)?;
        let follower = Command::new(root().join("target/cluster/bin/kubectl"))
            .args(["logs", "--follow", "--namespace", &own, &name])
            .env("KUBECONFIG", kubeconfig())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { own, address: format!("{ip}:8080"), follower })
    }
}

impl Drop for Deployed {
    /// Its namespace goes, and it with that.
    fn drop(&mut self) {
        self.follower.kill().ok();
        self.follower.wait().ok();
        Command::new(root().join("target/cluster/bin/kubectl"))
            .args(["delete", "namespace", &self.own, "--wait=false"])
            .env("KUBECONFIG", kubeconfig())
            .stdout(Stdio::null())
            .status()
            .ok();
    }
}

/// The namespace for it, made before its account.
pub async fn create_namespace(client: &Client, namespace: &str) -> Result<Namespace> {
    let object: Namespace = serde_json::from_value(json!({"metadata": {
        "name": own_namespace(namespace),
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }}))?;
    Ok(Api::all(client.clone()).create(&PostParams::default(), &object).await?)
}

/// The image holds the program that was built last.
fn image_is_current() -> Result<()> {
    let packed = root().join("target/image/packed");
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} is missing", path.display()));
    let same = read(&packed).is_ok_and(|packed| read(&binary()).is_ok_and(|built| packed == built));
    ensure!(same, "run `make operator-image`: the image is not of the operator that was built last");
    Ok(())
}

/// Name and address of its pod, once that runs.
async fn running(client: &Client, own: &str) -> Result<(String, String)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), own);
    let began = Instant::now();
    loop {
        let all = pods.list(&ListParams::default()).await?.items;
        let ready = all.iter().find_map(|pod| {
            let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"))?;
            Some((pod.name_any(), status.pod_ip.clone()?))
        });
        if let Some(ready) = ready {
            return Ok(ready);
        }
        if began.elapsed() > DEADLINE {
            let told: Vec<_> =
                all.iter().map(|pod| json!({"pod": pod.name_any(), "status": pod.status})).collect();
            bail!("the operator of {own} does not run: {}", serde_json::to_string_pretty(&told)?);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
