//! Files of cases: what a policy is asked, and what is expected of its answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::call::Call;
use super::near::hint;

/// One case.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub call: Call,
    pub given: Value,
    pub expected: Expected,
}

#[derive(Debug, PartialEq)]
pub enum Expected {
    /// These fields of the answer.
    Answer(Value),
    /// An error with these words.
    Error(String),
    /// What the snapshot holds.
    Snapshot,
}

/// Reads a file of cases.
///
/// # Errors
/// Which case is wrong, and what is right.
pub fn read(file: &Path) -> Result<Vec<Case>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {}: give a file of cases with --cases", file.display()))?;
    parse(&text).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> Result<Vec<Case>> {
    let list = Value::deserialize(serde_yaml::Deserializer::from_str(text))?;
    let Value::Array(list) = list else {
        bail!("a list of cases is expected, each with a name, what is asked, and expect")
    };
    let mut cases: Vec<Case> = Vec::new();
    for (i, case) in list.iter().enumerate() {
        let named =
            case.get("name").and_then(Value::as_str).map_or_else(String::new, |name| format!(" ({name})"));
        let case = one(case).with_context(|| format!("case {}{named}", i + 1))?;
        if cases.iter().any(|other| other.name == case.name) {
            bail!("case {}{named}: another has the same name", i + 1);
        }
        cases.push(case);
    }
    Ok(cases)
}

fn one(case: &Value) -> Result<Case> {
    let Value::Object(case) = case else { bail!("a case has a name, what is asked, and expect") };
    let calls: Vec<Call> = Call::ALL.into_iter().filter(|call| case.contains_key(call.name())).collect();
    let [call] = calls[..] else {
        bail!("exactly one of scale, classify, lead, validate is expected in a case")
    };
    let known = ["name", "expect", "expectError", call.name()];
    if let Some(other) = case.keys().find(|key| !known.contains(&key.as_str())) {
        bail!("{other}: there is no such field; there are {}{}", known.join(", "), hint(other, &known));
    }
    let text = |key: &str| match case.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(anyhow!("{key} is not a text")),
    };
    let expected = match (case.get("expect"), text("expectError")?) {
        (Some(_), Some(_)) => bail!("expect and expectError exclude each other"),
        (Some(answer), None) => Expected::Answer(answer.clone()),
        (None, Some(words)) => Expected::Error(words),
        (None, None) => Expected::Snapshot,
    };
    let name = text("name")?.filter(|name| !name.is_empty()).ok_or_else(|| anyhow!("it has no name"))?;
    let given = match &case[call.name()] {
        Value::Null => Value::Object(Map::new()),
        given => given.clone(),
    };
    Ok(Case { name, call, given, expected })
}

/// Answers that were looked at and found right, by the cases' names.
pub type Snapshot = BTreeMap<String, Value>;

/// Where the snapshot of a file of cases is kept: beside it.
pub fn snapshot_file(cases: &Path) -> PathBuf {
    cases.with_extension("snapshot.yaml")
}

