//! What the API server would refuse of a migrated object, by the schema of Stoker's own custom resources: said here, with
//! the field, rather than when it is applied.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

/// Every refusal with its field: of a kind's object. A field that the schema does not know is one, since the API server
/// would drop it without a word.
pub(crate) fn refusals(kind: &str, object: &serde_yaml::Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (Some(schema), Ok(object)) = (schemas().get(kind), serde_json::to_value(object)) else {
        return vec![(
            "the object".to_owned(),
            format!("cannot be said in JSON, or {kind} is no kind of Stoker's"),
        )];
    };
    check("spec", &object["spec"], &schema["properties"]["spec"], &mut found);
    found
}

fn schemas() -> &'static BTreeMap<String, Value> {
    static SCHEMAS: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let of = |crd: &_| {
            let crd = serde_json::to_value(crd).unwrap_or_default();
            let kind = crd["spec"]["names"]["kind"].as_str()?.to_owned();
            Some((kind, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()))
        };
        stoker_api::crds().iter().filter_map(of).collect()
    })
}

fn check(path: &str, value: &Value, schema: &Value, found: &mut Vec<(String, String)>) {
    let flag = |key: &str| schema[key].as_bool() == Some(true);
    if value.is_null() && flag("nullable") {
        return;
    }
    let mut refuse = |words: String| found.push((path.to_owned(), words));
    if flag("x-kubernetes-int-or-string") {
        if !value.is_string() && !value.is_i64() && !value.is_u64() {
            refuse(format!("must be a whole number or a text, and is {value}"));
        }
        return;
    }
    let right = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !right {
        let wanted = schema["type"].as_str().unwrap_or_default();
        return refuse(format!("must be of type {wanted}, and is {value}"));
    }
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.contains(value)) {
        let words: Vec<String> = words.iter().map(Value::to_string).collect();
        refuse(format!("is {value}: give one of {}", words.join(", ")));
    }
    match value {
        Value::Object(map) => {
            for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if map.get(key).is_none_or(Value::is_null) {
                    refuse(format!("{key} is missing"));
                }
            }
            bound(map.len() as f64, schema, "Properties", "entries", &mut refuse);
            for (key, value) in map {
                let path = format!("{path}.{key}");
                match (schema["properties"].get(key), &schema["additionalProperties"]) {
                    (Some(schema), _) => check(&path, value, schema, found),
                    (None, more @ Value::Object(_)) => check(&path, value, more, found),
                    (None, _) if flag("x-kubernetes-preserve-unknown-fields") => {}
                    (None, _) => found.push((path, "is no field of Stoker's".to_owned())),
                }
            }
        }
        Value::Array(items) => {
            bound(items.len() as f64, schema, "Items", "entries", &mut refuse);
            once(items, schema, &mut refuse);
            for (index, value) in items.iter().enumerate() {
                let name = value["name"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                check(&format!("{path}[{name}]"), value, &schema["items"], found);
            }
        }
        Value::String(text) => {
            bound(text.chars().count() as f64, schema, "Length", "characters", &mut refuse);
            let pattern = schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok());
            if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
                refuse(format!("{text:?} must be of the form {pattern}"));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if schema["minimum"].as_f64().is_some_and(|least| number < least) {
                refuse(format!(
                    "is {number}: give {} or more",
                    schema["minimum"].as_f64().unwrap_or_default()
                ));
            }
            if schema["maximum"].as_f64().is_some_and(|most| number > most) {
                refuse(format!(
                    "is {number}: give {} or less",
                    schema["maximum"].as_f64().unwrap_or_default()
                ));
            }
        }
        _ => {}
    }
}

/// Counts against `minX` and `maxX`.
fn bound(count: f64, schema: &Value, of: &str, what: &str, refuse: &mut impl FnMut(String)) {
    let of = |which: &str| schema[format!("{which}{of}")].as_f64();
    if let Some(least) = of("min").filter(|least| count < *least) {
        refuse(format!("has {count} {what}: give {least} or more"));
    }
    if let Some(most) = of("max").filter(|most| count > *most) {
        refuse(format!("has {count} {what}: give {most} or less"));
    }
}

/// Entries of sets, and the keys of maps that are lists, are there once.
fn once(items: &[Value], schema: &Value, refuse: &mut impl FnMut(String)) {
    let key = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => None,
        Some("map") => Some(schema["x-kubernetes-list-map-keys"][0].as_str().unwrap_or("name")),
        _ => return,
    };
    let of = |item: &Value| key.map_or_else(|| item.clone(), |key| item[key].clone());
    for (index, item) in items.iter().enumerate() {
        if items[..index].iter().any(|earlier| of(earlier) == of(item)) {
            refuse(format!("{} is there twice: each may be there once", of(item)));
        }
    }
}
