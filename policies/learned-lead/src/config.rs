//! The configuration of `learned-lead`, checked once so that the rule may trust it.

use serde_json::{Map, Value};

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"quantile":{"type":"number","minimum":0,"maximum":1,"default":0.9,"description":"Share of the runs for which the lead would have been long enough; 1 is the slowest run."},"marginSeconds":{"type":"integer","minimum":0,"maximum":86400,"default":10,"description":"Seconds on top of what the runs took."},"minSeconds":{"type":"integer","minimum":0,"maximum":86400,"default":5,"description":"Never a shorter lead, in seconds."},"maxSeconds":{"type":"integer","minimum":0,"maximum":86400,"description":"Never a longer lead, in seconds. When absent: the longest of 3600, the configured lead and minSeconds."},"minRuns":{"type":"integer","minimum":1,"maximum":32,"default":3,"description":"With fewer measured runs the configured lead holds."},"runs":{"type":"integer","minimum":1,"maximum":32,"default":20,"description":"How many of the newest measured runs count."},"includeReady":{"type":"boolean","default":false,"description":"Whether the time from the start to Ready counts, too."}}}"#;

/// What is learned, and within which bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// 0 to 1.
    pub quantile: f64,
    /// 0 to 86,400.
    pub margin_seconds: u32,
    /// 0 to 86,400, and not above `max_seconds`.
    pub min_seconds: u32,
    /// 0 to 86,400.
    pub max_seconds: Option<u32>,
    /// 1 to `runs`.
    pub min_runs: u32,
    /// 1 to 32.
    pub runs: u32,
    /// Whether the time from the start to Ready counts.
    pub include_ready: bool,
}

impl Config {
    pub const DEFAULT: Self = Self {
        quantile: 0.9,
        margin_seconds: 10,
        min_seconds: 5,
        max_seconds: None,
        min_runs: 3,
        runs: 20,
        include_ready: false,
    };
}

/// A day is the longest lead that a policy may answer with.
const SECONDS: (u32, u32) = (0, 86_400);
/// An input has at most 32 runs.
const RUNS: (u32, u32) = (1, 32);
/// An answer has at most 16 errors.
const ERRORS: usize = 16;

/// Reads the configuration.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn parse(config: &str) -> Result<Config, Vec<String>> {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(config) else {
        return Err(vec!["config is not a JSON object: write for example {\"quantile\": 0.9}".to_owned()]);
    };
    let mut config = Config::DEFAULT;
    let mut errors = Vec::new();
    for (key, value) in &keys {
        let read = match key.as_str() {
            "quantile" => quantile(value).map(|quantile| config.quantile = quantile),
            "marginSeconds" => number(key, value, SECONDS).map(|margin| config.margin_seconds = margin),
            "minSeconds" => number(key, value, SECONDS).map(|least| config.min_seconds = least),
            "maxSeconds" => number(key, value, SECONDS).map(|most| config.max_seconds = Some(most)),
            "minRuns" => number(key, value, RUNS).map(|least| config.min_runs = least),
            "runs" => number(key, value, RUNS).map(|runs| config.runs = runs),
            "includeReady" => boolean(key, value).map(|ready| config.include_ready = ready),
            _ => Err(format!(
                "{}: unknown key; there are quantile, marginSeconds, minSeconds, maxSeconds, minRuns, runs and \
                 includeReady",
                shown(key)
            )),
        };
        errors.extend(read.err());
    }
    // What was refused itself is not compared with anything.
    if errors.is_empty() {
        errors.extend(contradictions(&config, &keys));
    }
    errors.truncate(ERRORS);
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

/// Numbers that are right by themselves, but not together.
fn contradictions(config: &Config, keys: &Map<String, Value>) -> Vec<String> {
    let unless_written = |key: &str| if keys.contains_key(key) { "" } else { " (its default)" };
    let mut errors = Vec::new();
    if let Some(most) = config.max_seconds.filter(|most| *most < config.min_seconds) {
        errors.push(format!(
            "maxSeconds: {most} is below minSeconds, {}{}; write at least that, or a lower minSeconds",
            config.min_seconds,
            unless_written("minSeconds")
        ));
    }
    if config.min_runs > config.runs {
        errors.push(format!(
            "minRuns: {}{} is above runs, {}{}, so it would never be reached; write at most that, or more runs",
            config.min_runs,
            unless_written("minRuns"),
            config.runs,
            unless_written("runs")
        ));
    }
    errors
}

fn quantile(value: &Value) -> Result<f64, String> {
    let shown = shown(&value.to_string());
    match value.as_f64() {
        Some(quantile) if (0.0..=1.0).contains(&quantile) => Ok(quantile),
        Some(quantile) if quantile < 0.0 => Err(format!("quantile: {shown} is below 0")),
        Some(quantile) if quantile <= 100.0 => {
            Err(format!("quantile: {shown} is above 1; write a share, for example 0.9 for 90 %"))
        }
        Some(_) => Err(format!("quantile: {shown} is above 1")),
        None => Err(format!("quantile: {shown} is not a number; write one from 0 to 1, without quotes")),
    }
}

fn number(key: &str, value: &Value, (least, most): (u32, u32)) -> Result<u32, String> {
    let shown = shown(&value.to_string());
    if value.as_i64().is_some_and(|number| number < i64::from(least)) {
        return Err(format!("{key}: {shown} is below {least}"));
    }
    match value.as_u64().map(u32::try_from) {
        Some(Ok(number)) if number <= most => Ok(number),
        Some(_) => Err(format!("{key}: {shown} is above {most}")),
        None => Err(format!(
            "{key}: {shown} is not a whole number; write one from {least} to {most}, without quotes"
        )),
    }
}

