//! PreScaledCronJob: a run for each instant of a schedule, created a lead before it and held until it.
//!
//! There is at most one Job for an instant (I5): its name derives from the instant, a finalizer keeps it until its
//! outcome is in the status, and the status says up to which instant everything is decided. So whoever finds neither a
//! Job nor a decision knows that the instant has had no run.
//!
//! ```text
//!   instant − lead         instant                      end
//!   ─────┼── held: cancelled, ─┼── at work: the gate has ──┼── ended: recorded, then let go
//!        create  replaced freely   opened by itself
//! ```

mod body;
mod plan;
mod run;
mod timetable;

pub use body::{Refusal, job, template_refusal};
pub use plan::{Action, Cancelled, Plan, Told, farewell, plan};
pub use run::Run;
pub use timetable::{Lead, Rules, Stopped};
