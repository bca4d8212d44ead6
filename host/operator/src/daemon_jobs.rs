//! DaemonJob objects: a Job on every node that is chosen. Which ones, how many at a time and what became of them is core's
//! to say; creations never wait for the status, unless it begins a run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action as Next;
use serde_json::{Map, Value, json};
use stoker_api::{DaemonJob, DaemonJobState, DaemonJobStatus, keys};
use stoker_core::daemon_job::{self, Look, NewJob, Plan, Told};
use stoker_core::flow::merge_pod_template;
use stoker_core::kept::Kept;
use stoker_core::pool::JobView;

use crate::context::{Context, Scope};
use crate::kept::{
    Deed, Keeper, KeptError, Maker, Memory, News, Remembered, carry_out, create, hand_over, key, later,
    turned_bad, undone, until,
};
use crate::looked::Looked;
use crate::object::Kind;
use crate::slim_job::SlimJob;

/// Before the nodes have been listed; that asks for a look itself.
const NO_NODES_YET: Duration = Duration::from_secs(5);

impl Keeper for DaemonJob {
    const KIND: Kind = Kind::DaemonJob;
    const CREATES: usize = 16;
    type Child = SlimJob;
    type Told = Told;
    type Own = ();

    fn remembered(context: &Context) -> &Remembered<Self> {
        &context.daemon_jobs
    }

    fn looked(scope: &Scope) -> &Looked<Self> {
        &scope.daemon_jobs
    }

    /// Nothing of a run is created before that is written.
    fn urgent(before: &DaemonJobStatus, after: &DaemonJobStatus) -> bool {
        let what = |of: &DaemonJobStatus| (of.run, of.state, of.resume_time);
        what(before) != what(after)
    }

    async fn look(
        context: &Arc<Context>,
        object: &Arc<Self>,
        memory: &mut Memory<Self>,
    ) -> Result<Next, KeptError> {
        look(context, object, memory).await
    }

    fn farewell(_: &Context, jobs: &[JobView], _: Timestamp) -> Vec<Deed> {
        // What their pods do does not matter.
        let kept: Vec<Kept<'_>> = jobs.iter().map(|job| Kept { job, pods: &[] }).collect();
        daemon_job::farewell(&kept).into_iter().map(Deed::from).collect()
    }

    fn leaving(&self) -> Option<DaemonJobStatus> {
        let status = self.status.clone()?;
        Some(DaemonJobStatus { state: Some(DaemonJobState::Terminating), ..status })
    }

    fn count_created(context: &Context, outcome: &'static str) {
        context.metrics.flows.node_created(outcome);
    }

    fn written(
        &self,
        context: &Context,
        before: &DaemonJobStatus,
        after: &DaemonJobStatus,
        told: &[Told],
    ) -> Vec<News> {
        for (outcome, count) in ended(before, after) {
            context.metrics.flows.nodes_ended(outcome, count);
        }
        if after.completion_time.is_some() && before.completion_time != after.completion_time {
            let failed = after.state == Some(DaemonJobState::Failed);
            context.metrics.flows.daemon_job_ended(if failed { "failed" } else { "succeeded" });
        }
        let mut news: Vec<News> =
            told.iter().map(|told| News::new(told.warning, told.reason, told.words.clone())).collect();
        news.extend(turned_bad(&before.conditions, &after.conditions, &["TemplateValid"], &["Conflict"]));
        news
    }
}

/// How many nodes ended since a status was written, by outcome.
fn ended(before: &DaemonJobStatus, after: &DaemonJobStatus) -> [(&'static str, u64); 3] {
    let none = Default::default();
    let was = if before.run == after.run { &before.nodes } else { &none };
    let is = &after.nodes;
    let since = |was: u32, is: u32| u64::from(is.saturating_sub(was));
    [
        ("succeeded", since(was.succeeded, is.succeeded)),
        ("failed", since(was.failed, is.failed)),
        ("gone", since(was.gone, is.gone)),
    ]
}

/// What Jobs are made from, or why there is nothing.
fn template<'a>(context: &Context, object: &'a DaemonJob) -> Result<Cow<'a, Map<String, Value>>, String> {
    if let Some(inline) = daemon_job::inline_template(&object.spec) {
        return Ok(Cow::Borrowed(inline));
    }
    let (namespace, name) =
        (object.namespace().unwrap_or_default(), object.spec.job_template_ref.clone().unwrap_or_default());
    let found = context.scope_of(&namespace).and_then(|scope| scope.templates.get(&namespace, &name));
    let Some(found) = found else {
        return Err(format!(
            "there is no JobTemplate {name} in namespace {namespace}: create it, or correct jobTemplateRef"
        ));
    };
    let mut spec = found.spec.job.clone();
    if let Some(changes) = &object.spec.r#override {
        let pod = spec.get("template").unwrap_or(&Value::Null);
        let merged = merge_pod_template(pod, changes)?;
        spec.insert("template".to_owned(), merged);
    }
    Ok(Cow::Owned(spec))
}

