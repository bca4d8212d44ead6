//! A map of the input that is emptied field by field: what is left at the end has not been understood, and is told.

use serde_yaml::{Mapping, Value};

use crate::notes::Notes;
use crate::values::{hollow, keys, shown, take, tidy, truth};

/// A map of the input, and where it is.
#[derive(Debug)]
pub(crate) struct Fields {
    path: String,
    map: Mapping,
}

impl Fields {
    /// A whole object.
    pub fn top(map: Mapping) -> Self {
        Self { path: String::new(), map }
    }

    /// A map that is known by a path.
    pub fn new(path: impl Into<String>, map: Mapping) -> Self {
        Self { path: path.into(), map }
    }

    /// Where a field of it is, such as `spec.idleTarget`.
    pub fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// There is such a field.
    pub fn has(&self, key: &str) -> bool {
        crate::values::has(&self.map, key)
    }

    /// No field is left.
    pub fn is_empty(&self) -> bool {
        self.map.values().all(Value::is_null)
    }

    /// Takes a field as it is.
    pub fn raw(&mut self, key: &str) -> Option<Value> {
        let mut value = take(&mut self.map, key)?;
        tidy(&mut value);
        Some(value)
    }

    /// Takes a field that is a map.
    pub fn fields(&mut self, key: &str, notes: &mut Notes) -> Option<Self> {
        let path = self.at(key);
        match take(&mut self.map, key)? {
            Value::Mapping(map) => Some(Self { path, map }),
            other => {
                notes.problem(&path, format!("must be a map, and is {}", shown(&other)));
                None
            }
        }
    }

    /// Takes a field that is a list.
    pub fn list(&mut self, key: &str, notes: &mut Notes) -> Option<Vec<Value>> {
        let path = self.at(key);
        match self.raw(key)? {
            Value::Sequence(items) => Some(items),
            // An empty map is how some charts write that there is nothing.
            Value::Mapping(map) if map.is_empty() => None,
            other => {
                notes.problem(&path, format!("must be a list, and is {}", shown(&other)));
                None
            }
        }
    }

    /// Takes a field that is a text. A number is taken for what it looks like.
    pub fn text(&mut self, key: &str, notes: &mut Notes) -> Option<String> {
        let path = self.at(key);
        match self.raw(key)? {
            Value::String(text) => Some(text),
            number @ Value::Number(_) => Some(shown(&number)),
            other => {
                notes.problem(&path, format!("must be a text, and is {}", shown(&other)));
                None
            }
        }
    }

    /// Takes a field that is a whole number of things; a text that looks like one is one.
    pub fn count(&mut self, key: &str, notes: &mut Notes) -> Option<u64> {
        let path = self.at(key);
        let value = self.raw(key)?;
        let whole = |number: f64| (number >= 0.0 && number.fract() == 0.0).then_some(number as u64);
        let number = match &value {
            Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            notes.problem(&path, format!("must be a whole number of 0 or more, and is {}", shown(&value)));
        }
        number
    }

    /// Takes a field that is true or false. YAML 1.1, which kubectl reads, knows more words for these.
    pub fn flag(&mut self, key: &str, notes: &mut Notes) -> Option<bool> {
        let path = self.at(key);
        match self.raw(key)? {
            Value::Bool(flag) => Some(flag),
            other => {
                let flag = other.as_str().and_then(truth);
                if flag.is_none() {
                    notes.problem(&path, format!("must be true or false, and is {}", shown(&other)));
                }
                flag
            }
        }
    }

    /// Leaves a field out that had no effect, and tells why.
    pub fn without(&mut self, key: &str, why: &str, notes: &mut Notes) {
        if let Some(value) = self.raw(key).filter(|value| !hollow(value)) {
            notes.change(format!("{}{} is left out: {why}", self.at(key), brief(key, &value)));
        }
    }

    /// Leaves a field out that had an effect, and tells what to do.
    pub fn lost(&mut self, key: &str, what_to_do: &str, notes: &mut Notes) {
        if let Some(value) = self.raw(key).filter(|value| !hollow(value)) {
            notes.warn(format!("{}{} is not carried over: {what_to_do}", self.at(key), brief(key, &value)));
        }
    }

    /// What is left has not been understood.
    pub fn rest(mut self, notes: &mut Notes) {
        for key in keys(&self.map).collect::<Vec<_>>() {
            self.lost(
                &key,
                "it is no field that the older system documents, and Stoker has none like it",
                notes,
            );
        }
    }

    /// Puts back what was taken.
    pub fn put_back(&mut self, key: &str, value: impl Into<Value>) {
        crate::values::put(&mut self.map, key, value);
    }

    /// What is left, as it is.
    pub fn into_map(self) -> Mapping {
        let mut value = Value::Mapping(self.map);
        tidy(&mut value);
        match value {
            Value::Mapping(map) => map,
            _ => Mapping::new(),
        }
    }
}

/// A value behind its field, if it fits into a line and is nobody's secret.
fn brief(key: &str, value: &Value) -> String {
    let key = key.to_lowercase();
    if ["password", "secret", "token", "credential"].iter().any(|word| key.contains(word)) {
        return String::new();
    }
    match value {
        Value::Mapping(_) | Value::Sequence(_) => String::new(),
        scalar => Some(shown(scalar))
            .filter(|text| !text.is_empty())
            .map(|text| format!(" ({text})"))
            .unwrap_or_default(),
    }
}
