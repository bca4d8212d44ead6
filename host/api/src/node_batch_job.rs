//! NodeBatchJob: on a schedule, a pod on every chosen node, a few at a time, and what the pods report.
// Clippy takes the columns' repeated keys for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{NodeCounts, NodeRecord, Parallelism, PodTemplate, Retry};

/// Runs a pod on every chosen node at the instants of a schedule, and keeps what the pods report: values, files and
/// Events. One such execution is named by its minute, such as `202608030910`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "NodeBatchJob",
    plural = "nodebatchjobs",
    shortname = "nbj",
    category = "stoker",
    category = "all",
    namespaced,
    status = "NodeBatchJobStatus",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Execution", type_ = "string", json_path = ".status.executions[0].id"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.executions[0].progress"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.executions[0].nodes.failed"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextInstant"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "TimeZone", type_ = "string", json_path = ".spec.timeZone", priority = 1),
    printcolumn(
        name = "Running",
        type_ = "integer",
        json_path = ".status.executions[0].nodes.running",
        priority = 1
    ),
    printcolumn(name = "Missed", type_ = "integer", json_path = ".status.missedCount", priority = 1),
    printcolumn(name = "Skipped", type_ = "integer", json_path = ".status.skippedCount", priority = 1),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.timeZone) || has(self.schedule)")
        .message("timeZone is the time zone of schedule: give a schedule, too, or leave timeZone out"),
    validation = Rule::new("!has(self.parallelism) || (type(self.parallelism) == int ? self.parallelism >= 1 && self.parallelism <= 100000 : string(self.parallelism).matches('^(100|[1-9][0-9]?)%$'))")
        .message("parallelism is how many pods run at a time: a number from 1, or a percentage of the nodes from \"1%\" to \"100%\""),
    validation = Rule::new("!has(self.podTemplate.spec.restartPolicy) || self.podTemplate.spec.restartPolicy == 'Never'")
        .message("podTemplate.spec.restartPolicy is Never: to try a node again give retry"),
    validation = Rule::new("!has(self.podTemplate.spec.nodeName)")
        .message("podTemplate.spec.nodeName must not be given: each pod is bound to its node by its affinity; choose nodes by nodes.selector or nodes.affinity")
)]
pub struct NodeBatchJobSpec {
    /// When executions begin: a schedule as Kubernetes' CronJob takes it, `minute hour day-of-month month day-of-week`, or a
    /// macro such as `@hourly`. Omitted: at no time of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub schedule: Option<String>,
    /// The IANA name of the time zone that the schedule is in. Omitted: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// Begin no execution by schedule or at the startup. What runs goes on, and one that is asked for by hand begins.
    #[serde(default)]
    pub suspend: bool,
    /// How late an execution may begin that could not begin at its instant. Omitted: however late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_delay")]
    pub starting_deadline_seconds: Option<u32>,
    /// One execution begins when the object has been created, once in its life.
    #[serde(default)]
    pub run_on_startup: bool,
    /// How long after the creation that is: a duration of hours, minutes and seconds, such as `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^([0-9]{1,2}h)?([0-9]{1,4}m)?([0-9]{1,5}s)?$"), length(min = 2, max = 14))]
    pub startup_delay: Option<String>,
    /// Which nodes are chosen. Nodes that are not Ready never are, nor those whose taints the template does not tolerate.
    #[serde(default)]
    pub nodes: NodeChoice,
    /// How many pods of an execution run at a time: a number, or a percentage of its nodes, rounded up.
    #[serde(default = "ten", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "parallelism")]
    pub parallelism: Option<Parallelism>,
    /// What the pods look like. `${NAMESPACE}`, `${NODE_NAME}` and `${EXECUTION_ID}` stand in any text of it for what they
    /// say; `$${NODE_NAME}` stands for `${NODE_NAME}` itself. All containers get these as environment variables, and with them
    /// CALLBACK_SERVICE_RESULT_URL, CALLBACK_SERVICE_FILE_URL and CALLBACK_SERVICE_EVENT_URL, to which the pod reports.
    pub pod_template: PodTemplate,
    /// A pod that has not ended so long after its creation has failed, and is deleted. Omitted: however long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_seconds")]
    pub active_deadline_seconds: Option<u32>,
    /// What becomes of an execution when an earlier one is under way.
    #[serde(default)]
    pub concurrency_policy: Overlap,
    /// How often a node on which its pod failed is tried again. Omitted: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Keep the pods' logs with what they reported, a file for each container: `<node>-container-<name>.log`. A longer log
    /// than reports.maxBytesPerUpload is cut there.
    #[serde(default)]
    pub save_pod_log: bool,
    /// A pod is deleted so long after its end. Omitted: when the next execution begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_delay")]
    pub ttl_seconds_after_finished: Option<u32>,
    /// What is kept of what the pods report.
    #[serde(default)]
    pub reports: ReportSpec,
    /// What becomes of the values that they report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<NodeMetrics>,
}

