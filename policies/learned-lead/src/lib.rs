//! The `learned-lead` policy: the warm-up begins as early as most of the last runs needed, and a margin.
//! The rule is in `rule`, the configuration in `config`; only `component` knows generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod rule;
