//! Schema fragments that the derive cannot say: Kubernetes knows the formats int32 and int64 only, and raw
//! objects need their unknown fields preserved.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// A number of things: 0 or more, within int32.
pub fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 0, "maximum": i32::MAX})
}

/// A span that is worth waiting for, in seconds: up to a week.
pub fn seconds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 604_800})
}

/// An optional span in seconds: up to a year.
pub fn optional_seconds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "nullable": true, "minimum": 1, "maximum": 31_536_000})
}

/// An optional number a second.
pub fn optional_rate(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "nullable": true, "minimum": 1, "maximum": 100_000})
}

/// A pool's maximum: at least 1, and few enough to number.
pub fn maximum(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 100_000})
}

/// A PodSpec: raw, but for what every pod needs and what rules read. Like a JobSpec it is one to those who apply it on the
/// server's side: the API server would otherwise note each of its fields anew with every write of a status, which costs it a
/// fifth of that.
pub fn pod_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "required": ["containers"],
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "restartPolicy": {"type": "string", "maxLength": 63},
            "nodeName": {"type": "string", "maxLength": 253},
            "containers": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
        },
    })
}

/// A batch/v1 JobSpec: raw, but for what rules read.
pub fn job_spec(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "suspend": {"type": "boolean"},
            "manualSelector": {"type": "boolean"},
            "podReplacementPolicy": {"type": "string", "maxLength": 63},
            "activeDeadlineSeconds": {"type": "integer", "format": "int64"},
            "ttlSecondsAfterFinished": {"type": "integer", "format": "int32"},
            "parallelism": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 100_000},
            "completions": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 100_000},
            "template": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["spec"],
                "properties": {
                    "metadata": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"labels": optional_label_map(generator)},
                    },
                    "spec": pod_spec(generator),
                },
            },
        },
    })
}

/// A [`job_spec`] of a step or handler. Its rules are its own and not the step's: each field that a rule of a step names
/// costs the API server as much as all fields of a step, and is read again with every write of a status.
pub fn step_job(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = job_spec(generator);
    let rules = json!([
        {
            "rule": "has(self.template)",
            "message": "jobTemplate.template is missing: jobTemplate is a batch/v1 JobSpec, so that image and command belong into its template.spec.containers",
        },
        {
            "rule": "!has(self.suspend) || !self.suspend",
            "message": "jobTemplate.suspend must not be true: a suspended Job starts no pods; to hold a whole flow set its spec.suspend: true",
        },
        {
            "rule": "!has(self.manualSelector) || !self.manualSelector",
            "message": "jobTemplate.manualSelector must not be true: Kubernetes chooses each Job's selector, or steps would take each other's pods",
        },
    ]);
    schema.insert("x-kubernetes-validations".to_owned(), rules);
    schema
}

/// The fields of a batch/v1 JobSpec beside others: as [`job_spec`], but for `parallelism`, which is another's.
pub fn inline_job_spec(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = job_spec(generator);
    if let Some(properties) = schema.get_mut("properties").and_then(|p| p.as_object_mut()) {
        properties.remove("parallelism");
    }
    schema
}

/// An optional number of things to keep.
pub fn optional_count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "nullable": true, "minimum": 0, "maximum": 100_000})
}

/// An optional number of things: within int32.
pub fn optional_total(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "nullable": true, "minimum": 0, "maximum": i32::MAX})
}

/// Any JSON object, or none.
pub fn optional_raw_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

/// Labels or annotations, few and short enough for CEL rules to look at all of them.
pub fn label_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// An optional [`label_map`].
pub fn optional_label_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// What a claimant writes on the pod: few and short words.
pub fn claim_metadata(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}

/// Environment variables (core/v1 EnvVar). A null is left out by the API server.
pub fn env_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 256,
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 253}},
        },
    })
}

/// Labels. A null is left out by the API server.
pub fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// Annotations. A null is left out by the API server.
pub fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 16_384},
    })
}

/// An optional number of things at a time.
pub fn optional_maximum(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "nullable": true, "minimum": 1, "maximum": 100_000})
}

/// An optional span in seconds that may be none: up to a year.
pub fn optional_delay(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "nullable": true, "minimum": 0, "maximum": 31_536_000})
}

/// A span in seconds that may be none: up to a day.
pub fn delay(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 86_400})
}

/// How often something is tried again.
pub fn retries(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 100})
}

/// A port's number.
pub fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65_535})
}

/// Ports by their names.
pub fn named_ports(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": port(generator)})
}

/// A DNS label (RFC 1123).
pub fn label_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"})
}

/// Names of steps, each once.
pub fn step_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 1000,
        "x-kubernetes-list-type": "set",
        "items": {"type": "string", "minLength": 1, "maxLength": 63},
    })
}

/// Raw objects with a name, each name once.
pub fn named_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 100,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 63}},
        },
    })
}

/// Where volumes are mounted (core/v1 VolumeMount).
pub fn mount_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 100,
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["name", "mountPath"],
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 63},
                "mountPath": {"type": "string", "minLength": 1, "maxLength": 4096},
            },
        },
    })
}

/// Lines for a shell.
pub fn script_lines(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 1000,
        "items": {"type": "string", "maxLength": 16_384},
    })
}
