//! DaemonJob: a Job on every node that is chosen.
//!
//! A node is run once in a run, however its Job disappears (I6): the Job's name derives from node, run and attempt, a
//! finalizer keeps it until what became of it is in the written status, and the status tells of every node. So whoever
//! finds neither a Job nor a fate knows that the node has had none. A run begins by being written: nothing is created
//! for it before.

mod body;
mod plan;
mod run;
mod words;

pub use body::{NewJob, body, inline_template, refusal, template_hash};
pub use plan::{Look, Plan, Told, farewell, plan, still_wanted};
