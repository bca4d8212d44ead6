//! Between core's types and the policy contract's: what a policy gets to see, and its answer in core's terms.

use std::collections::HashMap;

use jiff::Timestamp;
use stoker_api::{BusyProbe, BusyProbeMode};
use stoker_core::asked::{Answers, Rules};
use stoker_core::pod::{Phase, PodView};
use stoker_core::pool::startups::StartupTimes;
use stoker_core::pool::{Asked, Counts, LimitedBy, Previous, Snapshot};
use stoker_core::verdict::{Judgement, PodMemories, Reading, Verdict, probe_since, read};
use stoker_policy::contract::types::{PodState, PoolIdentity};
use stoker_policy::contract::{busyness, scaling};

use crate::desk::Demand;
use crate::object::Pool;
use crate::prober::Known;
use crate::question::Evidence;

/// A pod that is on no node.
const NO_NODE: u32 = u32::MAX;

fn millis(t: Timestamp) -> i64 {
    t.as_millisecond()
}

fn age(now: Timestamp, since: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond() - since.as_millisecond()).unwrap_or(0)
}

/// The pool's identity in the contract's terms.
pub fn identity(pool: &Pool) -> PoolIdentity {
    PoolIdentity {
        kind: pool.kind().as_str().to_owned(),
        namespace: pool.namespace().to_owned(),
        name: pool.name().to_owned(),
        uid: pool.uid().to_owned(),
        generation: pool.meta().generation.unwrap_or_default(),
    }
}

/// What goes into a scaling decision beside the pods.
pub struct ScalingContext<'a> {
    pub pool: &'a Pool,
    pub config: &'a str,
    pub counts: &'a Counts,
    pub demand: Demand,
    pub template_hash: &'a str,
    pub previous: Option<&'a Previous>,
    pub history: &'a [(Timestamp, u32, u32)],
    pub startup: StartupTimes,
    pub signals: &'a [scaling::Signal],
    pub state: &'a [u8],
    pub now: Timestamp,
}

/// The input of a scaling decision.
pub fn scaling_input(snapshot: Snapshot<'_>, c: &ScalingContext<'_>) -> scaling::Input {
    let mut nodes: HashMap<&str, u32> = HashMap::new();
    let pods = snapshot
        .pods
        .iter()
        .map(|pod| {
            let next = nodes.len() as u32;
            let since = snapshot.memories.get(&pod.uid).map_or(pod.created, |m| m.since);
            scaling::Pod {
                state: state(snapshot, pod),
                since: millis(since),
                age: age(c.now, pod.created),
                node: pod.node.as_deref().map_or(NO_NODE, |n| *nodes.entry(n).or_insert(next)),
                cordoned: pod.displaced,
                template_current: pod.template_hash.as_deref() == Some(c.template_hash),
            }
        })
        .collect();
    let bounds = c.pool.bounds();
    scaling::Input {
        now: millis(c.now),
        pool: identity(c.pool),
        config: c.config.to_owned(),
        minimum: bounds.minimum,
        maximum: bounds.maximum,
        idle_target: bounds.idle_target,
        counts: scaling::Counts {
            current: c.counts.current,
            ready: c.counts.ready,
            starting: c.counts.starting,
            idle: c.counts.idle,
            busy: c.counts.busy_for_sizing.saturating_sub(c.counts.claimed),
            claimed: c.counts.claimed,
            // Those last seen busy are among the busy ones.
            unknown: (c.counts.busy + c.counts.claimed + c.counts.unknown)
                .saturating_sub(c.counts.busy_for_sizing),
            terminating: c.counts.terminating,
            unschedulable: c.counts.unschedulable,
            failed: c.counts.failed,
        },
        demand: scaling::Demand {
            waiting: c.demand.waiting,
            misses: c.demand.misses,
            oldest_wait: u64::try_from(c.demand.oldest_wait.as_millis()).unwrap_or(u64::MAX),
        },
        pods,
        history: c
            .history
            .iter()
            .map(|(at, busy, total)| scaling::Sample { at: millis(*at), busy: *busy, total: *total })
            .collect(),
        startup: scaling::Startup {
            samples: c.startup.samples,
            p50: c.startup.p50,
            p90: c.startup.p90,
            p99: c.startup.p99,
        },
        signals: c.signals.to_vec(),
        previous: c.previous.map(|p| scaling::Previous {
            at: millis(p.at),
            desired: p.raw,
            applied: p.applied,
            limited_by: match p.limited_by {
                LimitedBy::None => scaling::Limit::None,
                LimitedBy::Minimum => scaling::Limit::Minimum,
                LimitedBy::Maximum => scaling::Limit::Maximum,
                LimitedBy::Hold => scaling::Limit::Hold,
                LimitedBy::Paused => scaling::Limit::Paused,
            },
            reason: p.reason.clone(),
        }),
        state: c.state.to_vec(),
        extensions: Vec::new(),
    }
}

