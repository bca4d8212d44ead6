//! PreScaledCronJob objects: their runs are created ahead of their instants, and what became of them is written into the
//! status before anything that depends on it. What to do is core's to say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action as Next;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};
use stoker_api::{PreScaledCronJob, PreScaledCronJobStatus, RunOutcome, keys};
use stoker_core::conditions::Conditions;
use stoker_core::kept::Upkeep;
use stoker_core::names;
use stoker_core::pod::PodView;
use stoker_core::pool::jobs::History;
use stoker_core::pool::{JobPods, JobView};
use stoker_core::pre_scaled::{self, Action, Cancelled, Lead, Plan, Rules, Run, Stopped, Told};
use stoker_cron::Schedule;

use crate::context::{Context, Scope};
use crate::kept::{
    Created, Deed, Keeper, KeptError, Maker, Memory, News, Outcome, Remembered, carry_out, create, hand_over,
    key, later, publish_soon, turned_bad, undone, until,
};
use crate::leads::Leads;
use crate::looked::Looked;
use crate::object::Kind;
use crate::seat::Trouble;
use crate::slim_job::SlimJob;

/// What is remembered of an object between two looks, besides its Jobs.
#[derive(Default)]
pub struct Own {
    /// Runs whose start was seen, by UID.
    started: HashMap<String, Timestamp>,
    leads: Leads,
}

impl Keeper for PreScaledCronJob {
    const KIND: Kind = Kind::PreScaledCronJob;
    const CREATES: usize = 1;
    // Thousands of runs may have the same instant.
    const YIELDS: Duration = Duration::from_secs(30);
    type Child = SlimJob;
    type Told = Told;
    type Own = Own;

    fn remembered(context: &Context) -> &Remembered<Self> {
        &context.cron_jobs
    }

    fn looked(scope: &Scope) -> &Looked<Self> {
        &scope.cron_jobs
    }

    async fn look(
        context: &Arc<Context>,
        object: &Arc<Self>,
        memory: &mut Memory<Self>,
    ) -> Result<Next, KeptError> {
        look(context, object, memory).await
    }

    fn farewell(context: &Context, jobs: &[JobView], now: Timestamp) -> Vec<Deed> {
        let pods = pods_of(context, jobs);
        deeds(pre_scaled::farewell(&runs(jobs, &pods), now))
    }

    fn count_created(context: &Context, outcome: &'static str) {
        context.metrics.runs.created(outcome);
    }

    fn written(
        &self,
        context: &Context,
        before: &PreScaledCronJobStatus,
        after: &PreScaledCronJobStatus,
        told: &[Told],
    ) -> Vec<News> {
        written(context, before, after, told)
    }
}

/// What a spec cannot mean: the condition's type, and words.
type Invalid = String;

fn schedule(field: &str, text: &str) -> Result<Schedule, Invalid> {
    Schedule::parse(text).map_err(|error| format!("{field} `{text}`: {error}"))
}

/// What the spec says, read.
fn rules(object: &PreScaledCronJob, gate_image: &str) -> Result<(Rules, Lead), Invalid> {
    let spec = &object.spec;
    let cron = &spec.cron_job.spec;
    let named = cron.time_zone.as_deref().unwrap_or("UTC");
    let zone = TimeZone::get(named).map_err(|_| {
        format!("spec.cronJob.spec.timeZone `{named}` is no IANA time zone: write for example Europe/Berlin")
    })?;
    let parsed = schedule("spec.cronJob.spec.schedule", &cron.schedule)?;
    let lead = match (&spec.primer_schedule, &spec.warm_up, spec.warm_up_time_mins) {
        (Some(primer), ..) => Lead::Primer(schedule("spec.primerSchedule", primer)?),
        (None, Some(text), _) => {
            let lead: SignedDuration = text.parse().map_err(|error| {
                format!("spec.warmUp `{text}`: {error}; write for example 90s, 5m or 1h30m")
            })?;
            if lead > SignedDuration::from_hours(24) {
                return Err(format!("spec.warmUp `{text}` is longer than 24h"));
            }
            Lead::Before(lead)
        }
        (None, None, minutes) => Lead::Before(SignedDuration::from_mins(minutes.unwrap_or(0).into())),
    };
    let stopped =
        if spec.paused { Some(Stopped::Paused) } else { cron.suspend.then_some(Stopped::Suspended) };
    // Serialising what was deserialised cannot fail; an empty text would only make templates look alike.
    let text = serde_json::to_vec(&(&spec.cron_job.metadata, &cron.job_template, spec.gate, gate_image));
    Ok((
        Rules {
            schedule: parsed,
            zone,
            timetable: format!("{} in {named}", cron.schedule),
            stopped,
            concurrency: cron.concurrency_policy,
            deadline: cron.starting_deadline_seconds.map(SignedDuration::from_secs),
            keep: History {
                completed: cron.successful_jobs_history_limit,
                failed: cron.failed_jobs_history_limit,
            },
            hash: names::short_hash(&[&text.unwrap_or_default()], 10),
        },
        lead,
    ))
}

