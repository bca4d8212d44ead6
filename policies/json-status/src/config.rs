//! The configuration of `json-status`: where the word stands, and what words mean.

use serde_json::{Map, Value};

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"pointer":{"type":"string","maxLength":256,"default":"/status","description":"JSON Pointer (RFC 6901) to the field; empty = the whole text."},"busy":{"type":"array","maxItems":16,"items":{"type":"string","minLength":1,"maxLength":63},"default":["busy"],"description":"Words for a pod at work."},"idle":{"type":"array","maxItems":16,"items":{"type":"string","minLength":1,"maxLength":63},"default":["idle"],"description":"Words for a free pod."},"starting":{"type":"array","maxItems":16,"items":{"type":"string","minLength":1,"maxLength":63},"default":["starting"],"description":"Words for a pod that cannot work yet."}}}"#;

/// Where the word stands, and what words mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// JSON Pointer to the field; empty = the whole text.
    pub pointer: String,
    pub busy: Vec<String>,
    pub idle: Vec<String>,
    pub starting: Vec<String>,
}

impl Default for Words {
    fn default() -> Self {
        let word = |word: &str| vec![word.to_owned()];
        Self {
            pointer: "/status".to_owned(),
            busy: word("busy"),
            idle: word("idle"),
            starting: word("starting"),
        }
    }
}

const POINTER_BYTES: usize = 256;
const WORDS: usize = 16;
const WORD_BYTES: usize = 63;
/// An answer has at most 16 errors.
const ERRORS: usize = 16;

/// Reads the configuration.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn parse(config: &str) -> Result<Words, Vec<String>> {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(config) else {
        return Err(vec![
            "config is not a JSON object: write for example {\"pointer\": \"/status\"}".to_owned(),
        ]);
    };
    let mut all = Words::default();
    let mut errors = Vec::new();
    for (key, value) in &keys {
        let read = match key.as_str() {
            "pointer" => pointer(value).map(|pointer| all.pointer = pointer),
            "busy" => words(key, value).map(|words| all.busy = words),
            "idle" => words(key, value).map(|words| all.idle = words),
            "starting" => words(key, value).map(|words| all.starting = words),
            _ => Err(format!("{}: unknown key; there are pointer, busy, idle and starting", shown(key))),
        };
        errors.extend(read.err());
    }
    let lists = [("busy", &all.busy), ("idle", &all.idle), ("starting", &all.starting)];
    for (i, (name, list)) in lists.iter().enumerate() {
        for (other, more) in &lists[i + 1..] {
            for word in list.iter().filter(|word| more.iter().any(|w| w.eq_ignore_ascii_case(word))) {
                errors.push(format!(
                    "{}: stands in {name} and in {other}; a word can mean only one state",
                    shown(word)
                ));
            }
        }
    }
    errors.truncate(ERRORS);
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

fn pointer(value: &Value) -> Result<String, String> {
    match value.as_str() {
        Some(text) if text.len() > POINTER_BYTES => {
            Err(format!("pointer: is longer than {POINTER_BYTES} bytes"))
        }
        Some(text) if text.is_empty() || text.starts_with('/') => Ok(text.to_owned()),
        Some(text) => {
            Err(format!("pointer: {} does not begin with /; write for example /status", shown(text)))
        }
        None => Err(format!(
            "pointer: {} is not a text; write for example \"/status\"",
            shown(&value.to_string())
        )),
    }
}

fn words(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let wrong = || {
        let value = shown(&value.to_string());
        format!("{key}: {value} is not a list of at most {WORDS} words; write for example [\"{key}\"]")
    };
    let list = value.as_array().filter(|list| list.len() <= WORDS).ok_or_else(wrong)?;
    let word = |item: &Value| {
        item.as_str().filter(|w| !w.is_empty() && w.len() <= WORD_BYTES).map(str::to_owned).ok_or_else(wrong)
    };
    list.iter().map(word).collect()
}

/// A key or value as an error may quote it: an error has at most 512 bytes.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_keys_the_field_status_says_busy_idle_or_starting() {
        assert_eq!(parse("{}"), Ok(Words::default()));
        assert_eq!(Words::default().pointer, "/status");
    }

    #[test]
    fn every_key_may_be_given() {
        let words =
            parse(r#"{"pointer":"/game/state","busy":["playing","full"],"idle":["lobby"],"starting":[]}"#);
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let want = Words {
            pointer: "/game/state".to_owned(),
            busy: list(&["playing", "full"]),
            idle: list(&["lobby"]),
            starting: vec![],
        };
        assert_eq!(words, Ok(want));
        assert_eq!(parse(r#"{"pointer":""}"#).map(|w| w.pointer), Ok(String::new()));
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_would_be_right() {
        for (config, error) in [
            ("3", r#"config is not a JSON object: write for example {"pointer": "/status"}"#),
            (r#"{"pointer":"status"}"#, "pointer: status does not begin with /; write for example /status"),
            (r#"{"pointer":3}"#, "pointer: 3 is not a text; write for example \"/status\""),
            (
                r#"{"busy":"playing"}"#,
                r#"busy: "playing" is not a list of at most 16 words; write for example ["busy"]"#,
            ),
            (r#"{"idle":[1]}"#, r#"idle: [1] is not a list of at most 16 words; write for example ["idle"]"#),
            (r#"{"idle":["Busy"]}"#, "busy: stands in busy and in idle; a word can mean only one state"),
            (r#"{"field":"a"}"#, "field: unknown key; there are pointer, busy, idle and starting"),
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
    fn the_schema_is_json_and_names_the_defaults() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let words = Words::default();
        assert_eq!(schema["properties"]["pointer"]["default"], words.pointer);
        assert_eq!(schema["properties"]["busy"]["default"][0], words.busy[0]);
        assert_eq!(schema["properties"]["idle"]["default"][0], words.idle[0]);
        assert_eq!(schema["properties"]["starting"]["default"][0], words.starting[0]);
    }
}
