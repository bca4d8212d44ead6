//! One look at a HotStandbyDeployment: observe → decide → plan → apply → report.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use stoker_api::{
    AfterUse, DeletionPolicy, Disruption, HotStandbyDeployment, HotStandbyDeploymentStatus, keys,
};
use stoker_core::pod::PodView;
use stoker_core::pool::decision::{Bounds, decide};
use stoker_core::pool::plan::{Action as Step, Settings, plan};
use stoker_core::pool::status::{Facts, status};
use stoker_core::pool::{Asked, Counts, MarkRules, Memory, Placement, ReplaceRules, Snapshot};
use stoker_core::verdict::remember;
use stoker_policy::Policy;

use crate::apply::{self, Created};
use crate::context::Context;
use crate::deciding::{ask, deciding, judge_pods, policy_status, scaling_policy, settle_policy};
use crate::fence::Fence;
use crate::observe::OVERLAY;
use crate::policies::Source;
use crate::report::report;

/// Pods of one pool that are created at a time: enough to fill a large pool fast, few enough to leave the API
/// server to others.
const CREATES_AT_A_TIME: usize = 16;

/// First and longest wait after the API server refused a pod.
const REFUSED_FIRST: SignedDuration = SignedDuration::from_secs(5);
const REFUSED_LONGEST: SignedDuration = SignedDuration::from_secs(300);

/// How long a slot whose name is taken is left alone. Nothing tells when the other's pod is gone.
const CONFLICT: Duration = Duration::from_secs(60);

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
    #[error("writing the finalizer: {0}")]
    Finalizer(kube::Error),
    #[error("marking pod {0}: {1}")]
    Mark(String, kube::Error),
}

/// The policy that decides for a pool.
pub(crate) struct Active {
    pub(crate) policy: Arc<Policy>,
    pub(crate) config: String,
    pub(crate) source: Source,
}

/// A config that a component did not take.
pub(crate) struct RefusedConfig {
    pub(crate) digest: String,
    pub(crate) config: String,
    pub(crate) words: String,
    /// When it is tried again, if there was no answer; an answer stands.
    pub(crate) again: Option<Instant>,
}

