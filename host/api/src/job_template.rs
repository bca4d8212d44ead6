//! JobTemplate: what a Job looks like, for flows and others to refer to.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a Job looks like: spec is a batch/v1 JobSpec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "stoker.dev",
    version = "v1alpha1",
    kind = "JobTemplate",
    plural = "jobtemplates",
    shortname = "jt",
    category = "stoker",
    category = "all",
    namespaced,
    status = "JobTemplateStatus",
    printcolumn(name = "Jobs", type_ = "integer", json_path = ".status.jobs"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct JobTemplateJob {
    /// A batch/v1 JobSpec.
    #[serde(flatten)]
    pub job: Map<String, Value>,
}

impl JsonSchema for JobTemplateJob {
    fn schema_name() -> Cow<'static, str> {
        "JobTemplateJob".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = crate::schema::job_spec(generator);
        let rules = json_schema!({
            "required": ["template"],
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.suspend) || !self.suspend",
                    "message": "suspend must not be true: a suspended Job starts no pods, and whoever waits for it waits for ever",
                },
                {
                    "rule": "!has(self.manualSelector) || !self.manualSelector",
                    "message": "manualSelector must not be true: Kubernetes chooses each Job's selector, or Jobs would take each other's pods",
                },
            ],
        });
        if let (Some(schema), Some(rules)) = (schema.as_object_mut(), rules.as_object()) {
            schema.extend(rules.clone());
        }
        schema
    }
}

/// What has been made from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobTemplateStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Jobs that there are of it.
    #[schemars(schema_with = "crate::schema::count")]
    pub jobs: u32,
    /// The names of the first [`JobTemplateStatus::LISTED`] of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependency_list: Vec<String>,
    /// Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl JobTemplateStatus {
    /// Jobs that the status names.
    pub const LISTED: usize = 128;
}
