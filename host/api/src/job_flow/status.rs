//! What Stoker has seen of a JobFlow, and done. A flow has up to 1,000 steps: what is as usual is left out.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StepList;

/// What Stoker has seen and done. It is the truth of what has run: Jobs may go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobFlowStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the flow does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<FlowState>,
    /// Steps that succeeded, of all: `3/5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Counts up with each whole new run, from 1.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub run: u32,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub start_time: Option<Timestamp>,
    /// When its failed steps were last started again: timeoutSeconds counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub resume_time: Option<Timestamp>,
    /// When it had ended, onFailure and onExit too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub completion_time: Option<Timestamp>,
    /// Its timeoutSeconds have passed before it ended.
    #[serde(skip_serializing_if = "is_false")]
    pub timed_out: bool,
    /// The last `stoker.dev/rerun` that was followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerun: Option<String>,
    /// The last `stoker.dev/rerun-failed` that was followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerun_failed: Option<String>,
    /// What became of the steps that were started or left out, by `<job>/<namespace>` of each one's last Job.
    #[serde(flatten)]
    pub job_status_list: StepList,
    /// Ready, Reconciling, Stalled, Complete, GraphValid, TemplateValid, Conflict, Outdated; SizeNearLimit if so it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What a flow does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FlowState {
    /// Nothing has started.
    #[default]
    Pending,
    /// It has begun, and no step has failed.
    Running,
    /// It has ended, and nothing of it failed.
    Succeed,
    /// Something of it has failed. Other steps may still run: completionTime tells when it has ended.
    Failed,
    /// The object is being deleted.
    Terminating,
}

/// What became of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StepStatus {
    /// The step: its name, or `onFailure` or `onExit`. Where it is left out the Job's name tells it: see jobPrefix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// What it does.
    pub state: StepState,
    /// The attempt of the run that this is about, if it is not the first: see [`StepStatus::attempts`].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_count")]
    pub attempt: Option<u32>,
    /// Attempts that were made before it was last started again by hand, which its retries do not count.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub earlier: u32,
    /// Its Job's pods that run or are to.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub active: u32,
    /// Those that succeeded, where that tells more than its state.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub succeeded: u32,
    /// Those that failed.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub failed: u32,
    /// When its Job was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub start_time: Option<Timestamp>,
    /// When that ended, where `seconds` does not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::status::time_schema")]
    pub completion_time: Option<Timestamp>,
    /// Why it failed or was left out, in at most 256 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Hash of what its Job was made from, where it is another than commonHash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Its termination message, for as long as a step that waits for it may need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl StepStatus {
    /// Attempts that were made in this run.
    pub fn attempts(&self) -> u32 {
        self.attempt.unwrap_or(u32::from(self.start_time.is_some()))
    }

    /// It has ended, and does not start again by itself.
    pub fn ended(&self) -> bool {
        !matches!(self.state, StepState::Running | StepState::Retrying)
    }

    /// It has failed for good: its Job failed, or was deleted.
    pub fn failed_for_good(&self) -> bool {
        matches!(self.state, StepState::Failed | StepState::Deleted)
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepState {
    /// Its Job is there, and has not ended.
    #[default]
    Running,
    /// Its Job completed.
    Succeeded,
    /// Its Job failed, and no retry is left.
    Failed,
    /// It is to start again: its last Job failed and a retry is left, or it is run again by hand.
    Retrying,
    /// What it waits for can no longer come.
    Skipped,
    /// Somebody deleted its Job before it ended, and no retry is left.
    Deleted,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}
