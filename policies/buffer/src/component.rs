//! The component: translates between the contract's types and the rule's.

use crate::{config, rule};
use exports::stoker::policy::{scaling, settings};

wit_bindgen::generate!({ path: "../../wit", world: "scaling-policy" });

struct Buffer;

impl settings::Guest for Buffer {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "As many replicas as are in use, and idleTarget idle ones beside them.".to_owned(),
            config_schema: r#"{"type":"object","additionalProperties":false}"#.to_owned(),
            wanted_labels: Vec::new(),
            wanted_annotations: Vec::new(),
        }
    }

    fn validate(config: String) -> Result<(), Vec<String>> {
        config::validate(&config)
    }
}

impl scaling::Guest for Buffer {
    fn scale(input: scaling::Input) -> scaling::Decision {
        let answer = rule::decide(&rule::Pool {
            busy: input.counts.busy,
            claimed: input.counts.claimed,
            waiting: input.demand.waiting,
            idle_target: input.idle_target,
            minimum: input.minimum,
            maximum: input.maximum,
        });
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

export!(Buffer);
