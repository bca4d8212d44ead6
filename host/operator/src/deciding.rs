//! Who decides for a pool: its policy is settled, asked for verdicts and for a size, and described in the status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use stoker_api::PolicyStatus;
use stoker_core::pod::PodView;
use stoker_core::pool::{Asked, Counts, Snapshot};
use stoker_core::verdict::{Judgement, PodMemories, Verdict, ever_ready};
use stoker_policy::{ConfigRefusal, Limits, Policy};

use crate::again::patience;
use crate::asking::{self, Asking};
use crate::context::Context;
use crate::desk::Demand;
use crate::object::{Key, Pool};
use crate::policies::{Content, Source};
use crate::pool::{Active, PoolState, RefusedConfig};
use crate::prober::Known;
use crate::projection::{self, ScalingContext};

fn limits(pool: &Pool) -> Limits {
    let given = pool.spec().policy.as_ref().and_then(|p| p.limits.clone()).unwrap_or_default();
    Limits {
        timeout: Duration::from_millis(u64::from(given.timeout_milliseconds)),
        memory_bytes: given.memory_mib as usize * 1024 * 1024,
    }
}

/// Why the policy that the spec names does not decide: a reason for the condition, and words.
pub(crate) type Trouble = (String, String);

/// Brings the active policy in line with the spec as far as it goes, and tells what is in the way. Whatever
/// that is, the one that was active stays so; after a restart, the one that was active before is looked for.
pub(crate) async fn settle_policy(
    pool: &Pool,
    context: &Arc<Context>,
    state: &mut PoolState,
    source: Option<&Source>,
    user: &Key,
) -> Option<Trouble> {
    let (Some(spec), Some(source)) = (&pool.spec().policy, source) else {
        context.policies.release(user, None);
        state.active = None;
        state.last_known = None;
        state.failures = 0;
        state.last_error = None;
        state.quiet_until = None;
        return None;
    };
    context.policies.release(user, Some(source));
    let config = spec.config.as_ref().map_or_else(|| "{}".to_owned(), ToString::to_string);
    let (reason, words) = match wanted(pool, context, source, user) {
        Wanted::Loading if state.active.is_some() => return None,
        // What is loading is most often what decided before: no other is looked for yet.
        Wanted::Loading => return Some(("Loading".to_owned(), format!("{source} is being loaded"))),
        Wanted::Trouble(trouble) => trouble,
        Wanted::Policy(policy) => match adopt(pool, context, state, source, policy, config).await {
            Ok(()) => return None,
            Err(trouble) => trouble,
        },
    };
    if state.active.is_none()
        && let Some(digest) = state.last_known.take()
    {
        state.lost = restore(pool, context, state, source, &digest).await.err();
    }
    let now = match (&state.active, &state.lost) {
        (Some(active), _) => {
            format!("the last good component {} goes on deciding", active.policy.digest().short())
        }
        (None, Some(lost)) => format!("{lost}, so the formula decides, and the target does not fall"),
        (None, None) => "the formula decides".to_owned(),
    };
    Some((reason, format!("{words}; until then {now}")))
}

enum Wanted {
    Loading,
    Policy(Arc<Policy>),
    Trouble(Trouble),
}

/// What the spec names, as far as it can be used.
fn wanted(pool: &Pool, context: &Arc<Context>, source: &Source, user: &Key) -> Wanted {
    let policy = match context.policies.content(context, source, user.clone()) {
        Content::Loading => return Wanted::Loading,
        Content::Refused { reason, words, .. } => return Wanted::Trouble((reason.to_owned(), words)),
        Content::Loaded(policy) => policy,
    };
    let digest = policy.digest().as_str();
    let pin = pool.spec().policy.as_ref().and_then(|spec| spec.digest.as_deref());
    match pin {
        Some(pin) if pin != digest => Wanted::Trouble((
            "DigestMismatch".to_owned(),
            format!(
                "{source} holds {digest}, but spec.policy.digest pins {pin}: restore those bytes or change the pin"
            ),
        )),
        _ => Wanted::Policy(policy),
    }
}

