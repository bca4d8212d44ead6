//! A Job as that of a node: which run and attempt it is, and how it ended.

use jiff::Timestamp;
use stoker_api::keys;

use crate::fan_out::{Task, TaskState};
use crate::kept::{Ended, Kept};

/// What a Job says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeJob<'a> {
    pub kept: Kept<'a>,
    pub node: &'a str,
    pub uid: &'a str,
    pub run: u32,
    pub attempt: u16,
}

impl<'a> NodeJob<'a> {
    /// None = it does not say which node, run and attempt it is for.
    pub fn of(kept: &Kept<'a>) -> Option<Self> {
        let said = |key: &str| kept.job.annotations.get(key).map(String::as_str);
        Some(Self {
            kept: *kept,
            node: said(keys::NODE)?,
            uid: said(keys::NODE_UID)?,
            run: said(keys::RUN)?.parse().ok()?,
            attempt: said(keys::ATTEMPT)?.parse().ok()?,
        })
    }

    /// It as a task of a run.
    pub fn task(&self, run: u32, now: Timestamp) -> Task<'a> {
        let job = self.kept.job;
        let state = match self.kept.ended(now) {
            None => TaskState::Running,
            Some(Ended::Succeeded) => TaskState::Succeeded,
            Some(Ended::Failed(why)) => {
                TaskState::Failed { why, at: job.finished.as_ref().and_then(|finished| finished.at) }
            }
            Some(Ended::Deleted) => TaskState::Deleted { at: job.deleted_at },
        };
        Task {
            node: self.node,
            uid: self.uid,
            attempt: self.attempt,
            stale: self.run != run,
            created: job.created,
            state,
        }
    }
}