/// Which nodes are chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeChoice {
    /// Labels that a node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::optional_label_map")]
    pub selector: BTreeMap<String, String>,
    /// Terms of which a node must meet one: a core/v1 NodeSelector, with nodeSelectorTerms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node_selector")]
    pub affinity: Option<Map<String, Value>>,
    /// Cordoned nodes are chosen, too.
    pub include_unschedulable: bool,
}

/// What becomes of an execution when an earlier one is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Overlap {
    /// It is skipped.
    #[default]
    Forbid,
    /// Both run, up to eight; each has its own parallelism.
    Allow,
    /// The earlier one ends: its pods that run are deleted.
    Replace,
}

/// What is kept of what pods report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReportSpec {
    /// Executions that are kept, the newest ones: 1 to 100.
    #[schemars(schema_with = "history")]
    pub history: u32,
    /// How long after its end and its last report an execution is kept: a duration of hours, minutes and seconds. Omitted: as
    /// long as the history has room.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^([0-9]{1,4}h)?([0-9]{1,4}m)?([0-9]{1,5}s)?$"), length(min = 2, max = 16))]
    pub ttl: Option<String>,
    /// Bytes that one upload may have.
    #[schemars(schema_with = "bytes")]
    pub max_bytes_per_upload: u64,
    /// Bytes that an execution may report in all; each file counts in whole blocks of 4 KiB.
    #[schemars(schema_with = "bytes")]
    pub max_bytes_per_execution: u64,
}

impl Default for ReportSpec {
    fn default() -> Self {
        Self { history: 10, ttl: None, max_bytes_per_upload: 64 << 20, max_bytes_per_execution: 10 << 30 }
    }
}

/// What becomes of the values that pods report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeMetrics {
    /// What the metrics' names begin with: `<prefix>_<gauge>`.
    #[schemars(regex(pattern = "^[a-zA-Z_][a-zA-Z0-9_]*$"), length(min = 1, max = 128))]
    pub prefix: String,
    /// The gauges that results may set, by name. What is reported for others is kept and becomes no metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "gauges")]
    pub gauges: BTreeMap<String, NodeGauge>,
    /// Each node's newest values stand a second time, with the label executionID="latest".
    #[serde(default)]
    pub latest_label: bool,
    /// The most series that results may make, and the most that tell of nodes. The oldest executions' go first.
    #[serde(default = "max_series")]
    #[schemars(schema_with = "series")]
    pub max_series: u32,
}

/// A gauge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeGauge {
    /// What it tells.
    pub help: String,
    /// Its labels, beside node and executionID.
    pub labels: Vec<String>,
}

/// What Stoker has seen and done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeBatchJobStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeBatchJobState>,
    /// The next instant of the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub next_instant: Option<Timestamp>,
    /// The last instant that has had its execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub last_schedule_time: Option<Timestamp>,
    /// When an execution succeeded on all its nodes last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub last_successful_time: Option<Timestamp>,
    /// Executions, the newest first: those under way, and as many as reports.history says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub executions: Vec<Execution>,
    /// Instants that passed without an execution, because nobody could begin one in time.
    #[schemars(schema_with = "crate::schema::count")]
    pub missed_count: u32,
    /// Instants that were left out by choice: an earlier execution was under way.
    #[schemars(schema_with = "crate::schema::count")]
    pub skipped_count: u32,
    /// The schedule and the time zone that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timetable: Option<String>,
    /// What becomes of the instants up to this one is decided: none of them gets another execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub decided_until: Option<Timestamp>,
    /// The execution at the startup has begun, or was left out.
    pub started_up: bool,
    /// The text of the annotation stoker.dev/run-now that was answered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_now: Option<String>,
    /// Ready, Reconciling, Stalled, TemplateValid, Conflict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeBatchJobState {
    /// No execution is under way.
    Waiting,
    /// One is.
    Running,
    /// None is, and none begins by itself.
    Suspended,
    /// The object is being deleted.
    Terminating,
}

