//! NodeBatchJob: at the instants of a schedule, a pod on every node that is chosen, a few at a time.
//!
//! ```text
//!   schedule, startup, by hand ─▶ begin ─▶ an execution in the status
//!   its nodes, pods, record ─▶ fan_out::spread ─▶ pods to create and delete, the record
//! ```
//!
//! An execution begins by being written: nothing is created for it before, so that an instant has one at most (I5). A node
//! has one pod for each attempt, whose name derives from node, execution and attempt; a finalizer keeps it until what
//! became of it is in the written status, so that none is made twice (I6).

mod begin;
mod body;
mod plan;
mod task;
mod timetable;
mod words;

pub use body::{Callbacks, NewPod, body, pod_name, rules, template_hash};
pub use plan::{KEPT_FOR_LOG, Look, Plan, Told, farewell, plan, still_wanted};
pub use timetable::{Timetable, span};
