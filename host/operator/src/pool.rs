//! One look at a pool: observe → decide → plan → apply → report.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use stoker_api::{
    AfterClaimTimeout, AfterUse, ClaimEnds, DeletionPolicy, Disruption, PolicyRef, PolicyStatus, PoolSpec,
    keys,
};
use stoker_core::claims;
use stoker_core::pool::decision::decide;
use stoker_core::pool::plan::{Settings, plan};
use stoker_core::pool::status::{Facts, PoolStatus, differs, status};
use stoker_core::pool::{Asked, Counts, MarkRules, Memory, Overlay, Placement, ReplaceRules, Snapshot};
use stoker_core::verdict::remember;

use crate::again::REFUSALS;
use crate::apply;
use crate::asking;
use crate::carry_out::apply_plan;
use crate::context::Context;
use crate::deciding::{Looks, ask, deciding, judge_pods, scaling_policy};
use crate::desk::Demand;
use crate::fence::Fence;
use crate::members::Seen;
use crate::object::{Pool, PoolKind};
use crate::policies::Source;
use crate::policy_cache::Role;
use crate::report::{self, report};
use crate::seat::{Seat, Sitter};
use crate::shadow::Shadow;

/// How long a slot whose name is taken is left alone. Nothing tells when the other's pod is gone.
const CONFLICT: Duration = Duration::from_secs(60);

/// What policies ask to be given back is written at most so often, if nothing else is to be told.
const STATES: Duration = Duration::from_secs(60);

/// How long that may take when the operator ends, and how many are written at a time.
const FLUSH: Duration = Duration::from_secs(5);
const FLUSHED_AT_A_TIME: usize = 8;

/// How many samples of the past a policy sees.
const HISTORY: usize = 64;

/// Why a look ended early. The object is looked at again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("creating a member: {0}")]
    Create(kube::Error),
    #[error("removing {0}: {1}")]
    Remove(String, kube::Error),
    #[error("trying the template: {0}")]
    Template(kube::Error),
    #[error("writing the finalizer: {0}")]
    Finalizer(kube::Error),
    #[error("marking pod {0}: {1}")]
    Mark(String, kube::Error),
}

/// What is remembered of a pool between two looks.
#[derive(Default)]
pub struct PoolState {
    pub(crate) memory: Memory,
    /// The policy that decides.
    pub(crate) seat: Seat,
    /// The one on trial.
    pub(crate) shadow: Shadow,
    /// The two had changed places at the last look.
    promoted: bool,
    /// Claims that found no standby since the policy answered last.
    pub(crate) misses: u32,
    /// When what policies asked to be given back was last handed over to be written.
    states_told: Option<Instant>,
    pub(crate) history: VecDeque<(Timestamp, u32, u32)>,
    /// The template that was tried.
    pub(crate) template: Option<Trial>,
    /// Slots whose names others have, and when that was seen.
    pub(crate) conflicts: BTreeMap<u32, (Instant, String)>,
    pub(crate) refusals: u32,
    /// Until when no member is made, and why the API server refused the last one.
    pub(crate) refused: Option<(Instant, String)>,
    /// The status that was last handed over to be written.
    pub(crate) told: Option<Arc<PoolStatus>>,
}

/// How the dry run of a template ended.
pub(crate) struct Trial {
    pub(crate) hash: String,
    pub(crate) refusal: Option<String>,
    refusals: u32,
    /// When a refused one is tried again: a webhook or policy may have changed its mind.
    again: Option<Instant>,
}

impl Trial {
    /// Notes what was answered after so many refusals in a row.
    fn new(hash: String, refusal: Option<String>, refusals: u32) -> Self {
        let refusals = if refusal.is_some() { refusals.saturating_add(1) } else { 0 };
        let again = refusal.is_some().then(|| Instant::now() + REFUSALS.after(refusals));
        Self { hash, refusal, refusals, again }
    }

    /// Whether the template with a hash needs no trial now.
    fn stands(&self, hash: &str) -> bool {
        self.hash == hash && self.again.is_none_or(|again| Instant::now() < again)
    }
}

