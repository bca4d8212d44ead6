//! Who decides for a pool: its policy is asked for verdicts and for a size.

use std::time::Duration;

use jiff::Timestamp;
use stoker_core::pod::PodView;
use stoker_core::pool::{Asked, Counts, Previous, Snapshot};
use stoker_core::verdict::{Judgement, PodMemories, Verdict, ever_ready};
use stoker_policy::contract::busyness;
use stoker_policy::contract::scaling::{self, Decision, Signal};

use crate::asking::{self, Asking};
use crate::context::Context;
use crate::desk::Demand;
use crate::object::Pool;
use crate::pool::PoolState;
use crate::prober::Known;
use crate::projection::{self, ScalingContext};
use crate::seat::{Active, Trouble};

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
    let Some(active) = state.seat.active.as_ref().filter(|a| a.policy.exports().busyness) else {
        return Judged { verdicts: by_probe.clone(), by_probe, error: None, wake: None };
    };
    let known = asking.map(|asking| &asking.known);
    let memories = &state.memory.pods;
    let asked = match state.seat.quiet() {
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
    let input = busyness_input(pool, active, pods, memories, by_probe, known, now);
    let answer = context.host.classify(&active.policy, active.limits, input).await;
    let answer = answer.map_err(|error| error.to_string())?.value;
    let wake = answer.iter().filter_map(|verdict| verdict.wake_after).min();
    Ok((projection::judgements(pods, answer), wake.map(Duration::from_millis)))
}

/// What a policy is asked about pods.
pub(crate) fn busyness_input(
    pool: &Pool,
    active: &Active,
    pods: &[PodView],
    memories: &PodMemories,
    by_probe: &[Judgement],
    known: Option<&Known>,
    now: Timestamp,
) -> busyness::Input {
    let info = active.policy.info();
    let wanted = projection::Wanted { labels: &info.wanted_labels, annotations: &info.wanted_annotations };
    projection::busyness_input(pool, &active.config, pods, memories, by_probe, known, &wanted, now)
}

/// Asks for a size: what was asked for, and when to ask again.
pub(crate) async fn ask(
    context: &Context,
    state: &mut PoolState,
    snapshot: Snapshot<'_>,
    looks: &Looks<'_>,
    trouble: Option<&Trouble>,
) -> (Asked, Option<Duration>) {
    let Some(active) = state.seat.active.clone() else {
        let asked = trouble.map_or(Asked::Formula, |(_, words)| Asked::Failed { error: words.clone() });
        return (asked, None);
    };
    if !active.policy.exports().scaling {
        return (Asked::Formula, None);
    }
    if let Some(error) = state.seat.quiet() {
        return (Asked::Failed { error }, None);
    }
    let previous = state.memory.previous.as_ref();
    let input = looks.scaling_input(state, snapshot, &active.config, previous, &state.seat.state);
    match context.host.scale(&active.policy, active.limits, input).await {
        Ok(answer) => {
            let decision = answer.value;
            let asked = projection::asked(snapshot, &decision);
            let wake = wake(&decision, looks.now);
            state.seat.state = decision.state;
            state.misses = 0;
            (asked, wake)
        }
        Err(error) => (Asked::Failed { error: error.to_string() }, None),
    }
}

/// When a policy wants to be asked again, or its answer counts no longer.
pub(crate) fn wake(decision: &Decision, now: Timestamp) -> Option<Duration> {
    let valid = decision.valid_until.map(|t| t.saturating_sub(now.as_millisecond()).max(0) as u64);
    let wake = [decision.wake_after, valid].into_iter().flatten().min()?;
    Some(Duration::from_millis(wake).max(Duration::from_secs(1)))
}

/// What a look knows of a pool beside its pods.
pub(crate) struct Looks<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) counts: &'a Counts,
    pub(crate) demand: Demand,
    pub(crate) hash: &'a str,
    pub(crate) signals: &'a [Signal],
    pub(crate) now: Timestamp,
}

impl Looks<'_> {
    /// What a policy is asked for a size.
    pub(crate) fn scaling_input(
        &self,
        state: &PoolState,
        snapshot: Snapshot<'_>,
        config: &str,
        previous: Option<&Previous>,
        kept: &[u8],
    ) -> scaling::Input {
        let history: Vec<_> = state.history.iter().copied().collect();
        let context = ScalingContext {
            pool: self.pool,
            config,
            counts: self.counts,
            demand: self.demand,
            template_hash: self.hash,
            previous,
            history: &history,
            startup: state.memory.startups.times(),
            signals: self.signals,
            state: kept,
            now: self.now,
        };
        projection::scaling_input(snapshot, &context)
    }
}

/// The active policy, if it is the one that decides the size.
pub(crate) fn scaling_policy(state: &PoolState) -> Option<&Active> {
    state.seat.active.as_ref().filter(|a| a.policy.exports().scaling)
}

pub(crate) fn deciding(state: &PoolState) -> String {
    scaling_policy(state).map_or_else(|| "formula".to_owned(), |a| a.source.to_string())
}
