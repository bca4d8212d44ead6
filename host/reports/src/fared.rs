//! How an execution fared on its nodes, from whoever knows best: the cluster while it runs, the store once it is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cluster::{ExecutionView, JobView, NodeState};
use crate::manifest::Manifest;
use crate::series::JobSeries;
use crate::slot::ExecutionId;

/// How one execution fared.
#[derive(Clone, Copy)]
pub enum Fared<'a> {
    Cluster(&'a ExecutionView),
    Store(&'a Manifest),
}

/// How it fared on one node.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    pub name: &'a str,
    /// Its last pod, if it is known.
    pub pod: Option<&'a str>,
    /// `None` = it has reported, and nobody knows more.
    pub state: Option<NodeState>,
    pub duration: Option<Duration>,
}

impl<'a> Fared<'a> {
    /// Who knows best, if anybody does.
    pub fn best(view: Option<&'a ExecutionView>, written: Option<&'a Manifest>) -> Option<Self> {
        let written = written.filter(|written| written.ended.is_some());
        match (view, written) {
            (Some(view), _) if view.ended.is_none() => Some(Self::Cluster(view)),
            (_, Some(written)) => Some(Self::Store(written)),
            (Some(view), None) => Some(Self::Cluster(view)),
            (None, None) => None,
        }
    }

    pub fn started(self) -> Option<Timestamp> {
        match self {
            Self::Cluster(view) => Some(view.started),
            Self::Store(written) => written.started,
        }
    }

    pub fn ended(self) -> Option<Timestamp> {
        match self {
            Self::Cluster(view) => view.ended,
            Self::Store(written) => written.ended,
        }
    }

    /// Whether all its nodes are known.
    pub fn is_complete(self) -> bool {
        match self {
            Self::Cluster(view) => view.complete,
            Self::Store(_) => true,
        }
    }

    /// Its nodes, by name.
    pub fn nodes(self) -> Box<dyn Iterator<Item = Node<'a>> + 'a> {
        match self {
            Self::Cluster(view) => Box::new(view.nodes.iter().map(|(name, node)| Node {
                name,
                pod: Some(node.pod.as_str()).filter(|_| node.state != NodeState::Waiting),
                state: Some(node.state),
                duration: node.duration,
            })),
            Self::Store(written) => Box::new(written.nodes.iter().map(|(name, outcome)| Node {
                name,
                pod: outcome.as_ref().map(|outcome| outcome.pod.as_str()),
                state: outcome.as_ref().map(|outcome| outcome.state),
                duration: outcome.as_ref().and_then(|outcome| outcome.duration()),
            })),
        }
    }
}

/// All executions of a job that are kept and of which something is known, the oldest first.
pub fn all<'a>(job: &'a JobView, series: &'a JobSeries) -> BTreeMap<&'a ExecutionId, Fared<'a>> {
    let ids = job.executions.keys().chain(series.over.keys());
    ids.filter(|id| !series.pruned.contains(id))
        .filter_map(|id| {
            let written = series.over.get(id).map(Arc::as_ref);
            Fared::best(job.executions.get(id), written).map(|fared| (id, fared))
        })
        .collect()
}
