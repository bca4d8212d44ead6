//! Any body of a result or an event: refused in words, or read, within the bounds of metrics and of Kubernetes' Events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stoker_reports::PodEvent;
use stoker_reports::fuzzing::{MOST_SAMPLES, values};

fuzz_target!(|body: &[u8]| {
    match values(body) {
        Ok(values) => {
            assert!(values.len() <= MOST_SAMPLES);
            assert!(values.iter().all(|value| value.is_finite()), "JSON knows no others");
        }
        Err(words) => assert!(!words.is_empty()),
    }
    match PodEvent::parse(body) {
        Ok(event) => {
            assert!((1..=128).contains(&event.reason.len()) && (1..=128).contains(&event.action.len()));
            assert!(event.reason.starts_with(|c: char| c.is_ascii_uppercase()));
            assert!(event.reason.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert!(event.message.len() <= 1024);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
