//! The plan: which pods are made and which go. This is where I1 and I2 are decided.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::decision::{Bounds, Decision, LimitedBy};
use super::marks::{MarkRules, Marks, marks};
use super::replace::{ReplaceRules, Unfit, replacing};
use super::victims::{may_go, victims};
use super::{Counts, Memory, Overlay, Previous, Snapshot};
use crate::PodView;
use crate::verdict::Verdict;

/// What the spec and the shell's knowledge say about how to plan.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bounds of the pool.
    pub bounds: Bounds,
    /// How long a surplus must last.
    pub scale_down_delay: SignedDuration,
    /// Create and remove nothing.
    pub paused: bool,
    /// The API server would refuse pods made from the template.
    pub template_refused: bool,
    /// Slots whose names somebody else's pods have (I7).
    pub conflicts: BTreeSet<u32>,
    /// The API server refused pods; none is made before then.
    pub no_creation_before: Option<Timestamp>,
    /// Which pods are replaced.
    pub replace: ReplaceRules,
    /// What pods carry.
    pub marks: MarkRules,
    /// Pods made within a second at most.
    pub max_per_second: Option<u32>,
    /// Which idle pods go first when there are too many.
    pub placement: Placement,
    /// The object is being deleted: nothing is made, and whoever is not at work goes.
    pub draining: bool,
    /// Members that have ended stay, and hold neither room nor slot.
    pub keep_ended: bool,
}

/// Which idle pods go first when there are too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The youngest.
    #[default]
    Youngest,
    /// Those on the node with the most pods of the pool, so that the pool stays spread.
    Spread,
    /// Those on the node with the fewest pods of the pool, so that nodes become empty.
    Packed,
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemovalReason {
    /// It has ended.
    Finished,
    /// It is idle and there are too many.
    Surplus,
    /// It has not been bound to a node and there are too many.
    SurplusUnscheduled,
    /// Its annotation asks for it.
    Forced,
    /// Another one stands in for it.
    Replaced(Unfit),
    /// The object is being deleted, and it is not at work.
    Drained,
}

impl RemovalReason {
    /// The word that logs and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Surplus => "surplus",
            Self::SurplusUnscheduled => "surplus-unscheduled",
            Self::Forced => "forced",
            Self::Replaced(Unfit::Displaced) => "displaced",
            Self::Replaced(Unfit::Used) => "used",
            Self::Replaced(Unfit::Outdated) => "outdated",
            Self::Replaced(Unfit::Stale) => "stale",
            Self::Drained => "drained",
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a pod for a slot.
    Create {
        /// The slot.
        slot: u32,
    },
    /// Remove a pod.
    Remove {
        /// Its name.
        name: String,
        /// Its UID: a namesake is spared.
        uid: String,
        /// The version in which it was seen idle; the delete fails if it has changed since (I1). None where
        /// what the pod does no longer matters.
        resource_version: Option<String>,
        /// Why.
        reason: RemovalReason,
    },
    /// Tell others what a pod does.
    Mark {
        /// Its name.
        name: String,
        /// Its UID: a namesake is spared.
        uid: String,
        /// The version that the change is made to; None = to any.
        resource_version: Option<String>,
        /// Labels to set or remove.
        labels: Marks,
        /// Annotations to set or remove.
        annotations: Marks,
    },
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Actions, removals of ended pods first.
    pub actions: Vec<Action>,
    /// Look again then, even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Pods that are missing and cannot be made now, with the reason in words.
    pub held_back: Option<String>,
    /// Surplus pods that wait for the delay or to turn idle.
    pub surplus: u32,
    /// Idle pods that are being replaced.
    pub replacing: u32,
}

