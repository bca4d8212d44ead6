//! The component: translates between the contract's types and the rule's.

use crate::{config, rule};
use exports::stoker::policy::{busyness, settings};
use stoker::policy::log::{Level, write};

wit_bindgen::generate!({ path: "../../wit", world: "busyness-policy" });

struct JsonStatus;

impl settings::Guest for JsonStatus {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "What a pod does stands in a field of the JSON that the busy probe finds.".to_owned(),
            config_schema: config::SCHEMA.to_owned(),
            wanted_labels: Vec::new(),
            wanted_annotations: Vec::new(),
        }
    }

    fn validate(config: String) -> Result<(), Vec<String>> {
        config::parse(&config).map(drop)
    }
}

impl busyness::Guest for JsonStatus {
    fn classify(input: busyness::Input) -> Vec<busyness::Verdict> {
        let words = config::parse(&input.config).unwrap_or_else(|errors| {
            // The host has had this configuration validated; if not, the record shows it.
            write(Level::Warn, &format!("using the default: {}", errors.join("; ")));
            config::Words::default()
        });
        let period = input.asks.as_ref().map_or(0, |asks| asks.period);
        input.pods.iter().map(|pod| verdict(pod, period, &words)).collect()
    }
}

fn verdict(evidence: &busyness::Evidence, period: u64, words: &config::Words) -> busyness::Verdict {
    let pod = rule::Pod {
        found: found(&evidence.probe),
        ever_ready: evidence.ever_ready,
        last: evidence.last.map(|(last, _)| state(last)),
        results: evidence.probe_says_results,
        period,
        age: evidence.probe_age,
    };
    let (state, reason) = rule::judge(&pod, words);
    let state = match state {
        rule::State::Busy => busyness::VerdictState::Busy,
        rule::State::Idle => busyness::VerdictState::Idle,
        rule::State::Unknown => busyness::VerdictState::Unknown,
        rule::State::Starting => busyness::VerdictState::Starting,
    };
    busyness::Verdict { state, reason, slots: None, spent: false, wake_after: None }
}

fn found(probe: &busyness::Probe) -> rule::Found<'_> {
    match probe {
        busyness::Probe::None => rule::Found::Nothing,
        busyness::Probe::Annotation(Some(text)) | busyness::Probe::Condition(Some(text)) => {
            rule::Found::Text(text.as_bytes())
        }
        busyness::Probe::Annotation(None)
        | busyness::Probe::Condition(None)
        | busyness::Probe::Redis(None) => rule::Found::Absent,
        busyness::Probe::Http(answer) => rule::Found::Text(&answer.body),
        busyness::Probe::Exec(answer) if answer.exit_code == 0 => rule::Found::Text(&answer.stdout),
        busyness::Probe::Exec(answer) => rule::Found::Failed(answer.exit_code),
        busyness::Probe::Redis(Some(value)) => rule::Found::Text(value),
        busyness::Probe::Error(why) => rule::Found::Error(why),
    }
}

fn state(state: busyness::VerdictState) -> rule::State {
    match state {
        busyness::VerdictState::Busy => rule::State::Busy,
        busyness::VerdictState::Idle => rule::State::Idle,
        busyness::VerdictState::Unknown => rule::State::Unknown,
        busyness::VerdictState::Starting => rule::State::Starting,
    }
}

export!(JsonStatus);
