//! The component: translates between the contract's types and the rule's.

use crate::{config, rule};
use exports::stoker::policy::{settings, warm_up};

wit_bindgen::generate!({ path: "../../wit", world: "warm-up-policy" });

struct FixedLead;

impl settings::Guest for FixedLead {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Begins the warm-up as long before the instant as the object says.".to_owned(),
            config_schema: r#"{"type":"object","additionalProperties":false}"#.to_owned(),
            wanted_labels: Vec::new(),
            wanted_annotations: Vec::new(),
        }
    }

    fn validate(config: String) -> Result<(), Vec<String>> {
        config::validate(&config)
    }
}

impl warm_up::Guest for FixedLead {
    fn lead(input: warm_up::Input) -> warm_up::Decision {
        let rule::Answer { lead, reason } = rule::decide(input.configured);
        warm_up::Decision { lead, reason, state: Vec::new(), extensions: Vec::new() }
    }
}

export!(FixedLead);
