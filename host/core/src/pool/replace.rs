//! Which idle pods are to be replaced, and how: others are made first, as far as the surge allows, and one goes
//! for each that got Ready. Pods at work are replaced when they turn idle.

use jiff::{SignedDuration, Timestamp};

use super::Snapshot;
use crate::PodView;
use crate::verdict::Verdict;

/// Why a pod is to be replaced, the most pressing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// Its node takes no new pods or is not Ready: it is about to be lost.
    Displaced,
    /// It was at work, and is not to be used again.
    Used,
    /// It was made from an older template.
    Outdated,
    /// It has been idle for longer than it may.
    Stale,
}

/// What the spec says about replacing.
#[derive(Clone, Debug, Default)]
pub struct ReplaceRules {
    /// Hash of the present template; pods of another are outdated.
    pub template_hash: Option<String>,
    /// Pods that were at work are not used again.
    pub after_use: bool,
    /// How long a pod may be idle.
    pub max_idle: Option<SignedDuration>,
    /// Pods that may exist beyond the target while others are replaced. Displaced ones do not count: they are
    /// replaced all at once.
    pub max_surge: u32,
}

/// Why a pod is to be replaced, if it is: whatever it does now.
pub fn unfit(snapshot: Snapshot<'_>, pod: &PodView, rules: &ReplaceRules, now: Timestamp) -> Option<Unfit> {
    let memory = snapshot.memories.get(&pod.uid);
    if pod.displaced {
        return Some(Unfit::Displaced);
    }
    if memory.is_some_and(|m| m.spent) || rules.after_use && pod.used() || pod.abandoned() {
        return Some(Unfit::Used);
    }
    if rules.template_hash.is_some() && pod.template_hash != rules.template_hash {
        return Some(Unfit::Outdated);
    }
    stale_at(snapshot, pod, rules).filter(|at| *at <= now).map(|_| Unfit::Stale)
}

/// When an idle pod has been so for too long.
pub fn stale_at(snapshot: Snapshot<'_>, pod: &PodView, rules: &ReplaceRules) -> Option<Timestamp> {
    let memory = snapshot.memories.get(&pod.uid).filter(|m| m.verdict == Verdict::Idle)?;
    rules.max_idle.map(|limit| memory.since + limit)
}

/// How a pool's idle pods are replaced now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacing<'a> {
    /// Idle pods to be replaced, the most pressing first, the oldest first among equals.
    pub idle: Vec<(&'a PodView, Unfit)>,
    /// Pods that may exist beyond the target meanwhile.
    pub surge: u32,
    /// How many of `idle` may go now.
    pub go: u32,
    /// Pods to be replaced that have never been Ready: nobody needs them, so that they go at once.
    pub abandoned: Vec<(&'a PodView, Unfit)>,
    /// When the next pod becomes stale.
    pub wake_at: Option<Timestamp>,
}

/// Works out how a pool with that target and maximum goes about it.
pub fn replacing<'a>(
    snapshot: Snapshot<'a>,
    rules: &ReplaceRules,
    target: u32,
    maximum: u32,
    now: Timestamp,
) -> Replacing<'a> {
    let alive = || snapshot.pods.iter().filter(|p| p.alive());
    let mut idle: Vec<(&PodView, Unfit)> = alive()
        .filter(|p| snapshot.verdict(p) == Verdict::Idle && !p.force_remove())
        .filter_map(|p| Some((p, unfit(snapshot, p, rules, now)?)))
        .collect();
    idle.sort_by(|a, b| (a.1, a.0.created, &a.0.name).cmp(&(b.1, b.0.created, &b.0.name)));
    let ever_ready = |p: &PodView| snapshot.memories.get(&p.uid).is_some_and(|m| m.ever_ready);
    let abandoned: Vec<(&PodView, Unfit)> = alive()
        .filter(|p| snapshot.verdict(p) == Verdict::Starting && !ever_ready(p) && !p.force_remove())
        .filter_map(|p| Some((p, unfit(snapshot, p, rules, now)?)))
        .collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let displaced = count(idle.iter().filter(|(_, why)| *why == Unfit::Displaced).count());
    let others = count(idle.len()) - displaced;
    let surge = displaced.saturating_add(others.min(rules.max_surge)).min(maximum.saturating_sub(target));
    // Pods that are not yet able to stand in for another, wherever they are.
    let starting = count(alive().filter(|p| snapshot.verdict(p) == Verdict::Starting).count());
    let current = count(alive().count());
    let left = current - count(abandoned.len());
    let able = current.saturating_sub(starting);
    let mut go = able.saturating_sub(target);
    if surge == 0 && starting == count(abandoned.len()) && left <= target {
        // There is no room beside them: one goes first.
        go = go.max(1);
    }
    let wake_at = alive().filter_map(|p| stale_at(snapshot, p, rules)).filter(|at| *at > now).min();
    Replacing { go: go.min(count(idle.len())), idle, abandoned, surge, wake_at }
}