/// Reads a snapshot; none yet = empty.
pub fn read_snapshot(file: &Path) -> Result<Snapshot> {
    match std::fs::read_to_string(file) {
        Ok(text) => serde_yaml::from_str(&text)
            .with_context(|| format!("{}: restore it, or delete it and run with --update", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Snapshot::new()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// How an answer differs from what is expected, a line each; nothing = it does not.
///
/// Each field that is expected is compared; what is not named may be anything. In place of a value there may be
/// `{contains: TEXT}`, `{atLeast: NUMBER}` and `{atMost: NUMBER}`.
///
/// # Errors
/// When the expectation cannot be read.
pub fn differences(call: Call, expected: &Value, answer: &Value) -> Result<Vec<String>> {
    if let (Value::Object(wanted), Value::Object(answer)) = (expected, answer)
        && let Some(name) = wanted.keys().find(|name| !answer.contains_key(*name))
    {
        let names: Vec<&str> = answer.keys().map(String::as_str).collect();
        let (list, hint) = (names.join(", "), hint(name, &names));
        bail!("expect.{name}: {} has no such field; there are {list}{hint}", call.name());
    }
    let mut lines = Vec::new();
    compare(expected, answer, "", &mut lines);
    Ok(lines)
}

fn compare(expected: &Value, answer: &Value, path: &str, lines: &mut Vec<String>) {
    match (expected, answer) {
        (Value::Object(rule), answer) if is_rule(rule) => {
            let kept = rule.iter().all(|(name, bound)| match name.as_str() {
                "contains" => {
                    answer.as_str().zip(bound.as_str()).is_some_and(|(text, part)| text.contains(part))
                }
                "atLeast" => number(answer).zip(number(bound)).is_some_and(|(is, least)| is >= least),
                _ => number(answer).zip(number(bound)).is_some_and(|(is, most)| is <= most),
            });
            if !kept {
                lines.push(format!("{path}: expected {}, got {answer}", Value::Object(rule.clone())));
            }
        }
        (Value::Object(wanted), Value::Object(answer)) => {
            for (name, wanted) in wanted {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(wanted, answer.get(name).unwrap_or(&Value::Null), &path, lines);
            }
        }
        (Value::Array(wanted), Value::Array(answer)) if wanted.len() == answer.len() => {
            for (i, (wanted, answer)) in wanted.iter().zip(answer).enumerate() {
                compare(wanted, answer, &format!("{path}[{i}]"), lines);
            }
        }
        (wanted, answer) if same(wanted, answer) => {}
        (wanted, answer) => {
            let path = if path.is_empty() { "the answer" } else { path };
            lines.push(format!("{path}: expected {wanted}, got {answer}"));
        }
    }
}

fn is_rule(rule: &Map<String, Value>) -> bool {
    !rule.is_empty() && rule.keys().all(|name| ["contains", "atLeast", "atMost"].contains(&name.as_str()))
}

/// A number, or a span as milliseconds.
fn number(value: &Value) -> Option<f64> {
    let span = |text: &str| text.parse::<jiff::SignedDuration>().ok().map(|span| span.as_millis() as f64);
    value.as_f64().or_else(|| value.as_str().and_then(span))
}

/// Whether both say the same: a span or a time may be written in more ways than one.
fn same(wanted: &Value, answer: &Value) -> bool {
    if wanted == answer {
        return true;
    }
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (time(wanted), time(answer)) {
        (Some(wanted), Some(answer)) => wanted == answer,
        _ => number(wanted).zip(number(answer)).is_some_and(|(wanted, answer)| wanted == answer),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cases_are_read() {
        let text = "
- name: two busy
  scale: {counts: {busy: 2}}
  expect: {desired: 3}
- name: no config
  validate: {percent: -1}
- name: nothing
  lead:
  expectError: panic
";
        let cases = parse(text).unwrap();
        let calls: Vec<_> =
            cases.iter().map(|case| (case.name.as_str(), case.call, &case.expected)).collect();
        assert_eq!(calls[0], ("two busy", Call::Scale, &Expected::Answer(json!({"desired": 3}))));
        assert_eq!(calls[1], ("no config", Call::Validate, &Expected::Snapshot));
        assert_eq!(calls[2], ("nothing", Call::Lead, &Expected::Error("panic".to_owned())));
        assert_eq!(cases[2].given, json!({}));
    }

    #[test]
    fn a_case_that_cannot_be_read_is_told() {
        for (text, words) in [
            ("a: 1", "a list of cases is expected"),
            ("- {name: a}", "case 1 (a): exactly one of scale, classify, lead, validate"),
            ("- {name: a, scale: {}, lead: {}}", "case 1 (a): exactly one"),
            ("- {scale: {}}", "case 1: it has no name"),
            (
                "- {name: a, scale: {}, expects: 1}",
                "case 1 (a): expects: there is no such field; there are name, expect",
            ),
            ("- {name: a, scale: {}}\n- {name: a, scale: {}}", "case 2 (a): another has the same name"),
            (
                "- {name: a, scale: {}, expect: 1, expectError: x}",
                "case 1 (a): expect and expectError exclude",
            ),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn what_is_expected_is_compared_and_the_rest_may_be_anything() {
        let answer = json!({"desired": 5, "reason": "2 busy + 3 idle", "wakeAfter": "5m", "victims": [1, 2]});
        let differ = |expected: Value| differences(Call::Scale, &expected, &answer).unwrap();
        let none: Vec<String> = Vec::new();
        assert_eq!(differ(json!({"desired": 5})), none);
        assert_eq!(
            differ(json!({"desired": {"atLeast": 5, "atMost": 5}, "wakeAfter": {"atMost": "6m"}})),
            none
        );
        assert_eq!(differ(json!({"wakeAfter": "300s", "victims": [1, 2]})), none);
        assert_eq!(differ(json!({"wakeAfter": 300_000, "reason": {"contains": "busy"}})), none);
        assert_eq!(differ(json!({"desired": 4})), ["desired: expected 4, got 5"]);
        assert_eq!(differ(json!({"victims": [1, 3]})), ["victims[1]: expected 3, got 2"]);
        assert_eq!(differ(json!({"victims": []})), ["victims: expected [], got [1,2]"]);
        assert_eq!(
            differ(json!({"reason": {"contains": "rush"}})),
            ["reason: expected {\"contains\":\"rush\"}, got \"2 busy + 3 idle\""]
        );
        let error = differences(Call::Scale, &json!({"desried": 4}), &answer).unwrap_err().to_string();
        assert!(error.starts_with("expect.desried: scale has no such field; there are desired"), "{error}");
        assert!(error.ends_with("; did you mean desired?"), "{error}");
    }
}
