//! Any bytes as a component: refused in words, or loaded and asked, and never a panic, a hang or an answer
//! outside of the contract.
#![no_main]

#[path = "../src/host.rs"]
mod host;

use libfuzzer_sys::fuzz_target;
use stoker_policy::fuzzing::check;

fuzz_target!(|bytes: &[u8]| {
    if let Err(refusal) = check(bytes) {
        assert!(!refusal.to_string().is_empty());
        return;
    }
    // Names that fit are rare, so that a compiler's process for each is affordable.
    host::run(async |host| {
        let policy = match host.load(bytes.into()).await {
            Ok(policy) => policy,
            Err(refusal) => return assert!(!refusal.to_string().is_empty()),
        };
        let limits = stoker_policy::Limits::default();
        match host.validate(&policy, "{}", limits).await {
            Ok(()) => {}
            Err(refusal) => assert!(!refusal.to_string().is_empty()),
        }
        if policy.exports().scaling {
            let input = host::input(3, 2);
            match host.scale(&policy, limits, input).await {
                Ok(answer) => assert!(answer.value.desired <= 1_000_000),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    });
});
