//! PreScaledCronJob: a CronJob whose runs are warmed up, so that their work starts exactly at its instant.
// Clippy takes the columns' repeated keys for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{PolicyRef, PolicyStatus};

/// A CronJob whose Jobs are created before their instant: their pods are scheduled, their images pulled, and a gate
/// holds the work until the instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "PreScaledCronJob",
    plural = "prescaledcronjobs",
    shortname = "psc",
    category = "stoker",
    category = "all",
    namespaced,
    status = "PreScaledCronJobStatus",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.cronJob.spec.schedule"),
    printcolumn(name = "TimeZone", type_ = "string", json_path = ".spec.cronJob.spec.timeZone"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.cronJob.spec.suspend"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeCount"),
    printcolumn(name = "WarmUp", type_ = "string", json_path = ".status.nextWarmUp"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextInstant"),
    printcolumn(name = "LastSchedule", type_ = "date", json_path = ".status.lastScheduleTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        priority = 1
    ),
    printcolumn(name = "Missed", type_ = "integer", json_path = ".status.missedCount", priority = 1),
    printcolumn(name = "Skipped", type_ = "integer", json_path = ".status.skippedCount", priority = 1),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.leadReason", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.warmUpTimeMins) ? 1 : 0) + (has(self.warmUp) ? 1 : 0) + (has(self.primerSchedule) ? 1 : 0) == 1")
        .message("give exactly one of warmUpTimeMins (minutes), warmUp (such as 90s or 5m) and primerSchedule (a cron expression)"),
    validation = Rule::new("has(self.cronJob.spec.jobTemplate.spec.template)")
        .message("cronJob.spec.jobTemplate.spec.template is missing: jobTemplate.spec is a batch/v1 JobSpec, so that image and command belong into its template.spec.containers"),
    validation = Rule::new("!has(self.cronJob.spec.jobTemplate.spec.suspend) || !self.cronJob.spec.jobTemplate.spec.suspend")
        .message("cronJob.spec.jobTemplate.spec.suspend must not be true: a suspended Job starts no pods; to stop the schedule set cronJob.spec.suspend: true"),
    validation = Rule::new("!has(self.cronJob.spec.jobTemplate.spec.manualSelector) || !self.cronJob.spec.jobTemplate.spec.manualSelector")
        .message("cronJob.spec.jobTemplate.spec.manualSelector must not be true: Kubernetes chooses each Job's selector, or runs would take each other's pods")
)]
pub struct PreScaledCronJobSpec {
    /// Minutes before each instant at which its run is created: 0 to 1440.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "minutes")]
    pub warm_up_time_mins: Option<u32>,
    /// The same as a duration of hours, minutes and seconds, such as `90s` or `1h30m`: up to 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^([0-9]{1,2}h)?([0-9]{1,4}m)?([0-9]{1,5}s)?$"), length(min = 2, max = 14))]
    pub warm_up: Option<String>,
    /// A cron expression that names the instants at which warm-ups begin: the run of an instant is created at the last
    /// one of these before it, at most 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub primer_schedule: Option<String>,
    /// How the work is held until its instant.
    #[serde(default)]
    pub gate: Gate,
    /// Decides how early a warm-up begins. Omitted: as the spec says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// Create nothing, and cancel the runs that are still held. Instants that pass meanwhile are not made up for.
    #[serde(default)]
    pub paused: bool,
    /// The CronJob.
    pub cron_job: CronJobTemplate,
}

/// How work is held until its instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Gate {
    /// A sidecar waits; the pod's own init containers and containers start after it. Works with any image.
    #[default]
    InitContainer,
    /// The containers' commands are wrapped: they run, and become the work at the instant. Each container needs
    /// `command`, and may have neither probes nor a postStart hook. The pod's own init containers run before the instant.
    Exec,
}

