//! A simulated cluster with a clock of its own, in which core does what it does in a real one.
//!
//! ```text
//!   Store<Pod> ─▶ View (late, reordered) ─▶ Operator: look ─▶ plan ─▶ act, by a fate ─▶ Store<Pod>
//!   Store<Node>                                                      └▶ promises: what must hold of it
//!   Store<Pool>
//! ```
//! The stores keep the API server's rules and no others. What happens, and when, is up to whoever drives the
//! cluster: random stories in this crate's tests, a load elsewhere. A later kind joins as a store of its own.
#![deny(missing_docs)]

pub mod asking;
pub mod cluster;
pub mod cron_operator;
pub mod crons;
pub mod fan_outs;
pub mod flows;
pub mod jobs;
pub mod keeper;
pub mod kept;
pub mod kept_object;
mod known;
pub mod look;
pub mod operator;
pub mod pods;
pub mod promises;
pub mod shell;
pub mod store;
pub mod world;

pub use asking::{Asking, Manner, Mode, Servers};
pub use cluster::{Clocks, Cluster};
pub use crons::{CronCluster, CronSpec, Warm};
pub use fan_outs::FanOuts;
pub use flows::{FlowSpec, Flows};
pub use jobs::{JobCluster, JobOperator, Work};
pub use keeper::Sabotage;
pub use kept::KeptCluster;
pub use kept_object::{Node, Own};
pub use look::{Look, Says, Spec, decide_and_plan, look};
pub use operator::{Answer, Done, Fate, Operator};
pub use store::{Object, Refusal, Store, View};
