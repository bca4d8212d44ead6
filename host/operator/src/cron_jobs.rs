//! PreScaledCronJob objects: their runs are created ahead of their instants, and what became of them is written into the
//! status, in the object's version: of two operators one is too late, and looks again. What to do is core's to say.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, PostParams, Preconditions, PropagationPolicy};
use kube::runtime::controller::{self, Action as Next, Config};
use kube::runtime::events::{Event, EventType};
use kube::runtime::{Controller, Predicate as _, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};
use stoker_api::{PreScaledCronJob, PreScaledCronJobStatus, RunOutcome, keys};
use stoker_core::conditions::Conditions;
use stoker_core::kept::Upkeep;
use stoker_core::names;
use stoker_core::pool::jobs::History;
use stoker_core::pool::{JobPods, JobView};
use stoker_core::pre_scaled::{self, Action, Cancelled, Lead, Plan, Rules, Run, Stopped, Told};
use stoker_cron::Schedule;
use tokio::sync::watch;

use crate::again::{ERRORS, REFUSALS, WatchBackOff};
use crate::apply::{self, timed};
use crate::context::{Context, Scope};
use crate::kept_jobs;
use crate::leads::{Leads, Trouble};
use crate::object::{Key, Kind};
use crate::orphans;
use crate::slim_job::SlimJob;

/// What was made is believed to exist for so long although the watch does not show it.
const BELIEVED: Duration = Duration::from_secs(30);

/// Actions of one object at a time.
const AT_A_TIME: usize = 8;

/// An object is looked at so often at least while something is to come: timers do not know when the clock is set, or that
/// the machine slept.
const RARELY: Duration = Duration::from_secs(60);

/// How long after its look a plan may still create: a Job's name is kept longer than that after the Job's end.
const PLAN_HOLDS: Duration = Duration::from_secs(10);

/// Why a look failed. The object is looked at again.
#[derive(Debug, thiserror::Error)]
pub enum CronError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("a run cannot be created: {0}")]
    Create(kube::Error),
}

/// What is remembered of all objects, by UID.
#[derive(Default)]
pub struct CronJobs(Mutex<HashMap<String, Arc<tokio::sync::Mutex<State>>>>);

/// What is remembered of an object between two looks.
#[derive(Default)]
struct State {
    key: Option<Key>,
    /// The object as it was read or written last, if that is newer than what the watch shows.
    latest: Option<Arc<PreScaledCronJob>>,
    /// Jobs that were made and that the watch may not have shown yet.
    made: Vec<(Instant, JobView)>,
    /// Jobs that were let go and that the watch may not have shown so yet, by UID.
    let_go: HashSet<String>,
    /// Whether the API server takes the Jobs, by their hash: its words if not, and when to try again.
    trial: Option<(String, Option<(String, Instant)>)>,
    /// Whose names were another's.
    conflict: Option<String>,
    refusals: u32,
    failures: u32,
    /// Runs whose start was seen, by UID.
    started: HashMap<String, Timestamp>,
    leads: Leads,
}

impl CronJobs {
    fn state(&self, uid: &str, key: &Key) -> Arc<tokio::sync::Mutex<State>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh =
            || Arc::new(tokio::sync::Mutex::new(State { key: Some(key.clone()), ..State::default() }));
        all.entry(uid.to_owned()).or_insert_with(fresh).clone()
    }

    /// Forgets an object that is gone; its UID.
    fn forget(&self, key: &Key) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        all.retain(|uid, state| {
            // One that is being looked at is forgotten by the next look.
            let other = state.try_lock().map_or(true, |state| state.key.as_ref() != Some(key));
            if !other {
                gone.push(uid.clone());
            }
            other
        });
        gone
    }
}

