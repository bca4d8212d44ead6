//! Asking a policy with what people wrote, and its answers as they read them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use stoker_policy::{CallError, ConfigRefusal, Limits, LogLine, Policy, PolicyHost};

use super::fields::{CLASSIFY, COUNTS, LEAD, LED, SCALE, SCALED, VERDICT};
use super::shape::{Field, Shape};

const SCALED_SHAPE: Shape = Shape::Record(SCALED);
const VERDICT_SHAPE: Shape = Shape::Record(VERDICT);
const LED_SHAPE: Shape = Shape::Record(LED);
const VERDICTS_SHAPE: Shape = Shape::List(&VERDICT_SHAPE);

/// A function of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Scale,
    Classify,
    Lead,
    Validate,
}

/// What came of asking.
pub struct Answered {
    /// The answer as people read it, or the words of the error.
    pub value: Result<Value, String>,
    pub log: Vec<LogLine>,
}

impl Call {
    pub const ALL: [Self; 4] = [Self::Scale, Self::Classify, Self::Lead, Self::Validate];

    pub fn name(self) -> &'static str {
        match self {
            Self::Scale => "scale",
            Self::Classify => "classify",
            Self::Lead => "lead",
            Self::Validate => "validate",
        }
    }

    /// What the answer looks like.
    pub fn answer(self) -> Shape {
        match self {
            Self::Scale => SCALED_SHAPE,
            Self::Classify => VERDICTS_SHAPE,
            Self::Lead => LED_SHAPE,
            Self::Validate => Shape::List(&Shape::Text),
        }
    }

    /// Asks a policy with what people wrote.
    pub async fn ask(self, host: &PolicyHost, policy: &Arc<Policy>, given: &Value) -> Result<Answered> {
        let limits = Limits::default();
        match self {
            Self::Scale => {
                let input = read(SCALE, &completed(given), "scale")?;
                Ok(told(self, host.scale(policy, limits, input).await.map(|a| (json!(a.value), a.log))))
            }
            Self::Classify => {
                let input = read(CLASSIFY, given, "classify")?;
                Ok(told(self, host.classify(policy, limits, input).await.map(|a| (json!(a.value), a.log))))
            }
            Self::Lead => {
                let input = read(LEAD, given, "lead")?;
                Ok(told(self, host.lead(policy, limits, input).await.map(|a| (json!(a.value), a.log))))
            }
            Self::Validate => {
                let config = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
                let value = match host.validate(policy, &config, limits).await {
                    Ok(()) => Ok(json!([])),
                    Err(ConfigRefusal::Invalid(errors)) => Ok(json!(errors)),
                    Err(ConfigRefusal::Call(error)) => Err(error.to_string()),
                };
                Ok(Answered { value, log: Vec::new() })
            }
        }
    }
}

fn told(call: Call, answer: Result<(Value, Vec<LogLine>), CallError>) -> Answered {
    match answer {
        Ok((value, log)) => Answered { value: Ok(call.answer().show(&value)), log },
        Err(error) => Answered { value: Err(error.to_string()), log: Vec::new() },
    }
}

/// What people wrote, as the contract's type.
pub fn read<T: DeserializeOwned>(shape: Shape, given: &Value, call: &str) -> Result<T> {
    serde_json::from_value(shape.read(given, call)?)
        .with_context(|| format!("{call}: a number is out of its range"))
}

/// Pods that fit the counts where only those are given, and counts that fit the pods where only those are.
fn completed(given: &Value) -> Value {
    let Value::Object(mut input) = given.clone() else { return given.clone() };
    let states = COUNTS.iter().map(|Field { name, .. }| *name);
    let states: Vec<&str> =
        states.filter(|name| !["current", "ready", "unschedulable"].contains(name)).collect();
    if let (Some(Value::Array(pods)), None) = (input.get("pods"), input.get("counts")) {
        let mut counts = Map::new();
        for pod in pods {
            let state = pod.get("state").and_then(Value::as_str).unwrap_or("idle");
            let count = counts.get(state).and_then(Value::as_u64).unwrap_or(0);
            counts.insert(state.to_owned(), json!(count + 1));
        }
        input.insert("counts".to_owned(), Value::Object(counts));
    } else if let (None, Some(Value::Object(counts))) = (input.get("pods"), input.get("counts")) {
        let of = |state: &&str| counts.get(*state).and_then(Value::as_u64).unwrap_or(0).min(10_000);
        let pods = states.iter().flat_map(|state| (0..of(state)).map(move |_| json!({"state": state})));
        let pods = Value::Array(pods.collect());
        input.insert("pods".to_owned(), pods);
    }
    if let Some(Value::Object(counts)) = input.get_mut("counts") {
        let sum = |of: &[&str]| of.iter().filter_map(|name| counts.get(*name)?.as_u64()).sum::<u64>();
        let ready = sum(&["idle", "busy", "claimed"]);
        let current = ready + sum(&["starting", "unknown"]);
        counts.entry("ready").or_insert(json!(ready));
        counts.entry("current").or_insert(json!(current));
    }
    Value::Object(input)
}

#[cfg(test)]
mod tests {
    use stoker_policy::contract::{busyness, scaling, warm_up};

    use super::*;

    #[test]
    fn nothing_is_enough_for_an_input_and_is_one_of_the_contracts() {
        let scale: scaling::Input = read(SCALE, &json!({}), "scale").unwrap();
        assert_eq!((scale.minimum, scale.maximum, scale.idle_target), (0, 100, 1));
        let lead: warm_up::Input = read(LEAD, &json!({}), "lead").unwrap();
        assert_eq!((lead.configured, lead.instants.len()), (60_000, 1));
        let pods = json!({"pods": [{"probe": {"http": {"body": "busy"}}}, {"probe": "none"}]});
        let classify: busyness::Input = read(CLASSIFY, &pods, "classify").unwrap();
        assert!(matches!(&classify.pods[0].probe, busyness::Probe::Http(http) if http.body == b"busy"));
    }

    #[test]
    fn counts_and_pods_follow_from_each_other() {
        let input: scaling::Input =
            read(SCALE, &completed(&json!({"counts": {"busy": 2, "starting": 1}})), "scale").unwrap();
        assert_eq!((input.pods.len(), input.counts.current, input.counts.ready), (3, 3, 2));
        let pods = json!({"pods": [{"state": "busy"}, {}, {"state": "terminating"}]});
        let input: scaling::Input = read(SCALE, &completed(&pods), "scale").unwrap();
        let counts = input.counts;
        assert_eq!((counts.busy, counts.idle, counts.terminating, counts.current), (1, 1, 1, 2));
    }

    #[test]
    fn a_number_that_is_too_large_is_told() {
        let error =
            read::<scaling::Input>(SCALE, &json!({"maximum": 5_000_000_000_u64}), "scale").unwrap_err();
        assert!(format!("{error:#}").starts_with("scale: a number is out of its range"), "{error:#}");
    }
}
