//! One look at a pool in the shell's order, and what the spec and the policy say to it.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use stoker_api::BusyProbe;
use stoker_core::PodView;
use stoker_core::claims;
use stoker_core::pool::decision::{Bounds, decide};
use stoker_core::pool::replace::unfit;
use stoker_core::pool::{
    Action, Asked, Counts, Decision, MarkRules, Memory, Placement, Plan, RemovalReason, ReplaceRules,
    Settings, Snapshot, plan,
};
use stoker_core::verdict::{Judgement, PodMemories, Verdict, judge, remember};

use crate::asking::Hearing;

/// A pool's spec.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// idleTarget
    pub idle: u32,
    /// minReplicas
    pub minimum: u32,
    /// maxReplicas
    pub maximum: u32,
    /// Seconds that a surplus must last.
    pub delay: i64,
    /// Nothing is made or removed.
    pub paused: bool,
    /// Which template; pods carry its number as the hash.
    pub template: u8,
    /// replenish.maxSurge
    pub surge: u32,
    /// Pods that were at work are not used again.
    pub after_use: bool,
    /// Seconds that a pod may be idle.
    pub max_idle: Option<i64>,
    /// replenish.maxPerSecond
    pub per_second: Option<u32>,
    /// Which surplus goes first.
    pub placement: Placement,
    /// Pods carry their state, and the autoscalers' annotations.
    pub labels: bool,
    /// When claims end by themselves.
    pub claims: claims::Rules,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            idle: 2,
            minimum: 0,
            maximum: 10,
            delay: 0,
            paused: false,
            template: 0,
            surge: 1,
            after_use: false,
            max_idle: None,
            per_second: None,
            placement: Placement::Youngest,
            labels: false,
            claims: claims::Rules::default(),
        }
    }
}

impl Spec {
    /// The pool's bounds.
    pub fn bounds(&self) -> Bounds {
        Bounds { minimum: self.minimum, maximum: self.maximum, idle_target: self.idle }
    }

    /// How to plan by it.
    pub fn settings(&self) -> Settings {
        Settings {
            bounds: self.bounds(),
            scale_down_delay: SignedDuration::from_secs(self.delay),
            paused: self.paused,
            template_refused: false,
            conflicts: Default::default(),
            no_creation_before: None,
            replace: self.rules(),
            marks: MarkRules { used: self.after_use, state: self.labels, disruption: self.labels },
            max_per_second: self.per_second,
            placement: self.placement,
            draining: false,
            keep_ended: false,
        }
    }

    /// The template's hash.
    pub fn hash(&self) -> String {
        self.template.to_string()
    }

    /// What it says about replacing.
    pub fn rules(&self) -> ReplaceRules {
        ReplaceRules {
            template_hash: Some(self.hash()),
            after_use: self.after_use,
            max_idle: self.max_idle.map(SignedDuration::from_secs),
            max_surge: self.surge,
        }
    }
}

/// What the policy says whenever it is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    /// There is no policy: the formula decides.
    Nothing,
    /// It answers.
    Wants {
        /// Replicas.
        desired: u32,
        /// Places of pods to remove first, among those that are looked at.
        victims: Vec<u8>,
    },
    /// It gives no answer.
    Fails,
}

impl Says {
    fn asked(&self, pods: &[PodView]) -> Asked {
        match self {
            Self::Nothing => Asked::Formula,
            Self::Fails => Asked::Failed { error: "trapped".to_owned() },
            // It may name any pod: busy, unknown, ended; and one that never was.
            Self::Wants { desired, victims } => Asked::Policy {
                desired: *desired,
                reason: String::new(),
                victims: victims
                    .iter()
                    .map(|v| pods.get(usize::from(*v)).map_or_else(|| "nobody".to_owned(), |p| p.uid.clone()))
                    .collect(),
            },
        }
    }
}

/// What one look saw and wants done.
#[derive(Clone, Debug)]
pub struct Look {
    /// The pods, as they were believed to be.
    pub pods: Vec<PodView>,
    /// The verdicts on them, by UID.
    pub verdicts: BTreeMap<String, Verdict>,
    /// How many are in which state.
    pub counts: Counts,
    /// The target.
    pub decision: Decision,
    /// What is to be done.
    pub plan: Plan,
    /// The spec that all this was done by.
    pub spec: Spec,
    /// Nothing could be told of pods that were past starting.
    pub outage: bool,
    /// The pool is being deleted.
    pub draining: bool,
    /// Idle and starting pods that are to be replaced.
    pub unfit: usize,
    /// Slots in which a pod may be that is not seen.
    pub tried: Vec<u32>,
    /// UIDs of pods whose removal was begun before, and not answered.
    pub doubted: HashSet<String>,
    /// What was heard of the pods, if they are asked.
    pub hearing: Option<Hearing>,
}