/// Plans one pool.
///
/// - Slots are numbers below the maximum, the lowest free ones first, and a name is derived from a slot: so
///   that more pods than the maximum cannot exist whatever was overlooked (I2).
/// - Only pods whose present verdict is idle, and pods that no node runs yet, are removed for being too many,
///   each with the version in which it was seen so (I1).
pub fn plan(
    snapshot: Snapshot<'_>,
    counts: &Counts,
    decision: &Decision,
    settings: &Settings,
    memory: &mut Memory,
    now: Timestamp,
) -> Plan {
    memory.backoff.note(snapshot.pods, snapshot.memories, settings.keep_ended, now);
    let floor = memory.window.note(now, decision.applied, counts.current, settings.scale_down_delay);
    if decision.good {
        memory.last_good = Some(decision.applied);
    }
    memory.previous = Some(Previous {
        at: now,
        raw: decision.raw,
        applied: decision.applied,
        limited_by: if settings.paused { LimitedBy::Paused } else { decision.limited_by },
        reason: decision.reason.clone(),
    });
    if settings.paused {
        return Plan { actions: Vec::new(), wake_at: None, held_back: None, surplus: 0, replacing: 0 };
    }

    let mut actions = leaving(snapshot.pods, settings.keep_ended);
    actions.extend(marks(snapshot, settings.marks));
    if settings.draining {
        actions.extend(drained(snapshot));
        spare_the_leaving(&mut actions);
        return Plan { actions, wake_at: None, held_back: None, surplus: 0, replacing: 0 };
    }
    let mut wake_at = None;
    let mut held_back = None;

    let replacing = replacing(snapshot, &settings.replace, decision.applied, settings.bounds.maximum, now);
    if let Some(at) = replacing.wake_at {
        wake_at = earlier(wake_at, at);
    }
    let wanted = decision.applied.saturating_add(replacing.surge);
    let abandoned = replacing.abandoned.len() as u32;
    let current = counts.current.saturating_sub(abandoned);
    let missing = wanted.saturating_sub(current);
    if missing > 0 {
        let mut allowed = missing;
        if settings.template_refused {
            held_back = Some("the API server refuses the pod template".to_owned());
            allowed = 0;
        } else if let Some(until) = settings.no_creation_before.filter(|t| now < *t) {
            held_back = Some("the API server refused to create pods".to_owned());
            wake_at = earlier(wake_at, until);
            allowed = 0;
        } else if let Some((waiting, until)) = memory.backoff.held_back(now) {
            held_back = Some(format!(
                "pods keep failing: {}; the next is made at {until:.0}",
                memory.backoff.last.as_deref().unwrap_or("no detail")
            ));
            wake_at = earlier(wake_at, until);
            allowed = missing.saturating_sub(waiting);
        }
        let (paced, again) = memory.pace.allow(allowed, settings.max_per_second, now);
        if let Some(again) = again {
            wake_at = earlier(wake_at, again);
        }
        let resting = memory.successions.resting(now);
        let free = free_slots(snapshot.pods, settings, &memory.overlay, &resting, paced, now);
        if free.len() < paced as usize
            && let Some(until) = resting.values().min()
        {
            wake_at = earlier(wake_at, *until);
            let none = BTreeMap::new();
            let rested = free_slots(snapshot.pods, settings, &memory.overlay, &none, paced, now);
            if rested.len() > free.len() && held_back.is_none() {
                // Another leader may not have seen yet what was there, and give its successor another name (I2).
                held_back =
                    Some(format!("a finished Job is gone from its slot, which rests until {until:.0}"));
            }
        }
        memory.pace.took(free.len(), now);
        actions.extend(free.into_iter().map(|slot| Action::Create { slot }));
    }
    if memory.backoff.rounds > 0
        && let Some(held_out) = memory.backoff.holds_out_at(snapshot.pods, snapshot.memories)
    {
        // Look again then, to forget the failures.
        wake_at = earlier(wake_at, held_out);
    }

    // For each that got Ready beside them, one of those to be replaced goes.
    let doubted = memory.overlay.perhaps_removed();
    let may_go = |(pod, _): &&(&PodView, Unfit)| may_go(pod, &doubted);
    let go = replacing.idle.iter().filter(may_go).take(replacing.go as usize);
    let go = go.chain(replacing.abandoned.iter().filter(may_go));
    let replaced: Vec<Action> = go.map(|(pod, why)| removal(pod, RemovalReason::Replaced(*why))).collect();
    let gone = replaced.len() as u32 + forced(&actions);
    actions.extend(replaced);

    // The surge is no surplus while it is in use. Nor is standby while pods of which nothing was ever known may turn
    // out to be at work (I3).
    let in_use = decision.applied.saturating_add(replacing.surge).saturating_add(counts.never_known);
    let kept = floor.replicas.max(in_use.min(settings.bounds.maximum.max(decision.applied)));
    let leave_now = counts.current.saturating_sub(kept).saturating_sub(gone);
    if leave_now > 0 {
        // A pod that is not Ready yet stands in for none that is: as long as it starts, no idle one goes for it.
        let able = counts.current.saturating_sub(counts.starting);
        let idle_now = able.saturating_sub(kept).saturating_sub(gone).min(leave_now);
        let wanted = (leave_now, idle_now);
        let chosen = victims(snapshot, &decision.victims, settings, &actions, &doubted, wanted);
        actions.extend(chosen);
    }
    let surplus = current.saturating_sub(decision.applied.saturating_add(replacing.surge));
    if surplus > 0
        && let Some(until) = floor.until
    {
        wake_at = earlier(wake_at, until);
    }
    let replacing = replacing.idle.len() as u32 + abandoned;
    spare_the_leaving(&mut actions);
    Plan { actions, wake_at, held_back, surplus, replacing }
}

