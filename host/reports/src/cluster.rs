//! What the service must know of the cluster, behind one trait: whoever watches NodeBatchJobs answers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::event::PodEvent;
use crate::slot::{ExecutionId, JobKey, PodSlot};

/// How long changes are gathered before those who wait for one look again.
const TOGETHER: Duration = Duration::from_millis(20);

/// What is asked of the cluster. The two look-ups read memory and answer at once.
pub trait Cluster: Send + Sync + 'static {
    /// The NodeBatchJob, or `None` if there is none of that name.
    fn job(&self, key: &JobKey) -> Result<Option<Arc<JobView>>, NotReady>;

    /// All NodeBatchJobs.
    fn jobs(&self) -> Result<Vec<Arc<JobView>>, NotReady>;

    /// Changes whenever one of the two may answer otherwise than before.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether all that is known is as new as watches tell it; false while one of them is broken.
    fn is_current(&self) -> bool;

    /// Records an Event on the pod; returns once the API server has taken it.
    fn send_event<'a>(
        &'a self,
        slot: &'a PodSlot,
        event: &'a PodEvent,
    ) -> BoxFuture<'a, Result<(), EventRefused>>;
}

/// The cluster is not known yet, as right after a start, or not well enough to tell what there is not. Nobody is turned away
/// for that: callers try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the NodeBatchJobs cannot be seen at the moment; try again")]
pub struct NotReady;

/// Why an Event was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventRefused {
    #[error("the pod is gone, there is nothing to put the Event on")]
    PodGone,
    #[error("the API server did not take the Event, try again: {0}")]
    Unavailable(String),
}

/// A NodeBatchJob as far as its reports go.
#[derive(Clone, Debug)]
pub struct JobView {
    pub key: JobKey,
    pub uid: String,
    pub limits: ReportLimits,
    pub retention: Retention,
    /// `None` = its results become no metrics.
    pub metrics: Option<MetricsSpec>,
    /// The executions whose pods may report, running ones and past ones that are still in the status.
    pub executions: BTreeMap<ExecutionId, ExecutionView>,
}

/// How much may be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportLimits {
    /// Bytes of one request's body.
    pub bytes_per_upload: u64,
    /// Bytes kept for one execution; every file counts in whole blocks of 4 KiB.
    pub bytes_per_execution: u64,
}

/// What is kept of past executions. One that runs is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Executions kept, the newest first.
    pub history: usize,
    /// How long after its last report, and after its end, an execution is kept; `None` = as long as the history has room.
    pub ttl: Option<Duration>,
}

impl Retention {
    /// Whether an execution that ended then is not kept any more unless something was reported since.
    pub fn is_too_old(&self, ended: Option<Timestamp>) -> bool {
        let since = ended.map(|ended| Timestamp::now().duration_since(ended).unsigned_abs());
        self.ttl.zip(since).is_some_and(|(ttl, since)| since > ttl)
    }
}

/// The metrics that results become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSpec {
    pub prefix: String,
    /// By name, without the prefix.
    pub gauges: BTreeMap<String, Gauge>,
    /// Whether each series is there a second time, with `executionID="latest"`.
    pub latest_label: bool,
    /// Most series of results at a time, and most that tell of nodes.
    pub max_series: usize,
}

/// A result gauge. `node` and `executionID` come on top of its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    pub help: String,
    pub labels: Vec<String>,
}

/// One execution.
#[derive(Clone, Debug)]
pub struct ExecutionView {
    pub started: Timestamp,
    /// `None` = it runs.
    pub ended: Option<Timestamp>,
    /// By node: all that were chosen, those whose pods are yet to come among them.
    pub nodes: BTreeMap<String, NodeView>,
    /// Whether that is all of them. Of an execution that ended long ago, the cluster may tell of a few only.
    pub complete: bool,
}

impl ExecutionView {
    /// Whether it is over, and what became of each of its nodes is known for good.
    pub fn is_settled(&self) -> bool {
        self.ended.is_some() && self.complete && self.nodes.values().all(|node| node.state.is_final())
    }
}

/// An execution on one node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The pod that counts: the last one that was made.
    pub pod: String,
    /// Pods before it, whose late reports are kept aside.
    pub earlier: Vec<String>,
    pub state: NodeState,
    /// How long the pod ran, once it has ended.
    pub duration: Option<Duration>,
}

/// What has become of an execution on a node. `Failed` is final for the pod: no report undoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// No pod yet.
    Waiting,
    Running,
    Succeeded,
    /// The pod failed, passed its deadline, was deleted, or could not be made.
    Failed,
    /// The node left before its work had ended: nothing is expected of it.
    Gone,
}

impl NodeState {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }

    /// Whether its work there has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Gone)
    }
}

/// What is known of a pod that reports.
pub struct Standing {
    pub job: Arc<JobView>,
    /// Whether it is the node's last pod.
    pub current: bool,
}

/// Why a pod with a good URL may not report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error("there is no NodeBatchJob {0} with this UID any more")]
    Job(JobKey),
    #[error("execution {0} is not known, or is not kept any more")]
    Execution(ExecutionId),
    #[error("node {0} is not part of the execution, or this pod is none of its pods")]
    Node(String),
}

/// Finds the pod in what the cluster knows now.
pub fn look(cluster: &dyn Cluster, slot: &PodSlot) -> Result<Standing, Unknown> {
    let found = cluster.job(&slot.job)?.filter(|job| job.uid == slot.uid);
    let job = found.ok_or_else(|| Unknown::Job(slot.job.clone()))?;
    let execution =
        job.executions.get(&slot.execution).ok_or_else(|| Unknown::Execution(slot.execution.clone()))?;
    let current = match execution.nodes.get(&slot.node) {
        Some(node) if node.pod == slot.pod => true,
        Some(node) if node.earlier.contains(&slot.pod) => false,
        _ => return Err(Unknown::Node(slot.node.clone())),
    };
    Ok(Standing { job, current })
}

/// Waits until the cluster knows the pod, which Stoker has made if its URL is good: watches may be late. One that is not
/// known after `patience` is not there, unless watches are broken.
pub async fn standing(
    cluster: &dyn Cluster,
    slot: &PodSlot,
    patience: Duration,
) -> Result<Standing, Unknown> {
    let mut changes = cluster.changes();
    let until = Instant::now() + patience;
    loop {
        // What changes after this is seen below.
        changes.borrow_and_update();
        let unknown = match look(cluster, slot) {
            Ok(standing) => return Ok(standing),
            Err(unknown) => unknown,
        };
        match timeout_at(until, changes.changed()).await {
            Ok(Ok(())) => sleep(TOGETHER).await,
            Ok(Err(_)) | Err(_) if cluster.is_current() => return Err(unknown),
            Ok(Err(_)) | Err(_) => return Err(NotReady.into()),
        }
    }
}
