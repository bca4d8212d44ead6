//! The body of a result callback: `{"<gauge>": [{"value": 1.0, "labels": {…}}]}`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::cluster::MetricsSpec;
use crate::names::head;

/// Longest value of a label, in bytes; what is longer is cut.
const MAX_LABEL: usize = 512;

/// One value, as reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// 0 where it was left out.
    pub value: f64,
    labels: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for Reported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FromObject)
    }
}

/// Reads a value from an object alone; what is derived would take a list, too.
struct FromObject;

impl<'de> Visitor<'de> for FromObject {
    type Value = Reported;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `value` and `labels`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Reported, A::Error> {
        let mut reported = Reported::default();
        while let Some(key) = object.next_key::<Cow<'de, str>>()? {
            match &*key {
                "value" => reported.value = object.next_value()?,
                "labels" => reported.labels = object.next_value()?,
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(reported)
    }
}

/// Why a body is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadResult {
    #[error("the body is no result: {0}; send {{\"<gauge>\": [{{\"value\": 1.0, \"labels\": {{}}}}]}}")]
    Json(String),
    #[error("the result is empty: report one gauge at least")]
    Empty,
    #[error("`{0}` is no name of a metric: use letters, digits, `_` and `:`")]
    Name(String),
}

/// Reads a body: gauges by name.
pub fn parse(body: &[u8]) -> Result<BTreeMap<String, Vec<Reported>>, BadResult> {
    type Gauges = BTreeMap<String, Option<Vec<Reported>>>;
    let gauges: Gauges = serde_json::from_slice(body).map_err(|error| BadResult::Json(error.to_string()))?;
    if gauges.is_empty() {
        return Err(BadResult::Empty);
    }
    if let Some(bad) = gauges.keys().find(|name| !is_suffix(name)) {
        return Err(BadResult::Name(head(bad, 100).to_owned()));
    }
    Ok(gauges.into_iter().map(|(name, values)| (name, values.unwrap_or_default())).collect())
}

/// Whether it ends a metric's name.
fn is_suffix(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// One value of a gauge that the spec knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub gauge: Arc<str>,
    /// In the order of the gauge's labels.
    pub labels: Box<[Box<str>]>,
    pub value: f64,
}

/// What of a result becomes series: unknown gauges are left out, missing labels are empty, extra ones dropped. Of values with
/// the same labels the last one counts. At most `max_series` samples; `left` counts the others. Without a spec there are none.
pub fn samples(result: &BTreeMap<String, Vec<Reported>>, spec: Option<&MetricsSpec>) -> (Vec<Sample>, u64) {
    let Some(spec) = spec else { return (Vec::new(), 0) };
    let mut found = BTreeMap::new();
    let mut left = 0;
    for (name, gauge) in &spec.gauges {
        let gauge_name: Arc<str> = name.as_str().into();
        for reported in result.get(name).into_iter().flatten() {
            let value_of = |label: &String| reported.labels.as_ref().and_then(|labels| labels.get(label));
            let labels: Box<[Box<str>]> =
                gauge.labels.iter().map(|l| head(value_of(l).map_or("", |v| v), MAX_LABEL).into()).collect();
            let room = found.len() < spec.max_series;
            match found.entry((gauge_name.clone(), labels)) {
                Entry::Occupied(mut slot) => *slot.get_mut() = reported.value,
                Entry::Vacant(slot) if room => {
                    slot.insert(reported.value);
                }
                Entry::Vacant(_) => left += 1,
            }
        }
    }
    let samples = found.into_iter().map(|((gauge, labels), value)| Sample { gauge, labels, value });
    (samples.collect(), left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::Gauge;

    fn spec() -> MetricsSpec {
        let gauge = Gauge { help: String::new(), labels: vec!["label_a".into(), "label_b".into()] };
        MetricsSpec { gauges: [("test".to_owned(), gauge)].into(), max_series: 3, ..MetricsSpec::default() }
    }

    fn read(body: &str) -> (Vec<Sample>, u64) {
        samples(&parse(body.as_bytes()).unwrap(), Some(&spec()))
    }

    fn shown(body: &str) -> Vec<(String, f64)> {
        read(body).0.into_iter().map(|s| (s.labels.join(","), s.value)).collect()
    }

    #[test]
    fn values_come_with_their_labels() {
        let body = r#"{"test":[{"value":1.0,"labels":{"label_a":"AAA","label_b":"BBB"}},{"value":2.554,"labels":{"label_a":"AAA2","label_b":"BBB2"}}]}"#;
        assert_eq!(shown(body), [("AAA,BBB".to_owned(), 1.0), ("AAA2,BBB2".to_owned(), 2.554)]);
    }

    #[test]
    fn unknown_gauges_and_extra_labels_go_and_missing_labels_are_empty() {
        let body = r#"{"other":[{"value":1}],"test":[{"value":3,"labels":{"label_b":"b","zone":"z"}}]}"#;
        assert_eq!(shown(body), [(",b".to_owned(), 3.0)]);
        assert_eq!(shown(r#"{"test":[{"value":4}]}"#), [(",".to_owned(), 4.0)]);
        assert_eq!(shown(r#"{"test":null}"#), []);
    }

    #[test]
    fn the_last_of_equal_labels_counts_and_the_rest_is_bounded() {
        assert_eq!(shown(r#"{"test":[{"value":1},{"value":2}]}"#), [(",".to_owned(), 2.0)]);
        let many: Vec<_> =
            (0..5).map(|n| format!(r#"{{"value":{n},"labels":{{"label_a":"{n}"}}}}"#)).collect();
        let (kept, left) = read(&format!(r#"{{"test":[{}]}}"#, many.join(",")));
        assert_eq!((kept.len(), left), (3, 2));
    }

    #[test]
    fn bad_bodies_are_refused() {
        let refused = |body: &str| parse(body.as_bytes()).unwrap_err();
        for body in [
            "",
            "{",
            "[]",
            "null",
            r#"{"a":[[1.0]]}"#,
            r#"{"a":[{"value":"x"}]}"#,
            r#"{"a":[{"value":1e999}]}"#,
            "{\"a\":[]} x",
        ] {
            assert!(matches!(refused(body), BadResult::Json(_)), "{body}");
        }
        assert_eq!(refused("{}"), BadResult::Empty);
        assert_eq!(refused(r#"{"a b":[]}"#), BadResult::Name("a b".into()));
        assert_eq!(refused(r#"{"":[]}"#), BadResult::Name(String::new()));
    }

    proptest! {
        #[test]
        fn any_body_is_answered(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(result) = parse(&body) {
                let _ = samples(&result, Some(&spec()));
            }
        }

        #[test]
        fn json_of_any_shape_is_answered(text in r#"[\[\]{}":,a-c0-9 .e-]{0,60}"#) {
            if let Ok(result) = parse(text.as_bytes()) {
                prop_assert!(samples(&result, Some(&spec())).0.len() <= 3);
            }
        }
    }
}
