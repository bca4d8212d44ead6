//! How people write the contract's records in YAML, and how they are read back: names in camelCase, words of
//! enumerations as the contract has them, times as RFC 3339, spans as `5m`, and a default for what is left out.

use anyhow::{Result, anyhow, bail};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Number, Value, json};

use super::near::hint;

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Bool,
    Number,
    /// A time: RFC 3339, or milliseconds since 1970.
    Time,
    /// A span: such as `5m`, or milliseconds.
    Span,
    Text,
    /// A JSON text, written as what it says.
    Json,
    /// Bytes, written as a text where they are one, or else as a list of numbers.
    Bytes,
    /// One of these words.
    Word(&'static [&'static str]),
    Record(&'static [Field]),
    List(&'static Shape),
    /// Names and texts.
    Pairs,
    Optional(&'static Shape),
    /// Two values, by name.
    Pair(&'static [Field; 2]),
    /// `{NAME: VALUE}`, or only NAME where there is no value.
    Choice(&'static [(&'static str, Option<Shape>)]),
    /// A value, or why there is none: two keys beside the record's others.
    Outcome,
}

/// A field of a record.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    /// What is taken where it is left out, in JSON; empty = it has to be there.
    pub default: &'static str,
}

pub const fn field(name: &'static str, shape: Shape, default: &'static str) -> Field {
    Field { name, shape, default }
}

/// `wakeAfter` as the types have it: `wake_after`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

/// `exit-code` or `exitCode` as the types' variants have it: `ExitCode`.
fn pascal(word: &str) -> String {
    let upper = |part: &str| {
        let mut chars = part.chars();
        chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    word.split('-').map(upper).collect()
}

/// A path for people.
fn at(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A value for people, not longer than fits into a line.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(59).chain(['…']).collect() }
}

