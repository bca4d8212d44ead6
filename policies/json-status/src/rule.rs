//! The rule. The word in the field decides. A text that is no JSON is the word itself. What is no known word, and
//! what is not there, is unknown, never idle; a missing answer changes nothing until there were three in a row
//! or the last one is too old.

use serde_json::Value;

use crate::config::Words;

/// `verdict.reason` has at most this many bytes.
const REASON: usize = 256;

/// So many questions without an answer make a pod unknown.
const ERRORS: u32 = 3;

/// An answer older than so many periods is none.
const PERIODS: u64 = 3;

/// What a pod is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Busy,
    Idle,
    Unknown,
    Starting,
}

/// What the probe found.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// Nothing yet.
    Nothing,
    Text(&'a [u8]),
    /// An annotation or value that is not there.
    Absent,
    /// A command that ended so, which says nothing.
    Failed(i32),
    Error(&'a str),
}

/// What the rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    pub found: Found<'a>,
    pub ever_ready: bool,
    /// The verdict before this one.
    pub last: Option<State>,
    /// Results in a row that the probe takes for the same.
    pub results: u32,
    /// Milliseconds from one probe to the next; 0 = watched.
    pub period: u64,
    /// How old the result is, in milliseconds.
    pub age: u64,
}

/// Judges one pod.
pub fn judge(pod: &Pod, words: &Words) -> (State, String) {
    let (state, reason) = by_word(pod, words);
    // A pod that was never Ready has done nothing yet, unless it says so.
    let state = if pod.ever_ready || state == State::Busy { state } else { State::Starting };
    (state, cut(reason))
}

fn by_word(pod: &Pod, words: &Words) -> (State, String) {
    let text = match pod.found {
        Found::Text(bytes) => bytes,
        Found::Nothing if pod.last == Some(State::Starting) => {
            return (State::Starting, "not asked yet".to_owned());
        }
        Found::Nothing => return (State::Unknown, "not asked yet".to_owned()),
        Found::Absent => return (State::Unknown, "it says nothing".to_owned()),
        Found::Failed(code) => return (State::Unknown, format!("exit code {code}")),
        Found::Error(why) => {
            let fresh = pod.results < ERRORS && pod.age <= pod.period * PERIODS;
            return match pod.last.filter(|last| fresh && matches!(last, State::Busy | State::Idle)) {
                Some(last) => (last, format!("as before; no answer now: {why}")),
                None => (State::Unknown, format!("no answer: {why}")),
            };
        }
    };
    let Some(word) = word(text, &words.pointer) else {
        return (State::Unknown, format!("no word at {}", words.pointer));
    };
    let means = |list: &[String]| list.iter().any(|w| w.eq_ignore_ascii_case(&word));
    let state = if means(&words.busy) {
        State::Busy
    } else if means(&words.idle) {
        State::Idle
    } else if means(&words.starting) {
        State::Starting
    } else {
        return (State::Unknown, format!("{word} is none of the words"));
    };
    (state, format!("it says {word}"))
}

/// The word that a text holds at a place.
fn word(text: &[u8], pointer: &str) -> Option<String> {
    let text = str::from_utf8(text).ok()?.trim();
    let value = match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => value.pointer(pointer)?.clone(),
        // One value alone stands at no place.
        Ok(value) => value,
        // JSON that was cut short is no word.
        Err(_) if text.starts_with(['{', '[', '"']) => return None,
        Err(_) => Value::String(text.to_owned()),
    };
    match value {
        Value::String(word) => Some(word),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Cuts a text that would make the whole answer invalid.
fn cut(mut text: String) -> String {
    const MARK: &str = "…";
    if text.len() > REASON {
        let mut end = REASON - MARK.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text += MARK;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const POD: Pod<'static> =
        Pod { found: Found::Nothing, ever_ready: true, last: None, results: 1, period: 10_000, age: 0 };

    fn says(text: &str, config: &str) -> State {
        let words = config::parse(config).unwrap();
        judge(&Pod { found: Found::Text(text.as_bytes()), ..POD }, &words).0
    }

    #[test]
    fn the_word_at_the_pointer_decides() {
        for (text, config, want) in [
            (r#"{"status":"busy"}"#, "{}", State::Busy),
            (r#"{"status":"Idle","players":0}"#, "{}", State::Idle),
            (r#"{"status":"starting"}"#, "{}", State::Starting),
            (r#"{"status":"error"}"#, "{}", State::Unknown),
            (r#"{"status":null}"#, "{}", State::Unknown),
            (r#"{"state":"idle"}"#, "{}", State::Unknown),
            (r#"{"a":{"b":[{"c":"idle"}]}}"#, r#"{"pointer":"/a/b/0/c"}"#, State::Idle),
            (r#"{"a/b":"idle"}"#, r#"{"pointer":"/a~1b"}"#, State::Idle),
            (r#"{"players":0}"#, r#"{"pointer":"/players","idle":["0"]}"#, State::Idle),
            (r#"{"free":true}"#, r#"{"pointer":"/free","idle":["true"],"busy":["false"]}"#, State::Idle),
            ("idle\n", "{}", State::Idle),
            (r#""idle""#, "{}", State::Idle),
            ("0", r#"{"idle":["0"]}"#, State::Idle),
            ("<html>idle</html>", "{}", State::Unknown),
            (r#"{"status":"idle""#, "{}", State::Unknown),
            ("", "{}", State::Unknown),
        ] {
            assert_eq!(says(text, config), want, "{text} with {config}");
        }
        let bytes = Pod { found: Found::Text(&[0xff]), ..POD };
        assert_eq!(judge(&bytes, &Words::default()).0, State::Unknown);
    }

    #[test]
    fn no_answer_changes_nothing_at_first_and_then_makes_unknown() {
        for (last, results, age, want) in [
            (Some(State::Idle), 1, 0, State::Idle),
            (Some(State::Busy), 2, 0, State::Busy),
            (Some(State::Busy), 3, 0, State::Unknown),
            (Some(State::Idle), 1, 30_001, State::Unknown),
            (Some(State::Unknown), 1, 0, State::Unknown),
            (Some(State::Starting), 1, 0, State::Unknown),
            (None, 1, 0, State::Unknown),
        ] {
            let pod = Pod { found: Found::Error("connection refused"), last, results, age, ..POD };
            assert_eq!(judge(&pod, &Words::default()).0, want, "{pod:?}");
        }
        for found in [Found::Absent, Found::Failed(127), Found::Nothing] {
            let pod = Pod { found, last: Some(State::Idle), ..POD };
            assert_eq!(judge(&pod, &Words::default()).0, State::Unknown, "{found:?}");
        }
    }

    #[test]
    fn a_pod_that_was_never_ready_is_starting_unless_it_says_busy() {
        let fresh = Pod { ever_ready: false, ..POD };
        for (text, want) in [("busy", State::Busy), ("idle", State::Starting), ("huh", State::Starting)] {
            let pod = Pod { found: Found::Text(text.as_bytes()), ..fresh };
            assert_eq!(judge(&pod, &Words::default()).0, want, "{text}");
        }
        assert_eq!(judge(&fresh, &Words::default()).0, State::Starting);
        let ready = Pod { last: Some(State::Starting), ..POD };
        assert_eq!(judge(&ready, &Words::default()).0, State::Starting, "just Ready, not asked yet");
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let long = "é".repeat(2000);
        let pod = Pod { found: Found::Text(long.as_bytes()), ..POD };
        let (_, reason) = judge(&pod, &Words::default());
        assert!(reason.len() <= REASON && reason.ends_with('…'));
    }
}
