//! The host of policies: WebAssembly components that decide how many replicas a pool has, which
//! of its pods are busy, and how early a warm-up begins. The contract is `wit/policy.wit`.
//!
//! ```text
//! bytes ─ check ─ compile (in a child) ─ link ─ describe ─▶ Policy    once for a digest
//! input ─▶ queue ─▶ thread: fresh instance ─ call ─ validate ─▶ Answer      for each decision
//! ```
//!
//! A guest is bounded in time, memory, tables, stack and size of its answer, it reaches nothing
//! but its input, and it never runs on an async worker. This crate knows no Kubernetes: what a
//! failed call means for a pool (I3) is decided by its callers.
#![deny(missing_docs)]

mod answer;
#[cfg(feature = "bench")]
pub mod bench;
pub mod builtin;
mod call;
mod check;
mod compile;
pub mod contract;
mod digest;
mod engine;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzzing;
mod host;
mod limits;
mod loader;
mod log;
mod meter;
mod observer;
mod policy;
mod record;
mod state;
mod surface;
mod wasi;
mod workers;

pub use call::{Answer, Timing};
pub use compile::{CompileCost, CompileLimits, compile_program};
pub use contract::settings::Info;
pub use digest::{Digest, DigestError};
pub use error::{CallError, ConfigRefusal, HostError, Refusal};
pub use host::{HostOptions, PolicyHost};
pub use limits::Limits;
pub use log::{LogLevel, LogLine};
pub use meter::{Asked, Cost, Meter};
pub use observer::Observer;
pub use policy::{Exports, Policy};
pub use record::{Comparison, Exchange, Fault, Outcome, RECORD_VERSION, Record, Replayed, parts};
pub use surface::Surface;

/// The contract that this host speaks.
pub const CONTRACT: &str = "stoker:policy@1.0.0";
