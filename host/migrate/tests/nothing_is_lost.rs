//! Of every field of every fixture it is told what became of it: its value stands in the new object, or its path in a
//! comment. A comment about a field is one about all that is below it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{fixtures, migrated};
use serde_yaml::{Mapping, Value};

/// A scalar of the input: its path, the last key of it, and its value.
struct Leaf {
    path: String,
    key: String,
    value: Value,
}

fn leaves(path: &str, key: &str, value: &Value, found: &mut Vec<Leaf>) {
    let below = |part: &str| if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
    match value {
        // An empty text is how older clients say nothing.
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::Mapping(map) => {
            for (part, value) in map {
                let part = part.as_str().unwrap();
                leaves(&below(part), part, value, found);
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                let name =
                    item.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned);
                leaves(&format!("{path}[{name}]"), key, item, found);
            }
        }
        value => found.push(Leaf { path: path.to_owned(), key: key.to_owned(), value: value.clone() }),
    }
}

/// What a config and a template of the batch-job-controller say is YAML in a text; what is filled in is named anew.
fn unpack(object: &mut Mapping) {
    let Some(Value::Mapping(data)) = object.get_mut("data") else { return };
    for key in ["config.yaml", "pod-template.yaml"] {
        let Some(Value::String(text)) = data.shift_remove(key) else { continue };
        let mut text = text.replace("${NODE_NAME}", "$${NODE_NAME}");
        for (go, stoker) in
            [("NodeName", "NODE_NAME"), ("Namespace", "NAMESPACE"), ("ExecutionID", "EXECUTION_ID")]
        {
            for form in [format!("{{{{ .{go} }}}}"), format!("{{{{.{go}}}}}"), format!("{{{{ $.{go} }}}}")] {
                text = text.replace(&form, &format!("${{{stoker}}}"));
            }
        }
        text = text.replace(r#"{{ printf "%s/%s" .Namespace .NodeName }}"#, "${NAMESPACE}/${NODE_NAME}");
        text = text
            .lines()
            .filter(|line| !line.contains("/*") && *line != "---")
            .fold(String::new(), |all, line| all + line + "\n");
        object.insert(key.into(), serde_yaml::from_str(&text).unwrap());
        let Some(Value::Mapping(_)) = object.get("data") else { return };
        return unpack(object);
    }
}

/// Values that stand somewhere in an object, with their keys.
fn carried(object: &Value) -> BTreeSet<String> {
    let mut all = Vec::new();
    leaves("", "", object, &mut all);
    all.iter().map(|leaf| same(&leaf.key, &leaf.value)).collect()
}

/// A key and a value, as they are compared: numbers and what looks like them are the same.
fn same(key: &str, value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        other => serde_json::to_string(other).unwrap(),
    };
    let octal = text.strip_prefix('0').and_then(|digits| u32::from_str_radix(digits, 8).ok());
    let text = match (key, octal) {
        ("defaultMode" | "mode", Some(mode)) => mode.to_string(),
        ("mode", None) => text.to_lowercase(),
        _ => text,
    };
    format!("{key}={text}")
}

fn objects(text: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for part in text.split("\n---\n") {
        let Ok(value) = serde_yaml::from_str::<Value>(part) else { continue };
        match value.get("items") {
            Some(Value::Sequence(items)) => all.extend(items.clone()),
            _ => all.push(value),
        }
    }
    all
}

#[test]
fn every_field_is_carried_or_told_of() {
    let (mut seen, mut lost) = (0, Vec::new());
    for path in fixtures() {
        let outcome = migrated(&path);
        for old in objects(&std::fs::read_to_string(&path).unwrap()) {
            let kind = old["kind"].as_str().unwrap_or_default();
            let was = format!("{kind} {}", old["metadata"]["name"].as_str().unwrap_or_default());
            let Some(new) = outcome.objects.iter().find(|new| new.was == was) else { continue };
            let told = new.changes.iter().chain(&new.warnings).cloned().collect::<Vec<_>>().join("\n");
            let carried = carried(&new.object);
            let Value::Mapping(mut old) = old else { panic!("{was}") };
            unpack(&mut old);
            let mut all = Vec::new();
            leaves("", "", &Value::Mapping(old), &mut all);
            for Leaf { path, key, value } in all {
                seen += 1;
                // A path that goes on is another one.
                let tells = |path: &str| {
                    told.match_indices(path).any(|(at, _)| {
                        let mut after = told[at + path.len()..].chars();
                        match after.next() {
                            Some('.') => !after.next().is_some_and(|c| c.is_ascii_alphanumeric()),
                            Some(next) => !next.is_ascii_alphanumeric() && next != '[',
                            None => true,
                        }
                    })
                };
                // The path itself and all that it is below of, but for `spec` and the like.
                let ends = path.match_indices(['.', '[']).map(|(at, _)| at).chain([path.len()]);
                let mut paths = ends
                    .map(|end| &path[..end])
                    .filter(|path| path.contains('.') || path.len() > "metadata".len());
                let known = matches!(&*path, "kind" | "metadata.name" | "metadata.namespace");
                let whole = ["status", "apiVersion", "immutable"]
                    .iter()
                    .any(|top| path.starts_with(top) && tells(top));
                if !(known || whole || carried.contains(&same(&key, &value)) || paths.any(tells)) {
                    lost.push(format!("{was}: {path} ({value:?})"));
                }
            }
        }
    }
    assert!(lost.is_empty(), "neither carried nor told of: {lost:#?}");
    assert!(seen > 300, "{seen} fields");
}
