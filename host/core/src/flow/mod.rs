//! JobFlow: steps that run in order, each as Jobs, one an attempt.
//!
//! A step that succeeded is never run again (I6): the status is the truth of what has run, names derive from run, step and
//! attempt, and a finalizer keeps each Job until its outcome is written. What is skipped is never remembered: it is weighed
//! anew at each look, so that a repaired spec or a step that is run again frees what waits for it.
//!
//! ```text
//!   (waits) ── all hold ─▶ Running ──▶ Succeeded            all steps ended ─▶ onFailure ─▶ onExit ─▶ completed
//!      │                    ▲    └──▶ Failed, Deleted ──┐
//!      │ one can never hold │                           │ rerun-failed, a repaired spec
//!      ▼                    └─── Retrying ◀─────────────┘
//!   Skipped
//! ```

mod advance;
mod body;
mod graph;
mod judge;
mod merge;
mod observe;
mod plan;
mod prepared;
mod report;
mod size;
mod status;

pub use body::{Refused, body};
pub use merge::merge_pod_template;
pub use plan::{Answers, Ask, Look, NewJob, Plan, Told, farewell, plan, still_wanted};
pub use prepared::{Flow, ON_EXIT, ON_FAILURE, Part, Probe, Templates, Until, Wait};
pub use size::Size;
pub use status::{Troubles, conditions};
