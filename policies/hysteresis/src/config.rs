//! The configuration of `hysteresis`: two numbers, checked once so that the rule may trust them.

use serde_json::{Map, Value};

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"probes":{"type":"integer","minimum":1,"maximum":100,"default":3,"description":"Probes in a row that must say idle; a watched annotation or condition is not probed."},"seconds":{"type":"integer","minimum":0,"maximum":86400,"default":0,"description":"For how long the probe must have said idle."}}}"#;

/// What it takes to believe that a pod is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Results in a row, 1 to 100. They do not count for a watched probe.
    pub probes: u32,
    /// 0 to 86,400.
    pub seconds: u32,
}

impl Patience {
    pub const DEFAULT: Self = Self { probes: 3, seconds: 0 };
}

const PROBES: (u32, u32) = (1, 100);
/// A day is the longest that a decision may ask to wait.
const SECONDS: (u32, u32) = (0, 86_400);
/// An answer has at most 16 errors.
const ERRORS: usize = 16;

/// Reads the configuration.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn parse(config: &str) -> Result<Patience, Vec<String>> {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(config) else {
        return Err(vec!["config is not a JSON object: write for example {\"probes\": 3}".to_owned()]);
    };
    let mut patience = Patience::DEFAULT;
    let mut errors = Vec::new();
    for (key, value) in &keys {
        let read = match key.as_str() {
            "probes" => number(key, value, PROBES).map(|probes| patience.probes = probes),
            "seconds" => number(key, value, SECONDS).map(|seconds| patience.seconds = seconds),
            _ => Err(format!("{}: unknown key; there are probes and seconds", shown(key))),
        };
        errors.extend(read.err());
    }
    errors.truncate(ERRORS);
    if errors.is_empty() { Ok(patience) } else { Err(errors) }
}

fn number(key: &str, value: &Value, (least, most): (u32, u32)) -> Result<u32, String> {
    let shown = shown(&value.to_string());
    let number = value.as_i64().ok_or_else(|| {
        format!("{key}: {shown} is not a whole number; write one from {least} to {most}, without quotes")
    })?;
    match u32::try_from(number) {
        Ok(number) if number > most => Err(format!("{key}: {shown} is above {most}")),
        Ok(number) if number >= least => Ok(number),
        Err(_) if number > 0 => Err(format!("{key}: {shown} is above {most}")),
        _ => Err(format!("{key}: {shown} is below {least}")),
    }
}

/// A key or value as an error may quote it: an error has at most 512 bytes.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_keys_three_probes_must_agree() {
        assert_eq!(parse("{}"), Ok(Patience { probes: 3, seconds: 0 }));
    }

    #[test]
    fn numbers_within_the_bounds_are_taken() {
        assert_eq!(parse(r#"{"probes":1,"seconds":86400}"#), Ok(Patience { probes: 1, seconds: 86_400 }));
        assert_eq!(parse(r#"{"seconds":10}"#), Ok(Patience { probes: 3, seconds: 10 }));
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_would_be_right() {
        for (config, error) in [
            ("3", r#"config is not a JSON object: write for example {"probes": 3}"#),
            (r#"{"probes":0}"#, "probes: 0 is below 1"),
            (r#"{"probes":101}"#, "probes: 101 is above 100"),
            (r#"{"probes":99999999999}"#, "probes: 99999999999 is above 100"),
            (r#"{"seconds":-1}"#, "seconds: -1 is below 0"),
            (
                r#"{"seconds":"10"}"#,
                r#"seconds: "10" is not a whole number; write one from 0 to 86400, without quotes"#,
            ),
            (
                r#"{"probes":2.5}"#,
                "probes: 2.5 is not a whole number; write one from 1 to 100, without quotes",
            ),
            (r#"{"probe":3}"#, "probe: unknown key; there are probes and seconds"),
        ] {
            assert_eq!(parse(config), Err(vec![error.to_owned()]), "{config}");
        }
    }

    #[test]
    fn errors_are_within_the_contract() {
        let keys: Map<String, Value> =
            (0..40).map(|n| (format!("{n}{}", "é".repeat(600)), n.into())).collect();
        let errors = parse(&Value::Object(keys).to_string()).unwrap_err();
        assert!(errors.len() == 16 && errors.iter().all(|error| error.len() <= 512));
    }

    #[test]
    fn the_schema_is_json_and_names_the_default() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert_eq!(schema["properties"]["probes"]["default"], Patience::DEFAULT.probes);
        assert_eq!(schema["properties"]["seconds"]["default"], Patience::DEFAULT.seconds);
    }
}
