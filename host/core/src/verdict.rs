//! Whether a pod is busy: what the probe's reading means, and what is remembered of a pod from one look to the
//! next. An answer that is not clear is `Unknown`, never idle.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use stoker_api::{BusyProbe, BusyProbeMode, ConditionStatus};

use crate::asked::{Answers, Outcome, Rules, Standing};
use crate::{Phase, PodView};

/// What a pod is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Not Ready (yet): neither standby nor at work.
    Starting,
    /// Ready and free.
    Idle,
    /// At work.
    Busy,
    /// Handed to somebody by a claim, and not at work yet by its probe.
    Claimed,
    /// It cannot be told.
    Unknown,
}

impl Verdict {
    /// The word that labels use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Claimed => "claimed",
            Self::Unknown => "unknown",
        }
    }
}

/// A probe's raw finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The annotation's value, if the pod carries it.
    Annotation(Option<String>),
    /// The condition's status, if the pod has it.
    Condition(Option<String>),
    /// Nothing can be read off the pod: it is asked.
    Asked,
}

/// A verdict with its reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
    /// Replace it when it is idle instead of using it again.
    pub spent: bool,
}

/// What is remembered of a pod between two looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodMemory {
    /// When it was first seen; of a pod that was no new one then, when it says that it was created.
    pub seen: Timestamp,
    /// When it was first seen Ready; of a pod that was Ready when it was first seen, since when it says that it is.
    pub first_ready: Option<Timestamp>,
    /// It was Ready at some time.
    pub ever_ready: bool,
    /// The present verdict.
    pub verdict: Verdict,
    /// Since when.
    pub since: Timestamp,
    /// The last clear answer: busy (true) or not (false). Sizing uses it while the verdict is unknown (I3).
    pub last_clear: Option<bool>,
    /// What the pool's probe says, and since when. A policy may judge otherwise.
    pub probe: (Verdict, Timestamp),
    /// The policy wants it replaced instead of used again.
    pub spent: bool,
}

impl PodMemory {
    /// Of a pod that was just made.
    pub fn starting(now: Timestamp) -> Self {
        Self {
            seen: now,
            first_ready: None,
            ever_ready: false,
            verdict: Verdict::Starting,
            since: now,
            last_clear: Some(false),
            probe: (Verdict::Starting, now),
            spent: false,
        }
    }

    /// Moves all moments by so much into the past.
    pub(crate) fn shift(&mut self, by: SignedDuration) {
        let moments = [&mut self.seen, &mut self.since, &mut self.probe.1];
        moments.into_iter().chain(&mut self.first_ready).for_each(|at| *at -= by);
    }
}

/// Memory of all pods of a pool, by UID.
pub type PodMemories = HashMap<String, PodMemory>;

/// Reads the probe off a pod, as far as it can be.
pub fn read(pod: &PodView, probe: &BusyProbe) -> Reading {
    match probe.mode {
        BusyProbeMode::Annotation => Reading::Annotation(pod.annotations.get(&probe.annotation_key).cloned()),
        BusyProbeMode::Condition => {
            let type_ = condition_type(probe);
            Reading::Condition(pod.condition(&type_).map(|c| c.status.clone()))
        }
        BusyProbeMode::Http | BusyProbeMode::Exec | BusyProbeMode::Redis => Reading::Asked,
    }
}

fn condition_type(probe: &BusyProbe) -> String {
    probe.condition.clone().unwrap_or_default().type_
}

/// Whether the pod was Ready at some time, from what is remembered and from what the pod itself tells: a
/// Ready condition that turned False after the containers started was True before, because the kubelet
/// sets the first False before it starts them.
pub fn ever_ready(pod: &PodView, memory: Option<&PodMemory>) -> bool {
    memory.is_some_and(|m| m.ever_ready)
        || pod.ready()
        || match (pod.condition("Ready").and_then(|c| c.since), pod.containers_started) {
            (Some(turned), Some(started)) => turned > started,
            _ => false,
        }
}