impl Look {
    /// A pod that was seen.
    pub fn pod(&self, uid: &str) -> Option<&PodView> {
        self.pods.iter().find(|p| p.uid == uid)
    }

    /// What claims ask for is done, too.
    pub(crate) fn join(&mut self, claims: claims::Seen) {
        self.plan.wake_at = [self.plan.wake_at, claims.wake_at].into_iter().flatten().min();
        claims.join(&mut self.plan.actions);
    }

    /// The pod that goes, as it was seen.
    pub fn removed(&self, removal: &Action) -> Vec<PodView> {
        let Action::Remove { uid, .. } = removal else { return Vec::new() };
        self.pod(uid).cloned().into_iter().collect()
    }

    /// The slots to fill.
    pub fn creates(&self) -> Vec<u32> {
        self.plan
            .actions
            .iter()
            .filter_map(|a| if let Action::Create { slot } = a { Some(*slot) } else { None })
            .collect()
    }

    /// The pods to remove: (slot, why), in order.
    pub fn removals(&self) -> Vec<(u32, RemovalReason)> {
        self.plan
            .actions
            .iter()
            .filter_map(|a| match a {
                Action::Remove { uid, reason, .. } => Some((self.pod(uid)?.slot?, *reason)),
                Action::Create { .. } | Action::Mark { .. } => None,
            })
            .collect()
    }
}

/// One look at given pods, in the shell's order: judge, remember, count, decide, plan. In an outage the probe
/// tells nothing of pods that are past starting.
pub fn look(
    pods: Vec<PodView>,
    probe: &BusyProbe,
    outage: bool,
    says: &Says,
    spec: Spec,
    memory: &mut Memory,
    now: Timestamp,
) -> Look {
    let claims = judge_all(&pods, probe, outage, spec.claims, memory, now);
    let memories = memory.pods.clone();
    let mut look = decide_and_plan(pods, &memories, says, spec, &spec.settings(), memory, now);
    look.join(claims);
    Look { outage, ..look }
}

/// Judges pods and remembers it. In an outage the probe tells nothing of pods that are past starting.
pub(crate) fn judge_all(
    pods: &[PodView],
    probe: &BusyProbe,
    outage: bool,
    rules: claims::Rules,
    memory: &mut Memory,
    now: Timestamp,
) -> claims::Seen {
    let by_probe: Vec<Judgement> = pods
        .iter()
        .map(|p| match judge(p, probe, memory.pods.get(&p.uid)) {
            j if !outage || j.verdict == Verdict::Starting => j,
            j => Judgement { verdict: Verdict::Unknown, ..j },
        })
        .collect();
    let mut judged = by_probe.clone();
    let seen = claims::judge(pods, &mut judged, rules, now);
    remember(&mut memory.pods, pods, &judged, &by_probe, now);
    seen
}

/// Counts, decides and plans for members that are judged.
pub fn decide_and_plan(
    pods: Vec<PodView>,
    memories: &PodMemories,
    says: &Says,
    spec: Spec,
    settings: &Settings,
    memory: &mut Memory,
    now: Timestamp,
) -> Look {
    let snapshot = Snapshot { pods: &pods, memories };
    let counts = snapshot.counts();
    let decision = decide(says.asked(&pods), &counts, spec.bounds(), memory.last_good);
    let plan = plan(snapshot, &counts, &decision, settings, memory, now);
    let verdicts = pods.iter().map(|p| (p.uid.clone(), snapshot.verdict(p))).collect();
    let idle = |p: &&PodView| p.alive() && matches!(snapshot.verdict(p), Verdict::Idle | Verdict::Starting);
    let unfit = |p: &&PodView| unfit(snapshot, p, &settings.replace, now).is_some();
    let unfit = pods.iter().filter(idle).filter(unfit).count();
    let (tried, doubted) = (memory.overlay.tried().collect(), memory.overlay.perhaps_removed());
    let draining = settings.draining;
    let (outage, hearing) = (false, None);
    Look { pods, verdicts, counts, decision, plan, spec, outage, draining, unfit, tried, doubted, hearing }
}
