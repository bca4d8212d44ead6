//! Who decides for a pool: its policy is settled, asked for verdicts and for a size, and described in the status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stoker_api::{HotStandbyDeployment, PolicyStatus};
use stoker_core::pod::PodView;
use stoker_core::pool::{Asked, Counts, Snapshot};
use stoker_core::verdict::{Judgement, Verdict, ever_ready, judge};
use stoker_policy::Limits;

use crate::context::Context;
use crate::policies::{Content, Source};
use crate::pool::{Active, PoolState};
use crate::projection::{self, ScalingContext, Wanted};

fn limits(object: &HotStandbyDeployment) -> Limits {
    let given = object.spec.policy.as_ref().and_then(|p| p.limits.clone()).unwrap_or_default();
    Limits {
        timeout: Duration::from_millis(u64::from(given.timeout_milliseconds)),
        memory_bytes: given.memory_mib as usize * 1024 * 1024,
    }
}

/// Brings the active policy in line with the spec as far as it goes, and tells what is in the way. Whatever
/// that is, the one that was active stays so.
pub(crate) async fn settle_policy(
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

pub(crate) async fn judge_pods(
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
pub(crate) async fn ask(
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
pub(crate) fn scaling_policy(state: &PoolState) -> Option<&Active> {
    state.active.as_ref().filter(|a| a.policy.exports().scaling)
}

pub(crate) fn deciding(state: &PoolState) -> String {
    scaling_policy(state).map_or_else(|| "formula".to_owned(), |a| a.source.to_string())
}

pub(crate) fn policy_status(
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
