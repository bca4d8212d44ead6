//! DaemonJob: a Job on every node that is chosen.
// Clippy takes the columns' repeated keys for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{GlobalParams, Retry};

/// A Job on every node that is chosen. Beside the fields below, the spec takes those of a batch/v1 JobSpec (`template`,
/// `completions`, `activeDeadlineSeconds`, `ttlSecondsAfterFinished` …): they are each node's Job's. Only `parallelism`
/// means something else here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "DaemonJob",
    plural = "daemonjobs",
    shortname = "dj",
    category = "stoker",
    category = "all",
    namespaced,
    status = "DaemonJobStatus",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.nodes.failed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.nodes.running", priority = 1),
    printcolumn(name = "Run", type_ = "integer", json_path = ".status.run", priority = 1),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.template) != has(self.jobTemplateRef)")
        .message("give either template (the spec takes the fields of a batch/v1 JobSpec) or jobTemplateRef (the name of a JobTemplate), and not both"),
    validation = Rule::new("!has(self.override) || has(self.jobTemplateRef)")
        .message("override changes what jobTemplateRef names: without it change the spec's own fields"),
    validation = Rule::new("!has(self.suspend) || !self.suspend")
        .message("suspend must not be true: a suspended Job starts no pods; to start nothing more set paused: true"),
    validation = Rule::new("!has(self.manualSelector) || !self.manualSelector")
        .message("manualSelector must not be true: Kubernetes chooses each Job's selector, or nodes would take each other's pods"),
    validation = Rule::new("!has(self.timeoutSeconds) || !has(self.completionPolicy) || self.completionPolicy == 'Once'")
        .message("timeoutSeconds limits a run that ends: with completionPolicy Always give activeDeadlineSeconds, which limits each node's Job"),
    validation = Rule::new("!has(self.parallelism) || (type(self.parallelism) == int ? self.parallelism >= 1 && self.parallelism <= 100000 : string(self.parallelism).matches('^(100|[1-9][0-9]?)%$'))")
        .message("parallelism is how many nodes are at work at a time: a number from 1, or a percentage of the nodes from \"1%\" to \"100%\"")
)]
pub struct DaemonJobSpec {
    /// What all Jobs have in common. A nodeName leaves that one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_params: Option<GlobalParams>,
    /// Names of nodes that get no Job, separated by commas; spaces do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub exclude_node_list: Option<String>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::optional_label_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Cordoned nodes get Jobs, too.
    #[serde(default)]
    pub include_unschedulable: bool,
    /// How many nodes are at work at a time: a number, or a percentage of the nodes, rounded up. Omitted: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "parallelism")]
    pub parallelism: Option<Parallelism>,
    /// What becomes of the other nodes when one has failed for good.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// When the run is over.
    #[serde(default)]
    pub completion_policy: CompletionPolicy,
    /// How often a node on which its Job failed is tried again. Omitted: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// A run that takes longer has failed, and its Jobs are deleted. Omitted: however long. A Job's own limit is its
    /// activeDeadlineSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_seconds")]
    pub timeout_seconds: Option<u32>,
    /// Start nothing more. What runs goes on.
    #[serde(default)]
    pub paused: bool,
    /// A changed template begins a whole new run. Otherwise only nodes that have not started yet, and those that have
    /// failed, take the new one.
    #[serde(default)]
    pub rerun_on_template_change: bool,
    /// The name of a JobTemplate of the same namespace, in place of `template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub job_template_ref: Option<String>,
    /// Changes to the JobTemplate's pod template (`metadata` and `spec`), merged as `kubectl patch` does by default:
    /// containers, variables and volumes by name, mounts by mountPath; `$patch: delete` takes one away.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_raw_object")]
    pub r#override: Option<Map<String, Value>>,
    /// The fields of a batch/v1 JobSpec.
    #[serde(flatten)]
    #[schemars(schema_with = "crate::schema::inline_job_spec")]
    pub job: Map<String, Value>,
}

/// How many nodes are at work at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parallelism {
    /// So many.
    Nodes(u32),
    /// A part of the nodes, such as `20%`.
    Percent(String),
}

