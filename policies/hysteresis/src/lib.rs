//! The `hysteresis` policy: busy is believed at once, idle only when the probe has said so for long enough.
//! The rule is in `rule`, the configuration in `config`; only `component` knows generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod rule;
