//! What children look like when they are made: a pod from a pod template, a Job from a Job template.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoker_api::keys;
use stoker_core::names;

use crate::object::Pool;

/// The member of a slot, under a name.
pub fn body(pool: &Pool, slot: u32, hash: &str, name: &str) -> Value {
    match pool {
        Pool::Pods(object) => {
            let template = &object.spec.pod_template;
            let given = template.metadata.clone().unwrap_or_default();
            let mut labels = labels(pool, given.labels.unwrap_or_default());
            labels.insert(keys::SLOT.to_owned(), slot.to_string());
            labels.insert(keys::TEMPLATE_HASH.to_owned(), hash.to_owned());
            let mut annotations = given.annotations.unwrap_or_default();
            // A pod is born free of what only an administrator may say.
            annotations.remove(keys::FORCE_REMOVE);
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": pool.namespace(),
                    "labels": labels,
                    "annotations": annotations,
                    "ownerReferences": [pool.owner_reference()],
                },
                "spec": template.spec,
            })
        }
        Pool::Jobs(object) => {
            let mut labels = labels(pool, BTreeMap::new());
            labels.insert(keys::SLOT.to_owned(), slot.to_string());
            labels.insert(keys::TEMPLATE_HASH.to_owned(), hash.to_owned());
            json!({
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {
                    "name": name,
                    "namespace": pool.namespace(),
                    "labels": labels,
                    "ownerReferences": [pool.owner_reference()],
                },
                "spec": job_spec(pool, &object.spec.job_template),
            })
        }
    }
}

/// Labels of the template, and those by which the pool's children are found.
fn labels(pool: &Pool, mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.extend(pool.labels().map(|(key, value)| (key.clone(), value.clone())));
    let name_key = match pool {
        Pool::Pods(_) => keys::HSD_NAME,
        Pool::Jobs(_) => keys::HSJ_NAME,
    };
    labels.insert(name_key.to_owned(), names::label_value(pool.name()));
    labels.insert(keys::OWNER_UID.to_owned(), pool.uid().to_owned());
    labels
}

/// The template's spec, with what is missing and what Stoker's own rules need.
fn job_spec(pool: &Pool, template: &Map<String, Value>) -> Map<String, Value> {
    let mut spec = template.clone();
    spec.entry("parallelism").or_insert(json!(1));
    let parallelism = spec["parallelism"].clone();
    spec.entry("completions").or_insert(parallelism);
    // Otherwise a Job whose pod is removed would start another one before the Job itself goes.
    spec.insert("podReplacementPolicy".to_owned(), json!("Failed"));
    let Some(Value::Object(pod)) = spec.get_mut("template") else { return spec };
    let metadata = pod.entry("metadata").or_insert(json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    let given = metadata.get("labels").cloned().and_then(|labels| serde_json::from_value(labels).ok());
    metadata["labels"] = json!(labels(pool, given.unwrap_or_default()));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(keys::FORCE_REMOVE);
    }
    if let Some(Value::Object(pod_spec)) = pod.get_mut("spec") {
        pod_spec.entry("restartPolicy").or_insert(json!("Never"));
    }
    spec
}