impl PoolState {
    /// After a restart the last target is known from the status, so that a policy that cannot be loaded any
    /// more does not shrink the pool (I3), and so is whether the template was accepted.
    fn start(pool: &Pool) -> Self {
        let mut state = Self::default();
        let status = pool.status();
        let generation = pool.meta().generation;
        let accepted = |c: &&Condition| {
            c.type_ == "TemplateValid" && c.status == "True" && c.observed_generation == generation
        };
        if status.as_ref().is_some_and(|status| status.conditions.iter().any(|c| accepted(&c))) {
            state.template = Some(Trial::new(pool.template_hash(), None, 0));
        }
        if let Some(status) = &status
            && pool.spec().policy.is_some()
            && status.observed_generation == generation
        {
            state.memory.last_good = Some(status.desired);
        }
        state.promoted = pool.spec().policy.as_ref().is_some_and(PolicyRef::promoted);
        if let Some(policy) = status.and_then(|status| status.policy) {
            let shadow = policy.shadow.unwrap_or_default();
            let states: Vec<_> = [policy.state, shadow.state].into_iter().flatten().collect();
            state.seat = Seat::before(policy.active_digest, states.clone());
            state.shadow = Shadow::new(Seat::before(shadow.active_digest, states));
        }
        state
    }

    /// Takes note of something done now.
    pub(crate) fn believe<T>(&mut self, note: impl FnOnce(&mut Overlay, Timestamp) -> T) -> T {
        let now = Timestamp::now();
        self.memory.keep_time(now);
        note(&mut self.memory.overlay, now)
    }
}

/// One look at an object.
pub async fn reconcile<K: PoolKind>(object: Arc<K>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let pool = K::pool(object);
    if !context.leads() {
        warm(&pool, &context);
        return Ok(Action::await_change());
    }
    context.children_listed().await;
    look(&pool, &context).await
}

/// Has a pool's policies compiled, for when this replica's turn comes.
fn warm(pool: &Pool, context: &Arc<Context>) {
    let key = pool.key();
    let (wanted, on_trial) = pool.spec().policy.as_ref().map(PolicyRef::roles).unzip();
    let sources: Vec<Source> = wanted
        .into_iter()
        .chain(on_trial.flatten())
        .filter_map(|wanted| Source::of(&key.namespace, &wanted))
        .collect();
    context.policies.release(&key, &sources.iter().collect::<Vec<_>>());
    for source in &sources {
        context.policies.content(context, source, key.clone());
    }
}

