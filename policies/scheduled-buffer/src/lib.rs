//! The `scheduled-buffer` policy: as many replicas as are in use, and as many idle ones beside them as a
//! timetable says. The rule is in `rule`, the configuration in `config` and `span`; only `component` knows
//! generated types.

#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod rule;
pub mod span;