/// What is remembered of a pool between two looks.
#[derive(Default)]
pub struct PoolState {
    pub(crate) memory: Memory,
    pub(crate) active: Option<Active>,
    /// Digest of the component that decided before the operator started, until it is needed or replaced.
    pub(crate) last_known: Option<String>,
    /// Why that one does not decide now.
    pub(crate) lost: Option<String>,
    /// The last config that was not taken.
    pub(crate) refused_config: Option<RefusedConfig>,
    /// Calls of `validate` in a row that gave no answer.
    pub(crate) refusals_in_a_row: u32,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<String>,
    /// A policy that fails is not asked again before then: it is most often the costly ones that fail.
    pub(crate) quiet_until: Option<Instant>,
    pub(crate) policy_state: Vec<u8>,
    pub(crate) history: VecDeque<(Timestamp, u32, u32)>,
    /// The template that was tried, and the refusal.
    template: Option<(String, Option<String>)>,
    /// Slots whose names others have, and when that was seen.
    conflicts: BTreeMap<u32, (Instant, String)>,
    refusals: u32,
    refused: Option<(Timestamp, String)>,
    /// Pods made that the watch may not show yet.
    made: Vec<(Instant, PodView)>,
    /// UIDs of pods removed that the watch may show as they were.
    removed: Vec<(Instant, String)>,
    pub(crate) written: Option<HotStandbyDeploymentStatus>,
    pub(crate) written_at: Option<Instant>,
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
        let policy = object.status.as_ref().and_then(|status| status.policy.as_ref());
        state.last_known = policy.and_then(|policy| policy.active_digest.clone());
        state
    }

    /// Lets a policy decide from now on.
    pub(crate) fn activate(&mut self, active: Active) {
        self.active = Some(active);
        self.last_known = None;
        self.lost = None;
        self.refused_config = None;
        self.refusals_in_a_row = 0;
        self.failures = 0;
        self.last_error = None;
        self.quiet_until = None;
        self.policy_state.clear();
    }

    /// Why the policy is not asked now: it failed a short while ago.
    pub(crate) fn quiet(&self) -> Option<String> {
        self.quiet_until.filter(|until| Instant::now() < *until).and(self.last_error.clone())
    }

    /// Notes how a look's calls of the policy ended. Answers that were not asked for change nothing.
    fn called(&mut self, error: Option<String>) {
        if self.quiet().is_some() {
            return;
        }
        self.failures = if error.is_some() { self.failures.saturating_add(1) } else { 0 };
        self.quiet_until =
            error.is_some().then(|| Instant::now() + Duration::from_secs(1 << self.failures.min(6)));
        self.last_error = error;
    }

    /// The pods that the watch shows, corrected by what was just done.
    fn overlay(&mut self, mut pods: Vec<PodView>, went: impl Fn(&str) -> bool) -> Vec<PodView> {
        self.made.retain(|(at, made)| {
            at.elapsed() < OVERLAY && !went(&made.uid) && !pods.iter().any(|p| p.uid == made.uid)
        });
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
    let draining = object.metadata.deletion_timestamp.is_some();
    let drains = object.spec.deletion_policy == DeletionPolicy::Drain;
    if draining && !(drains && object.finalizers().iter().any(|f| f == keys::DRAIN)) {
        apply::finalize(&context, &object, false).await.map_err(ReconcileError::Finalizer)?;
        // Nothing is made any more; the garbage collector takes the pods.
        return Ok(Action::await_change());
    }
    if !draining && apply::finalize(&context, &object, drains).await.map_err(ReconcileError::Finalizer)? {
        // The object comes again with it.
        return Ok(Action::await_change());
    }
    let state = context.pool(&uid, &user, || PoolState::start(&object));
    let mut state = state.lock().await;
    let touched = context.pods.take_touched(&uid);
    let now = Timestamp::now();

    let pods = context.pods.of(&uid);
    let mut pods = state.overlay(pods, |pod| context.pods.went(&uid, pod));
    for pod in &mut pods {
        pod.displaced = pod.node.as_deref().is_some_and(|node| context.nodes.is_being_lost(node));
    }
    if draining && pods.is_empty() {
        apply::finalize(&context, &object, false).await.map_err(ReconcileError::Finalizer)?;
        return Ok(Action::await_change());
    }
    let source = object.spec.policy.as_ref().and_then(|p| Source::of(&user.0, p));
    let fence = Fence::new(&context, &object, source.as_ref());
    let trouble = settle_policy(&object, &context, &mut state, source.as_ref(), &user).await;

    let judged = judge_pods(&object, &context, &state, &pods, now).await;
    remember(&mut state.memory.pods, &pods, &judged.verdicts, &judged.by_probe, now);
    let memories = state.memory.pods.clone();
    let snapshot = Snapshot { pods: &pods, memories: &memories };
    let counts = snapshot.counts();
    let hash = apply::template_hash(&object);

    let (asked, policy_wake) =
        ask(&object, &context, &mut state, snapshot, &counts, &hash, trouble.as_ref(), now).await;
    if let Some(reason) = fence.broken() {
        tracing::info!(namespace = user.0, name = user.1, reason, "decision dropped, deciding again");
        context.metrics.policies.dropped(reason);
        return Ok(Action::requeue(Duration::ZERO));
    }
    let unanswered = match &asked {
        Asked::Failed { error } if state.active.is_some() => Some(error.clone()),
        _ => None,
    };
    state.called(judged.error.or(unanswered));
    let bounds = Bounds {
        minimum: object.spec.min_replicas,
        maximum: object.spec.max_replicas,
        idle_target: object.spec.idle_target,
    };
    let decision = decide(asked, &counts, bounds, state.memory.last_good);

    if !object.spec.paused && !draining && state.template.as_ref().is_none_or(|(h, _)| *h != hash) {
        let refusal =
            apply::try_template(&context, &object, &hash).await.map_err(ReconcileError::Template)?;
        state.template = Some((hash.clone(), refusal));
        state.refused = None;
        state.refusals = 0;
    }
    let template_error = state.template.as_ref().and_then(|(_, e)| e.clone());
    state.conflicts.retain(|_, (seen, _)| seen.elapsed() < CONFLICT);
    if decision.applied <= counts.current {
        // Nothing is missing, so that an earlier refusal no longer matters.
        state.refused = None;
    }
    let settings = Settings {
        bounds,
        scale_down_delay: SignedDuration::from_secs(i64::from(object.spec.scale_down_delay_seconds)),
        paused: object.spec.paused,
        template_refused: template_error.is_some(),
        conflicts: state.conflicts.keys().copied().collect(),
        no_creation_before: state.refused.as_ref().map(|(until, _)| *until),
        replace: ReplaceRules {
            template_hash: Some(hash.clone()),
            after_use: object.spec.after_use == AfterUse::Replace,
            max_idle: object.spec.max_idle_seconds.map(|s| SignedDuration::from_secs(i64::from(s))),
            max_surge: object.spec.replenish.max_surge,
        },
        marks: MarkRules {
            used: object.spec.after_use == AfterUse::Replace,
            state: object.spec.state_labels,
            disruption: object.spec.disruption == Disruption::Annotate,
        },
        max_per_second: object.spec.replenish.max_per_second,
        placement: match object.spec.placement {
            None => Placement::Youngest,
            Some(stoker_api::Placement::Spread) => Placement::Spread,
            Some(stoker_api::Placement::Packed) => Placement::Packed,
        },
        draining,
    };
    let plan = plan(snapshot, &counts, &decision, &settings, &mut state.memory, now);

    let failed = apply_plan(&object, &context, &mut state, &plan.actions, &fence, &hash, touched).await;

    let last_error = state.last_error.clone();
    let patience = SignedDuration::from_secs(i64::from(object.spec.startup_timeout_seconds));
    let not_starting = snapshot.not_starting(patience, now);
    let facts = Facts {
        by: deciding(&state),
        digest: scaling_policy(&state).map(|a| a.policy.digest().to_string()),
        policy: source.as_ref().map(|s| policy_status(&context, &state, s)),
        policy_trouble: trouble.or_else(|| last_error.map(|e| ("CallFailed".to_owned(), e))),
        template_error,
        template_tried: state.template.is_some(),
        conflicts: state.conflicts.values().map(|(_, name)| name.clone()).collect(),
        creation_error: state.refused.as_ref().map(|(_, e)| e.clone()),
        not_starting: not_starting.0,
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

    // Should the watch never show what was made, it is believed no longer then.
    let unseen = state.made.iter().map(|(at, _)| OVERLAY.saturating_sub(at.elapsed())).min();
    let validate = state.refused_config.as_ref().and_then(|refused| refused.again);
    let validate = validate.map(|again| again.saturating_duration_since(Instant::now()));
    let until = |t: Timestamp| Duration::try_from(t.duration_since(Timestamp::now())).unwrap_or_default();
    let retry = state.quiet_until.map(|until| until.saturating_duration_since(Instant::now()));
    let refused = state.refused.as_ref().filter(|(t, _)| *t > Timestamp::now()).map(|(t, _)| until(*t));
    let wake = [
        plan.wake_at.map(until),
        not_starting.1.map(until),
        status_wake,
        policy_wake,
        judged.wake,
        retry,
        validate,
        refused,
        unseen,
    ]
    .into_iter()
    .flatten()
    .min();
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

/// Carries out the actions. Removals of ended pods and creations do not wait for each other's fate; the first
/// error is told when all is done.
async fn apply_plan(
    object: &HotStandbyDeployment,
    context: &Context,
    state: &mut PoolState,
    actions: &[Step],
    fence: &Fence<'_>,
    hash: &str,
    touched: Option<Instant>,
) -> Option<ReconcileError> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let mut failed = None;
    let mut void = None;

    let slots: Vec<u32> = actions
        .iter()
        .filter_map(|a| if let Step::Create { slot } = a { Some(*slot) } else { None })
        .collect();
    if let (Some(at), false) = (touched, slots.is_empty()) {
        context.metrics.reacted(at.elapsed());
    }
    let mut outcomes = stream::iter(slots)
        .map(|slot| async move {
            // A plan of many pods takes a while, in which it may become void.
            match fence.broken() {
                Some(reason) => (slot, Err(reason)),
                None => (slot, Ok(apply::create(context, object, slot, hash).await)),
            }
        })
        .buffer_unordered(CREATES_AT_A_TIME);
    while let Some((slot, outcome)) = outcomes.next().await {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(reason) => {
                void.get_or_insert(reason);
                continue;
            }
        };
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
                state.conflicts.insert(slot, (Instant::now(), taken));
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
        if let Step::Mark { name: pod, uid, labels, annotations } = action
            && let Err(error) = apply::mark(context, namespace, pod, uid, labels, annotations).await
        {
            failed.get_or_insert(ReconcileError::Mark(pod.clone(), error));
        }
        let Step::Remove { name: pod, uid, resource_version, reason } = action else { continue };
        if let Some(reason) = fence.broken() {
            void.get_or_insert(reason);
            break;
        }
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
    if let Some(reason) = void {
        // Whatever broke the fence asks for another look.
        tracing::info!(namespace, name, reason, "the rest of a decision dropped, deciding again");
        context.metrics.policies.dropped(reason);
    }
    failed
}
