//! JobFlow objects: their steps' Jobs are created as soon as what they wait for is seen, and what became of them is written
//! into the status afterwards, which no creation waits for. What to do is core's to say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{Api, DeleteParams, Preconditions, PropagationPolicy};
use kube::runtime::controller::Action as Next;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use stoker_api::{FlowState, JobFlow, JobFlowStatus, StepState, keys};
use stoker_core::flow::{self, Flow, Look, NewJob, Plan, Templates, Told, Troubles};
use stoker_core::kept::Kept;
use stoker_core::pod::PodView;
use stoker_core::pool::JobView;

use crate::apply::timed;
use crate::context::{Context, Scope};
use crate::kept::{
    Created, Deed, Keeper, KeptError, Maker, Memory, News, Outcome, Remembered, carry_out, create, foresee,
    hand_over, key, later, turned_bad, undone, until,
};
use crate::looked::Looked;
use crate::object::Kind;
use crate::slim_job::SlimJob;
use crate::step_checks::StepChecks;

/// Steps of a flow whose failures are worth an Event each; those of a larger one are in its status.
const TOLD_EACH: usize = 32;

/// How long to wait for a deletion to show.
const DELETED: Duration = Duration::from_secs(5);

/// What is remembered of a flow between two looks, besides its Jobs.
#[derive(Default)]
pub struct Own {
    read: Option<Read>,
    checks: StepChecks,
}

/// A spec, read, and from what.
struct Read {
    generation: Option<i64>,
    templates: Vec<Named>,
    flow: Arc<Flow>,
}

/// A JobTemplate that a spec names: its name, and its UID and generation if there is one.
type Named = (String, Option<(Option<String>, Option<i64>)>);

impl Keeper for JobFlow {
    const KIND: Kind = Kind::JobFlow;
    const CREATES: usize = 16;
    // Steps wait for one another, and people for flows.
    const YIELDS: Duration = Duration::from_secs(5);
    type Child = SlimJob;
    type Told = Told;
    type Own = Own;

    fn remembered(context: &Context) -> &Remembered<Self> {
        &context.flows
    }

    fn looked(scope: &Scope) -> &Looked<Self> {
        &scope.flows
    }

    fn urgent(before: &JobFlowStatus, after: &JobFlowStatus) -> bool {
        (before.run, before.state) != (after.run, after.state)
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
        flow::farewell(&kept).into_iter().map(Deed::from).collect()
    }

    fn leaving(&self) -> Option<JobFlowStatus> {
        let status = self.status.clone()?;
        Some(JobFlowStatus { state: Some(FlowState::Terminating), ..status })
    }

    fn count_created(context: &Context, outcome: &'static str) {
        context.metrics.flows.step_created(outcome);
    }

    fn written(
        &self,
        context: &Context,
        before: &JobFlowStatus,
        after: &JobFlowStatus,
        told: &[Told],
    ) -> Vec<News> {
        for (outcome, count) in ended(before, after) {
            context.metrics.flows.steps_ended(outcome, count);
        }
        for told in told {
            if let Told::Ended { state } = told {
                let failed = *state == FlowState::Failed;
                context.metrics.flows.flow_ended(if failed { "failed" } else { "succeeded" });
            }
        }
        news(before, after, told, self.spec.flows.len())
    }
}

/// What there is to tell of a written status.
fn news(before: &JobFlowStatus, after: &JobFlowStatus, told: &[Told], steps: usize) -> Vec<News> {
    let progress = after.progress.as_deref().unwrap_or_default();
    let mut news = Vec::new();
    let began = told.iter().any(|told| matches!(told, Told::RunBegan { .. }));
    if before.start_time.is_none() && after.start_time.is_some() && !began {
        news.push(News::new(false, "Started", "the flow has begun"));
    }
    for told in told {
        news.push(match told {
            Told::StepFailed { .. } | Told::StepRetried { .. } if steps > TOLD_EACH => continue,
            Told::StepFailed { step, reason } => {
                News::new(true, "StepFailed", format!("step {step} failed: {reason}"))
            }
            Told::StepRetried { step, attempts, reason } => News::new(
                true,
                "StepRetried",
                format!("step {step} failed and is tried again ({attempts} so far): {reason}"),
            ),
            Told::TimedOut => {
                News::new(true, "TimedOut", format!("timeoutSeconds have passed; {progress} steps succeeded"))
            }
            Told::Resumed { steps } => News::new(
                false,
                "Resumed",
                format!("{steps} steps or handlers that had failed are started again"),
            ),
            Told::RunBegan { run } => News::new(false, "RunBegan", format!("run {run} has begun")),
            Told::Ended { state: FlowState::Failed } => {
                News::new(true, "Failed", format!("the flow has ended; {progress} steps succeeded"))
            }
            Told::Ended { .. } => News::new(false, "Succeeded", format!("{progress} steps succeeded")),
        });
    }
    let healthy = ["GraphValid", "TemplateValid"];
    news.extend(turned_bad(&before.conditions, &after.conditions, &healthy, &["Conflict", "SizeNearLimit"]));
    news
}

