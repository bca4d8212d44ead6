//! What an object is called, and what its metadata takes along. Names stay; what the API server, the older operators and
//! tools wrote there does not.

use serde_yaml::{Mapping, Value};

use crate::fields::Fields;
use crate::notes::Notes;
use crate::values::{keys, put};

/// What the API server sets.
const SERVER_SET: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// Annotations that tools write about the very object that they manage: on another one they would mislead the tool.
const OF_TOOLS: [&str; 5] = [
    "kubectl.kubernetes.io/",
    "kopf.zalando.org/",
    "meta.helm.sh/",
    "argocd.argoproj.io/tracking-id",
    "kapp.k14s.io/",
];

/// Stoker's object: head, metadata and spec. None = it has no name.
pub(crate) fn object(kind: &str, meta: Mapping, spec: Mapping) -> Value {
    let mut object = Mapping::new();
    put(&mut object, "apiVersion", format!("{}/v1alpha1", stoker_api::GROUP));
    put(&mut object, "kind", kind);
    put(&mut object, "metadata", meta);
    put(&mut object, "spec", spec);
    Value::Mapping(object)
}

/// Takes head and metadata out of an object of an older system. None = it has no name.
pub(crate) fn head(object: &mut Fields, notes: &mut Notes) -> Option<Mapping> {
    let api = object.text("apiVersion", notes).unwrap_or_default();
    object.raw("kind");
    notes.change(format!("apiVersion was {api}"));
    let Some(mut old) = object.fields("metadata", notes) else {
        notes.problem("metadata", "is missing: give at least metadata.name");
        return None;
    };
    let mut meta = Mapping::new();
    match old.text("name", notes).filter(|name| !name.is_empty()) {
        Some(name) => put(&mut meta, "name", name),
        None => {
            notes.problem("metadata.name", "is missing: give the object a name (generateName is not enough)");
            return None;
        }
    }
    if let Some(namespace) = old.text("namespace", notes).filter(|name| !name.is_empty()) {
        put(&mut meta, "namespace", namespace);
    }
    labels(&mut old, &mut meta, notes);
    annotations(&mut old, &mut meta, notes);
    let set: Vec<String> =
        SERVER_SET.iter().filter(|key| old.raw(key).is_some()).map(|key| format!("metadata.{key}")).collect();
    if !set.is_empty() {
        notes.change(format!("left out, since the API server sets them: {}", set.join(", ")));
    }
    old.without("finalizers", "they are the older operator's", notes);
    old.without("generateName", "the object has a name", notes);
    old.lost(
        "ownerReferences",
        "who owned the older object does not own this one; set them anew if it should",
        notes,
    );
    old.rest(notes);
    Some(meta)
}

/// Takes the status, of which Stoker writes its own; what it said.
pub(crate) fn status(object: &mut Fields, notes: &mut Notes) -> Option<Value> {
    let status = object.raw("status")?;
    notes.change("status is left out: Stoker writes its own");
    Some(status)
}

fn labels(old: &mut Fields, meta: &mut Mapping, notes: &mut Notes) {
    let Some(mut labels) = old.fields("labels", notes) else { return };
    labels_of_tools(&mut labels, notes);
    let labels = labels.into_map();
    if !labels.is_empty() {
        put(meta, "labels", labels);
    }
}

fn labels_of_tools(labels: &mut Fields, notes: &mut Notes) {
    let by_helm = labels.raw("app.kubernetes.io/managed-by");
    match by_helm {
        Some(Value::String(by)) if by == "Helm" => {
            notes.change(format!(
                "{} (Helm) is left out: no release knows this object",
                labels.at("app.kubernetes.io/managed-by")
            ));
            labels.without("helm.sh/chart", "no release knows this object", notes);
        }
        Some(other) => labels.put_back("app.kubernetes.io/managed-by", other),
        None => {}
    }
}

fn annotations(old: &mut Fields, meta: &mut Mapping, notes: &mut Notes) {
    let Some(annotations) = old.fields("annotations", notes) else { return };
    let path = annotations.path().to_owned();
    let mut annotations = annotations.into_map();
    let of_tools = |key: &String| OF_TOOLS.iter().any(|prefix| key.starts_with(prefix));
    let gone: Vec<String> = keys(&annotations).filter(of_tools).collect();
    for key in &gone {
        annotations.shift_remove(key.as_str());
    }
    if !gone.is_empty() {
        let gone: Vec<String> = gone.iter().map(|key| format!("{path}.{key}")).collect();
        notes.change(format!("left out, since tools wrote them about the older object: {}", gone.join(", ")));
    }
    if !annotations.is_empty() {
        put(meta, "annotations", annotations);
    }
}