async fn look(pool: &Pool, context: &Arc<Context>) -> Result<Action, ReconcileError> {
    let (spec, key, uid) = (pool.spec(), pool.key(), pool.uid());
    let draining = pool.meta().deletion_timestamp.is_some();
    let drains = spec.deletion_policy == DeletionPolicy::Drain;
    let held = pool.meta().finalizers.iter().flatten().any(|f| f == keys::DRAIN);
    if draining && !(drains && held) {
        apply::finalize(context, pool, false).await.map_err(ReconcileError::Finalizer)?;
        // Nothing is made any more; the garbage collector takes the children.
        return Ok(Action::await_change());
    }
    if !draining && apply::finalize(context, pool, drains).await.map_err(ReconcileError::Finalizer)? {
        // The object comes again with it.
        return Ok(Action::await_change());
    }
    let state = context.pool(uid, &key, || PoolState::start(pool));
    let mut state = state.lock().await;
    let touched = context.owners.take_touched(&key);
    let now = Timestamp::now();
    let mut stage = Instant::now();

    let mut seen = Seen::of(context, pool);
    let members = state.memory.see(seen.members(), |member| seen.went(context, uid, member), now);
    if seen.jobs.is_none() {
        // Pods that were made and are not shown yet are judged, too.
        seen.pods = members.clone();
    }
    // Finished Jobs are left to the garbage collector.
    if draining && members.iter().all(|m| seen.jobs.is_some() && m.phase.is_terminal()) {
        apply::finalize(context, pool, false).await.map_err(ReconcileError::Finalizer)?;
        return Ok(Action::await_change());
    }
    let (wanted, on_trial) = spec.policy.as_ref().map(PolicyRef::roles).unzip();
    let wanted = wanted.and_then(|wanted| Some((Source::of(&key.namespace, &wanted)?, wanted)));
    let source = wanted.as_ref().map(|(source, _)| source);
    let on_trial = on_trial.flatten().and_then(|wanted| Some((Source::of(&key.namespace, &wanted)?, wanted)));
    let fence = Fence::new(context, pool, source);
    let used: Vec<&Source> = source.into_iter().chain(on_trial.as_ref().map(|(source, _)| source)).collect();
    context.policies.release(&key, &used);
    let promoted = spec.policy.as_ref().is_some_and(PolicyRef::promoted);
    if std::mem::replace(&mut state.promoted, promoted) != promoted {
        // Each takes with it what it has learnt.
        let PoolState { seat, shadow, .. } = &mut *state;
        shadow.change_places(seat).await;
    }
    let sitter = Sitter {
        key: &key,
        uid,
        generation: pool.meta().generation,
        role: Role::Deciding,
        otherwise: "the formula decides, and the target does not fall",
    };
    let trouble = match &wanted {
        None => {
            state.seat.vacate();
            None
        }
        Some((source, wanted)) => state.seat.settle(context, sitter, wanted, source).await,
    };
    if on_trial.is_none() {
        state.shadow.end();
    }

    let asking = asking::keep(context, pool, &state, &seen.pods);
    let mut judged = judge_pods(pool, context, &state, asking.as_ref(), &seen.pods, now).await;
    let claims = claims::judge(&seen.pods, &mut judged.verdicts, claim_rules(spec), now);
    remember(&mut state.memory.pods, &seen.pods, &judged.verdicts, &judged.by_probe, now);
    let mut memories = seen.remember(&members, &mut state.memory, now);
    if context.desk.wants(uid) {
        offer(pool, context, &seen, &state.memory, Snapshot { pods: &members, memories: &memories }, now);
        // From now on they may be claimed any moment.
        if claims::on_offer(&seen.pods, &mut judged.verdicts, &context.desk.on_offer(uid)) {
            remember(&mut state.memory.pods, &seen.pods, &judged.verdicts, &judged.by_probe, now);
            memories = seen.remember(&members, &mut state.memory, now);
        }
    }
    let demand = context.desk.demand(uid);
    state.memory.startups.note(&seen.pods);
    let snapshot = Snapshot { pods: &members, memories: &memories };
    let hash = pool.template_hash();
    state.misses = state.misses.saturating_add(demand.misses);
    let demand = Demand { misses: state.misses, ..demand };
    let counts = Counts { waiting: demand.waiting, ..snapshot.counts() };

    context.metrics.stage("observe", &mut stage);
    let signals = context.signals.keep(context, pool);
    let looks = Looks { pool, counts: &counts, demand, hash: &hash, signals: &signals.values, now };
    let (asked, policy_wake) = ask(context, &mut state, snapshot, &looks, trouble.as_ref()).await;
    if let Some(reason) = fence.broken() {
        tracing::info!(object = %key, reason, "decision dropped, deciding again");
        context.metrics.policies.dropped(reason);
        return Ok(Action::requeue(Duration::ZERO));
    }
    let unanswered = match &asked {
        Asked::Failed { error } if state.seat.active.is_some() => Some(error.clone()),
        _ => None,
    };
    state.seat.called(judged.error.clone().or(unanswered));
    let bounds = pool.bounds();
    let decision = decide(asked, &counts, bounds, state.memory.last_good);

    if !spec.paused && !draining && state.template.as_ref().is_none_or(|trial| !trial.stands(&hash)) {
        let refusal = apply::try_template(context, pool, &hash).await.map_err(ReconcileError::Template)?;
        let before = state.template.take().filter(|trial| trial.hash == hash);
        if before.is_none() {
            state.refused = None;
            state.refusals = 0;
        }
        state.template = Some(Trial::new(hash.clone(), refusal, before.map_or(0, |trial| trial.refusals)));
    }
    // While a pool is paused, it may have another template than was tried.
    let trial = state.template.as_ref().filter(|trial| trial.hash == hash);
    let template_tried = trial.is_some();
    let template_error = trial.and_then(|trial| trial.refusal.clone());
    state.conflicts.retain(|_, (seen, _)| seen.elapsed() < CONFLICT);
    if decision.applied <= counts.current {
        // Nothing is missing, so that an earlier refusal no longer matters.
        state.refused = None;
    }
    let refused_for =
        state.refused.as_ref().map(|(until, _)| until.saturating_duration_since(Instant::now()));
    let refused_for = refused_for.filter(|wait| !wait.is_zero());
    let marks = mark_rules(spec);
    let settings = Settings {
        template_refused: template_error.is_some(),
        conflicts: state.conflicts.keys().copied().collect(),
        no_creation_before: refused_for.and_then(|wait| Some(now + SignedDuration::try_from(wait).ok()?)),
        // It is the pods that are marked, also where Jobs are the members.
        marks: if seen.jobs.is_none() { marks } else { MarkRules::default() },
        draining,
        ..settings(pool)
    };
    context.metrics.stage("decide", &mut stage);
    let mut plan = plan(snapshot, &counts, &decision, &settings, &mut state.memory, now);
    if !spec.paused {
        plan.actions.extend(seen.housekeeping(pool, &state.memory, marks, &plan.actions));
    }
    for (id, end) in &claims.ended {
        tracing::info!(object = %key, claim = id, reason = end.as_str(), "a claim ends");
        context.metrics.claims.ended(end.as_str());
    }
    context.standby_claims.seen(context, &key, uid, &seen.pods, &claims.ended);
    let claims_wake = claims.wake_at;
    claims.join(&mut plan.actions);

    context.metrics.stage("plan", &mut stage);
    let carried =
        apply_plan(pool, context, &mut state, &plan.actions, &seen, asking.as_ref(), &fence, &hash, touched)
            .await;

    context.metrics.stage("apply", &mut stage);
    if let Some((source, wanted)) = &on_trial {
        let question = state.shadow.question(
            &state,
            snapshot,
            &looks,
            (&seen.pods, &judged.verdicts, &judged.by_probe),
            asking.as_ref(),
            decision.applied,
        );
        state.shadow.ask(context, sitter, wanted, source, question);
    }

    let last_error = state.seat.last_error().cloned();
    let policy = source.map(|source| {
        let shadow = on_trial.as_ref().map(|(source, _)| state.shadow.status(source, Some(decision.applied)));
        PolicyStatus { shadow, ..state.seat.status(context, source) }
    });
    let patience = SignedDuration::from_secs(i64::from(spec.startup_timeout_seconds));
    let not_starting = snapshot.not_starting(patience, now);
    let facts = Facts {
        by: deciding(&state),
        digest: scaling_policy(&state).map(|a| a.policy.digest().to_string()),
        policy,
        policy_trouble: trouble.or_else(|| last_error.map(|e| ("CallFailed".to_owned(), e))),
        asks: asking.is_some(),
        not_answering: asking
            .as_ref()
            .and_then(|asking| asking.not_answering(&seen.pods, &state.memory.pods, now)),
        template_error,
        template_tried,
        conflicts: state.conflicts.values().map(|(_, name)| name.clone()).collect(),
        creation_error: state.refused.as_ref().map(|(_, e)| e.clone()),
        not_starting: not_starting.0,
        jobs: seen.counts(),
        signals: signals.health,
    };
    let previous = state.told.clone().unwrap_or_else(|| Arc::new(pool.status().unwrap_or_default()));
    let keeps_failing = state.memory.backoff.keeps_failing();
    let mut new = status(&pool.about(), &previous, &counts, &decision, &plan, keeps_failing, &facts, now);
    let unkept = keep_states(&state, &previous, &mut new);
    let flush = unkept && state.states_told.is_none_or(|told| told.elapsed() >= STATES);
    if differs(&previous, &new) || flush {
        write_states(&state, &mut new);
        state.states_told = Some(Instant::now());
        context.decisions.note(uid, &new, now);
        let new = Arc::new(new);
        report(context, pool, &previous, new.clone());
        state.told = Some(new);
    }
    sample(&mut state, &counts, now);
    context.metrics.stage("report", &mut stage);
    if let Some(error) = carried.failed {
        return Err(error);
    }
    context.metrics.reconciled("ok");
    let unfinished = if carried.again {
        Some(context.unfinished.note(&key))
    } else {
        context.unfinished.done(&key);
        carried.more.then_some(Duration::ZERO)
    };

    // Should the watch never show what was done, it is believed no longer then.
    let unseen = state.memory.overlay.wake_at(Timestamp::now());
    let left = |at: Instant| at.saturating_duration_since(Instant::now());
    let trial = state.template.as_ref().filter(|_| !spec.paused && !draining).and_then(|trial| trial.again);
    let conflict = state.conflicts.values().map(|(seen, _)| left(*seen + CONFLICT)).min();
    let until = |t: Timestamp| Duration::try_from(t.duration_since(Timestamp::now())).unwrap_or_default();
    let flush = state.states_told.filter(|_| unkept && !flush).map(|told| left(told + STATES));
    let refused = state.refused.as_ref().map(|(until, _)| left(*until)).filter(|wait| !wait.is_zero());
    let wake = [
        plan.wake_at.map(until),
        claims_wake.map(until),
        not_starting.1.map(until),
        policy_wake,
        judged.wake,
        state.seat.wake(),
        flush,
        signals.wake,
        refused,
        unseen.map(until),
        unfinished,
        trial.map(left),
        conflict,
    ]
    .into_iter()
    .flatten()
    .min();
    // A moment more than asked, so that the look comes after what it waits for.
    Ok(wake.map_or_else(Action::await_change, |w| Action::requeue(w + Duration::from_millis(2))))
}

