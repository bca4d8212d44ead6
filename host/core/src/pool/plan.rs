//! The plan: which pods are made and which go. This is where I1 and I2 are decided.

use std::collections::{BTreeSet, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::decision::{Bounds, Decision, LimitedBy};
use super::{Counts, Memory, Previous, Snapshot};
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
}

impl RemovalReason {
    /// The word that logs and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Surplus => "surplus",
            Self::SurplusUnscheduled => "surplus-unscheduled",
            Self::Forced => "forced",
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
    memory.backoff.note(snapshot.pods, now);
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
        return Plan { actions: Vec::new(), wake_at: None, held_back: None, surplus: 0 };
    }

    let mut actions = leaving(snapshot.pods);
    let mut wake_at = None;
    let mut held_back = None;

    let missing = decision.applied.saturating_sub(counts.current);
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
        let free = free_slots(snapshot.pods, settings, allowed);
        actions.extend(free.into_iter().map(|slot| Action::Create { slot }));
    }
    if memory.backoff.rounds > 0
        && let Some(held_out) = memory.backoff.holds_out_at(snapshot.pods)
    {
        // Look again then, to forget the failures.
        wake_at = earlier(wake_at, held_out);
    }

    let allowed_floor = floor.replicas.max(decision.applied);
    let leave_now = counts.current.saturating_sub(allowed_floor);
    if leave_now > 0 {
        let forced =
            actions.iter().filter(|a| matches!(a, Action::Remove { reason: RemovalReason::Forced, .. }));
        let more = leave_now.saturating_sub(forced.count() as u32);
        let chosen = victims(snapshot, &decision.victims, more);
        actions.extend(chosen);
    }
    let surplus = counts.current.saturating_sub(decision.applied);
    if surplus > 0
        && let Some(until) = floor.until
    {
        wake_at = earlier(wake_at, until);
    }
    Plan { actions, wake_at, held_back, surplus }
}

fn earlier(a: Option<Timestamp>, b: Timestamp) -> Option<Timestamp> {
    Some(a.map_or(b, |a| a.min(b)))
}

/// Pods that go whatever the size: those that have ended, and those whose annotation says so.
fn leaving(pods: &[PodView]) -> Vec<Action> {
    pods.iter()
        .filter(|p| !p.terminating)
        .filter_map(|p| {
            let reason = if p.phase.is_terminal() {
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

/// The lowest free slots, as many as are wanted and as the maximum has room for. Every pod object counts,
/// also one that ends or has no slot.
fn free_slots(pods: &[PodView], settings: &Settings, wanted: u32) -> Vec<u32> {
    let maximum = settings.bounds.maximum;
    let room = maximum.saturating_sub(u32::try_from(pods.len()).unwrap_or(u32::MAX));
    let taken: HashSet<u32> = pods.iter().filter_map(|p| p.slot).collect();
    (0..maximum)
        .filter(|slot| !taken.contains(slot) && !settings.conflicts.contains(slot))
        .take(wanted.min(room) as usize)
        .collect()
}

/// Pods to remove because there are too many: first those that no node runs yet, then idle ones, those that
/// the policy names before the others, the youngest first.
fn victims(snapshot: Snapshot<'_>, named: &[String], wanted: u32) -> Vec<Action> {
    let mut candidates: Vec<(u8, usize, std::cmp::Reverse<Timestamp>, &PodView, RemovalReason)> = snapshot
        .pods
        .iter()
        .filter(|p| p.alive() && !p.force_remove())
        .filter_map(|p| {
            let rank = |reason, class| {
                let place = named.iter().position(|uid| uid == &p.uid).unwrap_or(usize::MAX);
                (class, place, std::cmp::Reverse(p.created), p, reason)
            };
            match snapshot.verdict(p) {
                Verdict::Starting if p.node.is_none() => Some(rank(RemovalReason::SurplusUnscheduled, 0)),
                Verdict::Idle => Some(rank(RemovalReason::Surplus, 1)),
                _ => None,
            }
        })
        .collect();
    candidates.sort_by(|a, b| (a.0, a.1, a.2, &a.3.name).cmp(&(b.0, b.1, b.2, &b.3.name)));
    candidates
        .into_iter()
        .take(wanted as usize)
        .map(|(_, _, _, pod, reason)| Action::Remove {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: Some(pod.resource_version.clone()),
            reason,
        })
        .collect()
}
