//! What the tests against a cluster share: a namespace and an operator of its own for each test, waiting for
//! conditions with a deadline, and telling everything that helps when one is not met.

pub mod account;
pub mod answered;
pub mod audit;
pub mod claims;
pub mod cluster;
pub mod crons;
pub mod deployed;
pub mod flips;
pub mod guests;
pub mod job_watch;
pub mod jobs;
pub mod load;
pub mod netns;
pub mod node_batches;
pub mod node_pods;
pub mod nodes;
pub mod objects;
pub mod operator;
pub mod pod_server;
pub mod processes;
pub mod prometheus;
pub mod proxy;
pub mod random;
pub mod ranges;
pub mod redis;
pub mod reports;
pub mod scale;
pub mod table;
pub mod web;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use stoker_api::{HotStandbyDeployment, HotStandbyJob, keys};

use crate::account::{Accounts, Deed, Features};
use crate::operator::Operator;
use crate::reports::ReportService;

/// No condition takes longer than this on a machine that works.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// The checkout.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The kubeconfig of the local cluster, or the one that KUBECONFIG names.
pub fn kubeconfig() -> PathBuf {
    std::env::var_os("KUBECONFIG").map_or_else(|| root().join("target/cluster/kubeconfig"), PathBuf::from)
}

/// How the cluster is reached.
pub async fn config() -> Result<Config> {
    config_by(&kubeconfig()).await
}

/// How it is reached by a kubeconfig.
pub async fn config_by(path: &Path) -> Result<Config> {
    // Whichever test comes first installs it for all.
    rustls::crypto::ring::default_provider().install_default().ok();
    let read = Kubeconfig::read_from(path)
        .with_context(|| format!("no cluster: run `make cluster-up` ({} is missing)", path.display()))?;
    Ok(Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?)
}

/// A client for the cluster by a kubeconfig.
pub async fn client_by(path: &Path) -> Result<Client> {
    Ok(Client::try_from(config_by(path).await?)?)
}

/// A client for the cluster.
pub async fn client() -> Result<Client> {
    Ok(Client::try_from(config().await?)?)
}

/// A namespace of its own, and most often an operator for it.
pub struct World {
    pub client: Client,
    pub namespace: String,
    /// Under which the operator and the report service work.
    pub accounts: Accounts,
    /// What they ask for in vain in a test that wants to see it.
    pub refusals: BTreeSet<Deed>,
    began: Timestamp,
    pub operator: Option<Operator>,
    /// Where pods of NodeBatchJobs report to, in tests of these.
    pub reports: Option<ReportService>,
}

impl World {
    /// A namespace with an operator that the cluster runs, as the chart installs it. Where no node runs containers, or pods cannot
    /// be reached, it is a process.
    pub async fn start(name: &str) -> Result<Self> {
        Self::start_in_cluster(name, &[]).await
    }

    /// The same, with flags of its own.
    pub async fn start_in_cluster(name: &str, flags: &[&str]) -> Result<Self> {
        if netns::file().is_none() || !has_real_node(&client().await?).await? {
            return Self::start_with(name, flags).await;
        }
        let mut world = Self::new(name, &Features::all(), true).await?;
        world.operator = Some(Operator::deploy(&world.client, &world.namespace, flags).await?);
        Ok(world)
    }

    /// A namespace with an operator that is a process of the test, which may kill it and look at what it takes.
    pub async fn start_process(name: &str) -> Result<Self> {
        Self::start_with(name, &[]).await
    }

    /// The same, with flags of its own.
    pub async fn start_with(name: &str, flags: &[&str]) -> Result<Self> {
        let mut world = Self::without_operator(name).await?;
        world.operator = Some(Operator::start(&world.namespace, flags).await?);
        Ok(world)
    }

    /// A namespace with an operator that can reach pods.
    pub async fn start_inside(name: &str) -> Result<Self> {
        let mut world = Self::without_operator(name).await?;
        world.operator = Some(Operator::start_inside(&world.namespace, &[]).await?);
        Ok(world)
    }