/// How many steps ended since a status was written, by outcome.
fn ended(before: &JobFlowStatus, after: &JobFlowStatus) -> HashMap<&'static str, u64> {
    let mut counts = HashMap::new();
    for (job, entry) in after.job_status_list.iter().filter(|(_, entry)| entry.ended()) {
        let same = before.run == after.run;
        if same && before.job_status_list.get(job).is_some_and(|old| old.state == entry.state) {
            continue;
        }
        let outcome = match entry.state {
            StepState::Succeeded => "succeeded",
            StepState::Failed => "failed",
            StepState::Deleted => "deleted",
            StepState::Skipped => "skipped",
            StepState::Running | StepState::Retrying => continue,
        };
        *counts.entry(outcome).or_default() += 1;
    }
    counts
}

/// A Job that is to be created.
struct Wanted {
    job: NewJob,
    body: Value,
}

/// What a refusal holds for: a step as it is now.
fn refusal(job: &NewJob) -> String {
    format!("{}/{}", job.step, job.hash)
}

/// The flow, read once for each generation of its spec and state of its templates.
fn read(context: &Context, object: &JobFlow, own: &mut Own) -> Arc<Flow> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let scope = context.scope_of(&namespace);
    let found = |name: &str| scope.and_then(|scope| scope.templates.get(&namespace, name));
    let (mut named, mut there) = (Vec::new(), Vec::new());
    for reference in Flow::references(&object.spec) {
        let template = found(reference);
        let state = template.as_ref().map(|template| (template.uid(), template.metadata.generation));
        named.push((reference.to_owned(), state));
        there.extend(template.map(|template| (reference.to_owned(), template)));
    }
    if let Some(read) = &own.read
        && read.generation == object.metadata.generation
        && read.templates == named
    {
        return read.flow.clone();
    }
    let templates: Templates =
        there.into_iter().map(|(name, template)| (name, Arc::new(template.spec.job.clone()))).collect();
    let uid = object.uid().unwrap_or_default();
    let flow = Arc::new(Flow::new(&name, &namespace, &uid, Arc::new(object.spec.clone()), &templates));
    own.read = Some(Read { generation: object.metadata.generation, templates: named, flow: flow.clone() });
    flow
}

/// The pods of a Job, as far as they tell more than the Job itself and the written status.
fn pods_of(context: &Context, status: &JobFlowStatus, namespace: &str, job: &JobView) -> Vec<PodView> {
    let written = status.job_status_list.get(&format!("{}/{namespace}", job.name));
    let known = job.finished.is_some() && written.is_some_and(|entry| entry.ended());
    if known && !job.terminating { Vec::new() } else { context.pods.of(&job.uid) }
}

