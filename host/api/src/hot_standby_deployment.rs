//! HotStandbyDeployment: a pool of pods of which some are always idle and Ready.
// Clippy takes the columns' repeated keys for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BusyProbe, DecisionSummary, PodTemplate, PolicyRef, PolicyStatus};

/// A pool of pods of which `idleTarget` are always idle: whenever some turn busy, others are started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "HotStandbyDeployment",
    plural = "hotstandbydeployments",
    shortname = "hsd",
    category = "stoker",
    category = "all",
    namespaced,
    status = "HotStandbyDeploymentStatus",
    scale(
        spec_replicas_path = ".spec.idleTarget",
        status_replicas_path = ".status.idleCount",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "IdleTarget", type_ = "integer", json_path = ".spec.idleTarget"),
    printcolumn(name = "Busy", type_ = "integer", json_path = ".status.busyCount"),
    printcolumn(name = "Idle", type_ = "integer", json_path = ".status.idleCount"),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.totalCount"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.lastDecision.by", priority = 1),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.lastDecision.reason", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be greater than maxReplicas"),
    validation = Rule::new("self.selector == oldSelf.selector")
        .message("selector cannot be changed: delete the object and create it anew"),
    validation = Rule::new("!has(self.podTemplate.metadata) || !has(self.podTemplate.metadata.labels) || self.selector.matchLabels.all(k, !(k in self.podTemplate.metadata.labels) || self.podTemplate.metadata.labels[k] == self.selector.matchLabels[k])")
        .message("podTemplate.metadata.labels contradict selector.matchLabels: give the same value or leave the label out, it is added")
)]
pub struct HotStandbyDeploymentSpec {
    /// Pods to keep idle, beside the busy ones.
    #[schemars(schema_with = "crate::schema::count")]
    pub idle_target: u32,
    /// Never fewer pods than this.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::count")]
    pub min_replicas: u32,
    /// Never more pods than this, terminating ones included.
    #[serde(default = "default_max")]
    #[schemars(schema_with = "crate::schema::maximum")]
    pub max_replicas: u32,
    /// How long a surplus must have lasted before idle pods are removed.
    #[serde(default = "default_delay")]
    #[schemars(schema_with = "crate::schema::count")]
    pub scale_down_delay_seconds: u32,
    /// Labels by which others find the pods; they are added to the template's. Cannot be changed.
    pub selector: Selector,
    /// How to learn that a pod is busy.
    #[serde(default)]
    pub busy_probe: BusyProbe,
    /// What the pods look like.
    pub pod_template: PodTemplate,
    /// Who decides how many pods there should be, and whether they are busy. Omitted: the documented formula,
    /// clamp(busy + idleTarget, minReplicas, maxReplicas).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// How pods are replaced: those of another template, used, stale or displaced ones.
    #[serde(default)]
    pub replenish: Replenish,
    /// What becomes of a pod that was busy and turns idle.
    #[serde(default)]
    pub after_use: AfterUse,
    /// How long a pod may be idle before it is replaced by a fresh one. Omitted: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_seconds")]
    pub max_idle_seconds: Option<u32>,
    /// How long a pod may take to get Ready for the first time before the object says that it is stalled.
    #[serde(default = "default_startup_timeout")]
    #[schemars(schema_with = "crate::schema::seconds")]
    pub startup_timeout_seconds: u32,
    /// Which idle pods go first when there are too many. Omitted: the youngest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// True: the label `stoker.dev/state` of each pod says starting, idle, busy or unknown, for Services and
    /// PodDisruptionBudgets. Costs one patch of the pod for each transition.
    #[serde(default)]
    pub state_labels: bool,
    /// Whether pods carry the annotations by which the cluster-autoscaler and Karpenter spare busy ones.
    #[serde(default)]
    pub disruption: Disruption,
    /// What becomes of the pods when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// True: no pod is created or removed; counts are still kept.
    #[serde(default)]
    pub paused: bool,
}

/// How pods are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replenish {
    /// Pods that may exist beyond the desired number, and within maxReplicas, while others are replaced. 0: one
    /// pod goes before its replacement comes. Displaced pods are replaced all at once.
    #[serde(default = "default_surge")]
    #[schemars(schema_with = "crate::schema::count")]
    pub max_surge: u32,
    /// Pods that are created within a second at most. Omitted: as many as are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_rate")]
    pub max_per_second: Option<u32>,
}

impl Default for Replenish {
    fn default() -> Self {
        Self { max_surge: default_surge(), max_per_second: None }
    }
}

/// What becomes of a pod that was busy and turns idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AfterUse {
    /// It is standby again.
    #[default]
    Reuse,
    /// It is replaced by a fresh one, as sandboxes and runners need it. A pod seen busy is marked with the
    /// annotation `stoker.dev/used`, which costs one patch.
    Replace,
}

/// Which idle pods go first when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// Those on the node with the most pods of the pool, so that the pool stays spread.
    Spread,
    /// Those on the node with the fewest pods of the pool, so that nodes become empty.
    Packed,
}

/// Whether pods tell autoscalers what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// Their annotations are left alone.
    #[default]
    Unmanaged,
    /// Busy and unknown pods must not be evicted, idle ones may. Costs one patch of the pod for each transition.
    Annotate,
}

/// What becomes of the pods when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They go with it, busy ones, too.
    #[default]
    Delete,
    /// Idle ones go at once, busy ones when they turn idle; until then the object stays.
    Drain,
}

/// A label selector by equality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("size(self.matchLabels) > 0")
        .message("selector.matchLabels must not be empty: an empty selector would select every pod")
)]
pub struct Selector {
    /// Every one of these labels.
    #[schemars(schema_with = "crate::schema::label_map")]
    pub match_labels: BTreeMap<String, String>,
}

/// What Stoker has seen and done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HotStandbyDeploymentStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Busy pods by the last verdict.
    #[schemars(schema_with = "crate::schema::count")]
    pub busy_count: u32,
    /// Standby: idle, Ready pods.
    #[schemars(schema_with = "crate::schema::count")]
    pub idle_count: u32,
    /// Pods that have not been Ready yet.
    #[schemars(schema_with = "crate::schema::count")]
    pub starting_count: u32,
    /// Pods about which nothing is known; they are never removed.
    #[schemars(schema_with = "crate::schema::count")]
    pub unknown_count: u32,
    /// Pods that are being deleted.
    #[schemars(schema_with = "crate::schema::count")]
    pub terminating_count: u32,
    /// Pods that exist and have not ended, without the terminating ones.
    #[schemars(schema_with = "crate::schema::count")]
    pub total_count: u32,
    /// Pods that there should be.
    #[schemars(schema_with = "crate::schema::count")]
    pub desired_replicas: u32,
    /// Idle pods that are being replaced: of another template, used, stale, or on a node that is about to be lost.
    #[schemars(schema_with = "crate::schema::count")]
    pub replacing_count: u32,
    /// The selector as a string, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Why the pool has the size that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<DecisionSummary>,
    /// The policy; absent when the spec names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Ready, StandbyAvailable, Reconciling, Stalled, PolicyHealthy, TemplateValid, Conflict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

fn default_max() -> u32 {
    1000
}

fn default_surge() -> u32 {
    1
}

fn default_startup_timeout() -> u32 {
    300
}

fn default_delay() -> u32 {
    30
}
