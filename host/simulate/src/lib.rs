//! A pool under a load, in a simulated cluster: what would the policy have done, what would it have cost, and who would
//! have waited?
//!
//! ```text
//!   load (recorded or generated) ─▶ requests ─┐
//!   start-up times ─▶ pods ───────────────────┼─▶ run: observe → ask the policy → decide → plan → act ─▶ Outcome
//!   the object ─▶ bounds, settings ───────────┘
//! ```
//! Verdicts, decisions and plans are core's, the policy is asked by the operator's own code and answers in the operator's
//! own host; only the cluster and its clock are made up. The same input and seed give the same outcome.
#![deny(missing_docs)]

mod best;
mod chance;
mod generate;
mod load;
mod outcome;
mod run;
mod startup;

pub use best::{Best, best};
pub use chance::Chance;
pub use generate::{Shape, generate};
pub use load::{Load, Request};
pub use outcome::{Outcome, Point};
pub use run::{Decider, Setup, run};
pub use startup::Startup;
