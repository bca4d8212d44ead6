//! The component: translates between the contract's types and the rule's.

use crate::{config, pool, rule};
use exports::stoker::policy::{scaling, settings};
use stoker::policy::log::{Level, write};

wit_bindgen::generate!({ path: "../../wit", world: "scaling-policy" });

struct Expression;

impl settings::Guest for Expression {
    fn describe() -> settings::Info {
        settings::Info {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "As many replicas as a CEL expression gives.".to_owned(),
            config_schema: config::SCHEMA.to_owned(),
            wanted_labels: Vec::new(),
            wanted_annotations: Vec::new(),
        }
    }

    fn validate(config: String) -> Result<(), Vec<String>> {
        config::validate(&config)
    }
}

impl scaling::Guest for Expression {
    fn scale(input: scaling::Input) -> scaling::Decision {
        let pool = pool_of(&input);
        let answer = config::parse(&input.config)
            .map_err(|errors| errors.join("; "))
            .and_then(|expression| rule::decide(&expression, &pool));
        match answer {
            Ok(answer) => scaling::Decision {
                desired: answer.desired,
                reason: answer.reason,
                victims: Vec::new(),
                wake_after: answer.wake_after,
                valid_until: None,
                state: Vec::new(),
                extensions: Vec::new(),
            },
            Err(words) => fail(&words),
        }
    }
}

/// Ends the call without an answer. The contract has no other way to say that there is none, and any number
/// in its place might remove pods that are needed; after a failed call the host holds the last good target.
fn fail(words: &str) -> ! {
    write(Level::Error, words);
    panic!("desired: {words}")
}

fn pool_of(input: &scaling::Input) -> pool::Pool {
    let (counts, demand, startup) = (&input.counts, &input.demand, &input.startup);
    pool::Pool {
        now: input.now,
        busy: counts.busy,
        claimed: counts.claimed,
        waiting: demand.waiting,
        idle: counts.idle,
        starting: counts.starting,
        ready: counts.ready,
        current: counts.current,
        unknown: counts.unknown,
        terminating: counts.terminating,
        unschedulable: counts.unschedulable,
        failed: counts.failed,
        misses: demand.misses,
        oldest_wait: demand.oldest_wait,
        idle_target: input.idle_target,
        minimum: input.minimum,
        maximum: input.maximum,
        startup: [startup.p50, startup.p90, startup.p99],
        signals: input
            .signals
            .iter()
            .filter_map(|signal| Some((signal.name.clone(), *signal.value.as_ref().ok()?)))
            .collect(),
    }
}

export!(Expression);
