//! The component: translates between the contract's types and the rule's.

use crate::memory::Memory;
use crate::{config, rule};
use exports::stoker::policy::{scaling, settings};
use stoker::policy::log::{Level, write};

wit_bindgen::generate!({ path: "../../wit", world: "scaling-policy" });

struct Predictive;

impl settings::Guest for Predictive {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Keeps ready what the same time of earlier days or weeks needed.".to_owned(),
            config_schema: config::SCHEMA.to_owned(),
            wanted_labels: Vec::new(),
            wanted_annotations: Vec::new(),
        }
    }

    fn validate(config: String) -> Result<(), Vec<String>> {
        config::parse(&config).map(drop)
    }
}

impl scaling::Guest for Predictive {
    fn scale(input: scaling::Input) -> scaling::Decision {
        // The host has had it validated. With the defaults the floor holds all the same.
        let config = config::parse(&input.config).unwrap_or_else(|errors| {
            write(Level::Error, &errors.join("; "));
            config::Config::DEFAULT
        });
        let mut memory = Memory::read(&input.state, config.season).unwrap_or_else(|| {
            if !input.state.is_empty() {
                write(
                    Level::Warn,
                    "what was remembered cannot be read, or is of another season: beginning anew",
                );
            }
            Memory::new(config.season)
        });
        let answer = rule::decide(
            &rule::Pool {
                busy: input.counts.busy,
                claimed: input.counts.claimed,
                waiting: input.demand.waiting,
                idle_target: input.idle_target,
                minimum: input.minimum,
                maximum: input.maximum,
                startup: (input.startup.samples > 0).then_some(input.startup.p90),
            },
            &config,
            &mut memory,
            input.now,
        );
        scaling::Decision {
            desired: answer.desired,
            reason: answer.reason,
            victims: Vec::new(),
            wake_after: Some(answer.wake_after),
            valid_until: None,
            state: memory.bytes(),
            extensions: Vec::new(),
        }
    }
}

export!(Predictive);
