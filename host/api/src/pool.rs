//! What pools share, whatever their members are: the fields that both kinds of HotStandby object have.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BusyProbe, PolicyRef, Signal};

/// How a pool is kept, whatever its members are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Never fewer pods than this.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::count")]
    pub min_replicas: u32,
    /// How long a surplus must have lasted before idle pods are removed.
    #[serde(default = "default_delay")]
    #[schemars(schema_with = "crate::schema::count")]
    pub scale_down_delay_seconds: u32,
    /// How to learn that a pod is busy.
    #[serde(default)]
    pub busy_probe: BusyProbe,
    /// Who decides how many pods there should be, and whether they are busy. Omitted: the documented formula,
    /// clamp(busy + idleTarget, minReplicas, maxReplicas).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// Numbers from outside that the policy is given, such as a queue's length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::signal::signals")]
    pub signals: Vec<Signal>,
    /// How pods are replaced: those of another template, used, stale or displaced ones.
    #[serde(default)]
    pub replenish: Replenish,
    /// What becomes of a pod that was busy and turns idle.
    #[serde(default)]
    pub after_use: AfterUse,
    /// How long a claim counts although the busy probe does not agree that its pod is at work. Omitted: until it is
    /// released or expires, as where no workload tells what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_seconds")]
    pub claim_timeout_seconds: Option<u32>,
    /// What becomes of a pod whose claim has passed claimTimeoutSeconds.
    #[serde(default)]
    pub after_claim_timeout: AfterClaimTimeout,
    /// When a claim ends whose pod was at work.
    #[serde(default)]
    pub claim_ends: ClaimEnds,
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
    /// True: the label `stoker.dev/state` of each pod says starting, idle, busy, claimed or unknown, for Services and
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

/// What becomes of a pod whose claim was not followed by work in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AfterClaimTimeout {
    /// It is replaced by a fresh one: whoever claimed it may have begun something in it.
    #[default]
    Replace,
    /// It is standby again, and may be claimed by another.
    Return,
}

/// When a claim ends whose pod was at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimEnds {
    /// When the pod turns idle: its work is done.
    #[default]
    WhenIdle,
    /// When it is released or expires; meanwhile the pod may turn busy and idle as it likes.
    WhenReleased,
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

fn default_surge() -> u32 {
    1
}

fn default_startup_timeout() -> u32 {
    300
}

fn default_delay() -> u32 {
    30
}
