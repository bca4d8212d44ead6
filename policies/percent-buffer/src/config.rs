//! The configuration of `percent-buffer`: one number, checked once so that the rule may trust it.

use serde_json::{Map, Value};

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"percent":{"type":"number","minimum":0,"maximum":1000,"default":20,"description":"Idle pods per hundred in use."}}}"#;

/// Idle pods per hundred in use, 0 to 1000.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(f64);

impl Percent {
    pub const DEFAULT: Self = Self(20.0);
    const MAXIMUM: f64 = 1000.0;

    /// The number, when it is within its bounds.
    pub fn new(percent: f64) -> Option<Self> {
        (0.0..=Self::MAXIMUM).contains(&percent).then_some(Self(percent))
    }

    /// The number, 0 to 1000.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Reads the configuration.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn parse(config: &str) -> Result<Percent, Vec<String>> {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(config) else {
        return Err(vec!["config is not a JSON object: write for example {\"percent\": 20}".to_owned()]);
    };
    let mut percent = Percent::DEFAULT;
    let mut errors = Vec::new();
    for (key, value) in &keys {
        if key != "percent" {
            errors.push(format!("{}: unknown key; the only one is percent", shown(key)));
            continue;
        }
        match value.as_f64().map(|number| (number, Percent::new(number))) {
            Some((_, Some(valid))) => percent = valid,
            Some((number, None)) if number < 0.0 => {
                errors.push(format!("percent: {} is below 0", shown(&value.to_string())));
            }
            Some(_) => errors.push(format!("percent: {} is above 1000", shown(&value.to_string()))),
            None => errors.push(format!(
                "percent: {} is not a number; write one from 0 to 1000, without quotes",
                shown(&value.to_string())
            )),
        }
    }
    if errors.is_empty() { Ok(percent) } else { Err(errors) }
}

/// A key or value as an error may quote it: an error has at most 512 bytes.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_key_it_is_twenty() {
        assert_eq!(parse("{}"), Ok(Percent::DEFAULT));
    }

    #[test]
    fn whole_and_broken_numbers_within_the_bounds_are_taken() {
        for (config, percent) in
            [(r#"{"percent": 0}"#, 0.0), (r#"{"percent": 12.5}"#, 12.5), (r#"{"percent": 1000}"#, 1000.0)]
        {
            assert_eq!(parse(config).map(Percent::get), Ok(percent));
        }
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_would_be_right() {
        for (config, error) in [
            (r#"{"percent": -5}"#, "percent: -5 is below 0"),
            (r#"{"percent": 1000.5}"#, "percent: 1000.5 is above 1000"),
            (
                r#"{"percent": "20"}"#,
                r#"percent: "20" is not a number; write one from 0 to 1000, without quotes"#,
            ),
            (
                r#"{"percent": null}"#,
                "percent: null is not a number; write one from 0 to 1000, without quotes",
            ),
            (r#"{"percnt": 20}"#, "percnt: unknown key; the only one is percent"),
            ("20", r#"config is not a JSON object: write for example {"percent": 20}"#),
        ] {
            assert_eq!(parse(config), Err(vec![error.to_owned()]), "{config}");
        }
    }

    #[test]
    fn all_errors_are_told_at_once() {
        assert_eq!(parse(r#"{"percent": -1, "minimum": 2}"#).unwrap_err().len(), 2);
    }

    #[test]
    fn the_schema_is_json_and_names_the_default() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert_eq!(schema["properties"]["percent"]["default"].as_f64(), Some(Percent::DEFAULT.get()));
    }
}