    /// The operator that runs.
    pub fn operator(&self) -> &Operator {
        self.operator.as_ref().unwrap_or_else(|| panic!("this test has no operator"))
    }

    /// Waits until a question about the operator is answered with yes.
    pub async fn wait(&self, pool: &str, what: &str, ok: impl Fn(&Operator) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !ok(self.operator())? {
            if began.elapsed() > DEADLINE {
                bail!("{pool}: not {what} after {DEADLINE:?}\n{}", self.tell(pool).await);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// A namespace. It is left behind when a test fails, for looking at.
    pub async fn without_operator(name: &str) -> Result<Self> {
        Self::with_features(name, &Features::all()).await
    }

    /// A namespace for services that are granted what they need for some features only.
    pub async fn with_features(name: &str, features: &Features) -> Result<Self> {
        Self::new(name, features, false).await
    }

    /// Where the operator lives apart, its account does, too.
    async fn new(name: &str, features: &Features, apart: bool) -> Result<Self> {
        let client = client().await?;
        apply_crds(&client).await?;
        let began = Timestamp::now();
        let stamp = began.as_millisecond() % 100_000_000;
        let namespace = format!("e2e-{name}-{stamp}");
        let api: Api<Namespace> = Api::all(client.clone());
        let object = Namespace {
            metadata: ObjectMeta { name: Some(namespace.clone()), ..Default::default() },
            ..Default::default()
        };
        let object = api.create(&PostParams::default(), &object).await?;
        let own = if apart { deployed::create_namespace(&client, &namespace).await? } else { object };
        let accounts = Accounts::make(&client, &own, &namespace, features).await?;
        let refusals = BTreeSet::new();
        Ok(Self { client, namespace, accounts, refusals, began, operator: None, reports: None })
    }

    /// Whether a node runs containers. False on clusters that came up without one; they say why when they start.
    pub async fn has_real_node(&self) -> Result<bool> {
        has_real_node(&self.client).await
    }

    /// Whether simulated pods answer commands: their nodes have an address of their own then.
    pub async fn answers_commands(&self) -> Result<bool> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = nodes.list(&ListParams::default().labels("stoker.dev/node=simulated")).await?;
        Ok(found.items.iter().any(|node| {
            let endpoints = node.status.as_ref().and_then(|s| s.daemon_endpoints.as_ref());
            endpoints.and_then(|e| e.kubelet_endpoint.as_ref()).is_some_and(|e| e.port > 0)
        }))
    }

    /// What an account asked for, whether it might or not.
    pub fn asked(&self, account: &str) -> Result<audit::Asked> {
        audit::asked(&[self.accounts.user(account)?], self.began)
    }

    /// An API server that has just begun has yet to learn of roles, and refuses what they grant. That much is not held against
    /// those who asked.
    pub fn forgive_refusals_of_what_is_granted(&mut self, account: &str) -> Result<()> {
        let granted = self.accounts.granted.deeds(account);
        let is_granted = |asked: &Deed| granted.iter().any(|deed| deed.allows(asked));
        self.refusals.extend(self.asked(account)?.refused.into_iter().filter(is_granted));
        Ok(())
    }

    /// Ends a test that went well: nothing was refused, save what the test wanted to see refused.
    pub async fn finish(mut self) -> Result<()> {
        let users: Vec<&str> = self.accounts.users().collect();
        let refused = audit::asked(&users, self.began)?.refused;
        ensure!(
            refused == self.refusals,
            "{}: refused {refused:?} instead of {:?}\n{}",
            self.namespace,
            self.refusals,
            self.tell("").await
        );
        self.operator = None;
        self.accounts.forget()?;
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.delete(&self.namespace, &Default::default()).await?;
        self.reports.take().map_or(Ok(()), ReportService::remove)
    }

    pub fn pools(&self) -> Api<HotStandbyDeployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a pool whose spec is the smallest one with these fields over it.
    pub async fn apply_pool(&self, name: &str, fields: Value) -> Result<HotStandbyDeployment, kube::Error> {
        let mut object = pool(name);
        merge(&mut object["spec"], fields);
        let params = PatchParams::apply("e2e").force();
        self.pools().patch(name, &params, &Patch::Apply(&object)).await
    }

    /// Changes fields of a pool's spec.
    pub async fn patch_pool(&self, name: &str, fields: Value) -> Result<()> {
        let patch = json!({"spec": fields});
        self.pools().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The pool.
    pub async fn pool(&self, name: &str) -> Result<HotStandbyDeployment> {
        Ok(self.pools().get(name).await?)
    }

    /// The pool's pods that exist and have neither ended nor are terminating, by name.
    pub async fn alive(&self, name: &str) -> Result<Vec<Pod>> {
        self.alive_of(&self.pool(name).await?.uid().unwrap_or_default()).await
    }

    /// The pods of the object with a UID that exist and have neither ended nor are terminating, by name.
    pub async fn alive_of(&self, uid: &str) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(&format!("{}={uid}", keys::OWNER_UID));
        let mut pods: Vec<Pod> = self.pods().list(&params).await?.items.into_iter().filter(alive).collect();
        pods.sort_by_key(|p| p.name_any());
        Ok(pods)
    }

    /// Sets or removes an annotation of pods.
    pub async fn annotate(&self, pods: &[Pod], key: &str, value: Option<&str>) -> Result<()> {
        for pod in pods {
            let patch = json!({"metadata": {"annotations": {key: value}}});
            match self.pods().patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
                // A pod that was seen may have been removed since; counts tell whether that was right.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }

    /// Says that pods are busy, or no longer.
    pub async fn set_busy(&self, pods: &[Pod], busy: bool) -> Result<()> {
        self.annotate(pods, keys::DEFAULT_BUSY_ANNOTATION, Some(if busy { "true" } else { "false" })).await
    }

    /// Creates a ConfigMap with a policy, or replaces its bytes.
    pub async fn put_policy(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
            binary_data: Some([("policy.wasm".to_owned(), k8s_openapi::ByteString(bytes.to_vec()))].into()),
            ..Default::default()
        };
        let params = PatchParams::apply("e2e").force();
        api.patch(name, &params, &Patch::Apply(&map)).await?;
        Ok(())
    }

    /// Waits until a pool's status satisfies a question.
    pub async fn status(
        &self,
        name: &str,
        what: &str,
        ok: impl Fn(&HotStandbyDeployment) -> bool,
    ) -> Result<HotStandbyDeployment> {
        let began = Instant::now();
        loop {
            let pool = self.pool(name).await?;
            if ok(&pool) {
                return Ok(pool);
            }
            if began.elapsed() > DEADLINE {
                bail!("{name}: not {what} after {DEADLINE:?}\n{}", self.tell(name).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a question about the cluster is answered with yes.
    pub async fn until<F: Future<Output = Result<bool>>>(
        &self,
        name: &str,
        what: &str,
        ok: impl Fn() -> F,
    ) -> Result<()> {
        let began = Instant::now();
        while !ok().await? {
            if began.elapsed() > DEADLINE {
                bail!("{name}: not {what} after {DEADLINE:?}\n{}", self.tell(name).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until a pool counts so many busy, idle and total pods.
    pub async fn counts(&self, name: &str, busy: u32, idle: u32, total: u32) -> Result<()> {
        let what = format!("busy {busy}, idle {idle}, total {total}");
        self.status(name, &what, |pool| {
            pool.status.as_ref().is_some_and(|s| {
                (s.busy_count, s.idle_count, s.total_count) == (busy, idle, total) && s.terminating_count == 0
            })
        })
        .await?;
        Ok(())
    }

    /// Checks over and over for a span that something holds.
    pub async fn holds(
        &self,
        name: &str,
        span: Duration,
        what: &str,
        ok: impl Fn(&[Pod]) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < span {
            let pods = self.alive(name).await?;
            if !ok(&pods) {
                bail!("{name}: {what} did not hold\n{}", self.tell(name).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The object, its pods, its Events and the operator's log.
    pub async fn tell(&self, name: &str) -> String {
        let mut text = String::new();
        if let Ok(pool) = self.pool(name).await {
            let status = serde_json::to_string_pretty(&json!({"spec": pool.spec, "status": pool.status}));
            text += &format!("--- {name}\n{}\n", status.unwrap_or_default());
        }
        let jobs: Api<HotStandbyJob> = Api::namespaced(self.client.clone(), &self.namespace);
        if let Ok(pool) = jobs.get(name).await {
            let status = serde_json::to_string_pretty(&json!({"spec": pool.spec, "status": pool.status}));
            text += &format!("--- {name}\n{}\n", status.unwrap_or_default());
        }
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &self.namespace);
        for job in jobs.list(&ListParams::default()).await.into_iter().flatten() {
            let going = if job.metadata.deletion_timestamp.is_some() { ", terminating" } else { "" };
            let conditions = job.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
            let conditions: Vec<_> = conditions.iter().map(|c| format!("{}={}", c.type_, c.status)).collect();
            text += &format!("Job {}{going} {conditions:?}\n", job.name_any());
        }
        if let Ok(pods) = self.pods().list(&ListParams::default()).await {
            text += "--- pods\n";
            for pod in pods {
                let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
                let going = if pod.metadata.deletion_timestamp.is_some() { ", terminating" } else { "" };
                text += &format!("{} {phase}{going} {:?}\n", pod.name_any(), pod.annotations());
            }
        }
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        if let Ok(events) = events.list(&ListParams::default()).await {
            text += "--- events\n";
            for event in events {
                let about = event.involved_object.name.unwrap_or_default();
                let (reason, note) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
                text += &format!("{about}: {reason}: {note}\n");
            }
        }
        if let Some(operator) = &self.operator {
            text += &format!("--- the operator's log\n{}\n", operator.log_tail());
        }
        if let Some(reports) = &self.reports {
            text += &format!("--- the report service's log\n{}\n", reports.log_tail());
        }
        text
    }
}

async fn has_real_node(client: &Client) -> Result<bool> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.list(&ListParams::default().labels("stoker.dev/node=real")).await?;
    Ok(!found.items.is_empty())
}

/// Whether a pod exists and has neither ended nor is terminating.
pub fn alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// The smallest pool: 2 idle, at most 10, no delay, on simulated nodes.
pub fn pool(name: &str) -> Value {
    json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "HotStandbyDeployment",
        "metadata": {"name": name},
        "spec": {
            "idleTarget": 2,
            "maxReplicas": 10,
            "scaleDownDelaySeconds": 0,
            "selector": {"matchLabels": {"app": name}},
            "podTemplate": {"spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "app",
                    "image": "docker.io/local/busybox:1",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                }],
            }},
        },
    })
}

/// Puts an object's fields over another's, deep; null removes.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

async fn apply_crds(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in stoker_api::crds() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&crd)).await?;
        let established = kube::runtime::wait::conditions::is_crd_established();
        let wait = kube::runtime::wait::await_condition(api.clone(), &name, established);
        tokio::time::timeout(DEADLINE, wait)
            .await
            .with_context(|| format!("{name} is not established"))??;
    }
    Ok(())
}

/// The condition of a pool's status, as (status, reason, message).
pub fn condition(pool: &HotStandbyDeployment, type_: &str) -> Option<(String, String, String)> {
    condition_of(&pool.status.as_ref()?.conditions, type_)
}

fn condition_of(conditions: &[Condition], type_: &str) -> Option<(String, String, String)> {
    let found = conditions.iter().find(|c| c.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// A component that `make policies` built.
pub fn built_policy(name: &str) -> Result<Vec<u8>> {
    let path = root().join(format!("target/policies/{name}.wasm"));
    std::fs::read(&path).with_context(|| format!("run `make policies`: {} is missing", path.display()))
}

/// Why a pool says that it cannot go on, as `REASON: words`.
pub fn stalled(pool: &HotStandbyDeployment) -> Option<String> {
    condition(pool, "Stalled")
        .filter(|(status, ..)| status == "True")
        .map(|(_, reason, words)| format!("{reason}: {words}"))
}
