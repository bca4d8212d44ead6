//! One look at a HotStandbyDeployment: observe → decide → plan → apply → report.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use serde_json::json;
use stoker_api::{HotStandbyDeployment, HotStandbyDeploymentStatus, PolicyStatus};
use stoker_core::pod::PodView;
use stoker_core::pool::decision::{Bounds, decide};
use stoker_core::pool::plan::{Action as Step, Settings, plan};
use stoker_core::pool::status::{Facts, differs, status};
use stoker_core::pool::{Asked, Counts, Memory, Snapshot};
use stoker_core::verdict::{Judgement, Verdict, ever_ready, judge, remember};
use stoker_policy::{Limits, Policy};

use crate::apply::{self, Created};
use crate::context::Context;
use crate::observe::OVERLAY;
use crate::policies::{Content, Source};
use crate::projection::{self, ScalingContext, Wanted};

/// Pods of one pool that are created at a time: enough to fill a large pool fast, few enough to leave the API
/// server to others.
const CREATES_AT_A_TIME: usize = 16;

/// A status is written at most this often.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// First and longest wait after the API server refused a pod.
const REFUSED_FIRST: SignedDuration = SignedDuration::from_secs(5);
const REFUSED_LONGEST: SignedDuration = SignedDuration::from_secs(300);

/// How many samples of the past a policy sees.
const HISTORY: usize = 64;

/// Why a look ended early. The object is looked at again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("creating a pod: {0}")]
    Create(kube::Error),
    #[error("removing pod {0}: {1}")]
    Remove(String, kube::Error),
    #[error("writing the status: {0}")]
    Status(kube::Error),
    #[error("trying the template: {0}")]
    Template(kube::Error),
}

/// The policy that decides for a pool.
struct Active {
    policy: Arc<Policy>,
    config: String,
    source: Source,
}

/// What is remembered of a pool between two looks.
#[derive(Default)]
pub struct PoolState {
    memory: Memory,
    active: Option<Active>,
    /// The last (digest, config) whose config was refused, and the words.
    refused_config: Option<(String, String, String)>,
    failures: u32,
    last_error: Option<String>,
    policy_state: Vec<u8>,
    history: VecDeque<(Timestamp, u32, u32)>,
    /// The template that was tried, and the refusal.
    template: Option<(String, Option<String>)>,
    /// Slots whose names others have.
    conflicts: BTreeMap<u32, String>,
    refusals: u32,
    refused: Option<(Timestamp, String)>,
    /// Pods made that the watch may not show yet.
    made: Vec<(Instant, PodView)>,
    /// UIDs of pods removed that the watch may show as they were.
    removed: Vec<(Instant, String)>,
    written: Option<HotStandbyDeploymentStatus>,
    written_at: Option<Instant>,
}

impl PoolState {
    /// After a restart the last target is known from the status, so that a policy that cannot be loaded any
    /// more does not shrink the pool (I3).
    fn start(object: &HotStandbyDeployment) -> Self {
        let mut state = Self::default();
        if let Some(status) = &object.status
            && object.spec.policy.is_some()
            && status.observed_generation == object.metadata.generation
        {
            state.memory.last_good = Some(status.desired_replicas);
        }
        state
    }

    /// The pods that the watch shows, corrected by what was just done.
    fn overlay(&mut self, mut pods: Vec<PodView>) -> Vec<PodView> {
        self.made.retain(|(at, made)| at.elapsed() < OVERLAY && !pods.iter().any(|p| p.uid == made.uid));
        self.removed.retain(|(at, uid)| at.elapsed() < OVERLAY && pods.iter().any(|p| &p.uid == uid));
        for pod in &mut pods {
            if self.removed.iter().any(|(_, uid)| uid == &pod.uid) {
                pod.terminating = true;
            }
        }
        let gone = |made: &PodView| pods.iter().any(|p| p.name == made.name);
        let unseen: Vec<PodView> =
            self.made.iter().filter(|(_, m)| !gone(m)).map(|(_, m)| m.clone()).collect();
        pods.extend(unseen);
        pods
    }
}