fn state(snapshot: Snapshot<'_>, pod: &PodView) -> PodState {
    if pod.terminating {
        return PodState::Terminating;
    }
    if pod.phase.is_terminal() {
        return PodState::Failed;
    }
    match snapshot.verdict(pod) {
        Verdict::Starting => PodState::Starting,
        Verdict::Idle => PodState::Idle,
        Verdict::Busy => PodState::Busy,
        Verdict::Claimed => PodState::Claimed,
        Verdict::Unknown => PodState::Unknown,
    }
}

/// A scaling answer in core's terms. The host has checked that victims are indexes of idle pods.
pub fn asked(snapshot: Snapshot<'_>, decision: &scaling::Decision) -> Asked {
    let uid = |i: &u32| snapshot.pods.get(*i as usize).map(|p| p.uid.clone());
    Asked::Policy {
        desired: decision.desired,
        reason: decision.reason.clone(),
        victims: decision.victims.iter().filter_map(uid).collect(),
    }
}

/// Keys of labels and annotations that a policy asked to see.
pub struct Wanted<'a> {
    pub labels: &'a [String],
    pub annotations: &'a [String],
}

/// The input of a busyness decision.
#[allow(clippy::too_many_arguments)]
pub fn busyness_input(
    pool: &Pool,
    config: &str,
    pods: &[PodView],
    memories: &PodMemories,
    judged: &[Judgement],
    known: Option<&Known>,
    wanted: &Wanted<'_>,
    now: Timestamp,
) -> busyness::Input {
    let pick = |map: &std::collections::BTreeMap<String, String>, keys: &[String]| {
        keys.iter().filter_map(|k| map.get(k).map(|v| (k.clone(), v.clone()))).collect()
    };
    let evidence = pods
        .iter()
        .zip(judged)
        .map(|(pod, says)| {
            let memory = memories.get(&pod.uid);
            let answers = known.and_then(|known| known.answers.get(&pod.uid));
            let asked = answers.and_then(|answers| answers.last()).map(|(_, at)| at);
            busyness::Evidence {
                name: pod.name.clone(),
                phase: match pod.phase {
                    Phase::Pending => busyness::Phase::Pending,
                    Phase::Running => busyness::Phase::Running,
                    Phase::Succeeded => busyness::Phase::Succeeded,
                    Phase::Failed => busyness::Phase::Failed,
                    Phase::Unknown => busyness::Phase::Unknown,
                },
                ready: pod.ready(),
                ever_ready: stoker_core::verdict::ever_ready(pod, memory),
                age: age(now, pod.created),
                restarts: pod.restarts,
                labels: pick(&pod.labels, wanted.labels),
                annotations: pick(&pod.annotations, wanted.annotations),
                last: memory.map(|m| (verdict_state(m.verdict), millis(m.since))),
                probe: match known {
                    None => probe(pod, &pool.spec().busy_probe),
                    Some(known) => found(known.evidence.get(&pod.uid), asked, &pool.spec().busy_probe, now),
                },
                probe_age: asked.map_or(0, |at| age(now, at)),
                probe_says: verdict_state(says.verdict),
                probe_says_since: millis(probe_since(memory, says.verdict, now)),
                probe_says_results: answers.map_or(0, Answers::same_in_a_row),
                extensions: Vec::new(),
            }
        })
        .collect();
    busyness::Input {
        now: millis(now),
        pool: identity(pool),
        config: config.to_owned(),
        asks: Some(question(&pool.spec().busy_probe)),
        pods: evidence,
        extensions: Vec::new(),
    }
}

