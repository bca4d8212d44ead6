//! NodeBatchJob objects: on a schedule, a pod on every node that is chosen. Which ones, how many at a time and what became of
//! them is core's to say; creations never wait for the status, unless it begins an execution.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action as Next;
use serde_json::Value;
use stoker_api::{ExecutionState, NodeBatchJob, NodeBatchJobState, NodeBatchJobStatus, keys};
use stoker_core::PodView;
use stoker_core::node_batch::{self, Look, NewPod, Plan, Timetable, Told};

use crate::context::{Context, Scope};
use crate::kept::{
    Deed, Keeper, KeptError, Maker, Memory, News, Remembered, carry_out, create, hand_over, key, later,
    turned_bad, undone, until,
};
use crate::looked::Looked;
use crate::object::Kind;
use crate::pod_logs::LogOf;
use crate::slim_pod::SlimPod;

/// Before the nodes have been listed; that asks for a look itself.
const NO_NODES_YET: Duration = Duration::from_secs(5);

impl Keeper for NodeBatchJob {
    const KIND: Kind = Kind::NodeBatchJob;
    const CREATES: usize = 16;
    type Child = SlimPod;
    type Told = Told;
    type Own = ();

    fn remembered(context: &Context) -> &Remembered<Self> {
        &context.node_batch_jobs
    }

    fn looked(scope: &Scope) -> &Looked<Self> {
        &scope.node_batch_jobs
    }

    /// Nothing of an execution is created before that is written.
    fn urgent(before: &NodeBatchJobStatus, after: &NodeBatchJobStatus) -> bool {
        let newest = |of: &NodeBatchJobStatus| of.executions.first().map(|execution| execution.id.clone());
        before.state != after.state || newest(before) != newest(after)
    }

    async fn look(
        context: &Arc<Context>,
        object: &Arc<Self>,
        memory: &mut Memory<Self>,
    ) -> Result<Next, KeptError> {
        look(context, object, memory).await
    }

    fn farewell(_: &Context, pods: &[PodView], _: Timestamp) -> Vec<Deed> {
        node_batch::farewell(pods).into_iter().map(Deed::from).collect()
    }

    fn leaving(&self) -> Option<NodeBatchJobStatus> {
        let status = self.status.clone()?;
        Some(NodeBatchJobStatus { state: Some(NodeBatchJobState::Terminating), ..status })
    }

    fn count_created(context: &Context, outcome: &'static str) {
        context.metrics.node_batches.created(outcome);
    }

    fn written(
        &self,
        context: &Context,
        before: &NodeBatchJobStatus,
        after: &NodeBatchJobStatus,
        told: &[Told],
    ) -> Vec<News> {
        count(context, before, after);
        let mut news: Vec<News> =
            told.iter().map(|told| News::new(told.warning, told.reason, told.words.clone())).collect();
        news.extend(turned_bad(&before.conditions, &after.conditions, &["TemplateValid"], &["Conflict"]));
        let invalid = turned_bad(&before.conditions, &after.conditions, &["Ready"], &[]);
        news.extend(invalid.into_iter().filter(|news| news.reason == "ReadySpecInvalid"));
        news
    }
}

/// Counts what ended since a status was written.
fn count(context: &Context, before: &NodeBatchJobStatus, after: &NodeBatchJobStatus) {
    let metrics = &context.metrics.node_batches;
    for execution in &after.executions {
        let was = before.executions.iter().find(|known| known.id == execution.id);
        let none = Default::default();
        let (was_nodes, is) = (was.map_or(&none, |was| &was.nodes), &execution.nodes);
        let since = |was: u32, is: u32| u64::from(is.saturating_sub(was));
        metrics.nodes_ended("succeeded", since(was_nodes.succeeded, is.succeeded));
        metrics.nodes_ended("failed", since(was_nodes.failed, is.failed));
        metrics.nodes_ended("gone", since(was_nodes.gone, is.gone));
        if execution.completion_time.is_some() && was.is_none_or(|was| was.completion_time.is_none()) {
            metrics.execution_ended(match execution.state {
                ExecutionState::Replaced => "replaced",
                ExecutionState::Failed => "failed",
                ExecutionState::Succeeded | ExecutionState::Running => "succeeded",
            });
        }
    }
    let since = |was: u32, is: u32| u64::from(is.saturating_sub(was));
    metrics.left_out("missed", since(before.missed_count, after.missed_count));
    metrics.left_out("skipped", since(before.skipped_count, after.skipped_count));
}