/// Looks after the objects within a scope.
pub async fn control(context: Arc<Context>, scope: Arc<Scope>, mut stop: watch::Receiver<bool>) {
    let api: Api<PreScaledCronJob> = scope.api(context.client.clone());
    let triggers = scope.cron_jobs.take_triggers();
    let (objects, writer) = reflector::store();
    scope.cron_jobs.keep(objects.clone());
    let wanted = predicates::generation.combine(predicates::finalizers);
    let changes = watcher(api, watcher::Config::default().any_semantic())
        .backoff(WatchBackOff::default())
        .modify(|object| object.metadata.managed_fields = None)
        .reflect(writer)
        .touched_objects()
        .predicate_filter(wanted, Default::default());
    Controller::for_stream(changes, objects)
        .with_config(Config::default().concurrency(64))
        .reconcile_on(triggers)
        .graceful_shutdown_on(async move {
            stop.wait_for(|s| *s).await.ok();
        })
        .run(reconcile, on_error, context.clone())
        .for_each(|result| {
            match result {
                Err(controller::Error::ObjectNotFound(gone)) => {
                    let namespace = gone.namespace.unwrap_or_default();
                    let key = Key { kind: Kind::PreScaledCronJob, namespace, name: gone.name };
                    orphans::end(&context, &key);
                    for uid in context.cron_jobs.forget(&key) {
                        context.owners.forget(&uid);
                    }
                    context.policies.release(&key, None);
                    context.unfinished.done(&key);
                }
                Err(error) => tracing::debug!(%error, "a cron job"),
                Ok(_) => {}
            }
            std::future::ready(())
        })
        .await;
}

fn key(object: &PreScaledCronJob) -> Key {
    let namespace = object.namespace().unwrap_or_default();
    Key { kind: Kind::PreScaledCronJob, namespace, name: object.name_any() }
}

fn on_error(object: Arc<PreScaledCronJob>, error: &CronError, context: Arc<Context>) -> Next {
    let key = key(&object);
    tracing::warn!(object = %key, %error, "reconcile failed, trying again");
    context.metrics.reconciled("error");
    Next::requeue(context.unfinished.note(&key))
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

fn version(object: &PreScaledCronJob) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

async fn reconcile(shown: Arc<PreScaledCronJob>, context: Arc<Context>) -> Result<Next, CronError> {
    context.children_listed().await;
    let (uid, key) = (shown.uid().unwrap_or_default(), key(&shown));
    let state = context.cron_jobs.state(&uid, &key);
    let mut state = state.lock().await;
    let object = match &state.latest {
        Some(latest) if version(latest) > version(&shown) => latest.clone(),
        _ => shown,
    };
    let deleting = object.metadata.deletion_timestamp.is_some();
    let has_finalizer = object.finalizers().iter().any(|f| f == keys::RUNS);
    if deleting && !has_finalizer {
        return Ok(Next::await_change());
    }
    if !deleting && !has_finalizer {
        // The object comes again with it.
        let api = api(&context, &object);
        apply::finalizer(&api, &object.metadata, keys::RUNS, true).await?;
        return Ok(Next::await_change());
    }
    look(&context, &object, &mut state).await
}

fn api(context: &Context, object: &PreScaledCronJob) -> Api<PreScaledCronJob> {
    Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default())
}

async fn look(
    context: &Arc<Context>,
    object: &Arc<PreScaledCronJob>,
    state: &mut State,
) -> Result<Next, CronError> {
    let (uid, key, now) = (object.uid().unwrap_or_default(), key(object), Timestamp::now());
    let jobs = jobs(context, state, &uid);
    let pods: Vec<_> = jobs.iter().map(|job| context.pods.of(&job.uid)).collect();
    let runs: Vec<Run> =
        jobs.iter().zip(&pods).filter_map(|(job, pods)| Run::of(&JobPods { job, pods })).collect();
    if object.metadata.deletion_timestamp.is_some() {
        return leave(context, object, state, &runs, now).await;
    }
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
            return tell(context, object, state, &before, status, &[]).await;
        }
    };
    seen(context, object, state, &runs, now);

    let (lead, reason, trouble) =
        state.leads.decide(context, object, &rules, configured, &before.last_runs, now).await;
    let born = object.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let mut plan = pre_scaled::plan(&rules, &lead, object.spec.gate, &before, born, &runs, now);
    let mut failed = create(context, object, state, &rules, &plan.actions, now).await.err();
    let carried_out = carry_out(context, object, state, &plan.actions).await;
    failed = failed.or(carried_out);

    plan.status.observed_generation = object.metadata.generation;
    plan.status.lead_reason = Some(reason);
    plan.status.policy = state.leads.status(context, object);
    plan.status.conditions = conditions(object, state, &plan, trouble.as_ref(), &before.conditions, now);
    let told = tell(context, object, state, &before, plan.status, &plan.told).await?;
    if let Some(error) = failed {
        state.failures += 1;
        tracing::warn!(object = %key, %error, "a look left something undone, trying again");
        // What has an instant does not wait long.
        return Ok(Next::requeue(ERRORS.after(state.failures.min(2))));
    }
    state.failures = 0;
    context.metrics.reconciled("ok");
    if told != Next::await_change() {
        return Ok(told);
    }
    let until = |at: Timestamp| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    let retry = state
        .trial
        .as_ref()
        .and_then(|(_, refused)| refused.as_ref())
        .map(|(_, at)| at.saturating_duration_since(Instant::now()));
    let wake = [plan.wake_at.map(until), retry, state.leads.wake()].into_iter().flatten().min();
    // A moment more than asked, so that the look comes after what it waits for.
    let wake = wake.map(|wake| (wake + Duration::from_millis(2)).min(RARELY));
    Ok(wake.map_or_else(Next::await_change, Next::requeue))
}

