//! The `json-status` policy: what a pod does stands in a field of the JSON that the probe finds.
//! The rule is in `rule`, the configuration in `config`; only `component` knows generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod rule;
