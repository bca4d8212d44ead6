//! A step of a JobFlow: what it runs, and what it waits for.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{HttpScheme, Retry};

/// A step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.jobTemplate) || has(self.jobTemplateRef)")
        .message("a step needs jobTemplate (a batch/v1 JobSpec) or jobTemplateRef (the name of a JobTemplate)"),
    validation = Rule::new("!has(self.dependencies) || !(self.name in self.dependencies)")
        .message("a step cannot depend on itself: take its own name out of its dependencies"),
    validation = Rule::new("!has(self.waitFor) || !self.waitFor.exists(w, w.name == self.name)")
        .message("a step cannot wait for itself: take its own name out of its waitFor")
)]
// One to those who apply it on the server's side: the API server would otherwise compare each field of each step with every
// write of a status, which costs it a fifth of that.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct Step {
    /// Its name, once in the flow. Its Job is `<flow>-<name>`.
    #[schemars(schema_with = "crate::schema::label_name")]
    pub name: String,
    /// A batch/v1 JobSpec. Its pods are never restarted, and a failed one fails the Job: see retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::step_job")]
    pub job_template: Option<Map<String, Value>>,
    /// The name of a JobTemplate of the same namespace. It wins over jobTemplate, and is waited for while it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub job_template_ref: Option<String>,
    /// Changes to the pod template (`metadata` and `spec`), merged as `kubectl patch` does by default: containers,
    /// variables and volumes by name, mounts by mountPath; `$patch: delete` takes one away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_raw_object")]
    #[serde(rename = "override")]
    pub overrides: Option<Map<String, Value>>,
    /// Steps that must have succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::step_names")]
    pub dependencies: Vec<String>,
    /// Steps that must be so far as each entry says; others than those of dependencies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    #[schemars(length(max = 100))]
    pub wait_for: Vec<WaitFor>,
    /// Where the flow's shareVolumes are mounted (core/v1 VolumeMount), in all containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::mount_list")]
    pub share_volume_mounts: Vec<Map<String, Value>>,
    /// What becomes of it when it fails. Omitted: it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long each of its Jobs may run, its pods' waiting for nodes and images included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_seconds")]
    pub timeout_seconds: Option<u32>,
}

/// Another step, and how far it must be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.condition) ? 1 : 0) + (has(self.http) ? 1 : 0) + (has(self.tcp) ? 1 : 0) == 1")
        .message("give exactly one of condition (Succeeded, Failed, Finished or Ready), http and tcp")
)]
pub struct WaitFor {
    /// The step's name.
    #[schemars(schema_with = "crate::schema::label_name")]
    pub name: String,
    /// What it must have come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<StepCondition>,
    /// A running pod of it must answer an HTTP GET with 2xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A running pod of it must accept a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
}

/// What a step can come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepCondition {
    /// It succeeded.
    #[default]
    Succeeded,
    /// It failed, and is not tried again.
    Failed,
    /// It has ended: succeeded, failed, or never started because what it waited for can no longer come.
    Finished,
    /// All its pods are Ready, or it has succeeded.
    Ready,
}

/// A question over HTTP to a step's pods. One that has succeeded meanwhile counts as having answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// The port, a number.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,
    /// The path, query included.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub path: String,
    /// HTTP, or HTTPS without looking at the certificate.
    #[serde(default)]
    pub scheme: HttpScheme,
    /// From one question to the next.
    #[serde(default = "five")]
    #[schemars(schema_with = "crate::schema::seconds")]
    pub period_seconds: u32,
}

/// A connection to a step's pods. One that has succeeded meanwhile counts as having answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpCheck {
    /// The port, a number.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,
    /// From one question to the next.
    #[serde(default = "five")]
    #[schemars(schema_with = "crate::schema::seconds")]
    pub period_seconds: u32,
}

/// What runs when the flow has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.jobTemplate) ? 1 : 0) + (has(self.jobTemplateRef) ? 1 : 0) + (has(self.script) ? 1 : 0) == 1")
        .message("give exactly one of jobTemplate (a batch/v1 JobSpec), jobTemplateRef (the name of a JobTemplate) and script")
)]
pub struct Handler {
    /// A batch/v1 JobSpec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::step_job")]
    pub job_template: Option<Map<String, Value>>,
    /// The name of a JobTemplate of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub job_template_ref: Option<String>,
    /// Lines for a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
}

/// Lines for the shell of an image. They find `STOKER_FLOW`, `STOKER_FLOW_STATE` (Succeed or Failed) and
/// `STOKER_FAILED_STEPS` (names, with spaces between them) in their environment, as any handler does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Script {
    /// An image that has `/bin/sh`.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// The lines. The first that fails ends it.
    #[schemars(schema_with = "crate::schema::script_lines")]
    pub command: Vec<String>,
}

fn root() -> String {
    "/".to_owned()
}

fn five() -> u32 {
    5
}
