//! The component: translates between the contract's types and ours.

use crate::config;
use crate::reason::{Found, words};
use exports::stoker::policy::{busyness, settings};

wit_bindgen::generate!({ path: "../../wit", world: "busyness-policy" });

struct ProbeVerdict;

impl settings::Guest for ProbeVerdict {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "A pod is what the pool's busy probe says.".to_owned(),
            config_schema: r#"{"type":"object","additionalProperties":false}"#.to_owned(),
            wanted_labels: Vec::new(),
            wanted_annotations: Vec::new(),
        }
    }

    fn validate(config: String) -> Result<(), Vec<String>> {
        config::validate(&config)
    }
}

impl busyness::Guest for ProbeVerdict {
    fn classify(input: busyness::Input) -> Vec<busyness::Verdict> {
        let subject = input.asks.as_ref().map_or("", |asks| &asks.subject);
        input.pods.iter().map(|pod| verdict(pod, subject)).collect()
    }
}

fn verdict(pod: &busyness::Evidence, subject: &str) -> busyness::Verdict {
    let starting = pod.probe_says == busyness::VerdictState::Starting;
    busyness::Verdict {
        state: pod.probe_says,
        reason: words(found(&pod.probe), subject, starting),
        slots: None,
        spent: false,
        wake_after: None,
    }
}

fn found(probe: &busyness::Probe) -> Found<'_> {
    match probe {
        busyness::Probe::None => Found::Nothing,
        busyness::Probe::Annotation(value) => Found::Annotation(value.as_deref()),
        busyness::Probe::Condition(status) => Found::Condition(status.as_deref()),
        busyness::Probe::Http(answer) => Found::Http(answer.status),
        busyness::Probe::Exec(answer) => Found::Exec(answer.exit_code),
        busyness::Probe::Redis(value) => Found::Redis(value.as_deref()),
        busyness::Probe::Error(why) => Found::Error(why),
    }
}

export!(ProbeVerdict);