async fn look(
    context: &Arc<Context>,
    object: &Arc<JobFlow>,
    memory: &mut Memory<JobFlow>,
) -> Result<Next, KeptError> {
    let (uid, key) = (object.uid().unwrap_or_default(), key(&**object));
    if let Some(scope) = context.scope_of(&key.namespace) {
        scope.templates.listed().await;
    }
    let references = Flow::references(&object.spec);
    context.templates.uses(&key, references.into_iter().map(str::to_owned).collect());
    let touched = context.owners.take_touched(&key);
    let now = Timestamp::now();
    let flow = read(context, object, &mut memory.own);
    let before = object.status.clone().unwrap_or_default();
    let jobs = memory.children(context, &uid).await;
    let pods: Vec<_> = jobs.iter().map(|job| pods_of(context, &before, &key.namespace, job)).collect();
    let kept: Vec<Kept<'_>> = jobs.iter().zip(&pods).map(|(job, pods)| Kept { job, pods }).collect();
    let annotation =
        |key: &str| object.annotations().get(key).map(String::as_str).filter(|text| !text.is_empty());
    let mut plan = flow::plan(
        &Look {
            flow: &flow,
            generation: object.metadata.generation,
            rerun: annotation(keys::RERUN),
            rerun_failed: annotation(keys::RERUN_FAILED),
            status: &before,
            jobs: &kept,
            answers: &memory.own.checks.answers(),
        },
        now,
    );
    let there: HashSet<&str> = jobs.iter().map(|job| job.uid.as_str()).collect();
    memory.own.checks.keep(context, &key, &plan.ask, &there);
    if plan.delete {
        return delete(context, object).await;
    }

    if plan.follows_soon && plan.create.is_empty() {
        foresee(context, object, memory).await;
    }
    let (wanted, bad) = wanted(object, &flow, memory, std::mem::take(&mut plan.create));
    let made = create_steps(context, object, memory, &flow, wanted, touched).await;
    let carried_out =
        carry_out(context, object, &memory.farewells, plan.upkeep.drain(..).map(Deed::from).collect()).await;
    let failed = made.failed.or(carried_out);
    let again = made.any && failed.is_none();
    if memory.status_waits(again) {
        return Ok(Next::requeue(Duration::ZERO));
    }
    let troubles = troubles(memory, bad);
    plan.status.conditions = flow::conditions(&flow, &plan, &troubles, &before.conditions, now);
    let Plan { status, told, wake_at, .. } = plan;
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

/// The Jobs that can be asked for now, and why one of them cannot be made.
fn wanted(
    object: &JobFlow,
    flow: &Flow,
    memory: &mut Memory<JobFlow>,
    jobs: Vec<NewJob>,
) -> (Vec<Wanted>, Option<String>) {
    let steps: HashSet<String> = jobs.iter().map(refusal).collect();
    memory.refusals.retain(|refused| steps.contains(refused));
    let names: HashSet<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    memory.conflicts.retain(|taken| names.contains(taken));
    let owner = json!(object.controller_owner_ref(&()));
    let (mut wanted, mut bad) = (Vec::new(), None);
    for job in jobs.into_iter().filter(|job| !memory.conflicts.wait(&job.name)) {
        match flow::body(flow, &job, &owner) {
            Ok(body) => wanted.push(Wanted { job, body }),
            Err(words) => bad = bad.or(Some(words)),
        }
    }
    (wanted, bad)
}

/// What came of creating steps.
struct Steps {
    /// Some were asked for, and answered.
    any: bool,
    failed: Option<KeptError>,
}

async fn create_steps(
    context: &Arc<Context>,
    object: &Arc<JobFlow>,
    memory: &mut Memory<JobFlow>,
    flow: &Flow,
    wanted: Vec<Wanted>,
    touched: Option<Instant>,
) -> Steps {
    if wanted.is_empty() {
        return Steps { any: false, failed: None };
    }
    let maker = Maker {
        wanted: |latest: &JobFlow, jobs: Vec<Wanted>| match &latest.status {
            Some(status) => {
                let open = flow::still_wanted(status);
                jobs.into_iter().filter(|wanted| open(&wanted.job)).collect()
            }
            None => jobs,
        },
        hash: |wanted: &Wanted| refusal(&wanted.job),
        body: |wanted: &Wanted| wanted.body.clone(),
    };
    let made = create(context, object, memory, wanted, maker).await;
    let any = !made.created.is_empty();
    for Created { part: Wanted { job, .. }, name, asked, outcome } in made.created {
        tracing::debug!(object = %key(&**object), step = job.step, job = name, ?outcome, "a step");
        let follows = job.attempt == 1 && !flow.parts[job.part].waits.is_empty();
        if let Some(touched) = touched.filter(|_| follows && outcome == Outcome::Created) {
            context.metrics.flows.step_followed(asked.saturating_duration_since(touched));
        }
    }
    Steps { any, failed: made.failed }
}

/// What only whoever applies a plan can know.
fn troubles(memory: &Memory<JobFlow>, bad: Option<String>) -> Troubles {
    let refused = memory.refusals.first().map(|(what, words)| {
        let step = what.split('/').next().unwrap_or_default();
        format!("step {step}: {words}")
    });
    let conflict = memory.conflicts.first().map(|(name, _)| name.to_owned());
    Troubles { refused: bad.or(refused), conflict }
}

/// Deletes a flow whose time after its end is over, in the version in which it was seen: a new run may just be asked for.
async fn delete(context: &Context, object: &JobFlow) -> Result<Next, KeptError> {
    let api: Api<JobFlow> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: object.uid(), resource_version: object.resource_version() }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    match timed(api.delete(&object.name_any(), &params)).await {
        Ok(_) => tracing::info!(object = %key(object), "deleted: ttlSecondsAfterFinished have passed"),
        // It is gone, or has changed.
        Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Next::requeue(DELETED))
}

