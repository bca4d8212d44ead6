//! The component: translates between the contract's types and the rule's.

use crate::{config, rule};
use exports::stoker::policy::{settings, warm_up};
use stoker::policy::log::{Level, write};

wit_bindgen::generate!({ path: "../../wit", world: "warm-up-policy" });

struct LearnedLead;

impl settings::Guest for LearnedLead {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Begins the warm-up as early as most of the last runs needed, and a margin.".to_owned(),
            config_schema: config::SCHEMA.to_owned(),
            wanted_labels: Vec::new(),
            wanted_annotations: Vec::new(),
        }
    }

    fn validate(config: String) -> Result<(), Vec<String>> {
        config::parse(&config).map(drop)
    }
}

impl warm_up::Guest for LearnedLead {
    fn lead(input: warm_up::Input) -> warm_up::Decision {
        let config = config::parse(&input.config).unwrap_or_else(|errors| {
            // The host has had this configuration validated; if not, the record shows it.
            write(Level::Warn, &format!("using the defaults: {}", errors.join("; ")));
            config::Config::DEFAULT
        });
        let runs: Vec<rule::Phases> = input
            .runs
            .iter()
            .map(|run| rule::Phases {
                schedule: run.schedule,
                pull: run.pull,
                start: run.start,
                ready: run.ready,
            })
            .collect();
        let rule::Answer { lead, reason } = rule::decide(&runs, input.configured, &config);
        warm_up::Decision { lead, reason, state: Vec::new(), extensions: Vec::new() }
    }
}

export!(LearnedLead);
