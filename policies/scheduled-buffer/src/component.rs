//! The component: translates between the contract's types and the rule's.

use crate::{config, rule};
use exports::stoker::policy::{scaling, settings};
use jiff::Timestamp;
use stoker::policy::log::{Level, write};

wit_bindgen::generate!({ path: "../../wit", world: "scaling-policy" });

struct ScheduledBuffer;

impl settings::Guest for ScheduledBuffer {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Keeps as many pods idle as a timetable says, and idleTarget outside of its windows."
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

impl scaling::Guest for ScheduledBuffer {
    fn scale(input: scaling::Input) -> scaling::Decision {
        let timetable = config::parse(&input.config).unwrap_or_else(|errors| fail(&errors.join("; ")));
        let now = Timestamp::from_millisecond(input.now).unwrap_or_else(|error| fail(&error.to_string()));
        let pool = rule::Pool {
            busy: input.counts.busy,
            claimed: input.counts.claimed,
            waiting: input.demand.waiting,
            idle_target: input.idle_target,
            minimum: input.minimum,
            maximum: input.maximum,
        };
        let answer = rule::decide(&pool, &timetable, now);
        scaling::Decision {
            desired: answer.desired,
            reason: answer.reason,
            victims: Vec::new(),
            wake_after: answer.wake_after,
            valid_until: None,
            state: Vec::new(),
            extensions: Vec::new(),
        }
    }
}

/// Ends the call without an answer: without its timetable, this policy might let a pool shrink in the middle
/// of a window. The host has had the configuration validated, and holds the last good target.
fn fail(words: &str) -> ! {
    write(Level::Error, words);
    panic!("{words}")
}

export!(ScheduledBuffer);