/// A pod that goes is told nothing more: the patch would change the version in which it was seen idle.
fn spare_the_leaving(actions: &mut Vec<Action>) {
    let leaving: HashSet<String> = actions
        .iter()
        .filter_map(|a| if let Action::Remove { uid, .. } = a { Some(uid.clone()) } else { None })
        .collect();
    actions.retain(|a| !matches!(a, Action::Mark { uid, .. } if leaving.contains(uid)));
}

/// Pods that go at somebody's word.
fn forced(actions: &[Action]) -> u32 {
    let forced = |a: &&Action| matches!(a, Action::Remove { reason: RemovalReason::Forced, .. });
    actions.iter().filter(forced).count() as u32
}

/// The removal of a pod as it was seen.
pub(super) fn removal(pod: &PodView, reason: RemovalReason) -> Action {
    Action::Remove {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        resource_version: Some(pod.resource_version.clone()),
        reason,
    }
}

/// Pods that are neither at work nor of unknown state.
fn drained(snapshot: Snapshot<'_>) -> Vec<Action> {
    let spare = |p: &&PodView| {
        p.alive() && !p.force_remove() && matches!(snapshot.verdict(p), Verdict::Idle | Verdict::Starting)
    };
    snapshot.pods.iter().filter(spare).map(|p| removal(p, RemovalReason::Drained)).collect()
}

fn earlier(a: Option<Timestamp>, b: Timestamp) -> Option<Timestamp> {
    Some(a.map_or(b, |a| a.min(b)))
}

/// Pods that go whatever the size: those that have ended, and those whose annotation says so.
fn leaving(pods: &[PodView], keep_ended: bool) -> Vec<Action> {
    pods.iter()
        .filter(|p| !p.terminating)
        .filter_map(|p| {
            let reason = if p.phase.is_terminal() {
                if keep_ended {
                    return None;
                }
                RemovalReason::Finished
            } else if p.force_remove() {
                RemovalReason::Forced
            } else {
                return None;
            };
            Some(Action::Remove { name: p.name.clone(), uid: p.uid.clone(), resource_version: None, reason })
        })
        .collect()
}

/// The free slots to fill, as many as are wanted and as the maximum has room for: first those in which a pod may be
/// already because its creation was not answered, then the lowest. Every pod object counts, also one that ends or
/// has no slot, and also one that may exist; of Jobs those that have finished do not. Slots that rest are left alone.
fn free_slots(
    pods: &[PodView],
    settings: &Settings,
    overlay: &Overlay,
    resting: &BTreeMap<u32, Timestamp>,
    wanted: u32,
    now: Timestamp,
) -> Vec<u32> {
    let maximum = settings.bounds.maximum;
    let holds = |p: &&PodView| !(settings.keep_ended && p.phase.is_terminal());
    let taken: HashSet<u32> = pods.iter().filter(holds).filter_map(|p| p.slot).collect();
    let in_doubt: HashSet<u32> = overlay.in_doubt(now).difference(&taken).copied().collect();
    let count = u32::try_from(pods.iter().filter(holds).count() + in_doubt.len()).unwrap_or(u32::MAX);
    let Some(mut room) = maximum.checked_sub(count) else { return Vec::new() };
    let tried: Vec<u32> = overlay.tried().collect();
    let free = (0..maximum).filter(|slot| tried.binary_search(slot).is_err());
    let takes_room = |slot: &u32| {
        let has = in_doubt.contains(slot) || room > 0;
        room -= u32::from(has && !in_doubt.contains(slot));
        has
    };
    tried
        .iter()
        .copied()
        .chain(free)
        .filter(|slot| *slot < maximum && !taken.contains(slot) && !settings.conflicts.contains(slot))
        // A slot that was tried is tried again under the tried name, whether it rests or not: a Job may be there already.
        .filter(|slot| tried.binary_search(slot).is_ok() || !resting.contains_key(slot))
        .filter(takes_room)
        .take(wanted as usize)
        .collect()
}