/// Leaves what policies are to be given back as the object has it; true = it has changed since.
fn keep_states(state: &PoolState, previous: &PoolStatus, new: &mut PoolStatus) -> bool {
    let now = (state.seat.kept_state(), state.shadow.kept_state());
    let Some(policy) = &mut new.policy else { return false };
    let before = previous.policy.as_ref();
    policy.state = before.and_then(|policy| policy.state.clone());
    let shadow_before = before.and_then(|policy| policy.shadow.as_ref()?.state.clone());
    let had = (policy.state.clone(), shadow_before.clone());
    if let Some(shadow) = &mut policy.shadow {
        shadow.state = shadow_before;
        return had != now;
    }
    had.0 != now.0
}

/// Tells what policies are to be given back.
fn write_states(state: &PoolState, new: &mut PoolStatus) {
    let Some(policy) = &mut new.policy else { return };
    policy.state = state.seat.kept_state();
    if let Some(shadow) = &mut policy.shadow {
        shadow.state = state.shadow.kept_state();
    }
}

/// Writes what policies asked to be given back, where that has not been done, before the operator ends.
pub async fn flush_states(context: &Arc<Context>) {
    let pools = context.pool_states();
    let written = stream::iter(pools).for_each_concurrent(FLUSHED_AT_A_TIME, async |(key, state)| {
        let (Some(pool), Ok(state)) = (context.latest(&key), state.try_lock()) else { return };
        let Some(told) = state.told.clone().or_else(|| pool.status().map(Arc::new)) else { return };
        let mut new = (*told).clone();
        if keep_states(&state, &told, &mut new) {
            write_states(&state, &mut new);
            if let Err(error) = report::write(context, &pool, &new).await {
                tracing::warn!(object = %key, %error, "what its policy is to be given back cannot be written");
            }
        }
    });
    if tokio::time::timeout(FLUSH, written).await.is_err() {
        tracing::warn!("not all that policies are to be given back could be written in time");
    }
}

