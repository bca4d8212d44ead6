//! The `buffer` policy: as many replicas as are in use, and `idleTarget` idle ones beside them.
//! The rule is in `rule`, the configuration in `config`; only `component` knows generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod rule;
