//! Pools: how many members there should be, which are made, which go.
//!
//! `Snapshot` is what was seen, `Decision` who wants what size, `plan` turns both into actions. `Memory` is what
//! must survive from one look to the next; losing it (a restart) only makes the pool slower to shrink.

pub mod backoff;
pub mod decision;
pub mod jobs;
pub mod marks;
pub mod pace;
pub mod plan;
pub mod replace;
pub mod snapshot;
pub mod status;
pub mod window;

use jiff::Timestamp;

use crate::verdict::PodMemories;

pub use decision::{Asked, Decision, LimitedBy};
pub use jobs::{JobCounts, JobPods, JobView};
pub use marks::{MarkRules, Marks};
pub use plan::{Action, Placement, Plan, RemovalReason, Settings, plan};
pub use replace::{ReplaceRules, Unfit};
pub use snapshot::{Counts, Snapshot};

/// What is remembered of one pool.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Of each pod.
    pub pods: PodMemories,
    /// Of each Job, where Jobs are the members.
    pub jobs: PodMemories,
    /// Targets of the last scaleDownDelaySeconds.
    pub window: window::Window,
    /// Pods made within the last second.
    pub pace: pace::Pace,
    /// Failing pods.
    pub backoff: backoff::Backoff,
    /// The last target that a decision gave without failure (I3).
    pub last_good: Option<u32>,
    /// The decision before this one.
    pub previous: Option<Previous>,
}

/// The decision before this one, for the policy's input.
#[derive(Clone, Debug)]
pub struct Previous {
    /// When it was made.
    pub at: Timestamp,
    /// What it asked for.
    pub raw: u32,
    /// What was applied.
    pub applied: u32,
    /// What kept the one from being the other.
    pub limited_by: LimitedBy,
    /// Its reason.
    pub reason: String,
}
