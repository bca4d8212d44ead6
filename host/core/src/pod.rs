//! A pod as core sees it: the few fields that rules read, and nothing else, because thousands are held in
//! memory at a time.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

/// A pod's phase (Kubernetes: Pod Lifecycle).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted, not all containers started.
    Pending,
    /// Bound to a node, at least one container runs or is starting.
    Running,
    /// All containers ended well and will not restart.
    Succeeded,
    /// All containers ended, at least one badly.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

impl Phase {
    /// True when the pod's work has ended for good.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A condition of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCondition {
    /// Its type, such as `Ready`.
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Its machine-readable reason.
    pub reason: Option<String>,
    /// Since when it has this status.
    pub since: Option<Timestamp>,
}

/// How a pod ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodEnd {
    /// When the first of its containers started, as far as the kubelet tells.
    pub started: Option<Timestamp>,
    /// When the last of its containers ended, as far as the kubelet tells.
    pub at: Option<Timestamp>,
    /// Why, in the kubelet's words, if it failed and there are any: at most 256 characters.
    pub why: Option<String>,
}

/// A pod as last seen in the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Name in the pool's namespace.
    pub name: String,
    /// UID: a pod of the same name made later is another pod.
    pub uid: String,
    /// Version at which all this was seen: deletes carry it (I1).
    pub resource_version: String,
    /// The pool's slot that it fills; None when its label is missing or not a number.
    pub slot: Option<u32>,
    /// When it was created.
    pub created: Timestamp,
    /// Its phase.
    pub phase: Phase,
    /// It is being deleted.
    pub terminating: bool,
    /// When its containers are to have ended then: Kubernetes counts the grace period in.
    pub deleted_at: Option<Timestamp>,
    /// That period, in seconds.
    pub grace: u32,
    /// Its finalizers, if Stoker's is one of them: all of them, in order.
    pub finalizers: Vec<String>,
    /// How it ended, if it has.
    pub ended: Option<PodEnd>,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// The named ports of its containers.
    pub ports: Vec<(String, u16)>,
    /// Its node takes no new pods, or is not Ready.
    pub displaced: bool,
    /// Restarts of its containers, summed.
    pub restarts: u32,
    /// Why a container of it does not start, in the kubelet's words.
    pub waiting: Option<String>,
    /// What it left as its termination message, if it is a pod of a flow's step and has succeeded: at most 4 KiB.
    pub message: Option<String>,
    /// When the last of its containers that run, or have ended, started.
    pub containers_started: Option<Timestamp>,
    /// When the gate began to hold it, if it has one: its images were there.
    pub gate_started: Option<Timestamp>,
    /// Its conditions.
    pub conditions: Vec<PodCondition>,
    /// Hash of the template that it was made from.
    pub template_hash: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl PodView {
    /// The condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.conditions.iter().find(|c| c.type_ == type_)
    }

    /// It is Ready now.
    pub fn ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True")
    }

    /// It exists, has not ended, and is not being deleted.
    pub fn alive(&self) -> bool {
        !self.terminating && !self.phase.is_terminal()
    }

    /// When somebody began to delete it.
    pub fn deletion_began(&self) -> Option<Timestamp> {
        let at = self.deleted_at?;
        Some(at.saturating_sub(SignedDuration::from_secs(self.grace.into())).unwrap_or(at))
    }

    /// The scheduler has found no node for it.
    pub fn unschedulable(&self) -> bool {
        self.node.is_none()
            && self
                .condition("PodScheduled")
                .is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable"))
    }

    /// It was seen at work, and was marked so.
    pub fn used(&self) -> bool {
        self.annotations.get(stoker_api::keys::USED).is_some_and(|v| v == "true")
    }

    /// It was claimed, and did not turn busy in time.
    pub fn abandoned(&self) -> bool {
        self.annotations.get(stoker_api::keys::USED).is_some_and(|v| v == stoker_api::keys::ABANDONED)
    }

    /// An administrator allows its removal whatever it does.
    pub fn force_remove(&self) -> bool {
        self.annotations.get(stoker_api::keys::FORCE_REMOVE).is_some_and(|v| v == "true")
    }
}