/// Makes a policy the active one, unless it refuses its config.
async fn adopt(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    source: &Source,
    policy: Arc<Policy>,
    config: String,
) -> Result<(), Trouble> {
    let digest = policy.digest().to_string();
    if let Some(active) = &mut state.active
        && active.policy.digest() == policy.digest()
        && active.config == config
    {
        active.source = source.clone();
        return Ok(());
    }
    if let Some(refused) = &state.refused_config
        && (&refused.digest, &refused.config) == (&digest, &config)
        && refused.again.is_none_or(|again| Instant::now() < again)
    {
        return Err(("ConfigInvalid".to_owned(), refused.words.clone()));
    }
    match context.host.validate(&policy, &config, limits(pool)).await {
        Ok(()) => {
            tracing::info!(
                namespace = pool.namespace(),
                name = pool.name(),
                %source,
                digest,
                "policy in use"
            );
            context.cache.note(pool.uid(), policy.digest(), &config).await;
            state.activate(Active { policy, config, source: source.clone() });
            Ok(())
        }
        Err(refusal) => {
            let (words, cost) = (format!("spec.policy.config: {refusal}"), policy.last_cost());
            // An answer stays what it is; a call that failed may succeed the next time, though the question is the same.
            let stands = matches!(refusal, ConfigRefusal::Invalid(_));
            state.refused_config = Some(RefusedConfig { digest, config, words: words.clone(), again: None });
            if !stands && let Some(refused) = &mut state.refused_config {
                state.refusals_in_a_row = state.refusals_in_a_row.saturating_add(1);
                let wait = patience(state.refusals_in_a_row + 1, cost);
                refused.again = Some(Instant::now() + wait);
            }
            Err(("ConfigInvalid".to_owned(), words))
        }
    }
}

/// Finds the policy that decided before the operator was restarted. If that fails, tells why.
async fn restore(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    source: &Source,
    digest: &str,
) -> Result<(), String> {
    let (namespace, uid) = (pool.namespace(), pool.uid());
    let Some((bytes, config)) = context.cache.find(uid, digest).await else {
        let kept = if context.cache.exists() { "" } else { " (`stoker run --policy-cache` would keep it)" };
        return Err(format!("the component {digest} that decided before the restart is not at hand{kept}"));
    };
    let gone =
        |why: String| format!("the component {digest} that decided before the restart cannot be used: {why}");
    let loaded = context.host.load_for(namespace, bytes).await;
    let policy = loaded.map_err(|refusal| gone(refusal.to_string()))?;
    context
        .host
        .validate(&policy, &config, limits(pool))
        .await
        .map_err(|refusal| gone(refusal.to_string()))?;
    tracing::info!(namespace, name = pool.name(), digest, "the last good policy was found again");
    state.activate(Active { policy, config, source: source.clone() });
    Ok(())
}

/// What is thought of the pods, one judgement for each.
pub(crate) struct Judged {
    /// The verdicts that count.
    pub(crate) verdicts: Vec<Judgement>,
    /// What the pool's probe says.
    pub(crate) by_probe: Vec<Judgement>,
    /// Why the policy did not answer.
    pub(crate) error: Option<String>,
    /// When the policy wants to be asked again.
    pub(crate) wake: Option<Duration>,
}

