//! A pod of a NodeBatchJob as the report service sees it.

use std::time::Duration;

use jiff::Timestamp;
use stoker_api::{GROUP, keys};
use stoker_core::Phase;
use stoker_core::fan_out::NodeKey;
use stoker_operator::SlimPod;
use stoker_reports::NodeState;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The UID of the NodeBatchJob that made it.
    pub job: String,
    /// The execution's id.
    pub execution: String,
    pub node: String,
    pub node_uid: String,
    /// By what the execution's record knows the node.
    pub key: NodeKey,
    /// From 1.
    pub attempt: u16,
    pub created: Timestamp,
    pub phase: Phase,
    /// It is being deleted.
    pub terminating: bool,
    /// It was deleted; this is how it was at last.
    pub gone: bool,
    /// When it ended, if it has and that is known.
    pub ended: Option<Timestamp>,
    /// How long it ran, if it has ended and that is known.
    pub ran: Option<Duration>,
}

impl NodePod {
    /// `None` = it is no NodeBatchJob's, or does not say which execution, node and attempt it is for.
    pub fn of(pod: SlimPod) -> Option<Self> {
        let owners = pod.metadata.owner_references.iter().flatten();
        let group = |version: &str| version.split_once('/').is_some_and(|(group, _)| group == GROUP);
        let job = owners
            .filter(|owner| owner.controller == Some(true))
            .find(|owner| owner.kind == "NodeBatchJob" && group(&owner.api_version))?
            .uid
            .clone();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let mut pod = pod.into_view();
        let mut said = |key: &str| pod.annotations.remove(key);
        let (node, node_uid) = (said(keys::NODE)?, said(keys::NODE_UID)?);
        let attempt = said(keys::ATTEMPT)?.parse().ok()?;
        let end = pod.ended.unwrap_or_default();
        Some(Self {
            namespace,
            job,
            execution: pod.labels.remove(keys::EXECUTION)?,
            key: NodeKey::of(&node_uid),
            node,
            node_uid,
            attempt,
            name: pod.name,
            uid: pod.uid,
            created: pod.created,
            phase: pod.phase,
            terminating: pod.terminating,
            gone: false,
            ended: end.at,
            ran: end.started.zip(end.at).map(|(from, to)| to.duration_since(from).unsigned_abs()),
        })
    }

    /// It has not ended, and nobody ends it.
    pub fn is_alive(&self) -> bool {
        !self.gone && !self.terminating && !self.phase.is_terminal()
    }

    /// What the pod alone tells of its node. In an execution that is over, one that is deleted has failed; before, another
    /// may follow.
    pub fn state(&self, over: bool) -> NodeState {
        match self.phase {
            Phase::Succeeded => NodeState::Succeeded,
            Phase::Failed => NodeState::Failed,
            _ if over && !self.is_alive() => NodeState::Failed,
            _ if self.gone => NodeState::Waiting,
            _ => NodeState::Running,
        }
    }
}
