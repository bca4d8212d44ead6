//! Simulated nodes of a test's own, which it may cordon and delete.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{DEADLINE, World};

/// Label on nodes that were made many at a time: the namespace that they are for.
const MANY: &str = "e2e-many";

/// Nodes that are asked for at a time.
const AT_A_TIME: usize = 16;

/// A thousand nodes come and go within this time, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(600);

/// A simulated node for the pods of one test, which select it by the label `e2e=NAMESPACE` and tolerate its taint.
pub struct PrivateNode {
    api: Api<Node>,
    pub name: String,
}

impl PrivateNode {
    pub async fn create(world: &World, suffix: &str) -> Result<Self> {
        let api: Api<Node> = Api::all(world.client.clone());
        let node = node(world, suffix)?;
        api.create(&PostParams::default(), &node).await?;
        Ok(Self { api, name: node.name_any() })
    }

    /// Waits until pods can start on it.
    pub async fn ready(&self) -> Result<()> {
        let began = Instant::now();
        while !is_ready(&self.api.get(&self.name).await?) {
            ensure!(began.elapsed() < DEADLINE, "node {} is not Ready", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Cordons it, or takes that back.
    pub async fn cordon(&self, on: bool) -> Result<()> {
        let patch = json!({"spec": {"unschedulable": on}});
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    pub async fn delete(&self) -> Result<()> {
        self.api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Many such nodes.
pub struct PrivateNodes {
    api: Api<Node>,
    mine: ListParams,
    count: usize,
}

impl PrivateNodes {
    /// Asks for so many. Those that a killed program left behind are removed first.
    pub async fn create(world: &World, count: usize) -> Result<Self> {
        let api: Api<Node> = Api::all(world.client.clone());
        let nodes =
            Self { api, mine: ListParams::default().labels(&format!("{MANY}={}", world.namespace)), count };
        nodes.remove(&ListParams::default().labels(MANY)).await?;
        let created = nodes.create_all(world).await;
        if created.is_err() {
            nodes.remove(&nodes.mine).await?;
        }
        created.map(|()| nodes)
    }

    async fn create_all(&self, world: &World) -> Result<()> {
        stream::iter(0..self.count)
            .map(|n| async move {
                let mut node = node(world, &n.to_string())?;
                node.labels_mut().insert(MANY.to_owned(), world.namespace.clone());
                anyhow::Ok(self.api.create(&PostParams::default(), &node).await.map(drop)?)
            })
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await
    }

    /// Waits until pods can start on all of them.
    pub async fn ready(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let nodes = self.api.list(&self.mine).await?.items;
            let ready = nodes.iter().filter(|node| is_ready(node)).count();
            if ready == self.count {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{ready} of {} nodes are Ready", self.count);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Deletes them, and waits until they are gone.
    pub async fn delete(self) -> Result<()> {
        self.remove(&self.mine).await
    }

    async fn remove(&self, which: &ListParams) -> Result<()> {
        let began = Instant::now();
        while !self.api.list_metadata(&which.clone().limit(1)).await?.items.is_empty() {
            ensure!(began.elapsed() < PATIENCE, "nodes do not go");
            self.api.delete_collection(&DeleteParams::default(), which).await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

/// It is Ready, and has no taint but its own.
fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let own = |taints: &[Taint]| taints.iter().all(|taint| taint.key == "e2e");
    conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True")
        && node.spec.as_ref().and_then(|s| s.taints.as_deref()).is_none_or(own)
}

fn node(world: &World, suffix: &str) -> Result<Node> {
    let name = format!("{}-{suffix}", world.namespace);
    // A host's name has at most 63 characters, a node's up to 253.
    let hostname = name[..name.len().min(63)].trim_end_matches(['.', '-']);
    let size = json!({"cpu": "32", "memory": "256Gi", "pods": "110"});
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": hostname, "e2e": world.namespace, "type": "kwok"},
        },
        "spec": {"taints": [{"key": "e2e", "value": "private", "effect": "NoSchedule"}]},
        "status": {"capacity": size, "allocatable": size},
    }))?)
}

/// The name of a pod's node; empty when it has none.
pub fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}