impl Parallelism {
    /// How many that are of `nodes`, rounded up: 1 or more. None = it is neither a number from 1 nor a percentage from
    /// 1 to 100.
    pub fn of(&self, nodes: usize) -> Option<usize> {
        match self {
            Self::Nodes(0) => None,
            Self::Nodes(number) => Some(*number as usize),
            Self::Percent(text) => {
                let percent: usize = text.strip_suffix('%')?.parse().ok()?;
                (1..=100).contains(&percent).then(|| (nodes * percent).div_ceil(100).max(1))
            }
        }
    }
}

/// What becomes of the other nodes when one has failed for good: its retries are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailurePolicy {
    /// They go on.
    #[default]
    Continue,
    /// Nothing more starts, and Jobs that run are deleted.
    FailFast,
    /// Nothing more starts until the annotation stoker.dev/resume gets a new text or the spec is edited; the nodes that
    /// have failed are tried again then. What runs goes on.
    Pause,
}

/// When a run is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CompletionPolicy {
    /// When all chosen nodes have ended, those that join before included.
    #[default]
    Once,
    /// Never: nodes that join later get their Job, too.
    Always,
}

/// What Stoker has seen and done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonJobStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DaemonJobState>,
    /// Nodes that have succeeded, of those that there are to do, such as `12/30`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// The number of the run, from 1.
    #[schemars(schema_with = "crate::schema::count")]
    pub run: u32,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub start_time: Option<Timestamp>,
    /// When nodes that had failed were given another chance last, by the annotation stoker.dev/resume or an edit:
    /// timeoutSeconds counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub resume_time: Option<Timestamp>,
    /// When the run was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub completion_time: Option<Timestamp>,
    /// Nodes by what became of them.
    pub nodes: NodeCounts,
    /// The first 32 nodes that have failed, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_nodes: Vec<FailedNode>,
    /// The text of the annotation stoker.dev/rerun that this run answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerun: Option<String>,
    /// The text of the annotation stoker.dev/resume that was answered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// The hash of the template of the last look.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template_hash: String,
    /// What became of each node in this run.
    pub record: NodeRecord,
    /// Ready, Reconciling, Stalled, Complete, TemplateValid, Conflict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DaemonJobState {
    /// Nothing has started yet.
    Pending,
    /// Nodes are at work, or have yet to start.
    Running,
    /// All nodes have succeeded. With completionPolicy Always it runs again when another joins.
    Succeed,
    /// A node has failed for good and nothing more is to do, or the run took too long.
    Failed,
    /// Nothing starts: `paused`, or a node has failed and failurePolicy is Pause.
    Paused,
    /// The object is being deleted.
    Terminating,
}

/// Nodes by what became of them: desired = running + succeeded + failed + pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// Nodes that there are to do.
    #[schemars(schema_with = "crate::schema::count")]
    pub desired: u32,
    /// Nodes whose Job exists and has not ended.
    #[schemars(schema_with = "crate::schema::count")]
    pub running: u32,
    /// Nodes whose Job completed. With completionPolicy Always: those that are still there.
    #[schemars(schema_with = "crate::schema::count")]
    pub succeeded: u32,
    /// Nodes that have failed for good. With completionPolicy Always: those that are still there.
    #[schemars(schema_with = "crate::schema::count")]
    pub failed: u32,
    /// Nodes that have yet to start, or wait to be tried again.
    #[schemars(schema_with = "crate::schema::count")]
    pub pending: u32,
    /// Nodes that left before their Job had ended, in this run.
    #[schemars(schema_with = "crate::schema::count")]
    pub gone: u32,
}

/// A node that has failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedNode {
    /// Its name.
    pub node: String,
    /// The name of its last Job.
    pub job: String,
    /// How often it was tried.
    #[schemars(schema_with = "crate::schema::count")]
    pub attempts: u32,
    /// Why the last attempt failed: up to 256 characters.
    pub reason: String,
}

