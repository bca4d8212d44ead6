//! Pools: how many members there should be, which are made, which go.
//!
//! `Snapshot` is what was seen, `Decision` who wants what size, `plan` turns both into actions. `Memory` is what
//! must survive from one look to the next; losing it (a restart) only makes the pool slower to shrink.

pub mod backoff;
pub mod decision;
pub mod jobs;
pub mod marks;
pub mod overlay;
pub mod pace;
pub mod plan;
pub mod replace;
pub mod snapshot;
pub mod startups;
pub mod status;
pub mod successions;
mod victims;
pub mod window;

use jiff::Timestamp;

use crate::PodView;
use crate::names;
use crate::verdict::PodMemories;

pub use decision::{Asked, Decision, LimitedBy};
pub use jobs::{JobCounts, JobPods, JobView};
pub use marks::{MarkRules, Marks};
pub use overlay::Overlay;
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
    /// How long pods took to start.
    pub startups: startups::Startups,
    /// The operator's own doings that the watch has not shown.
    pub overlay: Overlay,
    /// Whose places the next Jobs take, where Jobs are the members.
    pub successions: successions::Successions,
    /// The time of the last look.
    latest: Option<Timestamp>,
}

impl Memory {
    /// Begins a look: the pods that the watch shows, corrected by what the operator did. `went` tells of a UID whether
    /// the watch told lately that it is gone.
    pub fn see(&mut self, shown: Vec<PodView>, went: impl Fn(&str) -> bool, now: Timestamp) -> Vec<PodView> {
        self.keep_time(now);
        self.overlay.see(shown, went, now)
    }

    /// The name of the next Job in a slot, where Jobs are the members: the one that may be there already under a name
    /// that was tried, else one that derives from the Job whose place it takes.
    pub fn job_name(&self, pool: &str, uid: &str, slot: u32) -> String {
        let derived = || names::pool_job(pool, uid, slot, self.successions.predecessor(slot));
        self.overlay.name_tried(slot).map_or_else(derived, str::to_owned)
    }

    /// Notices that the clock was set back, and moves everything remembered with it: else a delay of seconds would
    /// last as long as the clock was set back. A clock set forward only ends delays early.
    pub fn keep_time(&mut self, now: Timestamp) {
        if let Some(back) = self.latest.map(|latest| latest.duration_since(now)).filter(|d| d.is_positive()) {
            self.pods.values_mut().chain(self.jobs.values_mut()).for_each(|member| member.shift(back));
            self.window.shift(back);
            self.pace.shift(back);
            self.backoff.shift(back);
            self.overlay.shift(back);
            self.successions.shift(back);
            if let Some(previous) = &mut self.previous {
                previous.at -= back;
            }
        }
        self.latest = Some(now);
    }
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
