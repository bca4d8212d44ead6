//! A text of several YAML documents, and the objects in them. Each document is read by itself, so that a broken one
//! does not hide the others.

use serde_yaml::Value;

use crate::Origin;
use crate::values;

/// The documents of a text; those that hold nothing but comments are none.
pub(crate) fn split(source: &str, text: &str) -> Vec<(Origin, Result<Value, String>)> {
    let mut parts: Vec<(usize, String)> = vec![(1, String::new())];
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        // As kubectl does: what follows the dashes on their line belongs to no document.
        if line.starts_with("---") {
            parts.push((number + 2, String::new()));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    let mut found = Vec::new();
    for (first, part) in parts {
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        let skipped = part.lines().take_while(blank).count();
        if skipped == part.lines().count() {
            continue;
        }
        let document = Some(found.len() + 1);
        let origin = Origin { source: source.to_owned(), document, line: Some(first + skipped), item: None };
        found.push((origin, read(&part, first)));
    }
    found
}

fn read(part: &str, first: usize) -> Result<Value, String> {
    const TEMPLATE: &str = "it looks like a template: render it first, for example by `helm template`";
    let parsed = serde_yaml::from_str(part).and_then(|mut value: Value| {
        value.apply_merge()?;
        Ok(value)
    });
    if parsed.as_ref().is_ok_and(has_braces) {
        return Err(TEMPLATE.to_owned());
    }
    parsed.map_err(|error| {
        let at = error.location().map(|at| format!("line {}: ", first + at.line() - 1)).unwrap_or_default();
        let hint = if part.contains("{{") { format!("; {TEMPLATE}") } else { String::new() };
        format!("{at}no YAML that can be read: {error}{hint}")
    })
}

/// What `{{ … }}` is to YAML: a map for a key.
fn has_braces(value: &Value) -> bool {
    match value {
        Value::Mapping(map) => map.iter().any(|(key, value)| key.is_mapping() || has_braces(value)),
        Value::Sequence(items) => items.iter().any(has_braces),
        _ => false,
    }
}

/// The objects of a document: itself, or the items of a List.
pub(crate) fn items(origin: Origin, value: Value) -> Vec<(Origin, Value)> {
    let list = value.as_mapping().filter(|map| {
        let kind = values::text(map, "kind").unwrap_or_default();
        kind.ends_with("List") && map.get("items").is_some_and(Value::is_sequence)
    });
    let Some(Value::Sequence(items)) = list.and_then(|map| map.get("items")) else {
        return vec![(origin, value)];
    };
    let (api, kind) = (
        list.and_then(|map| values::text(map, "apiVersion")),
        list.and_then(|map| values::text(map, "kind")),
    );
    let numbered = items.iter().enumerate().map(|(index, item)| {
        let mut item = item.clone();
        // The items of a typed list need not say what they are.
        if let (Value::Mapping(item), Some(api), Some(kind)) = (&mut item, &api, &kind)
            && let Some(kind) = kind.strip_suffix("List").filter(|kind| !kind.is_empty())
            && !values::has(item, "kind")
        {
            values::put(item, "apiVersion", api.as_str());
            values::put(item, "kind", kind);
        }
        (Origin { item: Some(index + 1), ..origin.clone() }, item)
    });
    numbered.collect()
}
