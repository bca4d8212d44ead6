//! What all Jobs look like that an object makes for its parts, steps or nodes: the user's template with what the object
//! adds to it. Templates stay raw JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoker_api::{GlobalParams, keys};

/// The lists of containers in a pod's spec.
const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// What is added to a template.
#[derive(Clone, Copy, Debug, Default)]
pub struct Additions<'a> {
    /// What the user adds to all of the object's Jobs. The template's own labels, annotations, variables and node win.
    pub global: Option<&'a GlobalParams>,
    /// Labels of the pods that are Stoker's own: nothing else may have their keys.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Annotations of the pods that are Stoker's own.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// Environment variables of all containers, taken literally. They come first, so that the template's may refer to
    /// them; one that the template has itself wins.
    pub env: &'a [(String, String)],
    /// A limit to the Job's activeDeadlineSeconds.
    pub deadline_seconds: Option<u64>,
}

/// The name of a Job and what else its metadata says.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The controller owner reference to the object that makes it.
    pub owner: &'a Value,
    /// What the user adds to all of the object's Jobs.
    pub global: Option<&'a GlobalParams>,
    /// Labels that are Stoker's own.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations that are Stoker's own.
    pub annotations: &'a BTreeMap<String, String>,
}

/// The body of a Job whose finalizer keeps it until its outcome is recorded.
pub fn job(head: &Head<'_>, spec: Map<String, Value>) -> Value {
    let none = BTreeMap::new();
    let (labels, annotations) = head.global.map_or((&none, &none), |g| (&g.labels, &g.annotations));
    let over = |own: &BTreeMap<String, String>, global: &BTreeMap<String, String>| {
        let mut all = global.clone();
        all.extend(own.clone());
        all
    };
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": head.name,
            "namespace": head.namespace,
            "labels": over(head.labels, labels),
            "annotations": over(head.annotations, annotations),
            "finalizers": [keys::OUTCOME],
            "ownerReferences": [head.owner],
        },
        "spec": spec,
    })
}

/// A Job's spec: the template (a batch/v1 JobSpec) with the additions. Pods are never restarted in place, and a failed
/// pod fails the Job, unless the template has rules of its own for that: podFailurePolicy or backoffLimitPerIndex.
pub fn spec(template: &Map<String, Value>, additions: &Additions<'_>) -> Map<String, Value> {
    let mut spec = template.clone();
    let has = |field: &str| template.get(field).is_some_and(|value| !value.is_null());
    if !has("podFailurePolicy") && !has("backoffLimitPerIndex") {
        spec.insert("backoffLimit".to_owned(), json!(0));
    }
    if let Some(limit) = additions.deadline_seconds {
        let own = template.get("activeDeadlineSeconds").and_then(Value::as_u64);
        spec.insert("activeDeadlineSeconds".to_owned(), json!(own.map_or(limit, |own| own.min(limit))));
    }
    let pod = object(spec.entry("template").or_insert(Value::Null));
    let metadata = object(pod.entry("metadata").or_insert(Value::Null));
    let (labels, annotations) = additions.global.map(|g| (&g.labels, &g.annotations)).unzip();
    extend(metadata, "labels", labels, additions.labels);
    extend(metadata, "annotations", annotations, additions.annotations);
    let pod = object(pod.entry("spec").or_insert(Value::Null));
    pod.insert("restartPolicy".to_owned(), json!("Never"));
    // Kubernetes reads `$(NAME)` as a reference, and `$$` as a dollar.
    let own =
        additions.env.iter().map(|(name, value)| json!({"name": name, "value": value.replace('$', "$$")}));
    let global = additions.global.iter().flat_map(|g| g.env.iter().cloned().map(Value::Object));
    let env: Vec<Value> = own.chain(global).collect();
    if !env.is_empty() {
        each_container(pod, |container| put_before(container, "env", "name", &env));
    }
    let bound = pod.get("nodeName").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if let Some(node) = additions.global.and_then(|g| g.node_name.as_deref()).filter(|_| !bound) {
        pin(pod, node);
    }
    spec
}

/// Lets a pod run on one node only, as a DaemonSet does: by node affinity on metadata.name, so that the scheduler places
/// it and it waits where a bare `nodeName` would fail on a full node. What the pod says of other nodes stays in force.
pub fn pin(pod: &mut Map<String, Value>, node: &str) {
    pod.remove("nodeName");
    let affinity = object(pod.entry("affinity").or_insert(Value::Null));
    let affinity = object(affinity.entry("nodeAffinity").or_insert(Value::Null));
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let required = object(affinity.entry(required).or_insert(Value::Null));
    let terms = list(required.entry("nodeSelectorTerms").or_insert(Value::Null));
    if terms.is_empty() {
        terms.push(json!({"matchFields": []}));
    }
    // One of the terms must hold. One that demands nothing never does, and stays so.
    let only = |term: &&mut Value| {
        let demands =
            |field| term.get(field).is_some_and(|list| list.as_array().is_some_and(|l| !l.is_empty()));
        demands("matchExpressions") || demands("matchFields") || term.get("matchFields").is_some()
    };
    for term in terms.iter_mut().filter(only) {
        let fields = list(object(term).entry("matchFields").or_insert(Value::Null));
        fields.push(json!({"key": "metadata.name", "operator": "In", "values": [node]}));
    }
}

/// Does something to every container of a pod, init containers first.
pub fn each_container(pod: &mut Map<String, Value>, mut change: impl FnMut(&mut Map<String, Value>)) {
    for field in CONTAINERS {
        for container in pod.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(container) = container {
                change(container);
            }
        }
    }
}

/// Puts entries before those of a list. One of whose key the list has an entry already is left out, and of two that are
/// added the last one stays.
pub fn put_before(of: &mut Map<String, Value>, field: &str, key: &str, added: &[Value]) {
    let all = list(of.entry(field).or_insert(Value::Null));
    let known = |entry: &Value, among: &[Value]| among.iter().any(|other| other[key] == entry[key]);
    let mut new: Vec<Value> = Vec::with_capacity(added.len() + all.len());
    for (index, entry) in added.iter().enumerate() {
        if !known(entry, all) && !known(entry, &added[index + 1..]) {
            new.push(entry.clone());
        }
    }
    new.append(all);
    *all = new;
}

/// A map's entries under those that are there, and Stoker's own over them.
fn extend(
    metadata: &mut Map<String, Value>,
    field: &str,
    under: Option<&BTreeMap<String, String>>,
    over: Option<&BTreeMap<String, String>>,
) {
    if under.is_none_or(BTreeMap::is_empty) && over.is_none_or(BTreeMap::is_empty) {
        return;
    }
    let all = object(metadata.entry(field).or_insert(Value::Null));
    for (key, value) in under.into_iter().flatten() {
        all.entry(key.clone()).or_insert_with(|| json!(value));
    }
    all.extend(over.into_iter().flatten().map(|(key, value)| (key.clone(), json!(value))));
}

/// A value as an object: what is none becomes an empty one.
pub(crate) fn object(value: &mut Value) -> &mut Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => {
            *other = Value::Object(Map::new());
            object(other)
        }
    }
}

/// A value as a list: what is none becomes an empty one.
pub(crate) fn list(value: &mut Value) -> &mut Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => {
            *other = Value::Array(Vec::new());
            list(other)
        }
    }
}
