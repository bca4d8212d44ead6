//! The configuration of `queue-depth`, checked once so that the rule may trust it.

use serde_json::{Map, Value};

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"signal":{"type":"string","minLength":1,"maxLength":63,"default":"queue","description":"The name of the signal that is the queue's length."},"perReplica":{"type":"number","exclusiveMinimum":0,"default":1,"description":"How many waiting things one pod is for."}}}"#;

/// What is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The signal's name.
    pub signal: String,
    /// Waiting things for one pod, more than 0.
    pub per_replica: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { signal: "queue".to_owned(), per_replica: 1.0 }
    }
}

/// Reads the configuration.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn parse(config: &str) -> Result<Config, Vec<String>> {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(config) else {
        let words = r#"config is not a JSON object: write for example {"signal": "queue", "perReplica": 5}"#;
        return Err(vec![words.to_owned()]);
    };
    let mut read = Config::default();
    let mut errors = Vec::new();
    for (key, value) in &keys {
        let given: String = value.to_string().chars().take(60).collect();
        match (key.as_str(), value) {
            ("signal", Value::String(name)) if !name.is_empty() && name.len() <= 63 => {
                read.signal.clone_from(name)
            }
            ("signal", _) => {
                errors.push(format!("signal: {given} is no name of a signal: 1 to 63 bytes of text"))
            }
            ("perReplica", _) => match value.as_f64() {
                Some(number) if number > 0.0 => read.per_replica = number,
                Some(_) => errors.push(format!("perReplica: {given} is not above 0")),
                None => errors
                    .push(format!("perReplica: {given} is not a number; write one above 0, without quotes")),
            },
            _ => {
                let key: String = key.chars().take(60).collect();
                errors.push(format!("{key}: unknown key; there are signal and perReplica"));
            }
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(parse("{}"), Ok(Config::default()));
        let given = parse(r#"{"signal": "jobs", "perReplica": 2.5}"#);
        assert_eq!(given, Ok(Config { signal: "jobs".to_owned(), per_replica: 2.5 }));
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_would_be_right() {
        for (config, error) in [
            (r#"{"perReplica": 0}"#, "perReplica: 0 is not above 0"),
            (
                r#"{"perReplica": "5"}"#,
                r#"perReplica: "5" is not a number; write one above 0, without quotes"#,
            ),
            (r#"{"signal": ""}"#, r#"signal: "" is no name of a signal: 1 to 63 bytes of text"#),
            (r#"{"queue": "a"}"#, "queue: unknown key; there are signal and perReplica"),
            ("5", r#"config is not a JSON object: write for example {"signal": "queue", "perReplica": 5}"#),
        ] {
            assert_eq!(parse(config), Err(vec![error.to_owned()]), "{config}");
        }
        assert_eq!(parse(r#"{"perReplica": -1, "a": 1}"#).unwrap_err().len(), 2);
    }

    #[test]
    fn the_schema_is_json_and_names_the_defaults() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert_eq!(schema["properties"]["signal"]["default"], Config::default().signal.as_str());
        assert_eq!(
            schema["properties"]["perReplica"]["default"].as_f64(),
            Some(Config::default().per_replica)
        );
    }
}
