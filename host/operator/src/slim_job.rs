//! Jobs as they are read from the watch: only the fields that core reads are kept.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::Deserialize;
use stoker_api::keys;
use stoker_core::pool::JobView;
use stoker_core::pool::jobs::Finished;

use crate::slim_meta::slim;

/// A Job with the fields that are read; the rest is never deserialised.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Job)]
pub struct SlimJob {
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimSpec {
    parallelism: u32,
    completions: Option<u32>,
}

impl Default for SlimSpec {
    fn default() -> Self {
        Self { parallelism: 1, completions: None }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimStatus {
    active: u32,
    succeeded: u32,
    failed: u32,
    conditions: Vec<SlimCondition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Option<Time>,
}

impl SlimJob {
    /// What core reads of it.
    pub fn into_view(self) -> JobView {
        let meta = self.metadata;
        let labels = meta.labels.unwrap_or_default();
        let ended =
            |c: &&SlimCondition| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed");
        JobView {
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            slot: labels.get(keys::SLOT).and_then(|s| s.parse().ok()),
            created: meta.creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            terminating: meta.deletion_timestamp.is_some(),
            deleted_at: meta.deletion_timestamp.map(|t| t.0),
            finalizers: meta.finalizers.unwrap_or_default(),
            // Kubernetes counts up for each change of the spec.
            edited: meta.generation.is_some_and(|generation| generation > 1),
            finished: self.status.conditions.iter().find(ended).map(|c| Finished {
                well: c.type_ == "Complete",
                at: c.last_transition_time.as_ref().map(|t| t.0),
                why: (c.type_ == "Failed").then(|| format!("{}: {}", c.reason, c.message)),
            }),
            parallelism: self.spec.parallelism,
            completions: self.spec.completions,
            active: self.status.active,
            succeeded: self.status.succeeded,
            failed: self.status.failed,
            template_hash: labels.get(keys::TEMPLATE_HASH).cloned(),
            annotations: meta.annotations.unwrap_or_default(),
        }
    }
}
