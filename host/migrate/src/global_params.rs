//! What all Jobs of a JobFlow or a DaemonJob have in common. The older operator wrote it over what a template said itself;
//! Stoker adds it, and the template's own wins.

use serde_yaml::{Mapping, Value};

use crate::fields::Fields;
use crate::job_spec::JobSpec;
use crate::notes::Notes;
use crate::values::{keys, map, put, take, text};

/// Takes globalParams out of a spec. None = there are none.
pub(crate) fn take_from(spec: &mut Fields, notes: &mut Notes) -> Option<Mapping> {
    let mut old = spec.fields("globalParams", notes)?;
    let mut out = Mapping::new();
    if let Some(node) = old.text("nodeName", notes).filter(|node| !node.is_empty()) {
        put(&mut out, "nodeName", node);
    }
    if let Some(env) = old.list("env", notes).filter(|env| !env.is_empty()) {
        put(&mut out, "env", env);
    }
    for key in ["labels", "annotations"] {
        let mut entries = old.fields(key, notes).map(Fields::into_map).unwrap_or_default();
        // Kubernetes takes texts only; a bare number or truth value is one that lost its quotes.
        for (_, value) in entries.iter_mut().filter(|(_, value)| value.is_number() || value.is_bool()) {
            *value = crate::values::shown(value).into();
        }
        if !entries.is_empty() {
            put(&mut out, key, entries);
        }
    }
    old.rest(notes);
    (!out.is_empty()).then_some(out)
}

/// Tells where a template and globalParams meet, and where the older operator and Stoker differ about it.
pub(crate) fn meet(global: &Mapping, template: &mut JobSpec, path: &str, notes: &mut Notes) {
    let Some(pod) = template.pod_mut() else { return };
    for key in ["labels", "annotations"] {
        let own = map(pod, "metadata").and_then(|meta| map(meta, key));
        if let (Some(own), Some(global)) = (own, map(global, key)) {
            let at = format!("{path}.template.metadata.{key}");
            let same =
                keys(own).filter(|key| text(global, key).is_some_and(|value| text(own, key) != Some(value)));
            told(&at, &format!("globalParams.{key}"), !own.is_empty(), same.collect(), notes);
        }
    }
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_mapping_mut) else { return };
    if let Some(global) = global.get("env").and_then(Value::as_sequence) {
        for container in spec.get("containers").and_then(Value::as_sequence).into_iter().flatten() {
            let Some(own) = container.get("env").and_then(Value::as_sequence) else { continue };
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let at = format!("{path}.template.spec.containers[{name}].env");
            let other =
                |own: &&Value| global.iter().any(|other| other["name"] == own["name"] && other != *own);
            let same = own.iter().filter(other).filter_map(|own| own["name"].as_str().map(str::to_owned));
            told(&at, "globalParams.env", !own.is_empty(), same.collect(), notes);
        }
    }
    if let Some(node) = text(global, "nodeName")
        && let Some(own) = take(spec, "nodeName")
        && own.as_str() != Some(&node)
    {
        notes.change(format!(
            "{path}.template.spec.nodeName ({}) is left out: globalParams.nodeName wrote over it",
            crate::values::shown(&own)
        ));
    }
}

fn told(at: &str, by: &str, any: bool, same: Vec<String>, notes: &mut Notes) {
    if !same.is_empty() {
        notes.warn(format!(
            "{at}: what it says of {} is other than what {by} says, which wrote over it in the older system. Here the \
             template's holds: take it out if the other is meant",
            same.join(", ")
        ));
    } else if any {
        notes.change(format!("{at}: its own stay beside {by}, which took their place in the older system"));
    }
}