impl Shape {
    /// What the shape is called where something else was found.
    fn name(self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Number | Self::Outcome => "a number".into(),
            Self::Time => "a time such as 2026-06-01T09:00:00Z, or milliseconds since 1970".into(),
            Self::Span => "a span such as 5m or 1h 30m, or milliseconds".into(),
            Self::Text => "a text".into(),
            Self::Json => "JSON".into(),
            Self::Bytes => "a text or a list of bytes".into(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Record(_) | Self::Pair(_) => "names and values".into(),
            Self::List(_) => "a list".into(),
            Self::Pairs => "names and texts".into(),
            Self::Optional(inner) => format!("{}, or null", inner.name()),
            Self::Choice(all) => {
                format!("one of {}", all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// What was written, as the contract's types are read.
    ///
    /// # Errors
    /// What is wrong, where, and what is right there.
    pub fn read(self, given: &Value, path: &str) -> Result<Value> {
        let wrong = || anyhow!("{path}: {} is not {}", brief(given), self.name());
        Ok(match (self, given) {
            (Self::Bool, Value::Bool(_))
            | (Self::Number, Value::Number(_))
            | (Self::Text, Value::String(_)) => given.clone(),
            (Self::Time, Value::Number(at)) if at.is_i64() => given.clone(),
            (Self::Span, Value::Number(span)) if span.is_u64() => given.clone(),
            (Self::Time, Value::String(text)) => {
                json!(text.parse::<Timestamp>().map_err(|_| wrong())?.as_millisecond())
            }
            (Self::Span, Value::String(text)) => {
                let span: SignedDuration = text.parse().map_err(|_| wrong())?;
                json!(u64::try_from(span.as_millis()).map_err(|_| wrong())?)
            }
            (Self::Json, Value::String(text)) => Value::String(text.clone()),
            (Self::Json, value) => Value::String(value.to_string()),
            (Self::Bytes, Value::String(text)) => json!(text.as_bytes()),
            (Self::Bytes, Value::Array(bytes)) if bytes.iter().all(|byte| byte.as_u64() < Some(256)) => {
                given.clone()
            }
            (Self::Word(words), Value::String(word)) if words.contains(&word.as_str()) => {
                Value::String(pascal(word))
            }
            (Self::Record(fields), Value::Object(given)) => Value::Object(record(fields, given, path)?),
            (Self::List(shape), Value::Array(values)) => {
                let read = |(i, value)| shape.read(value, &format!("{path}[{i}]"));
                Value::Array(values.iter().enumerate().map(read).collect::<Result<_>>()?)
            }
            (Self::Pairs, Value::Object(pairs)) => {
                let pair = |(name, value): (&String, &Value)| match value {
                    Value::String(_) => Ok(json!([name, value])),
                    other => bail!("{}: {} is not a text", at(path, name), brief(other)),
                };
                Value::Array(pairs.iter().map(pair).collect::<Result<_>>()?)
            }
            (Self::Optional(_), Value::Null) => Value::Null,
            (Self::Optional(shape), given) => shape.read(given, path)?,
            (Self::Pair(fields), Value::Object(given)) => {
                let both = record(fields.as_slice(), given, path)?;
                Value::Array(fields.iter().map(|field| both[&snake(field.name)].clone()).collect())
            }
            (Self::Choice(all), given) => choice(all, given, path)?.ok_or_else(wrong)?,
            _ => return Err(wrong()),
        })
    }

    /// What the contract's types wrote, as people write it.
    pub fn show(self, value: &Value) -> Value {
        match (self, value) {
            (Self::Time, Value::Number(at)) => {
                let time = at.as_i64().and_then(|at| Timestamp::from_millisecond(at).ok());
                time.map_or_else(|| value.clone(), |time| json!(time.to_string()))
            }
            (Self::Span, Value::Number(span)) => {
                let span = span.as_i64().map(SignedDuration::from_millis);
                span.map_or_else(|| value.clone(), |span| json!(format!("{span:#}")))
            }
            (Self::Bytes, Value::Array(bytes)) => {
                let raw: Vec<u8> =
                    bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
                String::from_utf8(raw).map_or_else(|_| value.clone(), Value::String)
            }
            (Self::Json, Value::String(text)) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
            (Self::Word(words), Value::String(word)) => {
                let known = words.iter().find(|known| pascal(known) == *word);
                known.map_or_else(|| value.clone(), |known| json!(known))
            }
            (Self::Record(fields), Value::Object(values)) => {
                Value::Object(shown(fields, |field| values.get(&snake(field.name)).cloned()))
            }
            (Self::Pair(fields), Value::Array(both)) => {
                let mut both = both.iter();
                Value::Object(shown(fields.as_slice(), |_| both.next().cloned()))
            }
            (Self::List(shape), Value::Array(values)) => {
                values.iter().map(|value| shape.show(value)).collect()
            }
            (Self::Optional(shape), value) => shape.show(value),
            (Self::Pairs, Value::Array(pairs)) => {
                let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].clone()));
                Value::Object(pairs.iter().filter_map(pair).collect())
            }
            _ => value.clone(),
        }
    }
}

fn shown(fields: &[Field], mut of: impl FnMut(&Field) -> Option<Value>) -> Map<String, Value> {
    let one = |field: &Field| Some((field.name.to_owned(), field.shape.show(&of(field)?)));
    fields.iter().filter_map(one).collect()
}

fn record(fields: &[Field], given: &Map<String, Value>, path: &str) -> Result<Map<String, Value>> {
    let outcome = fields.iter().any(|field| matches!(field.shape, Shape::Outcome));
    let known = |name: &str| fields.iter().any(|field| field.name == name) || outcome && name == "error";
    if let Some(name) = given.keys().find(|name| !known(name)) {
        let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
        bail!(
            "{}: there is no such field; there are {}{}",
            at(path, name),
            names.join(", "),
            hint(name, &names)
        );
    }
    let mut read = Map::new();
    for field in fields {
        let path = at(path, field.name);
        let value = match (field.shape, given.get(field.name), given.get("error")) {
            (Shape::Outcome, Some(_), Some(_)) => {
                bail!("{path}: there is an error beside it; leave one of them out")
            }
            (Shape::Outcome, None, Some(Value::String(words))) => json!({"Err": words}),
            (Shape::Outcome, Some(Value::Number(number)), None) => json!({"Ok": float(number)}),
            (_, Some(value), _) => field.shape.read(value, &path)?,
            (_, None, _) if field.default.is_empty() => {
                bail!("{path}: it is missing; give {}", field.shape.name())
            }
            (_, None, _) => field.shape.read(&serde_json::from_str(field.default)?, &path)?,
        };
        read.insert(snake(field.name), value);
    }
    Ok(read)
}

fn float(number: &Number) -> Value {
    number.as_f64().map_or(Value::Null, |number| json!(number))
}

fn choice(all: &[(&str, Option<Shape>)], given: &Value, path: &str) -> Result<Option<Value>> {
    let of = |wanted: &str| all.iter().find(|(name, _)| *name == wanted);
    match given {
        Value::String(name) => Ok(of(name).filter(|(_, shape)| shape.is_none()).map(|_| json!(pascal(name)))),
        Value::Object(one) if one.len() == 1 => {
            let Some((name, value)) = one.iter().next() else { return Ok(None) };
            let Some((_, Some(shape))) = of(name) else { return Ok(None) };
            Ok(Some(json!({pascal(name): shape.read(value, &at(path, name))?})))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THING: Shape = Shape::Record(&[
        field("at", Shape::Time, "\"2026-01-01T00:00:00Z\""),
        field("wakeAfter", Shape::Optional(&Shape::Span), "null"),
        field("limitedBy", Shape::Word(&["none", "not-yet"]), "\"none\""),
        field("state", Shape::Bytes, "\"\""),
        field("last", Shape::Optional(&Shape::Pair(&PAIR)), "null"),
        field("labels", Shape::Pairs, "{}"),
        field("value", Shape::Outcome, ""),
    ]);
    const PAIR: [Field; 2] = [field("state", Shape::Text, ""), field("since", Shape::Time, "0")];

    #[test]
    fn what_is_left_out_has_its_default_and_the_rest_is_read() {
        let given = json!({
            "wakeAfter": "5m", "limitedBy": "not-yet", "state": "ab", "last": {"state": "busy"},
            "labels": {"a": "b"}, "value": 3,
        });
        let read = THING.read(&given, "").unwrap();
        let expected = json!({
            "at": 1_767_225_600_000_i64, "wake_after": 300_000, "limited_by": "NotYet", "state": [97, 98],
            "last": ["busy", 0], "labels": [["a", "b"]], "value": {"Ok": 3.0},
        });
        assert_eq!(read, expected);
        let shown = THING.show(&read);
        assert_eq!(shown["wakeAfter"], json!("5m"));
        assert_eq!(shown["limitedBy"], json!("not-yet"));
        assert_eq!(shown["state"], json!("ab"));
        assert_eq!(shown["last"], json!({"state": "busy", "since": "1970-01-01T00:00:00Z"}));
        assert_eq!(shown["at"], json!("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place_and_what_is_right() {
        for (given, words) in [
            (
                json!({"value": 1, "wakeafter": 1}),
                "wakeafter: there is no such field; there are at, wakeAfter, ",
            ),
            (json!({"value": 1, "limitedBy": "maybe"}), "limitedBy: \"maybe\" is not one of none, not-yet"),
            (json!({"value": 1, "at": "noon"}), "at: \"noon\" is not a time such as 2026-"),
            (json!({"value": 1, "wakeAfter": -1}), "wakeAfter: -1 is not a span"),
            (json!({"value": 1, "labels": {"a": 1}}), "labels.a: 1 is not a text"),
            (json!({"value": 1, "error": "x"}), "value: there is an error beside it"),
            (json!({}), "value: it is missing; give a number"),
        ] {
            let error = THING.read(&given, "").unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn an_error_stands_in_the_place_of_a_value() {
        let read = THING.read(&json!({"error": "no sample"}), "").unwrap();
        assert_eq!(read["value"], json!({"Err": "no sample"}));
    }

    #[test]
    fn choices_have_a_value_where_they_take_one() {
        const PROBE: Shape = Shape::Choice(&[("none", None), ("exit-code", Some(Shape::Number))]);
        assert_eq!(PROBE.read(&json!("none"), "").unwrap(), json!("None"));
        assert_eq!(PROBE.read(&json!({"exit-code": 3}), "").unwrap(), json!({"ExitCode": 3}));
        for bad in [json!("exit-code"), json!({"none": 1}), json!({"a": 1}), json!(3)] {
            let error = PROBE.read(&bad, "probe").unwrap_err().to_string();
            assert!(error.contains("is not one of none, exit-code"), "{error}");
        }
    }
}
