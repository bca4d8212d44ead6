//! The configuration of `expression`: one text, compiled and tried once so that the rule may trust it.

use serde_json::{Map, Value};

use crate::check::Expression;
use crate::{pool, rule};

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"desired":{"type":"string","maxLength":4096,"default":"busy + claimed + waiting + idleTarget","description":"CEL expression for the number of replicas, for example busy + max(idleTarget, int(busy * 0.2))."}}}"#;

const EXAMPLE: &str = r#"{"desired": "busy + max(idleTarget, int(busy * 0.2))"}"#;
/// As `buffer` decides.
const DEFAULT: &str = "busy + claimed + waiting + idleTarget";
/// An error has at most 512 bytes.
const ERROR: usize = 512;

/// Checks the configuration, the values that come out included.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn validate(config: &str) -> Result<(), Vec<String>> {
    let expression = parse(config)?;
    for (which, pool) in [("", pool::sample()), (" when nothing runs", pool::empty())] {
        let pool = pool.with_signals(expression.signals());
        if let Err(words) = rule::evaluate(&expression, &pool) {
            return Err(vec![cut(format!(
                "desired: {words}, tried with {}{which}",
                pool.values(&expression)
            ))]);
        }
    }
    Ok(())
}

/// Reads the configuration.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn parse(config: &str) -> Result<Expression, Vec<String>> {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(config) else {
        return Err(vec![format!("config is not a JSON object: write for example {EXAMPLE}")]);
    };
    let mut errors: Vec<String> = keys
        .keys()
        .filter(|key| *key != "desired")
        .map(|key| format!("{}: unknown key; the only one is desired", shown(key)))
        // An answer has at most 16 errors.
        .take(15)
        .collect();
    let expression = match keys.get("desired") {
        None => Expression::new(DEFAULT),
        Some(Value::String(text)) => Expression::new(text).map_err(|words| format!("desired: {words}")),
        Some(other) => Err(format!(
            "desired: {} is not a text; write the expression in quotes, for example {EXAMPLE}",
            shown(&other.to_string())
        )),
    };
    match expression {
        Ok(expression) if errors.is_empty() => return Ok(expression),
        Ok(_) => {}
        Err(words) => errors.push(cut(words)),
    }
    Err(errors)
}

/// A key or value as an error may quote it.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ERROR));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(desired: &str) -> String {
        let config = Value::from_iter([("desired", desired)]).to_string();
        validate(&config).unwrap_err().join("; ")
    }

    #[test]
    fn the_example_and_the_default_are_valid() {
        assert_eq!(validate(EXAMPLE), Ok(()));
        assert_eq!(validate("{}"), Ok(()));
        assert_eq!(parse("{}").unwrap().text(), DEFAULT);
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_would_be_right() {
        for (config, error) in [
            ("[]", format!("config is not a JSON object: write for example {EXAMPLE}")),
            (
                r#"{"desired": 3}"#,
                format!("desired: 3 is not a text; write the expression in quotes, for example {EXAMPLE}"),
            ),
            (r#"{"desired": "3", "reason": "x"}"#, "reason: unknown key; the only one is desired".to_owned()),
        ] {
            assert_eq!(validate(config), Err(vec![error]), "{config}");
        }
    }

    #[test]
    fn an_expression_that_gives_no_number_is_refused() {
        for (desired, words) in [
            ("busy > 3", "desired: the result is true or false, not a number, tried with busy 10"),
            ("\"3\"", "desired: the result is a text, not a number"),
            ("[busy]", "desired: the result is a list, not a number"),
            ("busy - 20", "desired: the result -10 is negative; write max(0, …), tried with busy 10"),
        ] {
            assert!(error(desired).starts_with(words), "{}", error(desired));
        }
    }

    #[test]
    fn an_expression_that_fails_for_a_pool_without_work_is_refused() {
        assert_eq!(error("100 / busy"), "desired: division by zero, tried with busy 0 when nothing runs");
        assert_eq!(
            error("busy - 1"),
            "desired: the result -1 is negative; write max(0, …), tried with busy 0 when nothing runs"
        );
        assert_eq!(validate(r#"{"desired": "busy > 0 ? 100 / busy : 0"}"#), Ok(()));
    }

    #[test]
    fn any_signal_may_be_used() {
        assert_eq!(validate(r#"{"desired": "signals.queue / 10 + signals[\"jobs/s\"]"}"#), Ok(()));
        assert_eq!(validate(r#"{"desired": "has(signals.queue) ? signals.queue : busy"}"#), Ok(()));
    }

    #[test]
    fn errors_are_within_the_contract() {
        let long = format!("{} + 1", "é".repeat(2_000));
        assert!(error(&long).len() <= 512);
        let keys: Map<String, Value> =
            (0..40).map(|n| (format!("{}{n}", "k".repeat(600)), n.into())).collect();
        let errors = validate(&Value::Object(keys).to_string()).unwrap_err();
        assert!(errors.len() <= 16 && errors.iter().all(|error| error.len() <= 512));
    }

    #[test]
    fn the_schema_is_json_and_names_the_default() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert_eq!(schema["properties"]["desired"]["default"], DEFAULT);
    }
}
