//! The `fixed-lead` policy: the warm-up begins as long before the instant as the object says.
//! The rule is in `rule`, the configuration in `config`; only `component` knows generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod rule;
