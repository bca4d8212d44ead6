//! One NodeBatchJob in a test's namespace, its executions and its pods.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};
use stoker_api::{Execution, ExecutionState, NodeBatchJob, NodeBatchJobStatus, keys};

use crate::nodes::PrivateNode;
use crate::reports::Answer;
use crate::{DEADLINE, World, merge};

/// A NodeBatchJob of a test.
#[derive(Clone, Copy)]
pub struct NodeBatch<'a> {
    pub world: &'a World,
    pub name: &'a str,
}

/// The smallest one: by hand only, on the test's own nodes, whose pods end well after a time or when they are told to.
pub fn spec(world: &World, ends: Option<&str>) -> Value {
    let mut annotations = json!({});
    if let Some(ends) = ends {
        annotations["sim.stoker.dev/complete-after"] = json!(ends);
    }
    json!({
        "nodes": {"selector": {"e2e": world.namespace}},
        "podTemplate": {
            "metadata": {"annotations": annotations},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"key": "e2e", "operator": "Exists"}],
                "containers": [{
                    "name": "work",
                    "image": "docker.io/local/busybox:1",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                }],
            },
        },
    })
}

/// An object's status.
pub fn status(object: &NodeBatchJob) -> NodeBatchJobStatus {
    object.status.clone().unwrap_or_default()
}

/// The message of a condition that has this status.
pub fn condition(object: &NodeBatchJob, type_: &str, is: &str) -> Option<String> {
    let status = object.status.as_ref()?;
    let found = status.conditions.iter().find(|c| c.type_ == type_ && c.status == is)?;
    Some(found.message.clone())
}

/// The node that a pod is for.
pub fn node(pod: &Pod) -> String {
    pod.annotations().get(keys::NODE).cloned().unwrap_or_default()
}

/// Which attempt of its node a pod is.
pub fn attempt(pod: &Pod) -> String {
    pod.annotations().get(keys::ATTEMPT).cloned().unwrap_or_default()
}

/// A pod has neither ended nor is it going.
pub fn works(pod: &Pod) -> bool {
    crate::alive(pod)
}

/// It has started on its node, and has not ended.
pub fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    works(pod) && phase == Some("Running")
}

/// What a variable says in a pod's first container.
pub fn variable(pod: &Pod, name: &str) -> Result<String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut all = containers.flat_map(|container| container.env.iter().flatten());
    let found = all.find(|variable| variable.name == name).and_then(|variable| variable.value.clone());
    found.with_context(|| format!("pod {} has no {name}", pod.name_any()))
}

/// Nodes of a test's own, on which pods can start.
pub async fn ready_nodes(world: &World, names: &[&str]) -> Result<Vec<PrivateNode>> {
    let mut all = Vec::new();
    for name in names {
        all.push(PrivateNode::create(world, name).await?);
    }
    for node in &all {
        node.ready().await?;
    }
    Ok(all)
}