/// A CronJob: what its metadata says is added to its Jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronJobTemplate {
    /// Labels and annotations for the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<CronJobMeta>,
    /// What a batch/v1 CronJobSpec says.
    pub spec: CronJobSpec,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronJobMeta {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::optional_label_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A batch/v1 CronJobSpec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronJobSpec {
    /// The schedule as Kubernetes' CronJob takes it: `minute hour day-of-month month day-of-week`, or a macro such as
    /// `@hourly`.
    #[schemars(length(min = 1, max = 253))]
    pub schedule: String,
    /// The IANA name of the time zone that the schedule is in. Omitted: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// Create nothing, and cancel the runs that are still held. As with a CronJob, the latest instant that passed
    /// meanwhile runs afterwards, if startingDeadlineSeconds allows it.
    #[serde(default)]
    pub suspend: bool,
    /// What becomes of a run when an earlier one is at work at its instant.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// How late a run may start that could not start at its instant. Omitted: however late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "deadline")]
    pub starting_deadline_seconds: Option<i64>,
    /// Completed Jobs to keep.
    #[serde(default = "three", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_count")]
    pub successful_jobs_history_limit: Option<u32>,
    /// Failed Jobs to keep.
    #[serde(default = "one", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_count")]
    pub failed_jobs_history_limit: Option<u32>,
    /// What the Jobs look like.
    pub job_template: JobTemplateSpec,
}

/// A batch/v1 JobTemplateSpec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplateSpec {
    /// Labels and annotations of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<CronJobMeta>,
    /// A batch/v1 JobSpec. Its activeDeadlineSeconds counts from the instant.
    #[schemars(schema_with = "crate::schema::job_spec")]
    pub spec: Map<String, Value>,
}

/// What becomes of a run when an earlier one is at work at its instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Both work.
    #[default]
    Allow,
    /// The instant is skipped. A run is created when the earlier one has ended, at its warm-up at the earliest.
    Forbid,
    /// The earlier one is deleted at the instant. While its pods end, within their grace period, both work.
    Replace,
}

/// What Stoker has seen and done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PreScaledCronJobStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The next instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub next_instant: Option<Timestamp>,
    /// When its warm-up begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub next_warm_up: Option<Timestamp>,
    /// Why it begins then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead_reason: Option<String>,
    /// Runs that have not ended, held or at work.
    #[schemars(schema_with = "crate::schema::count")]
    pub active_count: u32,
    /// The first 32 of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<ActiveRun>,
    /// The last 32 runs that have ended, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub last_runs: Vec<EndedRun>,
    /// The last instant whose run has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub last_schedule_time: Option<Timestamp>,
    /// When a run completed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub last_successful_time: Option<Timestamp>,
    /// Instants that passed without a run, because nobody could start one in time.
    #[schemars(schema_with = "crate::schema::count")]
    pub missed_count: u32,
    /// Instants that were left out by choice: an earlier run was at work (Forbid), or the object was paused.
    #[schemars(schema_with = "crate::schema::count")]
    pub skipped_count: u32,
    /// The schedule and the time zone that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timetable: Option<String>,
    /// What becomes of the instants up to this one is decided: none of them gets another run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub decided_until: Option<Timestamp>,
    /// The policy; absent when the spec names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Ready, Reconciling, Stalled, ScheduleValid, TemplateValid, PolicyHealthy, Conflict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveRun {
    /// Its instant.
    #[schemars(schema_with = "crate::status::time_schema")]
    pub instant: Timestamp,
    /// The name of its Job.
    pub job: String,
    /// Its instant is still to come.
    pub held: bool,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedRun {
    /// Its instant.
    #[schemars(schema_with = "crate::status::time_schema")]
    pub instant: Timestamp,
    /// The name of its Job.
    pub job: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Milliseconds from its creation until its pod had a node. Kubernetes tells these times in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "milliseconds")]
    pub schedule_milliseconds: Option<u64>,
    /// Milliseconds from then until its images were there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "milliseconds")]
    pub pull_milliseconds: Option<u64>,
    /// Milliseconds that the gate held it: from when its images were there until its instant; 0 if they came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "milliseconds")]
    pub held_milliseconds: Option<u64>,
    /// Milliseconds from its instant, or from when its images were there if that was later, until its containers ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "milliseconds")]
    pub start_milliseconds: Option<u64>,
    /// The node of its first pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunOutcome {
    /// Its Job completed.
    Succeeded,
    /// Its Job failed.
    Failed,
    /// Its Job was deleted: by a later run (Replace), or by somebody.
    Deleted,
}

#[allow(clippy::unnecessary_wraps)]
fn three() -> Option<u32> {
    Some(3)
}

#[allow(clippy::unnecessary_wraps)]
fn one() -> Option<u32> {
    Some(1)
}

fn minutes(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "integer", "format": "int32", "nullable": true, "minimum": 0, "maximum": 1440})
}

fn deadline(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "integer", "format": "int64", "nullable": true, "minimum": 0, "maximum": 315_360_000})
}

fn milliseconds(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "integer", "format": "int64", "nullable": true, "minimum": 0})
}