/// What the pool's probe says of a pod.
///
/// - annotation: `true` in any case = busy, anything else = idle when Ready.
/// - condition: the busy status = busy, its opposite = idle when Ready, `Unknown` = unknown, missing = idle.
/// - A pod that is not Ready is starting, unless it says that it is busy: readiness is often dropped at work.
/// - A pod whose node cannot be asked is unknown.
/// - In the modes that ask, nothing is known here: see [`judge_asked`].
pub fn judge(pod: &PodView, probe: &BusyProbe, memory: Option<&PodMemory>) -> Judgement {
    let (verdict, reason) = judge_parts(pod, probe, memory);
    Judgement { verdict, reason, spent: false }
}

fn judge_parts(pod: &PodView, probe: &BusyProbe, memory: Option<&PodMemory>) -> (Verdict, String) {
    match read(pod, probe) {
        Reading::Annotation(Some(value)) if value.eq_ignore_ascii_case("true") => {
            return (Verdict::Busy, format!("annotation {} is true", probe.annotation_key));
        }
        Reading::Annotation(_) | Reading::Condition(None) => {}
        Reading::Condition(Some(status)) => {
            let wanted = probe.condition.clone().unwrap_or_default();
            let busy = match wanted.busy_status {
                ConditionStatus::True => "True",
                ConditionStatus::False => "False",
            };
            if status == "Unknown" {
                return (Verdict::Unknown, format!("condition {} is Unknown", wanted.type_));
            }
            // A pod that was never Ready has Ready=False from the start: that is not work.
            if status == busy && (wanted.type_ != "Ready" || ever_ready(pod, memory)) {
                return (Verdict::Busy, format!("condition {} is {status}", wanted.type_));
            }
        }
        Reading::Asked => {
            let verdict = if ever_ready(pod, memory) { Verdict::Unknown } else { Verdict::Starting };
            return (verdict, "not asked yet".to_owned());
        }
    }
    if node_is_silent(pod) {
        return (Verdict::Unknown, "the pod's node does not answer".to_owned());
    }
    let idle_unready = readiness_is_inverted(probe) && ever_ready(pod, memory);
    if !pod.ready() && !idle_unready {
        return (Verdict::Starting, "not Ready".to_owned());
    }
    (Verdict::Idle, "Ready and not busy".to_owned())
}

fn node_is_silent(pod: &PodView) -> bool {
    pod.phase == Phase::Unknown || pod.condition("Ready").is_some_and(|c| c.status == "Unknown")
}

/// What a pod's answers say of it, in the modes that ask.
///
/// - busy = busy, Ready or not. A pod that was never Ready is starting otherwise, whatever it answers.
/// - idle = idle when Ready; a pod that is not Ready again is starting.
/// - No clear answer for too long = unknown, or busy if the probe says so. Until then the last clear one stands,
///   and a pod that was starting goes on to.
/// - A pod whose node does not answer is unknown unless it says that it is busy.
pub fn judge_asked(
    pod: &PodView,
    rules: Rules,
    answers: Option<&Answers>,
    memory: Option<&PodMemory>,
    now: Timestamp,
) -> Judgement {
    let none = Answers::default();
    let answers = answers.unwrap_or(&none);
    let standing = answers.standing(rules, now);
    let words = |verdict| (verdict, answers.words(standing));
    let (verdict, reason) = match standing {
        Standing::Clear(Outcome::Busy) => words(Verdict::Busy),
        _ if !ever_ready(pod, memory) => (Verdict::Starting, "not Ready yet".to_owned()),
        Standing::Lost if rules.lost_is_busy => words(Verdict::Busy),
        Standing::Lost | Standing::Clear(Outcome::Unclear) => words(Verdict::Unknown),
        _ if node_is_silent(pod) => (Verdict::Unknown, "the pod's node does not answer".to_owned()),
        Standing::Clear(Outcome::Starting) => words(Verdict::Starting),
        Standing::Clear(Outcome::Idle) if !pod.ready() => (Verdict::Starting, "not Ready".to_owned()),
        Standing::Clear(Outcome::Idle) => words(Verdict::Idle),
        // It has just become Ready; after a restart nothing is remembered, and it may be at work.
        Standing::NotYet if memory.is_some_and(|m| m.verdict == Verdict::Starting) => {
            words(Verdict::Starting)
        }
        Standing::NotYet => words(Verdict::Unknown),
    };
    Judgement { verdict, reason, spent: false }
}

