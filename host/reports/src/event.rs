//! The body of an event callback: `{"warning", "action", "reason", "message", "args"}`.

use serde::Deserialize;
use serde_json::Value;

use crate::names::head;

/// Limits that the API server puts on an Event, in bytes.
const MAX_REASON: usize = 128;
const MAX_ACTION: usize = 128;
const MAX_MESSAGE: usize = 1024;
/// Widest field that a message may ask for, in characters.
const MAX_WIDTH: usize = 256;
/// What stands for an action that was not given.
const NO_ACTION: &str = "n/a";

/// An Event for a pod, as the API server takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// Whether its type is Warning rather than Normal.
    pub warning: bool,
    pub action: String,
    pub reason: String,
    /// With its arguments put in; at most 1,024 bytes.
    pub message: String,
}

/// Why a body is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    #[error("the body is no event: {0}")]
    Json(String),
    #[error(
        "`reason` is required, in UpperCamelCase: a capital letter, then letters and digits, {MAX_REASON} at most"
    )]
    Reason,
    #[error("`message` is required")]
    Message,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    warning: bool,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    args: Option<Vec<Value>>,
}

impl PodEvent {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, BadEvent> {
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(BadEvent::Json("it must be a JSON object".to_owned()));
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| BadEvent::Json(error.to_string()))?;
        let reason = body.reason.filter(|reason| upper_camel(reason)).ok_or(BadEvent::Reason)?;
        let message = body.message.filter(|message| !message.is_empty()).ok_or(BadEvent::Message)?;
        let message = match body.args {
            Some(args) if !args.is_empty() => format(&message, &args),
            _ => message,
        };
        let action = body.action.filter(|action| !action.is_empty());
        let action = action.unwrap_or_else(|| NO_ACTION.to_owned());
        Ok(Self {
            warning: body.warning,
            action: head(&action, MAX_ACTION).to_owned(),
            reason,
            message: head(&message, MAX_MESSAGE).to_owned(),
        })
    }
}

