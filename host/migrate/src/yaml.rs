//! YAML as every reader of it understands it. kubectl reads YAML 1.1, in which `on`, `0755`, `12:30` and `1_000` are no
//! texts; the library that reads manifests here knows only 1.2 and writes them bare. So whatever is not plainly a text is
//! quoted.

use std::fmt::Write as _;

use serde_yaml::{Mapping, Value};

/// Words that are no texts in one of the versions.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// A value as a document, in blocks.
pub(crate) fn document(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Mapping(map) if !map.is_empty() => entries(out, map, indent, false),
        Value::Sequence(items) if !items.is_empty() => {
            for item in items {
                pad(out, indent);
                out.push('-');
                match item {
                    Value::Mapping(map) if !map.is_empty() => {
                        out.push(' ');
                        entries(out, map, indent + 2, true);
                    }
                    Value::Sequence(list) if !list.is_empty() => {
                        out.push('\n');
                        block(out, item, indent + 2);
                    }
                    scalar => behind(out, scalar, indent + 2),
                }
            }
        }
        scalar => {
            pad(out, indent);
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
}

/// The entries of a map; the first one may stand behind a dash.
fn entries(out: &mut String, map: &Mapping, indent: usize, mut dashed: bool) {
    for (key, value) in map {
        if !std::mem::take(&mut dashed) {
            pad(out, indent);
        }
        out.push_str(&inline(key));
        out.push(':');
        let nested = match value {
            Value::Mapping(map) => !map.is_empty(),
            Value::Sequence(items) => !items.is_empty(),
            _ => false,
        };
        if nested {
            out.push('\n');
            block(out, value, indent + 2);
        } else {
            behind(out, value, indent + 2);
        }
    }
}

/// What follows a key or a dash on its line.
fn behind(out: &mut String, value: &Value, indent: usize) {
    if let Value::String(text) = value
        && let Some(lines) = literal(text)
    {
        out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
        for line in lines {
            if !line.is_empty() {
                pad(out, indent);
                out.push_str(line);
            }
            out.push('\n');
        }
        return;
    }
    out.push(' ');
    out.push_str(&inline(value));
    out.push('\n');
}

/// The lines of a text that can stand as they are.
fn literal(text: &str) -> Option<Vec<&str>> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let plain = |c: char| c == '\n' || c == '\t' || !(c.is_control() || special(c));
    let fits = body.contains('\n')
        && !body.starts_with([' ', '\n', '\t'])
        && !body.ends_with('\n')
        && body.chars().all(plain);
    fits.then(|| body.split('\n').collect())
}

/// Characters that some readers take for line breaks, or drop.
fn special(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// A value in a line.
fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if bare(text) => text.clone(),
        Value::String(text) => quoted(text),
        Value::Sequence(_) => "[]".to_owned(),
        Value::Mapping(_) => "{}".to_owned(),
        Value::Tagged(tagged) => inline(&tagged.value),
    }
}

/// Whether a text is one without quotes, whoever reads it.
fn bare(text: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic());
    let mut chars = text.chars();
    let begins = match chars.next() {
        Some('-') => letter(chars.next()),
        Some('/') => !text.starts_with("//"),
        first => letter(first),
    };
    (begins || amount(text))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " _./@:+-=,;%*()".contains(c))
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// A quantity or a duration such as `100m`, `64Mi` or `1m30s`.
fn amount(text: &str) -> bool {
    let unit = |c: char| "mshdkKMGTi".contains(c);
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(unit)
        && text.chars().all(|c| c.is_ascii_digit() || unit(c))
}

/// A text in double quotes: JSON is YAML, but for characters that it leaves as they are.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in serde_json::Value::from(text).to_string().chars() {
        if special(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_older_readers_take_for_something_else_is_quoted() {
        let words = [
            "on",
            "Off",
            "yes",
            "NO",
            "y",
            "n",
            "true",
            "null",
            "~",
            "",
            "0755",
            "0o7",
            "0x1F",
            "1_000",
            "12:30",
            "1e3",
            ".5",
            ".inf",
            "+1",
            "-1",
            "2001-01-01",
            "<<",
            "=",
            "a: b",
            "a #b",
            "#a",
            "a:",
            " a",
            "- a",
            "*a",
            "&a",
            "!a",
            "@a",
            "`a`",
            "%a",
            "{a}",
            "[a]",
            "'a'",
            "\"a\"",
            "a\tb",
            "?",
            "|",
            ">",
        ];
        for word in words {
            let text = document(&Value::Mapping([("key".into(), word.into())].into_iter().collect()));
            assert!(text.starts_with("key: \""), "{text}");
        }
        for word in
            ["busybox:1.28", "sleep 10s", "-c", "/tmp/busy", "a=b", "64Mi", "1m30s", "nvidia.com/gpu", "once"]
        {
            assert_eq!(document(&word.into()), format!("{word}\n"));
        }
    }

    #[test]
    fn lines_stand_in_a_block() {
        let script = Value::Mapping(
            [("run".into(), "set -e\n  if true; then\n\tx: y\nfi\n".into())].into_iter().collect(),
        );
        assert_eq!(document(&script), "run: |\n  set -e\n    if true; then\n  \tx: y\n  fi\n");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
            "[a-c:# \n\t-]{0,12}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-z]{1,3}|[ -~]{0,6}", inner), 0..4).prop_map(|entries| {
                    Value::Mapping(entries.into_iter().map(|(k, v)| (k.into(), v)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_as_it_was(value in values()) {
            let text = document(&value);
            prop_assert_eq!(serde_yaml::from_str::<Value>(&text).unwrap(), value, "{}", text);
        }
    }
}
