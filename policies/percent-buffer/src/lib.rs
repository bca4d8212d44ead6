//! The `percent-buffer` policy: an idle reserve that grows with the load, never below `idleTarget`.
//! The rule is in `rule`, the configuration in `config`; only `component` knows generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod rule;