/// The pods of each Job.
fn pods_of(context: &Context, jobs: &[JobView]) -> Vec<Vec<PodView>> {
    jobs.iter().map(|job| context.pods.of(&job.uid)).collect()
}

/// The runs that Jobs with these pods are.
fn runs<'a>(jobs: &'a [JobView], pods: &'a [Vec<PodView>]) -> Vec<Run<'a>> {
    jobs.iter().zip(pods).filter_map(|(job, pods)| Run::of(&JobPods { job, pods })).collect()
}

async fn look(
    context: &Arc<Context>,
    object: &Arc<PreScaledCronJob>,
    memory: &mut Memory<PreScaledCronJob>,
) -> Result<Next, KeptError> {
    let (uid, key, now) = (object.uid().unwrap_or_default(), key(&**object), Timestamp::now());
    let jobs = memory.children(context, &uid).await;
    let pods = pods_of(context, &jobs);
    let runs = runs(&jobs, &pods);
    let before = object.status.clone().unwrap_or_default();
    let (rules, configured) = match rules(object, &context.gate_image) {
        Ok(read) => read,
        Err(words) => {
            let mut status = PreScaledCronJobStatus {
                observed_generation: object.metadata.generation,
                next_instant: None,
                next_warm_up: None,
                ..before.clone()
            };
            let mut c = Conditions::new(&before.conditions, object.metadata.generation, now);
            c.set("Ready", false, "ScheduleInvalid", words.clone());
            c.set("Stalled", true, "ScheduleInvalid", words.clone());
            c.set("ScheduleValid", false, "Invalid", words);
            status.conditions = c.finish();
            hand_over(context, &memory.outbox, object, (before, status), Vec::new());
            return Ok(Next::await_change());
        }
    };
    seen(context, object, &mut memory.own.started, &runs, now);

    let (lead, reason, trouble) =
        memory.own.leads.decide(context, object, &rules, configured, &before.last_runs, now).await;
    let born = object.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let mut plan = pre_scaled::plan(&rules, &lead, object.spec.gate, &before, born, &runs, now);
    let mut failed = create_runs(context, object, memory, &rules, &plan.actions, now).await;
    let carried_out =
        carry_out(context, object, &memory.farewells, deeds(std::mem::take(&mut plan.actions))).await;
    failed = failed.or(carried_out);

    plan.status.observed_generation = object.metadata.generation;
    plan.status.lead_reason = Some(reason);
    plan.status.policy = memory.own.leads.status(context, object);
    plan.status.conditions = conditions(object, memory, &plan, trouble.as_ref(), &before.conditions, now);
    // Runs of other objects may be due: they go before it.
    hand_over(context, &memory.outbox, object, (before, plan.status), plan.told);
    if let Some(error) = failed {
        return Ok(undone(memory, &key, &error));
    }
    memory.failures = 0;
    context.metrics.reconciled("ok");
    Ok(later([plan.wake_at.map(until), memory.refusals.wake(), memory.own.leads.wake()]))
}