fn upper_camel(reason: &str) -> bool {
    reason.len() <= MAX_REASON
        && reason.starts_with(|c: char| c.is_ascii_uppercase())
        && reason.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Puts arguments into a message as printf does: `%s %v %q %d %f %x %X %t` with flags, width and precision, `%%`. What
/// has no argument is marked, arguments that are left over follow, as in the message of a Go program.
fn format(message: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = message;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (verb, after) = Verb::read(&rest[at + 1..]);
        rest = after;
        match verb {
            Verb { letter: Some('%'), .. } => out.push('%'),
            Verb { letter: None, .. } => out.push_str("%!(NOVERB)"),
            Verb { letter: Some(letter), .. } => match args.next() {
                Some(value) => verb.write(letter, value, &mut out),
                None => out.push_str(&format!("%!{letter}(MISSING)")),
            },
        }
        if out.len() > MAX_MESSAGE {
            return out;
        }
    }
    out.push_str(rest);
    let extra: Vec<String> = args.map(plain).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

#[derive(Default)]
struct Verb {
    left: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    letter: Option<char>,
}

impl Verb {
    /// What follows a `%`, and the text behind it.
    fn read(text: &str) -> (Self, &str) {
        let flags = text.trim_start_matches(['-', '+', '#', ' ', '0']);
        let given = &text[..text.len() - flags.len()];
        let (width, rest) = number(flags);
        let (precision, rest) = match rest.strip_prefix('.') {
            Some(rest) => {
                let (digits, rest) = number(rest);
                (Some(digits), rest)
            }
            None => (None, rest),
        };
        let letter = rest.chars().next();
        let rest = letter.map_or(rest, |letter| &rest[letter.len_utf8()..]);
        (Self { left: given.contains('-'), zero: given.contains('0'), width, precision, letter }, rest)
    }

    fn write(&self, letter: char, value: &Value, out: &mut String) {
        let text = match (letter, value) {
            ('q', value) => format!("{:?}", plain(value)),
            ('x' | 'X', Value::Number(number)) => match (number.as_i64(), letter) {
                (Some(n), 'x') => format!("{n:x}"),
                (Some(n), _) => format!("{n:X}"),
                (None, _) => number.to_string(),
            },
            ('f' | 'F', Value::Number(number)) => {
                format!(
                    "{:.*}",
                    self.precision.unwrap_or(6).min(MAX_WIDTH),
                    number.as_f64().unwrap_or_default()
                )
            }
            ('s' | 'v', value) => match self.precision {
                Some(most) => plain(value).chars().take(most).collect(),
                None => plain(value),
            },
            (_, value) => plain(value),
        };
        let missing = self.width.saturating_sub(text.chars().count());
        let fill = if self.zero && !self.left && value.is_number() { "0" } else { " " }.repeat(missing);
        if self.left {
            out.push_str(&(text + &fill));
        } else {
            out.push_str(&(fill + &text));
        }
    }
}

/// The number that a text begins with, bounded.
fn number(text: &str) -> (usize, &str) {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - rest.len()];
    let value = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(MAX_WIDTH) };
    (value.min(MAX_WIDTH), rest)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn said(message: &str, args: Value) -> String {
        let body = json!({"reason": "TestReason", "message": message, "args": args});
        PodEvent::parse(body.to_string().as_bytes()).unwrap().message
    }

    #[test]
    fn an_event_with_an_argument_is_read() {
        let body =
            br#"{"warning":true,"reason":"TestReason","message":"test message with %s","args":["a1"]}"#;
        let event = PodEvent::parse(body).unwrap();
        assert_eq!(event.message, "test message with a1");
        assert_eq!(
            (event.warning, event.action.as_str(), event.reason.as_str()),
            (true, "n/a", "TestReason")
        );
    }

    #[test]
    fn without_arguments_a_message_is_taken_as_it_is() {
        assert_eq!(said("100% done", json!([])), "100% done");
        assert_eq!(said("100% done", Value::Null), "100% done");
    }

    #[test]
    fn arguments_are_put_in_as_printf_does() {
        assert_eq!(said("%s and %v, %d%%", json!(["a", "b", 7])), "a and b, 7%");
        assert_eq!(
            said("[%5s|%-5s|%05d|%.2f|%x|%q]", json!(["a", "b", 42, 1.5, 255, "c"])),
            "[    a|b    |00042|1.50|ff|\"c\"]"
        );
        assert_eq!(said("%s %s", json!(["a"])), "a %!s(MISSING)");
        assert_eq!(said("%s", json!(["a", "b"])), "a%!(EXTRA b)");
        assert_eq!(said("50%", json!(["a"])), "50%!(NOVERB)%!(EXTRA a)");
        assert_eq!(said("%.2s", json!(["äöü"])), "äö");
    }

    #[test]
    fn bad_events_are_refused() {
        let refused = |body: &str| PodEvent::parse(body.as_bytes()).unwrap_err();
        for reason in ["", "lower", "Two Words", "Ünder", "With-Dash"] {
            assert_eq!(refused(&json!({"reason": reason, "message": "m"}).to_string()), BadEvent::Reason);
        }
        assert_eq!(refused(r#"{"message":"m"}"#), BadEvent::Reason);
        assert_eq!(refused(r#"{"reason":"A"}"#), BadEvent::Message);
        assert!(matches!(refused("{"), BadEvent::Json(_)));
        assert!(matches!(refused("[]"), BadEvent::Json(_)));
    }

    proptest! {
        #[test]
        fn any_body_is_answered(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PodEvent::parse(&body);
        }

        #[test]
        fn any_message_stays_within_what_an_event_holds(
            message in "(%[-+# 0]{0,2}[0-9]{0,5}(\\.[0-9]{0,3})?.?|\\PC){1,40}",
            args in proptest::collection::vec(any::<String>(), 0..5),
        ) {
            let told = said(&format!("m{message}"), json!(args));
            prop_assert!(told.len() <= MAX_MESSAGE);
        }
    }
}
