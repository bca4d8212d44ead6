//! HotStandbyDeployment: a pool of pods of which some are always idle and Ready.
// Clippy takes the columns' repeated keys for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DecisionSummary, PodTemplate, PolicyStatus, PoolSpec, Selector};

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
    printcolumn(name = "Claimed", type_ = "integer", json_path = ".status.claimedCount", priority = 1),
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
    /// Never more pods than this, terminating ones included.
    #[serde(default = "default_max")]
    #[schemars(schema_with = "crate::schema::maximum")]
    pub max_replicas: u32,
    /// Labels by which others find the pods; they are added to the template's. Cannot be changed.
    pub selector: Selector,
    /// What the pods look like.
    pub pod_template: PodTemplate,
    /// What pools of both kinds share.
    #[serde(flatten)]
    pub pool: PoolSpec,
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
    /// Pods that were claimed and are not busy by the probe; they are never removed.
    #[schemars(schema_with = "crate::schema::count")]
    pub claimed_count: u32,
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
    /// Ready, StandbyAvailable, Reconciling, Stalled, PolicyHealthy, ProbesHealthy, TemplateValid, Conflict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

fn default_max() -> u32 {
    1000
}
