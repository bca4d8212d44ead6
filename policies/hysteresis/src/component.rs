//! The component: translates between the contract's types and the rule's.

use crate::{config, rule};
use exports::stoker::policy::{busyness, settings};
use stoker::policy::log::{Level, write};

wit_bindgen::generate!({ path: "../../wit", world: "busyness-policy" });

struct Hysteresis;

impl settings::Guest for Hysteresis {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "A pod is busy at once, and idle only when the busy probe has said so for long enough."
                .to_owned(),
            config_schema: config::SCHEMA.to_owned(),
            wanted_labels: Vec::new(),
            wanted_annotations: Vec::new(),
        }
    }

    fn validate(config: String) -> Result<(), Vec<String>> {
        config::parse(&config).map(drop)
    }
}

impl busyness::Guest for Hysteresis {
    fn classify(input: busyness::Input) -> Vec<busyness::Verdict> {
        let patience = config::parse(&input.config).unwrap_or_else(|errors| {
            // The host has had this configuration validated; if not, the record shows it.
            write(Level::Warn, &format!("using the default: {}", errors.join("; ")));
            config::Patience::DEFAULT
        });
        let period = input.asks.as_ref().map_or(0, |asks| asks.period);
        input.pods.iter().map(|pod| verdict(pod, period, input.now, patience)).collect()
    }
}

fn verdict(
    evidence: &busyness::Evidence,
    period: u64,
    now: i64,
    patience: config::Patience,
) -> busyness::Verdict {
    let pod = rule::Pod {
        last: evidence.last.map(|(last, _)| state(last)),
        says: state(evidence.probe_says),
        // A clock that was set back has measured nothing yet.
        says_for: u64::try_from(now.saturating_sub(evidence.probe_says_since)).unwrap_or(0),
        results: evidence.probe_says_results,
        period,
        result_age: evidence.probe_age,
    };
    let rule::Verdict { state, reason, wake_after } = rule::judge(&pod, patience);
    let state = match state {
        rule::State::Busy => busyness::VerdictState::Busy,
        rule::State::Idle => busyness::VerdictState::Idle,
        rule::State::Unknown => busyness::VerdictState::Unknown,
        rule::State::Starting => busyness::VerdictState::Starting,
    };
    busyness::Verdict { state, reason, slots: None, spent: false, wake_after }
}

fn state(state: busyness::VerdictState) -> rule::State {
    match state {
        busyness::VerdictState::Busy => rule::State::Busy,
        busyness::VerdictState::Idle => rule::State::Idle,
        busyness::VerdictState::Unknown => rule::State::Unknown,
        busyness::VerdictState::Starting => rule::State::Starting,
    }
}

export!(Hysteresis);