/// Notes what runs have begun their work since the last look.
fn seen(
    context: &Context,
    object: &PreScaledCronJob,
    started: &mut HashMap<String, Timestamp>,
    runs: &[Run<'_>],
    now: Timestamp,
) {
    let of_init = object.spec.gate == stoker_api::Gate::InitContainer;
    started.retain(|uid, _| runs.iter().any(|run| &run.job.uid == uid));
    for run in runs.iter().filter(|run| of_init && !run.held(now) && !run.finished()) {
        if started.contains_key(&run.job.uid) {
            continue;
        }
        let Some(pod) = run.pods.iter().find(|pod| pod.containers_started.is_some()) else { continue };
        started.insert(run.job.uid.clone(), now);
        let late = now.duration_since(run.instant);
        tracing::info!(object = %key(object), job = run.job.name, pod = pod.name, late_ms = late.as_millis(), "a run is at work");
        if run.job.created < run.instant {
            let pool = pod.node.as_deref().map(|node| context.nodes.pool_of(node)).unwrap_or_default();
            context.metrics.runs.started(late, pool);
        }
    }
}

/// Creates runs.
async fn create_runs(
    context: &Arc<Context>,
    object: &Arc<PreScaledCronJob>,
    memory: &mut Memory<PreScaledCronJob>,
    rules: &Rules,
    actions: &[Action],
    now: Timestamp,
) -> Option<KeptError> {
    let create_instant =
        |action: &Action| if let Action::Create { instant } = action { Some(*instant) } else { None };
    let instants: Vec<Timestamp> = actions.iter().filter_map(create_instant).collect();
    let spec = &object.spec;
    if instants.is_empty()
        || pre_scaled::template_refusal(&spec.cron_job.spec.job_template.spec, spec.gate).is_some()
    {
        return None;
    }
    let maker = Maker {
        wanted: |latest: &PreScaledCronJob, mut instants: Vec<Timestamp>| {
            let decided = latest.status.as_ref().and_then(|status| status.decided_until);
            instants.retain(|instant| decided < Some(*instant));
            instants
        },
        hash: |_: &Timestamp| rules.hash.clone(),
        body: |instant: &Timestamp| body(object, rules, &context.gate_image, *instant, now),
    };
    let made = create(context, object, memory, instants, maker).await;
    for Created { part: instant, name: job, outcome, .. } in made.created {
        match outcome {
            Outcome::Created => {
                let warm = instant.duration_since(Timestamp::now()).max(SignedDuration::ZERO);
                let object_key = key(&**object);
                tracing::info!(object = %object_key, job, instant = %instant, ahead_s = warm.as_secs(), "run created");
                let words = format!("created {job} for {instant}");
                publish_soon(context, object, vec![News::new(false, "RunCreated", words)]);
                // What was refused of another template is of the past.
                memory.refusals.retain(|_| false);
                memory.conflicts.retain(|_| false);
            }
            Outcome::Existed => memory.conflicts.retain(|_| false),
            Outcome::Refused(_) => memory.refusals.retain(|hash| hash == rules.hash),
            Outcome::Conflict => {}
        }
    }
    made.failed
}

/// The Job of an instant.
fn body(object: &PreScaledCronJob, rules: &Rules, image: &str, instant: Timestamp, now: Timestamp) -> Value {
    let (uid, name) = (object.uid().unwrap_or_default(), object.name_any());
    let cron = &object.spec.cron_job;
    let mut own = Map::new();
    own.insert(keys::OWNER_UID.to_owned(), json!(uid));
    own.insert(keys::PRIMED_CRON.to_owned(), json!(names::label_value(&name)));
    let mut labels = Map::new();
    let mut annotations = Map::new();
    for meta in [&cron.metadata, &cron.spec.job_template.metadata].into_iter().flatten() {
        labels.extend(meta.labels.iter().map(|(k, v)| (k.clone(), json!(v))));
        annotations.extend(meta.annotations.iter().map(|(k, v)| (k.clone(), json!(v))));
    }
    labels.extend(own.clone());
    labels.insert(keys::TEMPLATE_HASH.to_owned(), json!(rules.hash));
    annotations.insert(keys::INSTANT.to_owned(), json!(instant.to_string()));
    let local = instant.to_zoned(rules.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    annotations.insert(keys::SCHEDULED.to_owned(), json!(local));
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names::cron_job(&name, &uid, instant),
            "namespace": object.namespace(),
            "labels": labels,
            "annotations": annotations,
            "finalizers": [keys::OUTCOME],
            "ownerReferences": [object.controller_owner_ref(&())],
        },
        "spec": pre_scaled::job(&cron.spec.job_template.spec, object.spec.gate, image, instant, &own, now),
    })
}

/// What is done with runs that there are.
fn deeds(actions: Vec<Action>) -> Vec<Deed> {
    actions.into_iter().filter_map(deed).collect()
}