/// What became of each node of a run, packed: up to 12 characters a node. A node is known by the first 48 bits of the
/// SHA-256 of its UID; the entries follow each other, sorted, in base64url without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRecord {
    /// Nodes that have succeeded: 6 bytes each.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub succeeded: String,
    /// Nodes that have failed for good: 9 bytes each, the last ones the number of the last attempt (2 bytes, the higher
    /// first) and how many have failed since the node was given a chance.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failed: String,
    /// Nodes that may be tried again: as those that have failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tried: String,
    /// Nodes that left before their Job had ended: 6 bytes each.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gone: String,
}

impl NodeRecord {
    /// It tells of no node.
    pub fn is_empty(&self) -> bool {
        [&self.succeeded, &self.failed, &self.tried, &self.gone].into_iter().all(String::is_empty)
    }
}

fn parallelism(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-int-or-string": true})
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spec_keeps_its_own_fields_apart_from_the_jobs() {
        let spec = json!({
            "excludeNodeList": "a, b",
            "parallelism": "20%",
            "completions": 3,
            "activeDeadlineSeconds": 60,
            "template": {"spec": {"containers": [{"name": "c", "newField": 1}]}},
        });
        let read: DaemonJobSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(read.parallelism, Some(Parallelism::Percent("20%".to_owned())));
        let keys: Vec<&str> = read.job.keys().map(String::as_str).collect();
        assert_eq!(keys, ["activeDeadlineSeconds", "completions", "template"]);
        let written = serde_json::to_value(&read).unwrap();
        for (key, value) in spec.as_object().unwrap() {
            assert_eq!(&written[key], value);
        }
    }

    #[test]
    fn an_override_is_told_to_change_the_pod_template_as_that_of_a_step_is() {
        let of = |crd: &Value, path: &str| crd["spec"]["versions"][0]["schema"].pointer(path).cloned();
        let spec = "/openAPIV3Schema/properties/spec/properties";
        let crd = |crd| serde_json::to_value(crd).unwrap();
        let of_job = of(&crd(DaemonJob::crd()), &format!("{spec}/override/description"));
        let of_step =
            of(&crd(crate::JobFlow::crd()), &format!("{spec}/flows/items/properties/override/description"));
        let said = |words: Option<Value>| {
            let words = words.unwrap();
            let words = words.as_str().unwrap().split_whitespace().filter(|word| *word != "JobTemplate's");
            words.collect::<Vec<_>>().join(" ")
        };
        assert!(said(of_step.clone()).contains("pod template"));
        assert_eq!(said(of_job), said(of_step));
    }

    #[test]
    fn the_schema_keeps_unknown_fields_of_the_job_and_knows_those_that_rules_read() {
        let crd = serde_json::to_value(DaemonJob::crd()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["x-kubernetes-preserve-unknown-fields"], true, "{spec:#}");
        for known in ["template", "suspend", "manualSelector", "completions", "excludeNodeList", "retry"] {
            assert!(!spec["properties"][known].is_null(), "{known}");
        }
        assert_eq!(spec["properties"]["parallelism"]["x-kubernetes-int-or-string"], true);
        assert!(spec["properties"]["parallelism"]["type"].is_null());
        assert!(spec["properties"]["job"].is_null() && spec["additionalProperties"].is_null(), "{spec:#}");
    }

    #[test]
    fn percentages_round_up_and_are_never_none_at_all() {
        let of = |text: &str, nodes| Parallelism::Percent(text.to_owned()).of(nodes);
        assert_eq!(of("20%", 30), Some(6));
        assert_eq!(of("20%", 31), Some(7));
        assert_eq!(of("1%", 3), Some(1));
        assert_eq!(of("50%", 0), Some(1));
        assert_eq!(of("100%", 7), Some(7));
        for wrong in ["0%", "101%", "20", "%", "-5%"] {
            assert_eq!(of(wrong, 10), None, "{wrong}");
        }
        assert_eq!(Parallelism::Nodes(0).of(10), None);
        assert_eq!(Parallelism::Nodes(5).of(3), Some(5));
    }
}