/// One execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// Its id: the minute in which it began or was due, in UTC, such as `202608030910`; a second one of that minute is
    /// `202608030910-2`.
    pub id: String,
    /// Why it began.
    pub cause: ExecutionCause,
    /// Its instant, if the schedule named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub instant: Option<Timestamp>,
    /// When it began.
    #[schemars(schema_with = "crate::status::time_schema")]
    pub start_time: Timestamp,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub completion_time: Option<Timestamp>,
    /// How it fares.
    pub state: ExecutionState,
    /// Nodes that have succeeded, of those that there are to do, such as `12/30`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// Nodes by what became of them.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// The first 16 nodes that have failed, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_nodes: Vec<FailedPod>,
    /// What became of each node. Kept while it is under way, and of the newest one that is over.
    #[serde(default, skip_serializing_if = "NodeRecord::is_empty")]
    pub record: NodeRecord,
}

/// Why an execution began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExecutionCause {
    /// At an instant of the schedule.
    Schedule,
    /// runOnStartup.
    Startup,
    /// The annotation stoker.dev/run-now.
    Manual,
}

/// How an execution fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExecutionState {
    /// Pods run, or have yet to start.
    Running,
    /// All nodes have succeeded.
    Succeeded,
    /// A node has failed for good.
    Failed,
    /// A later one took its place (Replace).
    Replaced,
}

/// A node that has failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedPod {
    /// Its name.
    pub node: String,
    /// The name of its last pod.
    pub pod: String,
    /// How often it was tried.
    #[schemars(schema_with = "crate::schema::count")]
    pub attempts: u32,
    /// Why the last attempt failed: up to 256 characters.
    pub reason: String,
}

#[allow(clippy::unnecessary_wraps)]
fn ten() -> Option<Parallelism> {
    Some(Parallelism::Nodes(10))
}

fn max_series() -> u32 {
    10_000
}

fn parallelism(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-int-or-string": true})
}

fn history(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 100})
}

fn series(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 1_000_000})
}

/// Up to a tebibyte.
fn bytes(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "integer", "format": "int64", "minimum": 4096, "maximum": 1_099_511_627_776_u64})
}

fn node_selector(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "required": ["nodeSelectorTerms"],
        "properties": {
            "nodeSelectorTerms": {
                "type": "array",
                "minItems": 1,
                "maxItems": 64,
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
        },
    })
}

/// Names of metrics (Prometheus: data model); four are Stoker's own.
fn gauges(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-validations": [
            {
                "rule": "self.all(name, name.matches('^[a-zA-Z_][a-zA-Z0-9_]*$'))",
                "message": "a gauge's name is made of letters, digits and _, and begins with no digit",
            },
            {
                "rule": "!('current_execution_id' in self) && !('pods' in self) && !('processing' in self) && !('duration' in self)",
                "message": "current_execution_id, pods, processing and duration are metrics that every NodeBatchJob has: take other names",
            },
        ],
        "additionalProperties": {
            "type": "object",
            "properties": {
                "help": {"type": "string", "maxLength": 1024},
                "labels": {
                    "type": "array",
                    "maxItems": 16,
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string", "maxLength": 128, "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_has_its_documented_value() {
        let spec: NodeBatchJobSpec = serde_json::from_value(json!({
            "podTemplate": {"spec": {"containers": [{"name": "c"}]}},
        }))
        .unwrap();
        assert_eq!(spec.parallelism, Some(Parallelism::Nodes(10)));
        assert_eq!(spec.concurrency_policy, Overlap::Forbid);
        assert_eq!((spec.reports.history, spec.reports.max_bytes_per_upload), (10, 64 << 20));
        assert!(spec.metrics.is_none() && !spec.nodes.include_unschedulable);
    }

    #[test]
    fn the_schema_bounds_what_rules_read() {
        let crd = serde_json::to_value(NodeBatchJob::crd()).unwrap();
        let spec =
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        assert_eq!(spec["parallelism"]["x-kubernetes-int-or-string"], true);
        let gauges = &spec["metrics"]["properties"]["gauges"];
        assert_eq!(gauges["maxProperties"], 64, "{gauges:#}");
        assert_eq!(spec["reports"]["properties"]["history"]["default"], 10, "{:#}", spec["reports"]);
    }
}