fn deed(action: Action) -> Option<Deed> {
    match action {
        Action::Create { .. } => None,
        Action::Cancel { job, uid, version, why } => {
            let words = match why {
                Cancelled::Stopped => "it is suspended, paused or deleted",
                Cancelled::Unnamed => "the schedule names its instant no more",
                Cancelled::Outdated => "the template has changed; another takes its place",
                Cancelled::Edited => "it was edited by hand; another takes its place",
                Cancelled::Forbidden => "an earlier run has not ended, and concurrencyPolicy is Forbid",
            };
            let words = format!("deleted {job}, which was held: {words}");
            Some(Deed::Told(Upkeep::Delete { name: job, uid, version: Some(version) }, "RunCancelled", words))
        }
        Action::Replace { job, uid } => {
            let words = format!("deleted {job}, which was at work: concurrencyPolicy is Replace");
            Some(Deed::Told(Upkeep::Delete { name: job, uid, version: None }, "RunReplaced", words))
        }
        Action::Forget { job, uid } => Some(Deed::Forget { name: job, uid }),
        Action::Upkeep(upkeep) => Some(upkeep.into()),
    }
}

fn conditions(
    object: &PreScaledCronJob,
    memory: &Memory<PreScaledCronJob>,
    plan: &Plan,
    trouble: Option<&Trouble>,
    previous: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let mut c = Conditions::new(previous, object.metadata.generation, now);
    let cron = &object.spec.cron_job.spec;
    let gate = pre_scaled::template_refusal(&cron.job_template.spec, object.spec.gate);
    let refused = memory.refusals.first().map(|(_, words)| words.to_owned());
    let bad = gate.map(|words| ("GateRefused", words)).or(refused.map(|words| ("Refused", words)));
    let next = plan.status.next_instant.map_or_else(
        || "the schedule names no further instant".to_owned(),
        |instant| format!("next instant {instant}"),
    );
    match (&bad, object.spec.paused, cron.suspend) {
        (Some((reason, words)), ..) => c.set("Ready", false, reason, words.clone()),
        (None, true, _) => c.set("Ready", true, "Paused", "paused: true; nothing is created"),
        (None, false, true) => c.set("Ready", true, "Suspended", "suspend: true; nothing is created"),
        (None, false, false) => c.set("Ready", true, "Scheduled", next.clone()),
    }
    c.set("Reconciling", false, "UpToDate", "the spec is in force");
    match &bad {
        Some((reason, words)) => c.set("Stalled", true, reason, words.clone()),
        None => c.set("Stalled", false, "Scheduled", "nothing is in the way"),
    }
    c.set("ScheduleValid", true, "Valid", next);
    match bad {
        Some((reason, words)) => c.set("TemplateValid", false, reason, words),
        None => c.set("TemplateValid", true, "Valid", "the template can be gated"),
    }
    if object.spec.policy.is_some() {
        match trouble {
            Some((reason, words)) => c.set("PolicyHealthy", false, reason, words.clone()),
            None => c.set("PolicyHealthy", true, "Deciding", "the policy decides"),
        }
    }
    match memory.conflicts.first() {
        Some((name, _)) => c.set(
            "Conflict",
            true,
            "NameTaken",
            format!("Job {name} belongs to another, which is left alone: rename this object or that Job"),
        ),
        None => c.set("Conflict", false, "NoConflict", "no name is taken"),
    }
    c.finish()
}

/// What there is to tell of a written status.
fn written(
    context: &Context,
    before: &PreScaledCronJobStatus,
    status: &PreScaledCronJobStatus,
    told: &[Told],
) -> Vec<News> {
    let mut all = Vec::new();
    for news in told {
        all.push(match news {
            Told::Missed { count, last } => {
                context.metrics.runs.instants("missed", u64::from(*count));
                let words = format!(
                    "{count} instants passed without a run, the last at {last}: nobody could start one in time"
                );
                News::new(true, "InstantMissed", words)
            }
            Told::Skipped { instant } => {
                context.metrics.runs.instants("skipped", 1);
                let words = format!(
                    "no run for {instant}: an earlier one is at work, and concurrencyPolicy is Forbid"
                );
                News::new(true, "InstantSkipped", words)
            }
        });
    }
    if status.last_schedule_time > before.last_schedule_time {
        context.metrics.runs.instants("started", 1);
    }
    for run in status.last_runs.iter().filter(|run| !before.last_runs.contains(run)) {
        let word = match run.outcome {
            RunOutcome::Succeeded => "succeeded",
            RunOutcome::Failed => "failed",
            RunOutcome::Deleted => "deleted",
        };
        let pool = run.node.as_deref().map(|node| context.nodes.pool_of(node)).unwrap_or_default();
        context.metrics.runs.ended(word, run, pool);
    }
    let healthy = ["ScheduleValid", "TemplateValid", "PolicyHealthy"];
    all.extend(turned_bad(&before.conditions, &status.conditions, &healthy, &["Conflict"]));
    all
}