#[cfg(test)]
mod tests {
    use stoker_api::StepStatus;

    use super::*;

    fn status(run: u32, entries: &[(&str, StepState, u32)]) -> JobFlowStatus {
        let entry = |(step, state, attempt): &(&str, StepState, u32)| {
            let entry = StepStatus {
                step: (*step).to_owned(),
                state: *state,
                attempt: Some(*attempt),
                ..StepStatus::default()
            };
            (format!("flow-{step}/a"), entry)
        };
        JobFlowStatus {
            run,
            job_status_list: entries.iter().map(entry).collect(),
            ..JobFlowStatus::default()
        }
    }

    #[test]
    fn a_new_run_or_state_is_written_at_once_and_what_steps_do_can_wait() {
        let before =
            JobFlowStatus { state: Some(FlowState::Running), ..status(1, &[("a", StepState::Running, 1)]) };
        let with = |run, state| JobFlowStatus { run, state: Some(state), ..before.clone() };
        let step = JobFlowStatus { state: before.state, ..status(1, &[("a", StepState::Succeeded, 1)]) };
        assert!(!JobFlow::urgent(&before, &before) && !JobFlow::urgent(&before, &step));
        assert!(JobFlow::urgent(&before, &with(2, FlowState::Running)));
        assert!(JobFlow::urgent(&before, &with(1, FlowState::Failed)));
        assert!(JobFlow::urgent(&JobFlowStatus::default(), &before));
    }

    #[test]
    fn steps_that_ended_are_counted_once_and_anew_in_another_run() {
        let before = status(1, &[("a", StepState::Succeeded, 1), ("b", StepState::Running, 1)]);
        let after = status(1, &[("a", StepState::Succeeded, 1), ("b", StepState::Failed, 1)]);
        assert_eq!(ended(&before, &after), HashMap::from([("failed", 1)]));
        assert_eq!(ended(&after, &after), HashMap::new());
        let again = status(2, &[("a", StepState::Succeeded, 1)]);
        assert_eq!(ended(&after, &again), HashMap::from([("succeeded", 1)]));
    }

    #[test]
    fn that_an_object_may_become_too_large_is_told_once() {
        let condition = serde_json::from_value(json!({
            "type": "SizeNearLimit", "status": "True", "reason": "Estimated", "message": "1.30 MB",
            "lastTransitionTime": "2026-06-01T10:00:00Z",
        }));
        let near = JobFlowStatus { conditions: vec![condition.unwrap()], ..JobFlowStatus::default() };
        let told = |before: &JobFlowStatus| {
            let news = news(before, &near, &[], 3).into_iter();
            news.map(|news| (news.warning, news.reason)).collect::<Vec<_>>()
        };
        assert_eq!(told(&JobFlowStatus::default()), [(true, "SizeNearLimitEstimated".to_owned())]);
        assert!(told(&near).is_empty());
    }

    #[test]
    fn a_large_flow_tells_of_its_end_and_not_of_each_step() {
        let failed = Told::StepFailed { step: "a".to_owned(), reason: "exit code 1".to_owned() };
        let told = [failed, Told::Ended { state: FlowState::Failed }];
        let after = JobFlowStatus { start_time: Some(Timestamp::UNIX_EPOCH), ..JobFlowStatus::default() };
        let reasons = |steps| {
            let news = news(&JobFlowStatus::default(), &after, &told, steps);
            news.into_iter().map(|news| news.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(3), ["Started", "StepFailed", "Failed"]);
        assert_eq!(reasons(33), ["Started", "Failed"]);
    }
}