/// One look at a pool.
pub async fn reconcile(
    object: Arc<HotStandbyDeployment>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    context.pods.ready().await;
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let user = (
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.name.clone().unwrap_or_default(),
    );
    if object.metadata.deletion_timestamp.is_some() {
        // Nothing is made any more; the garbage collector takes the pods.
        return Ok(Action::await_change());
    }
    let state = context.pool(&uid, &user, || PoolState::start(&object));
    let mut state = state.lock().await;
    let touched = context.pods.take_touched(&uid);
    let now = Timestamp::now();

    let pods = state.overlay(context.pods.of(&uid));
    let source = object.spec.policy.as_ref().and_then(|p| Source::of(&user.0, p));
    let trouble = settle_policy(&object, &context, &mut state, source.as_ref(), &user).await;

    let (judged, unclear) = judge_pods(&object, &context, &state, &pods, now).await;
    remember(&mut state.memory.pods, &pods, &judged, now);
    let memories = state.memory.pods.clone();
    let snapshot = Snapshot { pods: &pods, memories: &memories };
    let counts = snapshot.counts();
    let hash = apply::template_hash(&object);

    let (asked, policy_wake) =
        ask(&object, &context, &mut state, snapshot, &counts, &hash, trouble.as_ref(), now).await;
    let unanswered = match &asked {
        Asked::Failed { error } if state.active.is_some() => Some(error.clone()),
        _ => None,
    };
    state.last_error = unclear.or(unanswered);
    state.failures = if state.last_error.is_some() { state.failures.saturating_add(1) } else { 0 };
    let bounds = Bounds {
        minimum: object.spec.min_replicas,
        maximum: object.spec.max_replicas,
        idle_target: object.spec.idle_target,
    };
    let decision = decide(asked, &counts, bounds, state.memory.last_good);

    if !object.spec.paused && state.template.as_ref().is_none_or(|(h, _)| *h != hash) {
        let refusal =
            apply::try_template(&context, &object, &hash).await.map_err(ReconcileError::Template)?;
        state.template = Some((hash.clone(), refusal));
        state.refused = None;
        state.refusals = 0;
    }
    let template_error = state.template.as_ref().and_then(|(_, e)| e.clone());
    let settings = Settings {
        bounds,
        scale_down_delay: SignedDuration::from_secs(i64::from(object.spec.scale_down_delay_seconds)),
        paused: object.spec.paused,
        template_refused: template_error.is_some(),
        conflicts: state.conflicts.keys().copied().collect(),
        no_creation_before: state.refused.as_ref().map(|(until, _)| *until),
    };
    let plan = plan(snapshot, &counts, &decision, &settings, &mut state.memory, now);

    let failed = apply_plan(&object, &context, &mut state, &plan.actions, &hash, touched).await;

    let last_error = state.last_error.clone();
    let facts = Facts {
        by: deciding(&state),
        digest: scaling_policy(&state).map(|a| a.policy.digest().to_string()),
        policy: source.as_ref().map(|s| policy_status(&context, &state, s, &user)),
        policy_trouble: trouble.or_else(|| last_error.map(|e| ("CallFailed".to_owned(), e))),
        template_error,
        template_tried: state.template.is_some(),
        conflicts: state.conflicts.values().cloned().collect(),
        creation_error: state.refused.as_ref().map(|(_, e)| e.clone()),
    };
    let previous = state.written.clone().or_else(|| object.status.clone()).unwrap_or_default();
    let keeps_failing = state.memory.backoff.keeps_failing();
    let new = status(&object, &previous, &counts, &decision, &plan, keeps_failing, &facts, now);
    let status_wake = report(&object, &context, &mut state, &previous, new).await?;
    sample(&mut state, &counts, now);
    if let Some(error) = failed {
        return Err(error);
    }
    context.metrics.reconciled("ok");

    let until = |t: Timestamp| Duration::try_from(t.duration_since(Timestamp::now())).unwrap_or_default();
    let retry = (state.failures > 0).then(|| Duration::from_secs(1 << state.failures.min(6)));
    let refused = state.refused.as_ref().map(|(t, _)| until(*t));
    let wake =
        [plan.wake_at.map(until), status_wake, policy_wake, retry, refused].into_iter().flatten().min();
    // A moment more than asked, so that the look comes after what it waits for.
    Ok(wake.map_or_else(Action::await_change, |w| Action::requeue(w + Duration::from_millis(2))))
}

fn sample(state: &mut PoolState, counts: &Counts, now: Timestamp) {
    let new = (counts.busy_for_sizing, counts.current);
    if state.history.back().is_none_or(|(_, busy, total)| (*busy, *total) != new) {
        state.history.push_back((now, new.0, new.1));
        if state.history.len() > HISTORY {
            state.history.pop_front();
        }
    }
}

