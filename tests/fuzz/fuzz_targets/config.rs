//! Any text as the configuration of each built-in policy: taken, or refused in bounded words; never a trap, a
//! timeout or an empty complaint. What is taken must serve a decision, which may fail in words only.
#![no_main]

#[path = "../src/host.rs"]
mod host;

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use stoker_policy::{CallError, ConfigRefusal, Limits, Policy, builtin};

static POLICIES: OnceLock<Vec<Arc<Policy>>> = OnceLock::new();

fuzz_target!(|text: &str| {
    let policies = POLICIES.get_or_init(|| {
        host::run(async |host| {
            let mut policies = Vec::new();
            for name in builtin::NAMES {
                let bytes = builtin::bytes(name).expect("its bytes");
                policies.push(host.load(bytes.into()).await.expect("it loads"));
            }
            policies
        })
    });
    // The instrumented host is slow; only what never ends is a fault.
    let limits = Limits { timeout: Limits::MAX_TIMEOUT, ..Limits::default() };
    host::run(async |host| {
        for policy in policies {
            let name = &policy.info().name;
            match host.validate(policy, text, limits).await {
                Ok(()) => {}
                Err(ConfigRefusal::Invalid(words)) => {
                    assert!(words.iter().all(|word| !word.is_empty() && word.len() <= 512), "{name}: {words:?}");
                    continue;
                }
                Err(ConfigRefusal::Call(error)) => panic!("{name}: {error}"),
            }
            if policy.exports().scaling {
                let mut input = host::input(3, 2);
                input.config = text.to_owned();
                match host.scale(policy, limits, input).await {
                    Ok(_) | Err(CallError::Trap(_)) => {}
                    Err(error) => panic!("{name}: {error}"),
                }
            }
        }
    });
});
