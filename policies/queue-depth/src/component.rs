//! The component: translates between the contract's types and the rule's.

use crate::{config, rule};
use exports::stoker::policy::{scaling, settings};
use stoker::policy::log::{Level, write};

wit_bindgen::generate!({ path: "../../wit", world: "scaling-policy" });

struct QueueDepth;

impl settings::Guest for QueueDepth {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Keeps pods ready for what waits in a queue, and never fewer idle than idleTarget."
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

impl scaling::Guest for QueueDepth {
    fn scale(input: scaling::Input) -> scaling::Decision {
        let config = config::parse(&input.config).unwrap_or_else(|errors| {
            // The host has had this configuration validated; if not, the record shows it.
            write(Level::Warn, &format!("using the defaults: {}", errors.join("; ")));
            config::Config::default()
        });
        let signal = input.signals.into_iter().find(|signal| signal.name == config.signal);
        let length = signal.map_or(rule::Length::Missing, |signal| match signal.value {
            Ok(value) => rule::Length::Known(value),
            Err(why) => rule::Length::Failed { why, seconds: signal.age / 1000 },
        });
        let pool = rule::Pool {
            busy: input.counts.busy,
            claimed: input.counts.claimed,
            waiting: input.demand.waiting,
            idle_target: input.idle_target,
            minimum: input.minimum,
            maximum: input.maximum,
            last: input.previous.map(|previous| previous.applied),
        };
        let answer = rule::decide(&pool, &length, &config);
        scaling::Decision {
            desired: answer.desired,
            reason: answer.reason,
            victims: Vec::new(),
            wake_after: None,
            valid_until: None,
            state: Vec::new(),
            extensions: Vec::new(),
        }
    }
}

export!(QueueDepth);