fn limits(object: &HotStandbyDeployment) -> Limits {
    let given = object.spec.policy.as_ref().and_then(|p| p.limits.clone()).unwrap_or_default();
    Limits {
        timeout: Duration::from_millis(u64::from(given.timeout_milliseconds)),
        memory_bytes: given.memory_mib as usize * 1024 * 1024,
    }
}

/// Brings the active policy in line with the spec as far as it goes, and tells what is in the way. Whatever
/// that is, the one that was active stays so.
async fn settle_policy(
    object: &HotStandbyDeployment,
    context: &Arc<Context>,
    state: &mut PoolState,
    source: Option<&Source>,
    user: &(String, String),
) -> Option<(String, String)> {
    let (Some(spec), Some(source)) = (&object.spec.policy, source) else {
        context.policies.release(user, None);
        state.active = None;
        state.failures = 0;
        state.last_error = None;
        return None;
    };
    context.policies.release(user, Some(source));
    let wanted = match context.policies.content(context, source, user.clone()) {
        Content::Loading if state.active.is_some() => return None,
        Content::Loading => return Some(("Loading".to_owned(), format!("{source} is being loaded"))),
        Content::Refused { reason, words, .. } => return Some((reason.to_owned(), words)),
        Content::Loaded(policy) => policy,
    };
    let digest = wanted.digest().to_string();
    if let Some(pin) = spec.digest.as_ref().filter(|pin| **pin != digest) {
        let words = format!(
            "{source} holds {digest}, but spec.policy.digest pins {pin}: restore those bytes or change the pin"
        );
        return Some(("DigestMismatch".to_owned(), words));
    }
    let config = spec.config.as_ref().map_or_else(|| "{}".to_owned(), ToString::to_string);
    if let Some(active) = &state.active
        && active.policy.digest() == wanted.digest()
        && active.config == config
    {
        if active.source != *source {
            state.active = Some(Active { policy: wanted, config, source: source.clone() });
        }
        return None;
    }
    if let Some((d, c, words)) = &state.refused_config
        && (d, c) == (&digest, &config)
    {
        return Some(("ConfigInvalid".to_owned(), words.clone()));
    }
    match context.host.validate(&wanted, &config, limits(object)).await {
        Ok(()) => {
            let (namespace, name) = user;
            tracing::info!(namespace, name, %source, digest, "policy in use");
            state.active = Some(Active { policy: wanted, config, source: source.clone() });
            state.refused_config = None;
            state.failures = 0;
            state.last_error = None;
            state.policy_state.clear();
            None
        }
        Err(refusal) => {
            let words = format!("spec.policy.config: {refusal}");
            // An answer stays what it is; a call that failed may succeed the next time.
            if matches!(refusal, stoker_policy::ConfigRefusal::Invalid(_)) {
                state.refused_config = Some((digest, config, words.clone()));
            }
            Some(("ConfigInvalid".to_owned(), words))
        }
    }
}

async fn judge_pods(
    object: &HotStandbyDeployment,
    context: &Context,
    state: &PoolState,
    pods: &[PodView],
    now: Timestamp,
) -> (Vec<Judgement>, Option<String>) {
    let probe = &object.spec.busy_probe;
    let by_probe: Vec<Judgement> =
        pods.iter().map(|p| judge(p, probe, state.memory.pods.get(&p.uid))).collect();
    let Some(active) = state.active.as_ref().filter(|a| a.policy.exports().busyness) else {
        return (by_probe, None);
    };
    let info = active.policy.info();
    let wanted = Wanted { labels: &info.wanted_labels, annotations: &info.wanted_annotations };
    let input =
        projection::busyness_input(object, &active.config, pods, &state.memory.pods, &by_probe, &wanted, now);
    match context.host.classify(&active.policy, limits(object), input).await {
        Ok(answer) => {
            context.metrics.policy_called("classify", "ok", Some(answer.took));
            (projection::judgements(pods, answer.value), None)
        }
        Err(error) => {
            context.metrics.policy_called("classify", error.kind(), None);
            let words = error.to_string();
            // A pod that has never been Ready is starting whoever is asked. Of the others nothing is known (I3),
            // also of one that is not Ready now: readiness is often dropped at work.
            let unknown = pods
                .iter()
                .zip(by_probe)
                .map(|(pod, judgement)| {
                    if judgement.verdict == Verdict::Starting
                        && !ever_ready(pod, state.memory.pods.get(&pod.uid))
                    {
                        judgement
                    } else {
                        Judgement { verdict: Verdict::Unknown, reason: words.clone() }
                    }
                })
                .collect();
            (unknown, Some(words))
        }
    }
}