impl NodeBatch<'_> {
    /// Applies the smallest one with these fields over it.
    pub async fn apply(&self, ends: Option<&str>, fields: Value) -> Result<NodeBatchJob, kube::Error> {
        let mut spec = spec(self.world, ends);
        merge(&mut spec, fields);
        self.world.apply(self.name, spec).await
    }

    pub async fn get(&self) -> Result<NodeBatchJob> {
        Ok(self.world.api::<NodeBatchJob>().get(self.name).await?)
    }

    /// Changes fields of the spec.
    pub async fn patch(&self, fields: Value) -> Result<NodeBatchJob> {
        Ok(self.world.merge(self.name, json!({"spec": fields})).await?)
    }

    /// Waits until its status is as wanted.
    pub async fn status(
        &self,
        what: &str,
        ok: impl Fn(&NodeBatchJobStatus) -> bool,
    ) -> Result<NodeBatchJobStatus> {
        let object = self.world.object(self.name, what, |object: &NodeBatchJob| ok(&status(object))).await?;
        Ok(status(&object))
    }

    /// Waits until the newest execution is as wanted.
    pub async fn newest(&self, what: &str, ok: impl Fn(&Execution) -> bool) -> Result<Execution> {
        let status = self.status(what, |s| s.executions.first().is_some_and(&ok)).await?;
        status.executions.into_iter().next().context("no execution")
    }

    /// Waits until the newest execution is over, and checks how it ended.
    pub async fn over(&self, state: ExecutionState, progress: &str) -> Result<Execution> {
        let newest = self.newest("over", |e| e.completion_time.is_some()).await?;
        if (newest.state, newest.progress.as_str()) != (state, progress) {
            bail!(
                "{}: not {state:?} {progress}, but {newest:?}\n{}",
                self.name,
                self.world.tell(self.name).await
            );
        }
        Ok(newest)
    }

    /// Asks for an execution.
    pub async fn ask(&self) -> Result<String> {
        let text = Timestamp::now().to_string();
        let patch = json!({"metadata": {"annotations": {keys::RUN_NOW: text}}});
        self.world.merge::<NodeBatchJob>(self.name, patch).await?;
        Ok(text)
    }

    /// Begins an execution by hand, and waits until it has begun.
    pub async fn run(&self) -> Result<Execution> {
        let text = self.ask().await?;
        let answered = |s: &NodeBatchJobStatus| s.run_now.as_ref() == Some(&text) && !s.executions.is_empty();
        let status = self.status("answering to run-now", answered).await?;
        status.executions.into_iter().next().context("no execution")
    }

    /// All of its pods, by name.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        self.pods_of(&self.get().await?.uid().unwrap_or_default()).await
    }

    /// All pods of the object that has or had a UID, by name.
    pub async fn pods_of(&self, uid: &str) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(&format!("{}={uid}", keys::OWNER_UID));
        let mut pods = self.world.pods().list(&params).await?.items;
        pods.sort_by_key(|pod| pod.name_any());
        Ok(pods)
    }

    /// Waits until a question about its pods is answered with yes.
    pub async fn until_pods(&self, what: &str, ok: impl Fn(&[Pod]) -> bool) -> Result<Vec<Pod>> {
        let began = Instant::now();
        loop {
            let pods = self.pods().await?;
            if ok(&pods) {
                return Ok(pods);
            }
            if began.elapsed() > DEADLINE {
                let object = serde_json::to_string_pretty(&self.get().await?)?;
                let told = self.world.tell(self.name).await;
                bail!("{}: not {what} after {DEADLINE:?}\n{object}\n{told}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many of its pods run, and returns them.
    pub async fn until_running(&self, count: usize) -> Result<Vec<Pod>> {
        let so_many = |pods: &[Pod]| pods.iter().filter(|pod| runs(pod)).count() == count;
        let pods = self.until_pods(&format!("running {count} pods"), so_many).await?;
        Ok(pods.into_iter().filter(runs).collect())
    }

    /// Has pods end, well or badly.
    pub async fn end(&self, pods: &[Pod], well: bool) -> Result<()> {
        let phase = if well { "Succeeded" } else { "Failed" };
        self.world.annotate(pods, "sim.stoker.dev/phase", Some(phase)).await
    }

    /// Posts something in the name of a pod: to the address in this variable, with this behind it.
    pub async fn report(&self, pod: &Pod, to: &str, query: &str, body: &str) -> Result<Answer> {
        let url = variable(pod, &format!("CALLBACK_SERVICE_{to}_URL"))?;
        self.world.reports().post(&format!("{url}{query}"), body.to_owned()).await
    }
}

impl World {
    /// Ends a test that went well: with an operator, which lets the pods go.
    pub async fn finish_node_batches(self, nodes: Vec<PrivateNode>) -> Result<()> {
        self.delete_all::<NodeBatchJob>().await?;
        for node in nodes {
            node.delete().await?;
        }
        self.finish().await
    }
}
