//! A text of several YAML documents, and the objects in them. Each document is read by itself, so that a broken one
//! does not hide the others.

use serde_yaml::Value;

use crate::Origin;
use crate::values;

/// The documents of a text; those that hold nothing but comments are none.
pub(crate) fn split(source: &str, text: &str) -> Vec<(Origin, Result<Value, String>)> {
    let mut parts: Vec<(usize, String)> = vec![(1, String::new())];
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let begins = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if let Some(rest) = begins {
            parts.push((number + 1, format!("{rest}\n")));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    let mut found = Vec::new();
    for (first, part) in parts {
        let blank =
            |line: &&str| matches!(line.trim(), "" | "...") || line.trim_start().starts_with(['#', '%']);
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
    // So that the parser counts lines as people do.
    let placed = "\n".repeat(first - 1) + part;
    let parsed = serde_yaml::from_str(&placed).and_then(|mut value: Value| {
        value.apply_merge()?;
        Ok(value)
    });
    if parsed.as_ref().is_ok_and(has_braces) {
        return Err(TEMPLATE.to_owned());
    }
    parsed.map_err(|error| {
        let hint = if part.contains("{{") { format!("; {TEMPLATE}") } else { String::new() };
        format!("no YAML that can be read: {error}{hint}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_by_number_and_line() {
        let text = "# nothing\n---\n\n# a comment\na: 1\r\n--- # more\nb: |\n  ----\n--- {c: 3}\n---\n...";
        let found: Vec<(usize, Value)> = split("x", text)
            .into_iter()
            .map(|(origin, value)| (origin.line.unwrap(), value.unwrap()))
            .collect();
        let wanted = [(5, "{a: 1}"), (7, "{b: \"----\\n\"}"), (9, "{c: 3}")];
        let wanted = wanted.map(|(line, text)| (line, serde_yaml::from_str::<Value>(text).unwrap()));
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_broken_document_hides_no_other() {
        let found = split("x", "a: 1\n---\nb: c: d\n---\n{{ .Values.name }}: x\n---\nd: 4\n");
        let words: Vec<Result<(), String>> = found.into_iter().map(|(_, value)| value.map(drop)).collect();
        assert!(words[0].is_ok() && words[3].is_ok());
        assert!(words[1].as_ref().is_err_and(|words| words.contains("line 3 ")), "{words:?}");
        assert!(words[2].as_ref().is_err_and(|words| words.contains("helm template")), "{words:?}");
    }

    #[test]
    fn items_of_a_typed_list_need_not_say_what_they_are() {
        let list = "{apiVersion: g/v1, kind: ThingList, items: [{metadata: {name: a}}]}";
        let origin = Origin { source: "x".to_owned(), document: Some(1), line: Some(1), item: None };
        let found = items(origin, serde_yaml::from_str(list).unwrap());
        assert_eq!((found[0].1["kind"].as_str(), found[0].0.item), (Some("Thing"), Some(1)));
    }
}
