//! How Stoker learns that a pod is busy.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How Stoker learns that a pod is busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'condition' || !has(self.condition)")
        .message("busyProbe.condition is for mode condition only: set mode: condition or remove it")
)]
pub struct BusyProbe {
    /// Where the answer comes from.
    #[serde(default)]
    pub mode: BusyProbeMode,
    /// Mode annotation: the pod's annotation that says `true` (in any case) while it is busy.
    #[serde(default = "default_annotation")]
    #[schemars(length(min = 1, max = 317))]
    pub annotation_key: String,
    /// Mode condition: which condition of the pod says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionProbe>,
}

impl Default for BusyProbe {
    fn default() -> Self {
        Self { mode: BusyProbeMode::default(), annotation_key: default_annotation(), condition: None }
    }
}

/// Where the answer comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BusyProbeMode {
    /// An annotation of the pod, which the pod or its matchmaker sets.
    #[default]
    Annotation,
    /// A condition in the pod's status, such as Ready, for which the kubelet does the probing.
    Condition,
}

/// A condition of the pod that says whether it is busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionProbe {
    /// The condition's type. With `Ready`, a pod counts as starting until it was Ready once.
    #[serde(rename = "type", default = "default_condition")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// The status that means busy; the opposite means idle, `Unknown` means unknown, a missing condition idle.
    #[serde(default)]
    pub busy_status: ConditionStatus,
}

impl Default for ConditionProbe {
    fn default() -> Self {
        Self { type_: default_condition(), busy_status: ConditionStatus::default() }
    }
}

/// A status of a condition that is a clear answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    #[default]
    False,
}

fn default_annotation() -> String {
    crate::keys::DEFAULT_BUSY_ANNOTATION.to_owned()
}

fn default_condition() -> String {
    "Ready".to_owned()
}
