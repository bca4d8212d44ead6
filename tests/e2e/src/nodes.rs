//! Simulated nodes of a test's own, which it may cordon and delete.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::World;

/// A simulated node for the pods of one test, which select it by the label `e2e=NAMESPACE` and tolerate its taint.
pub struct PrivateNode {
    api: Api<Node>,
    pub name: String,
}

impl PrivateNode {
    pub async fn create(world: &World, suffix: &str) -> Result<Self> {
        let api: Api<Node> = Api::all(world.client.clone());
        let name = format!("{}-{suffix}", world.namespace);
        // A host's name has at most 63 characters, a node's up to 253.
        let hostname = name[..name.len().min(63)].trim_end_matches(['.', '-']);
        let size = json!({"cpu": "32", "memory": "256Gi", "pods": "110"});
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {"kubernetes.io/hostname": hostname, "e2e": world.namespace, "type": "kwok"},
            },
            "spec": {"taints": [{"key": "e2e", "value": "private", "effect": "NoSchedule"}]},
            "status": {"capacity": size, "allocatable": size},
        }))?;
        api.create(&PostParams::default(), &node).await?;
        Ok(Self { api, name })
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

/// The name of a pod's node; empty when it has none.
pub fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}
