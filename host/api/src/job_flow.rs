//! JobFlow: Jobs that run in order, each when those that it waits for are as far as it wants them.
// Clippy takes the columns' repeated keys for repeated attributes.
#![allow(clippy::duplicated_attributes)]

mod status;
mod step;
mod step_list;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use status::{FlowState, JobFlowStatus, StepState, StepStatus};
pub use step::{Handler, HttpCheck, Script, Step, StepCondition, TcpCheck, WaitFor};
pub use step_list::StepList;

use crate::GlobalParams;

/// Jobs that run in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "JobFlow",
    plural = "jobflows",
    shortname = "jf",
    category = "stoker",
    category = "all",
    namespaced,
    status = "JobFlowStatus",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Steps", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Run", type_ = "integer", json_path = ".status.run", priority = 1),
    printcolumn(name = "Completed", type_ = "date", json_path = ".status.completionTime", priority = 1),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct JobFlowSpec {
    /// What all Jobs of the flow have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_params: Option<GlobalParams>,
    /// The steps. Who applies them on the server's side owns each of them as a whole.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    #[schemars(length(min = 1, max = 1000))]
    pub flows: Vec<Step>,
    /// Volumes (core/v1 Volume) for the steps that have shareVolumeMounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::named_list")]
    pub share_volumes: Vec<Map<String, Value>>,
    /// Steps at work at a time. Omitted: as many as can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_maximum")]
    pub max_parallel: Option<u32>,
    /// Start nothing; what runs goes on.
    #[serde(default)]
    pub suspend: bool,
    /// What runs when the flow has ended and a step of it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Handler>,
    /// What runs last, however the flow has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exit: Option<Handler>,
    /// So long after the run began its running Jobs are deleted and nothing more starts, onFailure and onExit apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_seconds")]
    pub timeout_seconds: Option<u32>,
    /// So long after it has ended the object is deleted, and its Jobs with it. Omitted: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_delay")]
    pub ttl_seconds_after_finished: Option<u32>,
}
