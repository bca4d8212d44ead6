//! StandbyClaim: one standby pod of a pool, handed out to whoever made the object.
// Clippy takes the columns' repeated keys for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A claim on one standby pod. While none is ready it waits, and counts as demand. Deleting it releases the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "StandbyClaim",
    plural = "standbyclaims",
    shortname = "sbc",
    category = "stoker",
    namespaced,
    status = "StandbyClaimStatus",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName"),
    printcolumn(name = "IP", type_ = "string", json_path = ".status.podIP"),
    printcolumn(name = "Bound", type_ = "date", json_path = ".status.boundAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Bound")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.poolRef == oldSelf.poolRef && (has(self.selector) ? has(oldSelf.selector) && self.selector == oldSelf.selector : !has(oldSelf.selector))")
        .message("poolRef and selector cannot be changed: delete the claim and make another")
)]
pub struct StandbyClaimSpec {
    /// The pool, in this namespace.
    pub pool_ref: PoolReference,
    /// Seconds from binding after which the pod is released, if it is not at work by its probe by then. Omitted: it is
    /// kept until this object is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_seconds")]
    pub ttl_seconds: Option<u32>,
    /// Labels that the pod must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::label_map")]
    pub selector: BTreeMap<String, String>,
    /// Written into the pod's annotation `stoker.dev/claim`, for the workload to read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::claim_metadata")]
    pub metadata: BTreeMap<String, String>,
}

/// A pool by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolReference {
    /// Its kind.
    #[serde(default)]
    pub kind: PoolKindName,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The kinds of pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PoolKindName {
    /// A pool of pods.
    #[default]
    HotStandbyDeployment,
    /// A pool of Jobs.
    HotStandbyJob,
}

/// How far a claim has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimPhase {
    /// It waits for a pod.
    #[default]
    Pending,
    /// It has its pod.
    Bound,
    /// Its time is over, or its pod did not turn busy in time.
    Expired,
    /// Its pod's work is done, or its pod is gone.
    Released,
}

/// What became of a claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StandbyClaimStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far it has come.
    pub phase: ClaimPhase,
    /// The pod that it has, or is about to get while it is Pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// The pod's UID.
    #[serde(skip_serializing_if = "Option::is_none", rename = "podUID")]
    #[schemars(rename = "podUID")]
    pub pod_uid: Option<String>,
    /// The pod's address.
    #[serde(skip_serializing_if = "Option::is_none", rename = "podIP")]
    #[schemars(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// The node that the pod runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Named ports of the pod's containers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::named_ports")]
    pub ports: BTreeMap<String, u16>,
    /// When it got its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub bound_at: Option<Timestamp>,
    /// Bound.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
