//! For the fuzzer only: what stands between foreign bytes and the operator, without the way around it.

use crate::contract::{busyness, scaling, settings, warm_up};
use crate::error::Refusal;
use crate::{answer, check};

/// Whether the names in a component fit the contract.
///
/// # Errors
/// Why not.
pub fn check(bytes: &[u8]) -> Result<(), Refusal> {
    check::check(bytes, 32 << 20)
}

/// Whether an answer counts.
///
/// # Errors
/// Why not.
pub fn scale(answer: &mut scaling::Decision, input: &scaling::Input) -> Result<(), String> {
    answer::scale(answer, input)
}

/// Whether an answer counts.
///
/// # Errors
/// Why not.
pub fn classify(answer: &mut [busyness::Verdict], pods: usize) -> Result<(), String> {
    answer::classify(answer, pods)
}

/// Whether an answer counts.
///
/// # Errors
/// Why not.
pub fn lead(answer: &mut warm_up::Decision) -> Result<(), String> {
    answer::lead(answer)
}

/// Whether a description counts.
///
/// # Errors
/// Why not.
pub fn describe(info: &mut settings::Info) -> Result<(), String> {
    answer::info(info)
}

/// What becomes of the errors of `validate`.
///
/// # Errors
/// When there are none.
pub fn config_errors(errors: Vec<String>) -> Result<Vec<String>, String> {
    answer::config_errors(errors)
}