async fn look(
    context: &Arc<Context>,
    object: &Arc<DaemonJob>,
    memory: &mut Memory<DaemonJob>,
) -> Result<Next, KeptError> {
    let (uid, key, now) = (object.uid().unwrap_or_default(), key(&**object), Timestamp::now());
    let Some(nodes) = context.nodes.all() else { return Ok(Next::requeue(NO_NODES_YET)) };
    if let Some(scope) = context.scope_of(&key.namespace) {
        scope.templates.listed().await;
    }
    context.templates.uses(&key, object.spec.job_template_ref.iter().cloned().collect());
    let template = template(context, object);
    let hash = match &template {
        Ok(template) => daemon_job::template_hash(&object.spec, template),
        Err(_) => String::new(),
    };
    memory.refusals.retain(|refused| refused == hash);

    let jobs = memory.children(context, &uid).await;
    // Of a Job that is not being deleted its own status tells everything.
    let pods: Vec<_> =
        jobs.iter().map(|job| if job.terminating { context.pods.of(&job.uid) } else { Vec::new() }).collect();
    let kept: Vec<Kept<'_>> = jobs.iter().zip(&pods).map(|(job, pods)| Kept { job, pods }).collect();
    let taken: BTreeMap<String, bool> =
        memory.conflicts.all().map(|(name, due)| (name.to_owned(), due)).collect();
    let refused = memory.refusals.waiting().next().map(|(_, words)| words.to_owned());
    let plan = daemon_job::plan(
        &Look {
            object,
            template: template.as_deref().map_err(String::as_str),
            nodes: &nodes,
            jobs: &kept,
            refused: refused.as_deref(),
            taken: &taken,
        },
        now,
    );
    let Plan { create: wanted, upkeep, status, contested, told, wake_at } = plan;
    memory.conflicts.retain(|name| contested.iter().any(|needed| needed == name));
    let (mut any, mut failed) = (false, None);
    if let Ok(template) = template.as_deref()
        && !wanted.is_empty()
    {
        let maker = Maker {
            wanted: |latest: &DaemonJob, jobs: Vec<NewJob>| {
                let status = latest.status.clone().unwrap_or_default();
                daemon_job::still_wanted(&status, &jobs).into_iter().cloned().collect()
            },
            hash: |_: &NewJob| hash.clone(),
            body: |job: &NewJob| body(object, template, job),
        };
        let made = create(context, object, memory, wanted, maker).await;
        (any, failed) = (!made.created.is_empty(), made.failed);
    }
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

/// The Job of a node.
fn body(object: &DaemonJob, template: &Map<String, Value>, job: &NewJob) -> Value {
    let mut body = daemon_job::body(object, template, job);
    if let Some(name) = &object.spec.job_template_ref {
        let made_from = format!("{}.{name}", object.namespace().unwrap_or_default());
        body["metadata"]["annotations"][keys::BY_TEMPLATE] = json!(made_from);
    }
    body
}

#[cfg(test)]
mod tests {
    use stoker_api::NodeCounts;

    use super::*;

    #[test]
    fn a_new_run_state_or_start_is_written_at_once_and_what_nodes_do_can_wait() {
        let before =
            DaemonJobStatus { run: 1, state: Some(DaemonJobState::Running), ..DaemonJobStatus::default() };
        let nodes = NodeCounts { succeeded: 2, ..NodeCounts::default() };
        assert!(!DaemonJob::urgent(&before, &DaemonJobStatus { nodes, ..before.clone() }));
        assert!(DaemonJob::urgent(&before, &DaemonJobStatus { run: 2, ..before.clone() }));
        let state = Some(DaemonJobState::Failed);
        assert!(DaemonJob::urgent(&before, &DaemonJobStatus { state, ..before.clone() }));
        let resume_time = Some(Timestamp::UNIX_EPOCH);
        assert!(DaemonJob::urgent(&before, &DaemonJobStatus { resume_time, ..before.clone() }));
    }

    #[test]
    fn nodes_that_ended_are_counted_once_and_anew_in_another_run() {
        let status = |run, succeeded, failed| DaemonJobStatus {
            run,
            nodes: NodeCounts { succeeded, failed, ..NodeCounts::default() },
            ..DaemonJobStatus::default()
        };
        let of = |before, after| ended(&before, &after).map(|(_, count)| count);
        assert_eq!(of(status(1, 2, 1), status(1, 5, 1)), [3, 0, 0]);
        assert_eq!(of(status(1, 5, 1), status(2, 2, 0)), [2, 0, 0]);
        assert_eq!(of(status(1, 5, 1), status(1, 4, 1)), [0, 0, 0]);
    }
}