#[allow(clippy::too_many_arguments)]
async fn ask(
    object: &HotStandbyDeployment,
    context: &Context,
    state: &mut PoolState,
    snapshot: Snapshot<'_>,
    counts: &Counts,
    hash: &str,
    trouble: Option<&(String, String)>,
    now: Timestamp,
) -> (Asked, Option<Duration>) {
    let Some(active) = &state.active else {
        let asked = trouble.map_or(Asked::Formula, |(_, words)| Asked::Failed { error: words.clone() });
        return (asked, None);
    };
    if !active.policy.exports().scaling {
        return (Asked::Formula, None);
    }
    let history: Vec<_> = state.history.iter().copied().collect();
    let input = projection::scaling_input(
        snapshot,
        &ScalingContext {
            object,
            config: &active.config,
            counts,
            template_hash: hash,
            previous: state.memory.previous.as_ref(),
            history: &history,
            state: &state.policy_state,
            now,
        },
    );
    match context.host.scale(&active.policy, limits(object), input).await {
        Ok(answer) => {
            context.metrics.policy_called("scale", "ok", Some(answer.took));
            let decision = answer.value;
            let asked = projection::asked(snapshot, &decision);
            let valid = decision.valid_until.map(|t| t.saturating_sub(now.as_millisecond()).max(0) as u64);
            let wake = [decision.wake_after, valid].into_iter().flatten().min().map(Duration::from_millis);
            state.policy_state = decision.state;
            (asked, wake.map(|w| w.max(Duration::from_secs(1))))
        }
        Err(error) => {
            context.metrics.policy_called("scale", error.kind(), None);
            (Asked::Failed { error: error.to_string() }, None)
        }
    }
}

/// The active policy, if it is the one that decides the size.
fn scaling_policy(state: &PoolState) -> Option<&Active> {
    state.active.as_ref().filter(|a| a.policy.exports().scaling)
}

fn deciding(state: &PoolState) -> String {
    scaling_policy(state).map_or_else(|| "formula".to_owned(), |a| a.source.to_string())
}

fn policy_status(
    context: &Arc<Context>,
    state: &PoolState,
    source: &Source,
    user: &(String, String),
) -> PolicyStatus {
    PolicyStatus {
        source: source.to_string(),
        active_digest: state.active.as_ref().map(|a| a.policy.digest().to_string()),
        desired_digest: match context.policies.content(context, source, user.clone()) {
            Content::Loaded(policy) => Some(policy.digest().to_string()),
            Content::Refused { digest, .. } => digest,
            Content::Loading => None,
        },
        active_name: state
            .active
            .as_ref()
            .map(|a| format!("{} {}", a.policy.info().name, a.policy.info().version)),
        failures_in_a_row: state.failures.min(i32::MAX as u32),
        last_error: state.last_error.clone(),
    }
}

