//! A pod as that of a node: which execution and attempt it is, and how it ended.

use jiff::{SignedDuration, Timestamp};
use stoker_api::keys;

use crate::fan_out::{Task, TaskState};
use crate::kept::SHOWN;
use crate::pod::{Phase, PodView};

/// What a pod says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodePod<'a> {
    pub pod: &'a PodView,
    pub node: &'a str,
    pub uid: &'a str,
    pub execution: &'a str,
    pub attempt: u16,
}

impl<'a> NodePod<'a> {
    /// None = it does not say which node, execution and attempt it is for.
    pub fn of(pod: &'a PodView) -> Option<Self> {
        let said = |key: &str| pod.annotations.get(key).map(String::as_str);
        Some(Self {
            pod,
            node: said(keys::NODE)?,
            uid: said(keys::NODE_UID)?,
            execution: pod.labels.get(keys::EXECUTION)?,
            attempt: said(keys::ATTEMPT)?.parse().ok()?,
        })
    }

    /// Whether the finalizer keeps it.
    pub fn kept(&self) -> bool {
        self.pod.finalizers.iter().any(|finalizer| finalizer == keys::OUTCOME)
    }

    /// When it ended, as far as that is known.
    fn end(&self) -> Option<Timestamp> {
        let ended = self.pod.ended.as_ref().and_then(|ended| ended.at);
        ended.or(self.pod.deleted_at)
    }

    /// When it is to have ended.
    pub fn due(&self, limit: Option<SignedDuration>) -> Option<Timestamp> {
        limit.map(|limit| self.pod.created.saturating_add(limit).unwrap_or(Timestamp::MAX))
    }

    /// What it does. `limit` is how long after its creation it may take.
    pub fn state(&self, limit: Option<SignedDuration>, now: Timestamp) -> TaskState {
        let pod = self.pod;
        if pod.phase == Phase::Succeeded {
            return TaskState::Succeeded;
        }
        let over = pod.phase == Phase::Failed || pod.terminating && self.given_up(now);
        if !over {
            return TaskState::Running;
        }
        let at = self.end();
        if self.due(limit).is_some_and(|due| due <= at.unwrap_or(now)) {
            let seconds = limit.unwrap_or_default().as_secs();
            let why = format!("DeadlineExceeded: it had not ended {seconds} s after its creation");
            return TaskState::Failed { why, at };
        }
        let ended = pod.ended.as_ref();
        let end = ended.and_then(|ended| ended.at);
        let deleted = pod.deletion_began().is_some_and(|began| end.is_none_or(|end| began <= end));
        if deleted {
            return TaskState::Deleted { at };
        }
        TaskState::Failed { why: ended.and_then(|ended| ended.why.clone()).unwrap_or_default(), at }
    }

    /// It is being deleted, and no kubelet will tell of its end: it never had a node, or its node has been silent since.
    fn given_up(&self, now: Timestamp) -> bool {
        let silent = self.pod.deleted_at.is_some_and(|at| now.duration_since(at) >= SHOWN);
        self.pod.node.is_none() || silent
    }

    /// When it is given up if its kubelet stays silent.
    pub fn given_up_at(&self) -> Option<Timestamp> {
        let deleted = self.pod.deleted_at.filter(|_| !self.pod.phase.is_terminal())?;
        Some(deleted.saturating_add(SHOWN).unwrap_or(Timestamp::MAX))
    }

    /// It as a task.
    pub fn task(&self, limit: Option<SignedDuration>, now: Timestamp) -> Task<'a> {
        Task {
            node: self.node,
            uid: self.uid,
            attempt: self.attempt,
            stale: false,
            created: self.pod.created,
            state: self.state(limit, now),
        }
    }

    /// So long after its end.
    pub fn after_end(&self, span: SignedDuration, now: Timestamp) -> Timestamp {
        self.end().unwrap_or(now).saturating_add(span).unwrap_or(Timestamp::MAX)
    }
}
