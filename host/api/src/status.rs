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
}

pub(crate) fn time_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "format": "date-time", "nullable": true})
}
