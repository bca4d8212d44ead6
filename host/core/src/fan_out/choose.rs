//! Which nodes are chosen: those on which a pod of the template could start, and that nobody has excluded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use super::affinity::{Toleration, selects};
use super::node::NodeView;

/// The taint that a cordoned node gets.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What a node must be like.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Names of nodes that are left out.
    pub excluded: BTreeSet<String>,
    /// The only node there is to be, if one is named.
    pub only: Option<String>,
    /// Labels that it must have.
    pub labels: BTreeMap<String, String>,
    /// A core/v1 NodeSelector that must select it.
    pub affinity: Option<Value>,
    /// Cordoned ones are chosen, too.
    pub cordoned: bool,
    /// What the pod's spec says: its nodeName, nodeSelector, required node affinity and tolerations.
    pod_node: Option<String>,
    pod_labels: BTreeMap<String, String>,
    pod_affinity: Option<Value>,
    pod_tolerations: Vec<Toleration>,
}

/// Why a node is not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PassedOver {
    /// It is excluded by name, or another one is named.
    Excluded,
    /// A label is missing or another, or the node affinity does not hold.
    Unselected,
    /// It has a taint that is not tolerated.
    Tainted,
    /// It is cordoned.
    Cordoned,
    /// It is not Ready.
    NotReady,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Excluded => "excluded",
            Self::Unselected => "not selected",
            Self::Tainted => "tainted",
            Self::Cordoned => "cordoned",
            Self::NotReady => "not Ready",
        })
    }
}

impl Rules {
    /// What a pod's raw spec demands of its node. The other fields are as they are by default: nothing is left out but
    /// cordoned nodes.
    pub fn of_pod(pod: &Map<String, Value>) -> Self {
        let labels = pod.get("nodeSelector").and_then(Value::as_object).into_iter().flatten();
        let affinity = pod.get("affinity").map(|affinity| &affinity["nodeAffinity"]);
        let required = affinity.map(|node| &node["requiredDuringSchedulingIgnoredDuringExecution"]);
        let name = pod.get("nodeName").and_then(Value::as_str).filter(|name| !name.is_empty());
        Self {
            pod_node: name.map(str::to_owned),
            pod_labels: labels
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            pod_affinity: required.filter(|required| !required.is_null()).cloned(),
            pod_tolerations: Toleration::of(pod),
            ..Self::default()
        }
    }

    /// Whether a node is chosen, or why not.
    pub fn choose(&self, node: &NodeView) -> Result<(), PassedOver> {
        let other = |name: &Option<String>| name.as_ref().is_some_and(|name| *name != node.name);
        if self.excluded.contains(&node.name) || other(&self.only) || other(&self.pod_node) {
            return Err(PassedOver::Excluded);
        }
        let mut labels = self.labels.iter().chain(&self.pod_labels);
        if labels.any(|(key, value)| node.labels.get(key) != Some(value))
            || self.affinity.iter().chain(&self.pod_affinity).any(|affinity| !selects(affinity, node))
        {
            return Err(PassedOver::Unselected);
        }
        if !node.ready {
            return Err(PassedOver::NotReady);
        }
        if node.unschedulable && !self.cordoned {
            return Err(PassedOver::Cordoned);
        }
        for taint in &node.taints {
            let repels = taint.effect == "NoSchedule" || taint.effect == "NoExecute";
            let by_choice = self.cordoned && taint.key == UNSCHEDULABLE;
            let tolerated = || self.pod_tolerations.iter().any(|toleration| toleration.tolerates(taint));
            if repels && !by_choice && !tolerated() {
                let cordon = taint.key == UNSCHEDULABLE;
                return Err(if cordon { PassedOver::Cordoned } else { PassedOver::Tainted });
            }
        }
        Ok(())
    }
}

/// The toleration of a pod that is to start on a cordoned node.
pub(crate) fn tolerate_cordon(pod: &mut Map<String, Value>) {
    let wanted = serde_json::json!({"key": UNSCHEDULABLE, "operator": "Exists", "effect": "NoSchedule"});
    let all = crate::job_body::list(pod.entry("tolerations").or_insert(Value::Null));
    if !all.contains(&wanted) {
        all.push(wanted);
    }
}