/// The Jobs of an object: as the watch shows them, and those that were made and are not shown yet.
fn jobs(context: &Context, state: &mut State, uid: &str) -> Vec<JobView> {
    let mut jobs = context.jobs.of(uid);
    state.made.retain(|(at, made)| {
        at.elapsed() < BELIEVED
            && !context.jobs.went(uid, &made.uid)
            && jobs.iter().all(|job| job.uid != made.uid)
    });
    jobs.extend(state.made.iter().map(|(_, made)| made.clone()));
    state.let_go.retain(|uid| jobs.iter().any(|job| &job.uid == uid));
    for job in jobs.iter_mut().filter(|job| state.let_go.contains(&job.uid)) {
        job.finalizers.retain(|finalizer| finalizer != keys::OUTCOME);
    }
    jobs
}

/// Notes what runs have begun their work since the last look.
fn seen(context: &Context, object: &PreScaledCronJob, state: &mut State, runs: &[Run<'_>], now: Timestamp) {
    let of_init = object.spec.gate == stoker_api::Gate::InitContainer;
    state.started.retain(|uid, _| runs.iter().any(|run| &run.job.uid == uid));
    for run in runs.iter().filter(|run| of_init && !run.held(now) && !run.finished()) {
        if state.started.contains_key(&run.job.uid) {
            continue;
        }
        let Some(pod) = run.pods.iter().find(|pod| pod.containers_started.is_some()) else { continue };
        state.started.insert(run.job.uid.clone(), now);
        let late = now.duration_since(run.instant);
        tracing::info!(object = %key(object), job = run.job.name, pod = pod.name, late_ms = late.as_millis(), "a run is at work");
        if run.job.created < run.instant {
            context.metrics.runs.started(late);
        }
    }
}

/// The object goes.
async fn leave(
    context: &Arc<Context>,
    object: &Arc<PreScaledCronJob>,
    state: &mut State,
    runs: &[Run<'_>],
    now: Timestamp,
) -> Result<Next, CronError> {
    let actions = pre_scaled::farewell(runs, now);
    if actions.is_empty() {
        apply::finalizer(&api(context, object), &object.metadata, keys::RUNS, false).await?;
        return Ok(Next::await_change());
    }
    match carry_out(context, object, state, &actions).await {
        Some(error) => Err(error),
        // Each of them asks for the next look when the watch shows it; should it not:
        None => Ok(Next::requeue(Duration::from_secs(5))),
    }
}

/// Does what is to be done but for creations; the first error.
async fn carry_out(
    context: &Arc<Context>,
    object: &Arc<PreScaledCronJob>,
    state: &mut State,
    actions: &[Action],
) -> Option<CronError> {
    let (key, mut failed) = (key(object), None);
    let others: Vec<Action> =
        actions.iter().filter(|action| !matches!(action, Action::Create { .. })).cloned().collect();
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &key.namespace);
    let mut outcomes = stream::iter(others)
        .map(|action| {
            let jobs = jobs.clone();
            async move {
                let outcome = change(context, &jobs, &action).await;
                if let Ok(Some((reason, words))) = &outcome {
                    event(context, object, false, reason, words.clone()).await;
                }
                (action, outcome)
            }
        })
        .buffer_unordered(AT_A_TIME);
    while let Some((action, outcome)) = outcomes.next().await {
        match outcome {
            Ok(_) => {
                tracing::info!(object = %key, ?action, "done");
                if let Action::Upkeep(Upkeep::LetGo { uid, .. }) = action {
                    state.let_go.insert(uid);
                }
            }
            Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {
                tracing::debug!(object = %key, ?action, "it has changed");
            }
            Err(error) => failed = failed.or(Some(error.into())),
        }
    }
    failed
}

/// Creates runs. The object is read once more before: what has been decided meanwhile stays so.
async fn create(
    context: &Arc<Context>,
    object: &Arc<PreScaledCronJob>,
    state: &mut State,
    rules: &Rules,
    actions: &[Action],
    now: Timestamp,
) -> Result<(), CronError> {
    let (key, began) = (key(object), Instant::now());
    let instants: Vec<Timestamp> = actions
        .iter()
        .filter_map(|action| if let Action::Create { instant } = action { Some(*instant) } else { None })
        .collect();
    let spec = &object.spec;
    if instants.is_empty()
        || pre_scaled::template_refusal(&spec.cron_job.spec.job_template.spec, spec.gate).is_some()
    {
        return Ok(());
    }
    if let Some((hash, Some((_, again)))) = &state.trial
        && *hash == rules.hash
        && Instant::now() < *again
    {
        return Ok(());
    }
    let latest = timed(api(context, object).get_opt(&key.name)).await?;
    let same = latest.filter(|latest| {
        latest.uid() == object.uid()
            && latest.metadata.generation == object.metadata.generation
            && latest.metadata.deletion_timestamp.is_none()
    });
    let Some(latest) = same else { return Ok(()) };
    let decided = latest.status.as_ref().and_then(|status| status.decided_until);
    if version(&latest) > version(object) {
        state.latest = Some(Arc::new(latest));
    }
    for instant in &instants {
        if decided.is_some_and(|decided| decided >= *instant) || began.elapsed() > PLAN_HOLDS {
            continue;
        }
        let body = body(object, rules, &context.gate_image, *instant, now);
        let jobs: Api<SlimJob> = Api::namespaced(context.client.clone(), &key.namespace);
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let (word, made) = match apply::post_job(context, &key.namespace, &body, false).await {
            Ok(made) => {
                let warm = instant.duration_since(Timestamp::now()).max(SignedDuration::ZERO);
                tracing::info!(object = %key, job = name, instant = %instant, ahead_s = warm.as_secs(), "run created");
                event(context, object, false, "RunCreated", format!("created {name} for {instant}")).await;
                state.refusals = 0;
                state.trial = Some((rules.hash.clone(), None));
                ("created", Some(made))
            }
            Err(kube::Error::Api(s)) if s.code == 409 && s.reason == "AlreadyExists" => {
                match timed(jobs.get_opt(&name)).await? {
                    Some(found) if owned(&found, object) => ("existed", Some(found.into_view())),
                    Some(_) => {
                        state.conflict = Some(name);
                        ("conflict", None)
                    }
                    None => return Err(CronError::Create(kube::Error::Api(s))),
                }
            }
            Err(kube::Error::Api(s)) if matches!(s.code, 400 | 403 | 404 | 422) => {
                state.refusals += 1;
                let again = Instant::now() + REFUSALS.after(state.refusals);
                state.trial = Some((rules.hash.clone(), Some((s.message.clone(), again))));
                ("refused", None)
            }
            Err(error) => {
                context.metrics.runs.created("failed");
                return Err(CronError::Create(error));
            }
        };
        context.metrics.runs.created(word);
        if let Some(made) = made {
            state.conflict = None;
            state.made.push((Instant::now(), made));
        }
    }
    Ok(())
}

fn owned(job: &SlimJob, object: &PreScaledCronJob) -> bool {
    job.metadata
        .owner_references
        .iter()
        .flatten()
        .any(|o| o.controller == Some(true) && Some(&o.uid) == object.metadata.uid.as_ref())
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

/// Does what is to be done, but for creations. Returns an Event's reason and words, if it is worth one.
pub async fn change(
    context: &Arc<Context>,
    jobs: &Api<Job>,
    action: &Action,
) -> Result<Option<(&'static str, String)>, kube::Error> {
    let delete = |uid: &String, version: Option<&String>, how| DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: version.cloned() }),
        propagation_policy: Some(how),
        ..DeleteParams::default()
    };
    match action {
        Action::Create { .. } => Ok(None),
        Action::Cancel { job, uid, version, why } => {
            let foreground = PropagationPolicy::Foreground;
            timed(jobs.delete(job, &delete(uid, Some(version), foreground))).await?;
            let words = match why {
                Cancelled::Stopped => "it is suspended, paused or deleted",
                Cancelled::Unnamed => "the schedule names its instant no more",
                Cancelled::Outdated => "the template has changed; another takes its place",
                Cancelled::Edited => "it was edited by hand; another takes its place",
                Cancelled::Forbidden => "an earlier run has not ended, and concurrencyPolicy is Forbid",
            };
            Ok(Some(("RunCancelled", format!("deleted {job}, which was held: {words}"))))
        }
        Action::Replace { job, uid } => {
            timed(jobs.delete(job, &delete(uid, None, PropagationPolicy::Foreground))).await?;
            let words = format!("deleted {job}, which was at work: concurrencyPolicy is Replace");
            Ok(Some(("RunReplaced", words)))
        }
        Action::Forget { job, uid } => {
            timed(jobs.delete(job, &delete(uid, None, PropagationPolicy::Background))).await.map(|_| None)
        }
        Action::Upkeep(upkeep) => kept_jobs::upkeep(context, jobs, upkeep).await.map(|()| None),
    }
}

