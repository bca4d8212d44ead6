//! The component: translates between the contract's types and the rule's.

use crate::{config, rule};
use exports::stoker::policy::{scaling, settings};
use stoker::policy::log::{Level, write};

wit_bindgen::generate!({ path: "../../wit", world: "scaling-policy" });

struct PercentBuffer;

impl settings::Guest for PercentBuffer {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Keeps a percentage of the pods in use idle, and never fewer than idleTarget."
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

impl scaling::Guest for PercentBuffer {
    fn scale(input: scaling::Input) -> scaling::Decision {
        let percent = config::parse(&input.config).unwrap_or_else(|errors| {
            // The host has had this configuration validated; if not, the record shows it.
            write(Level::Warn, &format!("using the default percentage: {}", errors.join("; ")));
            config::Percent::DEFAULT
        });
        let pool = rule::Pool {
            busy: input.counts.busy,
            claimed: input.counts.claimed,
            waiting: input.demand.waiting,
            idle_target: input.idle_target,
            minimum: input.minimum,
            maximum: input.maximum,
        };
        let answer = rule::decide(&pool, percent);
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

export!(PercentBuffer);
