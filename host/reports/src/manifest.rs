//! What describes an execution in the store, beside its reports: its nodes and, once it is over, what became of each. The
//! cluster forgets that: the status after the next execution, pods and nodes whenever they go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Bytes;
use jiff::Timestamp;
use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Serialize};

use crate::cluster::{ExecutionView, NodeState, NodeView};
use crate::names::MANIFEST;
use crate::store::{self, Store, StoreError};

/// Longest description of an execution that is read back, in bytes: 20,000 nodes with names of the greatest length.
const MAX_MANIFEST: u64 = 8 << 20;

/// What describes an execution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    pub started: Option<Timestamp>,
    /// When it was over. `None` = it runs, or nobody saw its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// All nodes that were chosen. What became of one is final, and there once the execution is over.
    pub nodes: BTreeMap<String, Option<Outcome>>,
}

/// What became of an execution on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub state: NodeState,
    /// Its last pod.
    pub pod: String,
    /// How long that ran, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
}

impl Outcome {
    fn of(node: &NodeView) -> Self {
        let milliseconds = node.duration.map(|ran| u64::try_from(ran.as_millis()).unwrap_or(u64::MAX));
        Self { state: node.state, pod: node.pod.clone(), milliseconds }
    }

    /// How long the pod ran.
    pub fn duration(&self) -> Option<Duration> {
        self.milliseconds.map(Duration::from_millis)
    }
}

impl Manifest {
    /// Reads it from an execution's folder; empty if it is missing or broken.
    pub async fn read(store: &Store, folder: &ObjectPath) -> Result<Self, StoreError> {
        let Some(path) = store::file(folder, MANIFEST) else { return Ok(Self::default()) };
        let bytes = store.read(&path, MAX_MANIFEST).await?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Writes it, durably but for its folder.
    pub async fn write(&self, store: &Store, folder: &ObjectPath) -> Result<(), StoreError> {
        let Some(path) = store::file(folder, MANIFEST) else { return Ok(()) };
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        store.put(&path, Bytes::from(bytes)).await
    }

    /// The names of the nodes.
    pub fn names(&self) -> BTreeSet<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Takes in nodes that are chosen. What is written of others stays.
    pub fn expect(&mut self, view: &ExecutionView) {
        if self.ended.is_none() {
            self.started = Some(view.started);
        }
        for name in view.nodes.keys() {
            self.nodes.entry(name.clone()).or_default();
        }
    }

    /// Takes in how it ended.
    pub fn conclude(&mut self, view: &ExecutionView) {
        self.started = Some(view.started);
        self.ended = view.ended;
        let ended = view.nodes.iter().map(|(name, node)| (name.clone(), Some(Outcome::of(node))));
        self.nodes.extend(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(nodes: &[(&str, NodeState)]) -> ExecutionView {
        let node = |state| NodeView {
            pod: "p".into(),
            earlier: Vec::new(),
            state,
            duration: Some(Duration::from_millis(1500)),
        };
        ExecutionView {
            started: Timestamp::UNIX_EPOCH,
            ended: Some(Timestamp::UNIX_EPOCH),
            nodes: nodes.iter().map(|(name, state)| ((*name).to_owned(), node(*state))).collect(),
            complete: true,
        }
    }

    #[test]
    fn what_is_written_down_is_read_again_and_nodes_that_come_later_change_nothing() {
        let mut manifest = Manifest::default();
        manifest.expect(&view(&[("a", NodeState::Waiting), ("left", NodeState::Waiting)]));
        manifest.conclude(&view(&[("a", NodeState::Failed), ("b", NodeState::Succeeded)]));
        let concluded = manifest.clone();
        manifest.expect(&view(&[("a", NodeState::Succeeded), ("c", NodeState::Running)]));
        assert_eq!(manifest.nodes["a"], concluded.nodes["a"]);
        assert_eq!((&manifest.nodes["c"], &manifest.nodes["left"]), (&None, &None));
        let text = serde_json::to_string(&manifest).unwrap();
        assert!(text.contains(r#""a":{"state":"failed","pod":"p","milliseconds":1500}"#), "{text}");
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
    }
}