/// Judges the pods by the probe, or by the policy that is asked about them.
pub(crate) async fn judge_pods(
    pool: &Pool,
    context: &Context,
    state: &PoolState,
    asking: Option<&Asking>,
    pods: &[PodView],
    now: Timestamp,
) -> Judged {
    let by_probe = asking::by_probe(pool, asking, pods, &state.memory.pods, now);
    let Some(active) = state.active.as_ref().filter(|a| a.policy.exports().busyness) else {
        return Judged { verdicts: by_probe.clone(), by_probe, error: None, wake: None };
    };
    let known = asking.map(|asking| &asking.known);
    let memories = &state.memory.pods;
    let asked = match state.quiet() {
        Some(error) => Err(error),
        None => classify(pool, context, active, pods, memories, &by_probe, known, now).await,
    };
    match asked {
        Ok((verdicts, wake)) => Judged { verdicts, by_probe, error: None, wake },
        Err(words) => {
            // A pod that has never been Ready is starting whoever is asked. Of the others nothing is known (I3),
            // also of one that is not Ready now: readiness is often dropped at work.
            let unknown = |(pod, says): (&PodView, &Judgement)| {
                if says.verdict == Verdict::Starting && !ever_ready(pod, state.memory.pods.get(&pod.uid)) {
                    says.clone()
                } else {
                    Judgement { verdict: Verdict::Unknown, reason: words.clone(), spent: false }
                }
            };
            let verdicts = pods.iter().zip(&by_probe).map(unknown).collect();
            Judged { verdicts, by_probe, error: Some(words), wake: None }
        }
    }
}

/// Asks the active policy what pods do: one judgement for each, and when it wants to be asked again.
#[allow(clippy::too_many_arguments)]
pub(crate) async fn classify(
    pool: &Pool,
    context: &Context,
    active: &Active,
    pods: &[PodView],
    memories: &PodMemories,
    by_probe: &[Judgement],
    known: Option<&Known>,
    now: Timestamp,
) -> Result<(Vec<Judgement>, Option<Duration>), String> {
    let info = active.policy.info();
    let wanted = projection::Wanted { labels: &info.wanted_labels, annotations: &info.wanted_annotations };
    let input =
        projection::busyness_input(pool, &active.config, pods, memories, by_probe, known, &wanted, now);
    let answer = context.host.classify(&active.policy, limits(pool), input).await;
    let answer = answer.map_err(|error| error.to_string())?.value;
    let wake = answer.iter().filter_map(|verdict| verdict.wake_after).min();
    Ok((projection::judgements(pods, answer), wake.map(Duration::from_millis)))
}

#[allow(clippy::too_many_arguments)]
pub(crate) async fn ask(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    snapshot: Snapshot<'_>,
    counts: &Counts,
    demand: Demand,
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
    if let Some(error) = state.quiet() {
        return (Asked::Failed { error }, None);
    }
    let history: Vec<_> = state.history.iter().copied().collect();
    let input = projection::scaling_input(
        snapshot,
        &ScalingContext {
            pool,
            config: &active.config,
            counts,
            demand,
            template_hash: hash,
            previous: state.memory.previous.as_ref(),
            history: &history,
            startup: state.memory.startups.times(),
            state: &state.policy_state,
            now,
        },
    );
    match context.host.scale(&active.policy, limits(pool), input).await {
        Ok(answer) => {
            let decision = answer.value;
            let asked = projection::asked(snapshot, &decision);
            let valid = decision.valid_until.map(|t| t.saturating_sub(now.as_millisecond()).max(0) as u64);
            let wake = [decision.wake_after, valid].into_iter().flatten().min().map(Duration::from_millis);
            state.policy_state = decision.state;
            state.misses = 0;
            (asked, wake.map(|w| w.max(Duration::from_secs(1))))
        }
        Err(error) => (Asked::Failed { error: error.to_string() }, None),
    }
}

/// The active policy, if it is the one that decides the size.
pub(crate) fn scaling_policy(state: &PoolState) -> Option<&Active> {
    state.active.as_ref().filter(|a| a.policy.exports().scaling)
}

pub(crate) fn deciding(state: &PoolState) -> String {
    scaling_policy(state).map_or_else(|| "formula".to_owned(), |a| a.source.to_string())
}

pub(crate) fn policy_status(context: &Context, state: &PoolState, source: &Source) -> PolicyStatus {
    PolicyStatus {
        source: source.to_string(),
        active_digest: state.active.as_ref().map(|a| a.policy.digest().to_string()),
        desired_digest: context.policies.desired(source),
        active_name: state
            .active
            .as_ref()
            .map(|a| format!("{} {}", a.policy.info().name, a.policy.info().version)),
        failures_in_a_row: state.failures.min(i32::MAX as u32),
        last_error: state.last_error.clone(),
    }
}
