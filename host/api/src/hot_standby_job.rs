//! HotStandbyJob: a pool of Jobs of which some are always idle and Ready.
// Clippy takes the columns' repeated keys for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{DecisionSummary, PolicyStatus, PoolSpec, Selector};

/// A pool of Jobs of which `idleTarget` are always idle: whenever some turn busy or finish, others are started.
/// One Job is one unit, whatever its parallelism.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "HotStandbyJob",
    plural = "hotstandbyjobs",
    shortname = "hsj",
    category = "stoker",
    category = "all",
    namespaced,
    status = "HotStandbyJobStatus",
    scale(
        spec_replicas_path = ".spec.idleTarget",
        status_replicas_path = ".status.idleCount",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.busyProbe.mode"),
    printcolumn(name = "IdleTarget", type_ = "integer", json_path = ".spec.idleTarget"),
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.minReplicas"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxReplicas"),
    printcolumn(name = "Busy", type_ = "integer", json_path = ".status.busyCount"),
    printcolumn(name = "Idle", type_ = "integer", json_path = ".status.idleCount"),
    printcolumn(name = "ActivePods", type_ = "integer", json_path = ".status.activeCount"),
    printcolumn(name = "DesiredActive", type_ = "integer", json_path = ".status.desiredActive"),
    printcolumn(name = "ChildJobs", type_ = "integer", json_path = ".status.childJobs"),
    printcolumn(name = "ActiveJobs", type_ = "integer", json_path = ".status.activeJobs"),
    printcolumn(name = "CompletedJobs", type_ = "integer", json_path = ".status.completedJobs"),
    printcolumn(name = "FailedJobs", type_ = "integer", json_path = ".status.failedJobs"),
    printcolumn(name = "LastSync", type_ = "date", json_path = ".status.lastSyncTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        priority = 1
    ),
    printcolumn(name = "Claimed", type_ = "integer", json_path = ".status.claimedCount", priority = 1),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.lastDecision.by", priority = 1),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.lastDecision.reason", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.jobTemplate.template)")
        .message("jobTemplate.template is missing: jobTemplate is a batch/v1 JobSpec, so that image and command belong into jobTemplate.template.spec.containers"),
    validation = Rule::new("!has(self.jobTemplate.suspend) || !self.jobTemplate.suspend")
        .message("jobTemplate.suspend must not be true: a suspended Job starts no pods; to stop the pool set paused: true"),
    validation = Rule::new("!has(self.jobTemplate.manualSelector) || !self.jobTemplate.manualSelector")
        .message("jobTemplate.manualSelector must not be true: Kubernetes chooses each Job's selector, or Jobs would take each other's pods"),
    validation = Rule::new("!has(self.jobTemplate.podReplacementPolicy) || self.jobTemplate.podReplacementPolicy == 'Failed'")
        .message("jobTemplate.podReplacementPolicy must be Failed or left out: otherwise a Job that is being removed would start another pod"),
    validation = Rule::new("!has(self.selector) || !has(self.jobTemplate.template) || !has(self.jobTemplate.template.metadata) || !has(self.jobTemplate.template.metadata.labels) || self.selector.matchLabels.all(k, !(k in self.jobTemplate.template.metadata.labels) || self.jobTemplate.template.metadata.labels[k] == self.selector.matchLabels[k])")
        .message("jobTemplate.template.metadata.labels contradict selector.matchLabels: give the same value or leave the label out, it is added")
)]
pub struct HotStandbyJobSpec {
    /// Jobs to keep idle, beside the busy ones.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::count")]
    pub idle_target: u32,
    /// Never more unfinished Jobs than this, also if minReplicas is greater. Omitted: no bound but the number of
    /// slots, 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_count")]
    pub max_replicas: Option<u32>,
    /// Labels by which others find the pods; they are added to the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// What the Jobs look like: a batch/v1 JobSpec. Where it says nothing, parallelism and completions are 1 and the
    /// pods' restartPolicy is Never. A change is for new Jobs only. Kubernetes itself checks it: by a dry run when it
    /// changes (condition TemplateValid).
    #[schemars(schema_with = "crate::schema::job_spec")]
    pub job_template: Map<String, Value>,
    /// Completed Jobs to keep. Omitted: they are left to jobTemplate.ttlSecondsAfterFinished; if that is
    /// omitted, too, the last 10 are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_count")]
    pub successful_jobs_history_limit: Option<u32>,
    /// Failed Jobs to keep, as for the completed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_count")]
    pub failed_jobs_history_limit: Option<u32>,
    /// What pools of both kinds share. `Pods` are Jobs here where members of the pool are meant.
    #[serde(flatten)]
    pub pool: PoolSpec,
}

/// What Stoker has seen and done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HotStandbyJobStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Jobs of which a pod is busy by the last verdict, or has succeeded already.
    #[schemars(schema_with = "crate::schema::count")]
    pub busy_count: u32,
    /// Standby: Jobs all of whose pods are idle and Ready.
    #[schemars(schema_with = "crate::schema::count")]
    pub idle_count: u32,
    /// Jobs whose pods have not all been Ready yet.
    #[schemars(schema_with = "crate::schema::count")]
    pub starting_count: u32,
    /// Jobs about which nothing is known; they are never removed.
    #[schemars(schema_with = "crate::schema::count")]
    pub unknown_count: u32,
    /// Jobs that were claimed and are not busy by the probe; they are never removed.
    #[schemars(schema_with = "crate::schema::count")]
    pub claimed_count: u32,
    /// Jobs that are being deleted.
    #[schemars(schema_with = "crate::schema::count")]
    pub terminating_count: u32,
    /// Idle Jobs that are being replaced: used, stale, or on a node that is about to be lost.
    #[schemars(schema_with = "crate::schema::count")]
    pub replacing_count: u32,
    /// Pods that exist and have neither ended nor are terminating.
    #[schemars(schema_with = "crate::schema::count")]
    pub active_count: u32,
    /// Unfinished Jobs that there should be.
    #[schemars(schema_with = "crate::schema::count")]
    pub desired_active: u32,
    /// Jobs that exist, finished ones included.
    #[schemars(schema_with = "crate::schema::count")]
    pub child_jobs: u32,
    /// Jobs that have neither finished nor are terminating.
    #[schemars(schema_with = "crate::schema::count")]
    pub active_jobs: u32,
    /// Completed Jobs that still exist.
    #[schemars(schema_with = "crate::schema::count")]
    pub completed_jobs: u32,
    /// Failed Jobs that still exist.
    #[schemars(schema_with = "crate::schema::count")]
    pub failed_jobs: u32,
    /// When this status was written. It moves only together with another field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub last_sync_time: Option<Timestamp>,
    /// The selector as a string, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Why the pool has the size that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<DecisionSummary>,
    /// The policy; absent when the spec names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Ready, StandbyAvailable, Reconciling, Stalled, PolicyHealthy, ProbesHealthy, TemplateValid, Conflict,
    /// DeadlineEndsWork.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
