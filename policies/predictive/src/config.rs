//! The configuration of `predictive`, checked once so that the rule may trust it.

use serde_json::{Map, Value};

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"season":{"enum":["day","week"],"default":"day","description":"After what time the load repeats itself."},"rate":{"type":"number","minimum":0,"maximum":1,"default":0.5,"description":"Share of the newest season in what is remembered; the rest is of those before."},"marginPercent":{"type":"number","minimum":0,"maximum":500,"default":10,"description":"Percent on top of the forecast."},"marginSeconds":{"type":"integer","minimum":0,"maximum":7200,"default":60,"description":"Seconds by which pods are to be ready before the forecast needs them, beside their start-up time."}}}"#;

/// After what time the load repeats itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Season {
    Day,
    Week,
}

/// How the forecast is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    pub season: Season,
    /// 0 to 1.
    pub rate: f64,
    /// 0 to 500.
    pub margin_percent: f64,
    /// 0 to 7,200.
    pub margin_seconds: u32,
}

impl Config {
    pub const DEFAULT: Self =
        Self { season: Season::Day, rate: 0.5, margin_percent: 10.0, margin_seconds: 60 };
}

/// An answer has at most 16 errors.
const ERRORS: usize = 16;

/// Reads the configuration.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn parse(config: &str) -> Result<Config, Vec<String>> {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(config) else {
        return Err(vec!["config is not a JSON object: write for example {\"season\": \"week\"}".to_owned()]);
    };
    let (mut config, mut errors) = (Config::DEFAULT, Vec::new());
    for (key, value) in &keys {
        let read = match key.as_str() {
            "season" => season(value).map(|season| config.season = season),
            "rate" => number(key, value, 1.0).map(|rate| config.rate = rate),
            "marginPercent" => number(key, value, 500.0).map(|percent| config.margin_percent = percent),
            "marginSeconds" => number(key, value, 7200.0).and_then(|seconds| {
                let whole = seconds.fract() == 0.0;
                config.margin_seconds = seconds as u32;
                if whole { Ok(()) } else { Err(format!("marginSeconds: {seconds} is not a whole number")) }
            }),
            _ => {
                let key: String = key.chars().take(60).collect();
                Err(format!("{key}: unknown key; there are season, rate, marginPercent and marginSeconds"))
            }
        };
        errors.extend(read.err());
    }
    errors.truncate(ERRORS);
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

fn season(value: &Value) -> Result<Season, String> {
    match value.as_str() {
        Some("day") => Ok(Season::Day),
        Some("week") => Ok(Season::Week),
        _ => Err(format!("season: {} is neither \"day\" nor \"week\"", shown(value))),
    }
}

fn number(key: &str, value: &Value, most: f64) -> Result<f64, String> {
    match value.as_f64() {
        Some(number) if (0.0..=most).contains(&number) => Ok(number),
        Some(number) if number < 0.0 => Err(format!("{key}: {} is below 0", shown(value))),
        Some(_) => Err(format!("{key}: {} is above {most}", shown(value))),
        None => Err(format!(
            "{key}: {} is not a number; write one from 0 to {most}, without quotes",
            shown(value)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(parse("{}"), Ok(Config::DEFAULT));
        let config = parse(r#"{"season":"week","rate":0.2,"marginPercent":25,"marginSeconds":0}"#).unwrap();
        let expected = Config { season: Season::Week, rate: 0.2, margin_percent: 25.0, margin_seconds: 0 };
        assert_eq!(config, expected);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (config, words) in [
            ("[]", "config is not a JSON object"),
            (r#"{"season":"month"}"#, "season: \"month\" is neither \"day\" nor \"week\""),
            (r#"{"rate":1.5}"#, "rate: 1.5 is above 1"),
            (r#"{"rate":-0.5}"#, "rate: -0.5 is below 0"),
            (r#"{"marginPercent":"10"}"#, "marginPercent: \"10\" is not a number; write one from 0 to 500"),
            (r#"{"marginSeconds":1.5}"#, "marginSeconds: 1.5 is not a whole number"),
            (r#"{"horizon":1}"#, "horizon: unknown key; there are season, rate"),
        ] {
            let errors = parse(config).unwrap_err();
            assert!(errors.len() == 1 && errors[0].starts_with(words), "{errors:?}");
        }
        assert_eq!(parse(r#"{"rate":2,"season":1,"x":1}"#).unwrap_err().len(), 3);
    }

    #[test]
    fn the_schema_is_json_and_names_every_key() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        for key in ["season", "rate", "marginPercent", "marginSeconds"] {
            assert!(schema["properties"][key].is_object(), "{key}");
        }
    }
}
