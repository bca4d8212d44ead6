//! A strategic merge of pod templates, as Kubernetes patches them: maps are merged, some lists by a key of their entries,
//! and everything else is replaced.

use serde_json::{Map, Value};

use crate::job_body::object;

/// The lists of a pod template that are merged, and by which key of their entries (Kubernetes: PodSpec and Container in
/// the API reference, "patch merge key"). No two of them share a name and differ in the key.
const MERGED: [(&str, &str); 13] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
];

/// Fields of which a variable may have one: who sets one takes the other away.
const EITHER: [(&str, &str); 2] = [("value", "valueFrom"), ("valueFrom", "value")];

/// What a patch says of itself.
const DIRECTIVE: &str = "$patch";

/// A pod template with changes; or what is wrong with them.
pub fn merge_pod_template(template: &Value, changes: &Map<String, Value>) -> Result<Value, String> {
    let mut merged = template.clone();
    if let Some(other) = changes.keys().find(|key| !matches!(key.as_str(), "metadata" | "spec")) {
        return Err(format!(
            "override.{other} is no part of a pod template: write override.metadata or override.spec"
        ));
    }
    merge(object(&mut merged), changes, "override")?;
    Ok(merged)
}

fn merge(into: &mut Map<String, Value>, changes: &Map<String, Value>, path: &str) -> Result<(), String> {
    match changes.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or("?")) {
        None | Some("merge") => {}
        Some("replace") => into.clear(),
        Some("delete") => {
            into.clear();
            return Ok(());
        }
        Some(other) => {
            return Err(format!("{path}: $patch: {other} is not known: write delete, replace or merge"));
        }
    }
    for (key, change) in changes.iter().filter(|(key, _)| *key != DIRECTIVE) {
        let path = format!("{path}.{key}");
        if key.starts_with('$') {
            return Err(format!("{path} is not supported: $patch: delete, replace and merge are"));
        }
        let by = MERGED.iter().find(|(name, _)| name == key).map(|(_, by)| *by);
        match (change, by) {
            (Value::Null, _) => {
                into.remove(key);
            }
            (Value::Object(change), _) => {
                merge(object(into.entry(key.clone()).or_insert(Value::Null)), change, &path)?;
                let emptied = change.get(DIRECTIVE).is_some_and(|directive| directive == "delete");
                if emptied {
                    into.remove(key);
                }
            }
            (Value::Array(changes), Some(by)) => {
                let before = into.remove(key);
                let all = merge_lists(before, changes, by, &path)?;
                into.insert(key.clone(), Value::Array(all));
            }
            (other, _) => {
                into.insert(key.clone(), other.clone());
            }
        }
    }
    Ok(())
}

fn merge_lists(before: Option<Value>, changes: &[Value], by: &str, path: &str) -> Result<Vec<Value>, String> {
    let mut all = match before {
        Some(Value::Array(all)) => all,
        _ => Vec::new(),
    };
    for change in changes {
        let Value::Object(change) = change else { return Err(format!("{path}: an entry is no object")) };
        let directive = change.get(DIRECTIVE).and_then(Value::as_str);
        let Some(key) = change.get(by).filter(|key| !key.is_null()) else {
            if directive == Some("replace") {
                all.clear();
                continue;
            }
            return Err(format!("{path}: an entry has no {by}, by which it would be merged: add it"));
        };
        let found = all.iter().position(|entry| &entry[by] == key);
        match (found, directive) {
            (Some(at), Some("delete")) => {
                all.remove(at);
            }
            (None, Some("delete")) => {}
            (found, _) => {
                let at = found.unwrap_or_else(|| {
                    all.push(Value::Null);
                    all.len() - 1
                });
                let entry = object(&mut all[at]);
                for (_, gone) in
                    EITHER.iter().filter(|(set, _)| path.ends_with(".env") && change.contains_key(*set))
                {
                    entry.remove(*gone);
                }
                merge(entry, change, path)?;
            }
        }
    }
    Ok(all)
}
