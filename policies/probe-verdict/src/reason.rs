//! The words that go with a verdict: what the probe found, short enough for the contract.

/// `verdict.reason` has at most this many bytes.
const MAXIMUM: usize = 256;

/// What the probe found at a pod.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    Nothing,
    Annotation(Option<&'a str>),
    Condition(Option<&'a str>),
    Http(u16),
    Exec(i32),
    Redis(Option<&'a [u8]>),
    Error(&'a str),
}

/// Says it in words. `subject` is the annotation's key or the condition's type; `starting` is a pod that is
/// not able to work yet: then that is the reason, whatever the probe found.
pub fn words(found: Found<'_>, subject: &str, starting: bool) -> String {
    if starting {
        return "not ready yet".to_owned();
    }
    let text = match found {
        Found::Nothing => "no answer yet".to_owned(),
        Found::Annotation(value) => is(&format!("annotation {subject}"), value),
        Found::Condition(status) => is(&format!("condition {subject}"), status),
        Found::Http(status) => format!("HTTP {status}"),
        Found::Exec(code) => format!("exit code {code}"),
        Found::Redis(None) => is("Redis value", None),
        Found::Redis(Some(bytes)) => match str::from_utf8(bytes) {
            Ok(text) => is("Redis value", Some(text)),
            Err(_) => format!("Redis value is {} bytes, not text", bytes.len()),
        },
        Found::Error(why) => format!("no answer: {why}"),
    };
    cut(text)
}

fn is(what: &str, value: Option<&str>) -> String {
    match value {
        None => format!("{what} is absent"),
        Some("") => format!("{what} is empty"),
        Some(value) => format!("{what} is {value}"),
    }
}

/// Cuts a text that would make the whole answer invalid.
fn cut(mut text: String) -> String {
    const MARK: &str = "…";
    if text.len() > MAXIMUM {
        let mut end = MAXIMUM - MARK.len();
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

    #[test]
    fn every_kind_of_probe_has_its_words() {
        for (found, text) in [
            (Found::Nothing, "no answer yet"),
            (Found::Annotation(Some("true")), "annotation stoker.dev/busy is true"),
            (Found::Annotation(Some("")), "annotation stoker.dev/busy is empty"),
            (Found::Annotation(None), "annotation stoker.dev/busy is absent"),
            (Found::Condition(Some("False")), "condition stoker.dev/busy is False"),
            (Found::Condition(None), "condition stoker.dev/busy is absent"),
            (Found::Http(503), "HTTP 503"),
            (Found::Exec(-1), "exit code -1"),
            (Found::Redis(Some(b"busy")), "Redis value is busy"),
            (Found::Redis(Some(&[0xff, 0])), "Redis value is 2 bytes, not text"),
            (Found::Redis(None), "Redis value is absent"),
            (Found::Error("connection refused"), "no answer: connection refused"),
        ] {
            assert_eq!(words(found, "stoker.dev/busy", false), text);
        }
    }

    #[test]
    fn a_starting_pod_is_said_to_be_starting() {
        assert_eq!(words(Found::Error("connection refused"), "", true), "not ready yet");
    }

    #[test]
    fn a_long_answer_is_cut_between_letters() {
        for letter in ["x", "é", "€", "🚂"] {
            let text = words(Found::Error(&letter.repeat(300)), "", false);
            assert!(text.len() <= MAXIMUM && text.len() > MAXIMUM - 8, "{} bytes", text.len());
            assert!(text.ends_with('…'));
        }
    }
}
