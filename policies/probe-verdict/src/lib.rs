//! The `probe-verdict` policy: a pod is what the pool's own probe settings make of its answer.
//! The wording is in `reason`, the configuration in `config`; only `component` knows generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod reason;