fn conditions(
    object: &PreScaledCronJob,
    state: &State,
    plan: &Plan,
    trouble: Option<&Trouble>,
    previous: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let mut c = Conditions::new(previous, object.metadata.generation, now);
    let cron = &object.spec.cron_job.spec;
    let gate = pre_scaled::template_refusal(&cron.job_template.spec, object.spec.gate);
    let refused =
        state.trial.as_ref().and_then(|(_, refused)| refused.as_ref()).map(|(words, _)| words.clone());
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
    match &state.conflict {
        Some(name) => c.set(
            "Conflict",
            true,
            "NameTaken",
            format!("Job {name} belongs to another, which is left alone: rename this object or that Job"),
        ),
        None => c.set("Conflict", false, "NoConflict", "no name is taken"),
    }
    c.finish()
}

/// Writes the status if it changed; then there is news to tell, and another look due.
async fn tell(
    context: &Arc<Context>,
    object: &Arc<PreScaledCronJob>,
    state: &mut State,
    before: &PreScaledCronJobStatus,
    status: PreScaledCronJobStatus,
    told: &[Told],
) -> Result<Next, CronError> {
    if *before == status {
        return Ok(Next::await_change());
    }
    let base = state.latest.as_ref().filter(|latest| version(latest) > version(object)).unwrap_or(object);
    if base.status.clone().unwrap_or_default() != *before {
        // Somebody else wrote it meanwhile: looked at again with that.
        return Ok(Next::requeue(Duration::ZERO));
    }
    let mut new = PreScaledCronJob::clone(base);
    new.status = Some(status.clone());
    match timed(api(context, object).replace_status(&object.name_any(), &PostParams::default(), &new)).await {
        Ok(mut written) => {
            context.metrics.status_written("ok");
            written.metadata.managed_fields = None;
            state.latest = Some(Arc::new(written));
        }
        Err(kube::Error::Api(s)) if s.code == 404 => return Ok(Next::await_change()),
        Err(kube::Error::Api(s)) if s.code == 409 => {
            if let Some(mut latest) = timed(api(context, object).get_opt(&object.name_any())).await? {
                latest.metadata.managed_fields = None;
                state.latest = Some(Arc::new(latest));
            }
            return Ok(Next::requeue(Duration::ZERO));
        }
        Err(error) => return Err(error.into()),
    }
    for news in told {
        let (warning, reason, words) = match news {
            Told::Missed { count, last } => {
                context.metrics.runs.instants("missed", u64::from(*count));
                (
                    true,
                    "InstantMissed",
                    format!(
                        "{count} instants passed without a run, the last at {last}: nobody could start one in time"
                    ),
                )
            }
            Told::Skipped { instant } => {
                context.metrics.runs.instants("skipped", 1);
                (
                    true,
                    "InstantSkipped",
                    format!(
                        "no run for {instant}: an earlier one is at work, and concurrencyPolicy is Forbid"
                    ),
                )
            }
        };
        tracing::info!(object = %key(object), reason, words);
        event(context, object, warning, reason, words).await;
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
        context.metrics.runs.ended(word, run);
    }
    for condition in &status.conditions {
        let old = before.conditions.iter().find(|c| c.type_ == condition.type_);
        let bad = matches!(
            (condition.type_.as_str(), condition.status.as_str()),
            ("ScheduleValid" | "TemplateValid" | "PolicyHealthy", "False") | ("Conflict", "True")
        );
        let same = old.is_some_and(|old| old.status == condition.status && old.reason == condition.reason);
        if bad && !same && condition.reason != "Loading" {
            let reason = format!("{}{}", condition.type_, condition.reason);
            event(context, object, true, &reason, condition.message.clone()).await;
        }
    }
    Ok(Next::requeue(Duration::ZERO))
}

async fn event(context: &Context, object: &PreScaledCronJob, warning: bool, reason: &str, words: String) {
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(words.chars().take(1000).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = timed(context.recorder.publish(&event, &object.object_ref(&()))).await {
        tracing::warn!(%error, "an Event could not be written");
    }
}
