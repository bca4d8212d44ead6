//! What to do: pure functions from what was observed to actions and status.
//!
//! Nothing here does I/O, reads a clock, awaits, or knows a Kubernetes client: `now` is an argument and
//! the answer is data. If a rule is hard to test here, the snapshot lacks a field.
//!
//! ```text
//!   PodView… ─▶ verdict::judge ─▶ Snapshot ─▶ (policy or formula) ─▶ pool::plan ─▶ Plan { actions, status }
//! ```
#![deny(missing_docs)]

pub mod asked;
pub mod claims;
pub mod conditions;
pub mod daemon_job;
pub mod fan_out;
pub mod flow;
pub mod job_body;
pub mod kept;
pub mod last_word;
pub mod names;
pub mod node_batch;
pub mod pod;
pub mod pool;
pub mod pre_scaled;
pub mod verdict;

pub use pod::{Phase, PodView};
pub use verdict::Verdict;
