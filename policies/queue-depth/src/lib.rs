//! The `queue-depth` policy: pods are ready for what waits in a queue, by a signal.
//! The rule is in `rule`, the configuration in `config`; only `component` knows generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod rule;