/// Offers what stands by to the claims that wait.
fn offer(
    pool: &Pool,
    context: &Context,
    seen: &Seen,
    memory: &Memory,
    members: Snapshot<'_>,
    now: Timestamp,
) {
    let standby = if pool.meta().deletion_timestamp.is_some() {
        Vec::new()
    } else {
        seen.standby(memory, members, placement(pool.spec()), &replace_rules(pool), now)
    };
    let versions = seen.pods.iter().map(|p| (p.uid.as_str(), p.resource_version.as_str()));
    context.desk.tell(pool.uid(), standby, versions);
}

fn replace_rules(pool: &Pool) -> ReplaceRules {
    let spec = pool.spec();
    ReplaceRules {
        template_hash: match pool {
            Pool::Pods(_) => Some(pool.template_hash()),
            // A changed template is for new Jobs only.
            Pool::Jobs(_) => None,
        },
        after_use: spec.after_use == AfterUse::Replace,
        max_idle: spec.max_idle_seconds.map(|s| SignedDuration::from_secs(i64::from(s))),
        max_surge: spec.replenish.max_surge,
    }
}

/// How a pool is planned by its spec alone.
pub fn settings(pool: &Pool) -> Settings {
    let spec = pool.spec();
    Settings {
        bounds: pool.bounds(),
        scale_down_delay: SignedDuration::from_secs(i64::from(spec.scale_down_delay_seconds)),
        paused: spec.paused,
        template_refused: false,
        conflicts: Default::default(),
        no_creation_before: None,
        replace: replace_rules(pool),
        marks: mark_rules(spec),
        max_per_second: spec.replenish.max_per_second,
        placement: placement(spec),
        draining: false,
        keep_ended: matches!(pool, Pool::Jobs(_)),
    }
}

fn placement(spec: &PoolSpec) -> Placement {
    match spec.placement {
        None => Placement::Youngest,
        Some(stoker_api::Placement::Spread) => Placement::Spread,
        Some(stoker_api::Placement::Packed) => Placement::Packed,
    }
}

/// When the pool's claims end by themselves.
pub(crate) fn claim_rules(spec: &PoolSpec) -> claims::Rules {
    claims::Rules {
        timeout: spec.claim_timeout_seconds.map(|s| SignedDuration::from_secs(i64::from(s))),
        return_after_timeout: spec.after_claim_timeout == AfterClaimTimeout::Return,
        until_released: spec.claim_ends == ClaimEnds::WhenReleased,
        after_use: spec.after_use == AfterUse::Replace,
    }
}

pub(crate) fn mark_rules(spec: &PoolSpec) -> MarkRules {
    MarkRules {
        used: spec.after_use == AfterUse::Replace,
        state: spec.state_labels,
        disruption: spec.disruption == Disruption::Annotate,
    }
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
