//! Jobs and pods that a finalizer keeps until their outcome is in their owner's status, so that none of them is made
//! twice: whoever finds neither one nor a recorded outcome knows that there has been none (I5, I6).

use jiff::{SignedDuration, Timestamp};
use stoker_api::keys;

use crate::pod::PodView;
use crate::pool::JobView;

/// By then the watch shows a pod that there is.
pub const SHOWN: SignedDuration = SignedDuration::from_secs(30);

/// So long after its outcome was written a Job or pod is still kept for its name's sake, unless its owner goes, too: what
/// was planned by anybody from what was written before can no longer create it a second time then. Whoever carries a plan
/// out counts it, from the first plan that lets the Job or pod go.
pub const NAME_HELD: SignedDuration = SignedDuration::from_secs(30);

/// So long an object that was read or written counts as the newest, and a Job or pod may be created for it. With what a
/// plan may take after that, and a request on its way, that is less than [`NAME_HELD`].
pub const NEWEST: SignedDuration = SignedDuration::from_secs(3);

/// A Job with its pods.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The Job.
    pub job: &'a JobView,
    /// Its pods.
    pub pods: &'a [PodView],
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It completed.
    Succeeded,
    /// It failed: Kubernetes' words.
    Failed(String),
    /// It was deleted before it ended.
    Deleted,
}

/// What is done with Jobs, or pods, that exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Delete one, a Job with its pods.
    Delete {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// The version in which it was seen, where that matters.
        version: Option<String>,
    },
    /// Delete a pod of a Job that is being deleted.
    EndPod {
        /// The pod's name.
        pod: String,
        /// Its UID.
        uid: String,
    },
    /// Take the finalizer off one, [`NAME_HELD`] after that is first planned.
    LetGo {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

impl<'a> Kept<'a> {
    /// Whether the finalizer keeps it.
    pub fn kept(&self) -> bool {
        self.job.finalizers.iter().any(|finalizer| finalizer == keys::OUTCOME)
    }

    /// Nothing of it runs any more. Pods that Kubernetes counts and no watch shows may be another's by now: who deletes
    /// a Job may choose to leave its pods behind.
    pub fn quiet(&self, now: Timestamp) -> bool {
        let long_gone = self.job.deleted_at.is_some_and(|at| now.duration_since(at) >= SHOWN);
        (self.job.active == 0 || long_gone) && self.pods.iter().all(|pod| pod.phase.is_terminal())
    }

    /// Pods that are left although it is being deleted: Kubernetes takes them only once the Job is gone, which it is not
    /// while it is kept, or while it waits for them, if it knew of them by then.
    pub fn left_behind(&self) -> impl Iterator<Item = &'a PodView> + use<'a> {
        let waits = self.job.finalizers.iter().any(|f| f == "foregroundDeletion" || f == "orphan");
        let ends = self.job.terminating && self.kept() && !waits;
        self.pods.iter().filter(move |pod| ends && pod.alive())
    }

    /// How it ended, once it has. One that is being deleted has when nothing of it runs any more.
    pub fn ended(&self, now: Timestamp) -> Option<Ended> {
        match &self.job.finished {
            Some(finished) if finished.well => Some(Ended::Succeeded),
            // Its pods were deleted, and count as failed.
            Some(finished) if self.job.deleted_at.is_some_and(|at| Some(at) < finished.at) => {
                Some(Ended::Deleted)
            }
            Some(finished) => Some(Ended::Failed(finished.why.clone().unwrap_or_default())),
            None if self.job.terminating && self.quiet(now) => Some(Ended::Deleted),
            None => None,
        }
    }

    /// What ends the pods that it has left behind.
    pub fn endings(&self) -> impl Iterator<Item = Upkeep> + use<'a> {
        self.left_behind().map(|pod| Upkeep::EndPod { pod: pod.name.clone(), uid: pod.uid.clone() })
    }

    /// What takes the finalizer off.
    pub fn let_go(&self) -> Upkeep {
        Upkeep::LetGo { name: self.job.name.clone(), uid: self.job.uid.clone() }
    }

    /// What deletes it, in whatever version.
    pub fn delete(&self) -> Upkeep {
        Upkeep::Delete { name: self.job.name.clone(), uid: self.job.uid.clone(), version: None }
    }
}