fn question(probe: &BusyProbe) -> busyness::Question {
    let (kind, subject) = match probe.mode {
        BusyProbeMode::Annotation => (busyness::ProbeKind::Annotation, probe.annotation_key.clone()),
        BusyProbeMode::Condition => {
            (busyness::ProbeKind::Condition, probe.condition.clone().unwrap_or_default().type_)
        }
        BusyProbeMode::Http => (busyness::ProbeKind::Http, probe.http.clone().unwrap_or_default().path),
        BusyProbeMode::Exec => {
            (busyness::ProbeKind::Exec, probe.exec.clone().unwrap_or_default().command.join(" "))
        }
        BusyProbeMode::Redis => {
            (busyness::ProbeKind::Redis, probe.redis.as_ref().map(|r| r.key.clone()).unwrap_or_default())
        }
    };
    busyness::Question { kind, subject, period: u64::from(probe.period_seconds().unwrap_or(0)) * 1000 }
}

fn probe(pod: &PodView, probe: &BusyProbe) -> busyness::Probe {
    match read(pod, probe) {
        Reading::Annotation(value) => busyness::Probe::Annotation(value),
        Reading::Condition(value) => busyness::Probe::Condition(value),
        Reading::Asked => busyness::Probe::None,
    }
}

/// What a question found; nothing that is too old to be believed (I1).
fn found(
    evidence: Option<&Evidence>,
    asked: Option<Timestamp>,
    probe: &BusyProbe,
    now: Timestamp,
) -> busyness::Probe {
    let (Some(evidence), Some(asked)) = (evidence, asked) else { return busyness::Probe::None };
    if Rules::of(probe).is_some_and(|rules| rules.too_old(asked, now)) {
        return busyness::Probe::Error(format!("not asked since {asked:.0}"));
    }
    match evidence {
        Evidence::Http { status, body } => {
            busyness::Probe::Http(busyness::HttpAnswer { status: *status, body: body.to_vec() })
        }
        Evidence::Exec { code, stdout } => {
            busyness::Probe::Exec(busyness::ExecAnswer { exit_code: *code, stdout: stdout.to_vec() })
        }
        Evidence::Redis(value) => busyness::Probe::Redis(value.as_ref().map(|v| v.to_vec())),
        Evidence::Error(words) => busyness::Probe::Error(words.clone()),
    }
}

pub(crate) fn verdict_state(v: Verdict) -> busyness::VerdictState {
    match v {
        Verdict::Starting => busyness::VerdictState::Starting,
        // Of a claimed pod it was said that it is idle.
        Verdict::Idle | Verdict::Claimed => busyness::VerdictState::Idle,
        Verdict::Busy => busyness::VerdictState::Busy,
        Verdict::Unknown => busyness::VerdictState::Unknown,
    }
}

/// A verdict as people read it.
pub(crate) fn verdict_word(v: busyness::VerdictState) -> &'static str {
    match v {
        busyness::VerdictState::Busy => "busy",
        busyness::VerdictState::Idle => "idle",
        busyness::VerdictState::Unknown => "unknown",
        busyness::VerdictState::Starting => "starting",
    }
}

/// Busyness answers in core's terms, one for each pod. A pod that is not Ready cannot be standby, whatever
/// a policy says: its idle is taken as starting.
pub fn judgements(pods: &[PodView], verdicts: Vec<busyness::Verdict>) -> Vec<Judgement> {
    pods.iter()
        .zip(verdicts)
        .map(|(pod, v)| Judgement {
            verdict: match v.state {
                busyness::VerdictState::Starting => Verdict::Starting,
                busyness::VerdictState::Idle if pod.ready() => Verdict::Idle,
                busyness::VerdictState::Idle => Verdict::Starting,
                busyness::VerdictState::Busy => Verdict::Busy,
                busyness::VerdictState::Unknown => Verdict::Unknown,
            },
            reason: v.reason,
            spent: v.spent,
        })
        .collect()
}
