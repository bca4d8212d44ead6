//! The `predictive` policy: what the same time of earlier seasons needed, and never fewer than in use and `idleTarget`.
//! The rule is in `rule`, what it remembers in `memory`, the configuration in `config`; only `component` knows generated
//! types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod memory;
pub mod rule;
