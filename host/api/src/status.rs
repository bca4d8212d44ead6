//! What the kinds' statuses share: the last decision and the policy's state.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last decision as it was applied: why the pool has the size that it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionSummary {
    /// When it was made. It moves only together with another field of the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub time: Option<Timestamp>,
    /// Who decided: `formula`, `builtin/NAME` or `configMap/NAME/KEY`.
    pub by: String,
    /// Digest of the component that decided; absent when the formula did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The inputs in brief, for example `busy 2, idle 3, starting 0, unknown 0`.
    pub inputs: String,
    /// Replicas that the decision asked for.
    #[schemars(schema_with = "crate::schema::count")]
    pub raw: u32,
    /// Replicas that were applied.
    #[schemars(schema_with = "crate::schema::count")]
    pub applied: u32,
    /// What kept the applied number from being the raw one: none, minimum, maximum, delay, hold or paused.
    pub limited_by: String,
    /// The reason in words.
    pub reason: String,
}

/// The state of the policy that an object references.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Where it comes from, `builtin/NAME` or `configMap/NAME/KEY`.
    pub source: String,
    /// Digest of the component that decides now; absent while none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_digest: Option<String>,
    /// Digest of the component that the source holds; differs from the active one while that is loading or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_digest: Option<String>,
    /// Name and version that the active component gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_name: Option<String>,
    /// Failed calls since the last good one. Written when it doubles.
    #[schemars(schema_with = "crate::schema::count")]
    pub failures_in_a_row: u32,
    /// The last failure in words; cleared by the next good call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What the policy asked to be given back. It is written at most once a minute, beside other changes, and when the
    /// operator stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PolicyState>,
    /// What the policy on trial would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowStatus>,
}

/// What a policy asked to be given back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyState {
    /// Of which component with which config it is: another one's is not given to it.
    pub of: String,
    /// The bytes, in base64.
    pub data: String,
}

/// What a policy on trial would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShadowStatus {
    /// Where it comes from, `builtin/NAME` or `configMap/NAME/KEY`.
    pub source: String,
    /// Digest of the component that is asked; absent while none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_digest: Option<String>,
    /// Name and version that it gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_name: Option<String>,
    /// Where it would do otherwise than the one that decides, in words; absent where it would do the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<String>,
    /// Replicas that would be kept by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_total")]
    pub would_keep: Option<u32>,
    /// Pods that it judges otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_total")]
    pub judges_otherwise: Option<u32>,
    /// How early a warm-up would begin by it, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_total")]
    pub would_lead_seconds: Option<u32>,
    /// Its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Decisions that were compared since the operator or the trial began. Written beside other changes.
    #[schemars(schema_with = "crate::schema::count")]
    pub compared: u32,
    /// Of those, the ones that differed. Written when it doubles.
    #[schemars(schema_with = "crate::schema::count")]
    pub differed: u32,
    /// Why it gives no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it asked to be given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PolicyState>,
}

pub(crate) fn time_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "format": "date-time", "nullable": true})
}
