//! A NodeBatchJob, its nodes and its pods, for tests.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::{Value, json};
use stoker_api::NodeBatchJob;
use stoker_core::Phase;
use stoker_core::fan_out::{NodeKey, NodeView};
use stoker_core::node_batch::pod_name;
use stoker_reports::{ExecutionId, JobKey, PodSlot};

use super::pod::NodePod;

pub const EXECUTION: &str = "202608030910";

/// The job `disks`, with that status.
pub fn object(status: Value) -> NodeBatchJob {
    serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "NodeBatchJob",
        "metadata": {"name": "disks", "namespace": "ops", "uid": "job-uid"},
        "spec": {
            "podTemplate": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
            "reports": {
                "history": 3, "ttl": "1h30m", "maxBytesPerUpload": 4096, "maxBytesPerExecution": 8192,
            },
            "metrics": {
                "prefix": "disk",
                "gauges": {"free": {"help": "Free bytes", "labels": ["mount"]}},
                "latestLabel": true,
                "maxSeries": 7,
            },
        },
        "status": status,
    }))
    .unwrap()
}

/// A node that is Ready.
pub fn node(name: &str) -> NodeView {
    NodeView { name: name.into(), uid: format!("{name}-uid"), ready: true, ..NodeView::default() }
}

/// A pod on node `n1` that runs.
pub fn pod(attempt: u16) -> NodePod {
    NodePod {
        namespace: "ops".into(),
        name: pod_name("disks", "job-uid", "n1", "n1-uid", EXECUTION, attempt),
        uid: format!("pod-uid-{attempt}"),
        job: "job-uid".into(),
        execution: EXECUTION.into(),
        node: "n1".into(),
        node_uid: "n1-uid".into(),
        key: NodeKey::of("n1-uid"),
        attempt,
        created: Timestamp::UNIX_EPOCH,
        phase: Phase::Running,
        terminating: false,
        gone: false,
        ended: None,
        ran: None,
    }
}

/// The slot of a pod.
pub fn slot(pod: &NodePod) -> PodSlot {
    PodSlot {
        job: JobKey { namespace: pod.namespace.clone(), name: "disks".into() },
        uid: pod.job.clone(),
        execution: pod.execution.parse::<ExecutionId>().unwrap(),
        node: pod.node.clone(),
        pod: pod.name.clone(),
    }
}