fn boolean(key: &str, value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| {
        format!(
            "{key}: {} is neither true nor false; write one of them, without quotes",
            shown(&value.to_string())
        )
    })
}

/// A key or value as an error may quote it: an error has at most 512 bytes.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_keys_the_defaults_hold() {
        assert_eq!(parse("{}"), Ok(Config::DEFAULT));
    }

    #[test]
    fn every_key_is_read() {
        let config = r#"{"quantile": 0.5, "marginSeconds": 0, "minSeconds": 1, "maxSeconds": 900,
            "minRuns": 1, "runs": 32, "includeReady": true}"#;
        let read = Config {
            quantile: 0.5,
            margin_seconds: 0,
            min_seconds: 1,
            max_seconds: Some(900),
            min_runs: 1,
            runs: 32,
            include_ready: true,
        };
        assert_eq!(parse(config), Ok(read));
    }

    #[test]
    fn the_bounds_themselves_are_taken() {
        for config in [
            r#"{"quantile": 0}"#,
            r#"{"quantile": 1}"#,
            r#"{"marginSeconds": 86400, "minSeconds": 86400, "maxSeconds": 86400}"#,
            r#"{"minSeconds": 0, "maxSeconds": 0}"#,
            r#"{"minRuns": 32, "runs": 32}"#,
            r#"{"minRuns": 1, "runs": 1}"#,
        ] {
            assert!(parse(config).is_ok(), "{config}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_would_be_right() {
        for (config, error) in [
            ("[]", r#"config is not a JSON object: write for example {"quantile": 0.9}"#),
            (r#"{"quantile":-0.1}"#, "quantile: -0.1 is below 0"),
            (r#"{"quantile":95}"#, "quantile: 95 is above 1; write a share, for example 0.9 for 90 %"),
            (r#"{"quantile":1e300}"#, "quantile: 1e+300 is above 1"),
            (
                r#"{"quantile":"0.9"}"#,
                r#"quantile: "0.9" is not a number; write one from 0 to 1, without quotes"#,
            ),
            (r#"{"marginSeconds":-1}"#, "marginSeconds: -1 is below 0"),
            (r#"{"marginSeconds":86401}"#, "marginSeconds: 86401 is above 86400"),
            (r#"{"minSeconds":18446744073709551615}"#, "minSeconds: 18446744073709551615 is above 86400"),
            (
                r#"{"maxSeconds":"900"}"#,
                r#"maxSeconds: "900" is not a whole number; write one from 0 to 86400, without quotes"#,
            ),
            (r#"{"runs":2.5}"#, "runs: 2.5 is not a whole number; write one from 1 to 32, without quotes"),
            (r#"{"runs":33}"#, "runs: 33 is above 32"),
            (r#"{"minRuns":0}"#, "minRuns: 0 is below 1"),
            (
                r#"{"includeReady":1}"#,
                "includeReady: 1 is neither true nor false; write one of them, without quotes",
            ),
            (
                r#"{"margin":3}"#,
                "margin: unknown key; there are quantile, marginSeconds, minSeconds, maxSeconds, minRuns, runs and \
                 includeReady",
            ),
            (
                r#"{"minSeconds":60,"maxSeconds":30}"#,
                "maxSeconds: 30 is below minSeconds, 60; write at least that, or a lower minSeconds",
            ),
            (
                r#"{"maxSeconds":3}"#,
                "maxSeconds: 3 is below minSeconds, 5 (its default); write at least that, or a lower minSeconds",
            ),
            (
                r#"{"minRuns":25}"#,
                "minRuns: 25 is above runs, 20 (its default), so it would never be reached; write at most that, \
                 or more runs",
            ),
            (
                r#"{"runs":2}"#,
                "minRuns: 3 (its default) is above runs, 2, so it would never be reached; write at most that, or \
                 more runs",
            ),
        ] {
            assert_eq!(parse(config), Err(vec![error.to_owned()]), "{config}");
        }
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let config = r#"{"quantile": 2, "minRuns": 0, "maxSeconds": -1, "percent": 3}"#;
        assert_eq!(parse(config).unwrap_err().len(), 4);
        let config = r#"{"minSeconds": 9, "maxSeconds": 8, "minRuns": 9, "runs": 8}"#;
        assert_eq!(parse(config).unwrap_err().len(), 2);
    }

    #[test]
    fn errors_are_within_the_contract() {
        let keys: Map<String, Value> =
            (0..40).map(|n| (format!("{n}{}", "é".repeat(600)), n.into())).collect();
        let errors = parse(&Value::Object(keys).to_string()).unwrap_err();
        assert!(errors.len() == 16 && errors.iter().all(|error| error.len() <= 512));
    }

    #[test]
    fn the_schema_is_json_and_names_the_defaults_and_bounds() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let keys = &schema["properties"];
        assert_eq!(keys.as_object().unwrap().len(), 7);
        assert_eq!(keys["quantile"]["default"].as_f64(), Some(Config::DEFAULT.quantile));
        assert_eq!(keys["includeReady"]["default"], Config::DEFAULT.include_ready);
        for (key, default, (least, most)) in [
            ("marginSeconds", Some(Config::DEFAULT.margin_seconds), SECONDS),
            ("minSeconds", Some(Config::DEFAULT.min_seconds), SECONDS),
            ("maxSeconds", Config::DEFAULT.max_seconds, SECONDS),
            ("minRuns", Some(Config::DEFAULT.min_runs), RUNS),
            ("runs", Some(Config::DEFAULT.runs), RUNS),
        ] {
            assert_eq!(keys[key]["default"].as_u64(), default.map(u64::from), "{key}");
            assert_eq!(
                (&keys[key]["minimum"], &keys[key]["maximum"]),
                (&least.into(), &most.into()),
                "{key}"
            );
        }
    }
}
