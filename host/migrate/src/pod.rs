//! Pod templates of which Stoker takes labels, annotations and the spec.

use serde_yaml::{Mapping, Value};

use crate::fields::Fields;
use crate::notes::Notes;
use crate::values::{has, keys, map, put, text};

/// A template's metadata: labels and annotations, and a word about the rest.
pub(crate) fn metadata(mut meta: Fields, of: &str, notes: &mut Notes) -> Mapping {
    let mut out = Mapping::new();
    for key in ["labels", "annotations"] {
        if let Some(entries) = meta.fields(key, notes).map(Fields::into_map).filter(|map| !map.is_empty()) {
            put(&mut out, key, entries);
        }
    }
    meta.without("name", &format!("{of} are named by Stoker"), notes);
    meta.without("namespace", &format!("{of} are in the object's namespace"), notes);
    meta.without("creationTimestamp", "the API server sets it", notes);
    meta.rest(notes);
    out
}

/// A template with metadata and spec. None = it has no spec.
pub(crate) fn template(mut template: Fields, notes: &mut Notes) -> Option<Mapping> {
    let mut out = Mapping::new();
    if let Some(meta) = template.fields("metadata", notes) {
        let meta = metadata(meta, "the pods", notes);
        if !meta.is_empty() {
            put(&mut out, "metadata", meta);
        }
    }
    let spec = template.fields("spec", notes).map(Fields::into_map);
    match spec {
        Some(spec) => put(&mut out, "spec", spec),
        None => notes.problem(&template.at("spec"), "is missing: give a pod's spec with its containers"),
    }
    let complete = has(&out, "spec");
    template.rest(notes);
    complete.then_some(out)
}

/// The selector's labels were written over the template's; Stoker refuses a template that contradicts them.
pub(crate) fn agree(selector: &Mapping, template: &mut Mapping, path: &str, notes: &mut Notes) {
    let labels = template.get_mut("metadata").and_then(|meta| meta.get_mut("labels"));
    let Some(Value::Mapping(labels)) = labels else { return };
    let other = |key: &String| has(labels, key) && text(labels, key) != text(selector, key);
    for key in keys(selector).filter(other).collect::<Vec<_>>() {
        let was = text(labels, &key).unwrap_or_default();
        notes.change(format!(
            "{path}.metadata.labels.{key} ({was}) is left out: selector.matchLabels wrote over it"
        ));
        labels.shift_remove(key.as_str());
    }
}

/// Takes a selector; what it selects by. Only matchLabels had an effect.
pub(crate) fn selector(spec: &mut Fields, notes: &mut Notes) -> Option<Mapping> {
    let mut selector = spec.fields("selector", notes)?;
    let labels = selector.fields("matchLabels", notes).map(Fields::into_map);
    selector.without(
        "matchExpressions",
        "the older operator read matchLabels only, and so does Stoker",
        notes,
    );
    selector.rest(notes);
    labels.filter(|labels| !labels.is_empty())
}

/// The labels of a template.
pub(crate) fn labels(template: &Mapping) -> Option<&Mapping> {
    map(template, "metadata").and_then(|meta| map(meta, "labels")).filter(|labels| !labels.is_empty())
}

/// The older operators named each pod's node themselves, past the scheduler: taints that keep pods from being scheduled
/// kept no node out, and neither did a cordon. The pod tolerates them, to run on the same nodes as before.
pub(crate) fn on_every_node(pod: &mut Mapping, notes: &mut Notes) {
    let all: Value =
        Mapping::from_iter([("operator".into(), "Exists".into()), ("effect".into(), "NoSchedule".into())])
            .into();
    let tolerations = pod.entry("tolerations".into()).or_insert_with(|| Value::Sequence(Vec::new()));
    if let Value::Sequence(list) = tolerations
        && !list.contains(&all)
    {
        list.push(all);
        notes.change(
            "the pods tolerate NoSchedule taints, since the older operator ran on such nodes, too, for example of the \
             control plane: take that toleration out if they are not meant",
        );
    }
}
