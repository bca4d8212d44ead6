//! The `expression` policy: the number of replicas is what a CEL expression gives.
//! `config` finds the expression, `check` judges and prepares it, `numbers` is its arithmetic, `pool` its
//! variables, and `rule` evaluates it; only `component` knows generated types.

pub mod bounds;
pub mod check;
#[cfg(target_family = "wasm")]
mod component;
pub mod config;
pub mod numbers;
pub mod pool;
pub mod rule;
