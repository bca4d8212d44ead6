//! Nodes as they are read from the watch: only the fields that core reads are kept.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use stoker_core::fan_out::{NodeView, Taint};

use crate::slim_meta::slim;

/// A node with the fields that are read.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Node)]
pub struct SlimNode {
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimSpec {
    unschedulable: bool,
    taints: Vec<SlimTaint>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimTaint {
    key: String,
    #[serde(default)]
    value: String,
    effect: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimStatus {
    conditions: Vec<SlimCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

impl SlimNode {
    fn ready(&self) -> Option<bool> {
        self.status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status == "True")
    }

    /// Whether its pods are about to go. A drain cordons before it evicts, so that being cordoned tells both.
    pub fn is_being_lost(&self) -> bool {
        self.spec.unschedulable || self.ready() == Some(false) || self.metadata.deletion_timestamp.is_some()
    }

    /// What core reads of it.
    pub fn into_view(self) -> NodeView {
        let ready = self.ready() == Some(true) && self.metadata.deletion_timestamp.is_none();
        let taint = |t: SlimTaint| Taint { key: t.key, value: t.value, effect: t.effect };
        NodeView {
            name: self.metadata.name.unwrap_or_default(),
            uid: self.metadata.uid.unwrap_or_default(),
            labels: self.metadata.labels.unwrap_or_default(),
            taints: self.spec.taints.into_iter().map(taint).collect(),
            unschedulable: self.spec.unschedulable,
            ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(ready: &str, unschedulable: bool) -> SlimNode {
        serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "a", "uid": "u", "labels": {"zone": "x"}},
            "spec": {
                "unschedulable": unschedulable,
                "taints": [{"key": "gpu", "effect": "NoSchedule"}],
            },
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_node_is_seen_with_what_work_on_every_node_reads() {
        let view = node("True", false).into_view();
        assert!(view.ready && !view.unschedulable && view.labels.contains_key("zone"));
        assert_eq!(
            view.taints,
            [Taint { key: "gpu".into(), value: String::new(), effect: "NoSchedule".into() }]
        );
        assert!(!node("Unknown", false).into_view().ready);
        assert!(node("True", true).is_being_lost() && !node("True", false).is_being_lost());
    }
}
