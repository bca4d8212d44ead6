//! Which pods go because there are too many: nobody's work is lost (I1), and what stays is spread or packed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use jiff::Timestamp;

use super::plan::removal;
use super::replace::unfit;
use super::{Action, Placement, RemovalReason, Settings, Snapshot};
use crate::PodView;
use crate::verdict::Verdict;

/// While it is not known whether some pods were removed, only their removal is tried again: with another's in
/// addition there might be too few.
pub(super) fn may_go(pod: &PodView, doubted: &HashSet<String>) -> bool {
    doubted.is_empty() || doubted.contains(&pod.uid)
}

/// Pods to remove because there are too many: first those that no node runs yet, then idle ones; those that
/// are to be replaced anyway before those that the policy names, these before the others by the placement, and
/// the youngest first, of those made in the same second the one in the highest slot. As many as are wanted in all,
/// and of the idle ones no more than are wanted of them.
pub(super) fn victims(
    snapshot: Snapshot<'_>,
    named: &[String],
    settings: &Settings,
    taken: &[Action],
    doubted: &HashSet<String>,
    (wanted, idle_wanted): (u32, u32),
) -> Vec<Action> {
    let taken: HashSet<&str> = taken
        .iter()
        .filter_map(|a| if let Action::Remove { uid, .. } = a { Some(uid.as_str()) } else { None })
        .collect();
    let stays = |p: &&PodView| p.alive() && !p.force_remove() && !taken.contains(p.uid.as_str());
    let now = Timestamp::MIN;
    let mut candidates: Vec<Candidate<'_>> = snapshot
        .pods
        .iter()
        .filter(stays)
        .filter(|p| may_go(p, doubted))
        .filter_map(|p| {
            let reason = match snapshot.verdict(p) {
                Verdict::Starting if p.node.is_none() => RemovalReason::SurplusUnscheduled,
                Verdict::Idle => RemovalReason::Surplus,
                _ => return None,
            };
            // Staleness alone is no reason to prefer a pod: the oldest would go, not the youngest.
            let fit = unfit(snapshot, p, &settings.replace, now).is_none();
            let place = named.iter().position(|uid| uid == &p.uid).unwrap_or(usize::MAX);
            let age = (Reverse(p.created), Reverse(p.slot), p.name.as_str());
            Some(Candidate { rank: (fit, place), age, pod: p, reason })
        })
        .collect();
    candidates.sort_by_key(|c| (c.rank, c.age));
    let (idle, mut chosen): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|c| c.reason == RemovalReason::Surplus);
    chosen.truncate(wanted as usize);
    let idle_wanted = (wanted as usize - chosen.len()).min(idle_wanted as usize);
    let nodes = snapshot.pods.iter().filter(stays).filter_map(|p| p.node.as_deref());
    chosen.extend(choose(idle, nodes, settings.placement, idle_wanted));
    chosen.into_iter().map(|c| removal(c.pod, c.reason)).collect()
}

/// A pod that may go because there are too many.
struct Candidate<'a> {
    /// Lower ones go first, wherever they are.
    rank: (bool, usize),
    /// Among equals, by rank and placement.
    age: (Reverse<Timestamp>, Reverse<Option<u32>>, &'a str),
    pod: &'a PodView,
    reason: RemovalReason,
}

/// Chooses one after the other, each choice counting for the next, so that what stays is spread or packed.
/// Candidates come in order of rank and age; `nodes` names the node of each pod that stays without the choice.
fn choose<'a>(
    mut candidates: Vec<Candidate<'a>>,
    nodes: impl Iterator<Item = &'a str>,
    placement: Placement,
    wanted: usize,
) -> Vec<Candidate<'a>> {
    if placement == Placement::Youngest {
        candidates.truncate(wanted);
        return candidates;
    }
    let mut on_node: HashMap<&str, i64> = HashMap::new();
    for node in nodes {
        *on_node.entry(node).or_default() += 1;
    }
    let mut chosen = Vec::new();
    let mut rest = candidates.into_iter().peekable();
    while let Some(first) = rest.next().filter(|_| chosen.len() < wanted) {
        let rank = first.rank;
        let mut by_node: HashMap<Option<&str>, VecDeque<Candidate<'a>>> = HashMap::new();
        by_node.entry(first.pod.node.as_deref()).or_default().push_back(first);
        while let Some(next) = rest.next_if(|c| c.rank == rank) {
            by_node.entry(next.pod.node.as_deref()).or_default().push_back(next);
        }
        let crowd = |on_node: &HashMap<&str, i64>, node: Option<&str>| {
            let pods = node.and_then(|node| on_node.get(node)).copied().unwrap_or(0);
            if placement == Placement::Spread { -pods } else { pods }
        };
        // Each node with its next candidate, the one that goes next first.
        let mut order: BTreeSet<_> =
            by_node.iter().map(|(node, of)| (crowd(&on_node, *node), of[0].age, *node)).collect();
        while chosen.len() < wanted
            && let Some((_, _, node)) = order.pop_first()
            && let Some(of) = by_node.get_mut(&node)
        {
            chosen.extend(of.pop_front());
            if let Some(count) = node.and_then(|node| on_node.get_mut(node)) {
                *count -= 1;
            }
            if let Some(next) = of.front() {
                order.insert((crowd(&on_node, node), next.age, node));
            }
        }
    }
    chosen
}