/// Carries out the actions. Removals of ended pods and creations do not wait for each other's fate; the first
/// error is told when all is done.
async fn apply_plan(
    object: &HotStandbyDeployment,
    context: &Context,
    state: &mut PoolState,
    actions: &[Step],
    hash: &str,
    touched: Option<Instant>,
) -> Option<ReconcileError> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let mut failed = None;

    let slots: Vec<u32> = actions
        .iter()
        .filter_map(|a| if let Step::Create { slot } = a { Some(*slot) } else { None })
        .collect();
    if let (Some(at), false) = (touched, slots.is_empty()) {
        context.metrics.reacted(at.elapsed());
    }
    let mut outcomes = stream::iter(slots)
        .map(|slot| async move { (slot, apply::create(context, object, slot, hash).await) })
        .buffer_unordered(CREATES_AT_A_TIME);
    while let Some((slot, outcome)) = outcomes.next().await {
        match outcome {
            Created::Made(pod) => {
                tracing::info!(kind = "HotStandbyDeployment", namespace, name, pod = pod.name, "pod created");
                state.made.push((Instant::now(), *pod));
                state.refused = None;
                state.refusals = 0;
            }
            Created::Existed => {}
            Created::Conflict(taken) => {
                tracing::warn!(
                    namespace,
                    name,
                    pod = taken,
                    "the name belongs to another's pod; it is left alone"
                );
                state.conflicts.insert(slot, taken);
            }
            Created::Refused(words) => {
                // One refusal a look: the rest would be refused for the same reason.
                state.refusals = state.refusals.saturating_add(1);
                let wait =
                    (REFUSED_FIRST * 2_i32.saturating_pow((state.refusals - 1).min(10))).min(REFUSED_LONGEST);
                tracing::warn!(namespace, name, error = words, "the API server refuses a pod");
                state.refused = Some((Timestamp::now() + wait, words));
                break;
            }
            Created::Failed(error) => {
                failed.get_or_insert(ReconcileError::Create(error));
                break;
            }
        }
    }
    drop(outcomes);

    for action in actions {
        let Step::Remove { name: pod, uid, resource_version, reason } = action else { continue };
        match apply::remove(context, namespace, pod, uid, resource_version.as_deref()).await {
            Ok(true) => {
                tracing::info!(namespace, name, pod, reason = reason.as_str(), "pod removed");
                context.metrics.removed(reason.as_str());
                state.removed.push((Instant::now(), uid.clone()));
            }
            Ok(false) => {
                tracing::info!(namespace, name, pod, "spared: it changed since it was seen idle");
                context.metrics.removed("spared");
            }
            Err(error) => {
                failed.get_or_insert(ReconcileError::Remove(pod.clone(), error));
            }
        }
    }
    failed
}

/// Writes the status if it changed, at most once a period, and tells conditions that changed as Events.
async fn report(
    object: &HotStandbyDeployment,
    context: &Context,
    state: &mut PoolState,
    previous: &HotStandbyDeploymentStatus,
    new: HotStandbyDeploymentStatus,
) -> Result<Option<Duration>, ReconcileError> {
    if !differs(previous, &new) {
        return Ok(None);
    }
    if let Some(wait) = state.written_at.and_then(|at| STATUS_PERIOD.checked_sub(at.elapsed())) {
        return Ok(Some(wait));
    }
    let meta = &object.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let api: Api<HotStandbyDeployment> =
        Api::namespaced(context.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let body = json!({
        "apiVersion": HotStandbyDeployment::api_version(&()),
        "kind": HotStandbyDeployment::kind(&()),
        // The UID makes the write fail for a namesake.
        "metadata": {"name": name, "uid": meta.uid},
        "status": new,
    });
    let params = PatchParams::apply("stoker").force();
    match api.patch_status(name, &params, &Patch::Apply(&body)).await {
        Ok(_) => context.metrics.status_written("ok"),
        // Deleted in the meantime: there is nothing to tell any more.
        Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {
            context.metrics.status_written("gone");
            return Ok(None);
        }
        Err(error) => {
            context.metrics.status_written("error");
            return Err(ReconcileError::Status(error));
        }
    }
    state.written_at = Some(Instant::now());
    publish(object, context, &previous.conditions, &new.conditions).await;
    state.written = Some(new);
    Ok(None)
}

async fn publish(
    object: &HotStandbyDeployment,
    context: &Context,
    before: &[Condition],
    after: &[Condition],
) {
    for condition in after {
        let old = before.iter().find(|c| c.type_ == condition.type_);
        if old.is_some_and(|c| c.status == condition.status && c.reason == condition.reason) {
            continue;
        }
        let bad = matches!(
            (condition.type_.as_str(), condition.status.as_str()),
            ("PolicyHealthy" | "TemplateValid", "False") | ("Stalled" | "Conflict", "True")
        );
        // Loading takes a moment and is no trouble; a good state is news only after a bad one.
        let news = match condition.type_.as_str() {
            "Ready" => condition.status == "True" && condition.reason != "Paused",
            "PolicyHealthy" | "TemplateValid" => {
                (bad && condition.reason != "Loading") || (!bad && old.is_some())
            }
            "Stalled" | "Conflict" => true,
            _ => false,
        };
        if !news {
            continue;
        }
        let event = Event {
            type_: if bad { EventType::Warning } else { EventType::Normal },
            reason: format!("{}{}", condition.type_, condition.reason),
            note: Some(condition.message.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = context.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, "an Event could not be written");
        }
    }
}
