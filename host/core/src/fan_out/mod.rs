//! Work on every node: which nodes are chosen, which start now, what became of each. It knows neither the kind of the
//! object nor whether a Job or a pod does the work on a node: that is a [`Task`].
//!
//! ```text
//!   nodes ─▶ Rules::choose ─▶ chosen ─┐
//!   tasks (what was made, and its end) ┼─▶ spread ─▶ Spread { starts, cancels, record, counts }
//!   Record (what became of each node) ─┘
//! ```

mod affinity;
mod choose;
mod node;
mod record;
mod spread;

pub use affinity::{Toleration, selects};
pub(crate) use choose::tolerate_cordon;
pub use choose::{PassedOver, Rules};
pub use node::{NodeView, Taint};
pub use record::{Fate, NodeKey, Record, Tries};
pub use spread::{AfterFailure, Failure, Limits, Spread, Start, Task, TaskState, spread};