async fn look(
    context: &Arc<Context>,
    object: &Arc<NodeBatchJob>,
    memory: &mut Memory<NodeBatchJob>,
) -> Result<Next, KeptError> {
    let (uid, key, now) = (object.uid().unwrap_or_default(), key(&**object), Timestamp::now());
    let Some(nodes) = context.nodes.all() else { return Ok(Next::requeue(NO_NODES_YET)) };
    let touched = context.owners.take_touched(&key);
    let hash = node_batch::template_hash(&object.spec);
    memory.refusals.retain(|refused| refused == hash);

    let pods = memory.children(context, &uid).await;
    let taken: BTreeMap<String, bool> =
        memory.conflicts.all().map(|(name, due)| (name.to_owned(), due)).collect();
    let refused = memory.refusals.waiting().next().map(|(_, words)| words.to_owned());
    let times = Timetable::read(&object.spec);
    let plan = node_batch::plan(
        &Look {
            object,
            times: times.as_ref().map_err(String::as_str),
            nodes: &nodes,
            pods: &pods,
            refused: refused.as_deref(),
            taken: &taken,
            saved: &|pod| context.pod_logs.saved(pod),
            callbacks: context.callbacks.is_some(),
        },
        now,
    );
    let Plan { create: wanted, upkeep, save, status, told, wake_at } = plan;
    let (any, mut failed) = make(context, object, memory, wanted, &hash, touched).await;
    save_logs(context, object, &pods, &save);
    let upkeep = upkeep.into_iter().map(Deed::from).collect();
    let carried_out = carry_out(context, object, &memory.farewells, upkeep).await;
    failed = failed.or(carried_out);
    let again = any && failed.is_none();
    if memory.status_waits(again) {
        return Ok(Next::requeue(Duration::ZERO));
    }
    let before = object.status.clone().unwrap_or_default();
    hand_over(context, &memory.outbox, object, (before, status), told);
    if let Some(error) = failed {
        return Ok(undone(memory, &key, &error));
    }
    memory.failures = 0;
    context.metrics.reconciled("ok");
    // What was made just now is to be told of, too.
    let at_once = again.then_some(Duration::ZERO);
    Ok(later([at_once, wake_at.map(until), memory.refusals.wake(), memory.conflicts.wake()]))
}

/// Creates pods. True = some now exist that were not known.
async fn make(
    context: &Arc<Context>,
    object: &Arc<NodeBatchJob>,
    memory: &mut Memory<NodeBatchJob>,
    wanted: Vec<NewPod>,
    hash: &str,
    touched: Option<Instant>,
) -> (bool, Option<KeptError>) {
    if wanted.is_empty() {
        return (false, None);
    }
    let maker = Maker {
        wanted: |latest: &NodeBatchJob, pods: Vec<NewPod>| {
            let status = latest.status.clone().unwrap_or_default();
            node_batch::still_wanted(&status, &pods).into_iter().cloned().collect()
        },
        hash: |_: &NewPod| hash.to_owned(),
        body: |pod: &NewPod| body(context, object, pod),
    };
    let made = create(context, object, memory, wanted, maker).await;
    if let Some(touched) = touched {
        for pod in &made.created {
            context.metrics.node_batches.refilled(pod.asked.saturating_duration_since(touched));
        }
    }
    (!made.created.is_empty(), made.failed)
}

/// The pod of a node.
fn body(context: &Context, object: &NodeBatchJob, pod: &NewPod) -> Value {
    let callbacks = context.callbacks.as_ref().and_then(|callbacks| callbacks.of(object, pod));
    node_batch::body(object, pod, callbacks.as_ref())
}

/// Has logs of pods that have ended saved.
fn save_logs(context: &Arc<Context>, object: &Arc<NodeBatchJob>, pods: &[PodView], save: &[String]) {
    let Some(callbacks) = &context.callbacks else { return };
    let containers = object.spec.pod_template.spec.get("containers").and_then(Value::as_array);
    let named = |container: &Value| container["name"].as_str().map(str::to_owned);
    let containers: Vec<String> = containers.into_iter().flatten().filter_map(named).collect();
    for pod in pods.iter().filter(|pod| save.contains(&pod.uid)) {
        let said = |key: &str| pod.annotations.get(key).cloned().unwrap_or_default();
        let new = NewPod {
            name: pod.name.clone(),
            node: said(keys::NODE),
            node_uid: said(keys::NODE_UID),
            execution: pod.labels.get(keys::EXECUTION).cloned().unwrap_or_default(),
            attempt: said(keys::ATTEMPT).parse().unwrap_or(1),
        };
        let Some(to) = callbacks.of(object, &new) else { continue };
        context.pod_logs.save(
            context,
            LogOf {
                owner: key(&**object),
                pod: pod.name.clone(),
                uid: pod.uid.clone(),
                containers: containers.clone(),
                file_url: to.file,
                most: object.spec.reports.max_bytes_per_upload,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use stoker_api::{Execution, ExecutionCause, ExecutionState, NodeCounts};

    use super::*;

    #[test]
    fn a_new_execution_or_state_is_written_at_once_and_what_pods_do_can_wait() {
        let status = |state, id: &str, succeeded| {
            let execution = Execution {
                id: id.to_owned(),
                cause: ExecutionCause::Schedule,
                instant: None,
                start_time: Timestamp::UNIX_EPOCH,
                completion_time: None,
                state: ExecutionState::Running,
                progress: String::new(),
                nodes: NodeCounts { succeeded, ..NodeCounts::default() },
                failed_nodes: Vec::new(),
                record: Default::default(),
            };
            NodeBatchJobStatus {
                state: Some(state),
                executions: vec![execution],
                ..NodeBatchJobStatus::default()
            }
        };
        let before = status(NodeBatchJobState::Running, "202608030910", 1);
        assert!(!NodeBatchJob::urgent(&before, &status(NodeBatchJobState::Running, "202608030910", 2)));
        assert!(NodeBatchJob::urgent(&before, &status(NodeBatchJobState::Running, "202608030910-2", 0)));
        assert!(NodeBatchJob::urgent(&before, &status(NodeBatchJobState::Waiting, "202608030910", 1)));
    }
}