/// How many pods give no clear answer to the probe that asks them, and why the first does not.
pub fn not_answering(
    pods: &[PodView],
    rules: Rules,
    answers: &HashMap<String, Answers>,
    memories: &PodMemories,
    now: Timestamp,
) -> Option<(u32, String)> {
    let lost = |pod: &&PodView| {
        pod.alive()
            && ever_ready(pod, memories.get(&pod.uid))
            && answers.get(&pod.uid).is_some_and(|a| a.standing(rules, now) == Standing::Lost)
    };
    let mut all = pods.iter().filter(lost);
    let first = all.next()?;
    let why = answers.get(&first.uid).map(|a| a.words(Standing::Lost)).unwrap_or_default();
    Some((
        u32::try_from(all.count()).unwrap_or(u32::MAX).saturating_add(1),
        format!("{} ({why})", first.name),
    ))
}

/// Ready=True means busy, so that Ready=False of a pod that was Ready is its idle state.
fn readiness_is_inverted(probe: &BusyProbe) -> bool {
    probe.mode == BusyProbeMode::Condition
        && probe
            .condition
            .as_ref()
            .is_some_and(|c| c.type_ == "Ready" && c.busy_status == ConditionStatus::True)
}

/// Since when the probe has said what it says now.
pub fn probe_since(memory: Option<&PodMemory>, says: Verdict, now: Timestamp) -> Timestamp {
    memory.map(|m| m.probe).filter(|(said, _)| *said == says).map_or(now, |(_, since)| since)
}

/// Brings the memory up to date with this look's verdicts and what the probe says, one for each pod, and
/// forgets pods that are gone.
pub fn remember(
    memories: &mut PodMemories,
    pods: &[PodView],
    judgements: &[Judgement],
    by_probe: &[Judgement],
    now: Timestamp,
) {
    let present: HashSet<&str> = pods.iter().map(|p| p.uid.as_str()).collect();
    memories.retain(|uid, _| present.contains(uid.as_str()));
    for ((pod, judgement), says) in pods.iter().zip(judgements).zip(by_probe) {
        let old = memories.get(&pod.uid);
        let verdict = judgement.verdict;
        let new = PodMemory {
            seen: old.map_or_else(|| first_seen(pod, now), |m| m.seen),
            first_ready: first_ready(pod, old, now),
            ever_ready: ever_ready(pod, old),
            verdict,
            since: old.filter(|m| m.verdict == verdict).map_or(now, |m| m.since),
            last_clear: match verdict {
                Verdict::Busy | Verdict::Claimed => Some(true),
                // Starting is clear, too: a pod that works says so, Ready or not.
                Verdict::Idle | Verdict::Starting => Some(false),
                Verdict::Unknown => old.and_then(|m| m.last_clear),
            },
            probe: (says.verdict, probe_since(old, says.verdict, now)),
            // A policy that fails now does not take back what it said.
            spent: judgement.spent || verdict == Verdict::Unknown && old.is_some_and(|m| m.spent),
        };
        memories.insert(pod.uid.clone(), new);
    }
}

/// A new pod is as old as its first sight. Of another, as after a restart, only the pod itself can tell: by
/// another's clock, so that it is never taken to be from the future.
fn first_seen(pod: &PodView, now: Timestamp) -> Timestamp {
    let new = pod.phase == Phase::Pending && pod.node.is_none() && pod.conditions.is_empty();
    if new { now } else { pod.created.min(now) }
}

fn first_ready(pod: &PodView, old: Option<&PodMemory>, now: Timestamp) -> Option<Timestamp> {
    let ready = || pod.condition("Ready").filter(|c| c.status == "True");
    match old {
        Some(old) => old.first_ready.or_else(|| ready().map(|_| now)),
        None => ready().map(|c| c.since.map_or(now, |since| since.min(now))),
    }
}
