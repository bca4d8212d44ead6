//! Claims: a standby pod is handed to somebody, exactly once. A claim is an annotation of its pod, written with the
//! version in which the pod was seen idle: two that want the same pod cannot both get it, whoever serves them, and a
//! pod that is being removed cannot be had. Everything else follows from the annotation, so that a restart forgets
//! nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use stoker_api::keys;

use crate::PodView;
use crate::pool::marks::{self, MarkRules, Marks};
use crate::pool::replace::unfit;
use crate::pool::{Action, Placement, ReplaceRules, Snapshot};
use crate::verdict::{Judgement, Verdict};

/// What the annotation [`keys::CLAIM`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Names the claim; whoever knows it and may claim, may release it.
    pub id: String,
    /// Who claimed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When.
    pub claimed_at: Timestamp,
    /// When it ends unless it is renewed. None = it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When the busy probe agreed for the first time that the pod is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worked_at: Option<Timestamp>,
    /// By which the same request is known again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What the claimant wrote.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Claim {
    /// The claim on a pod, if there is one; of one that cannot be read, why not.
    pub fn of(pod: &PodView) -> Option<Result<Self, String>> {
        let text = pod.annotations.get(keys::CLAIM)?;
        Some(serde_json::from_str(text).map_err(|error| format!("annotation {}: {error}", keys::CLAIM)))
    }

    /// What the annotation is to say.
    pub fn text(&self) -> String {
        // Strings and times always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// When claims end by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How long a claim counts although the busy probe does not agree; None = for as long as it lasts.
    pub timeout: Option<SignedDuration>,
    /// A pod whose claim ended so is standby again; else it is replaced.
    pub return_after_timeout: bool,
    /// A claim lasts until it is released or expires, also when its pod has turned idle after work.
    pub until_released: bool,
    /// Pods that were claimed are not used again.
    pub after_use: bool,
}

/// Why a claim has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Its pod was at work, and is idle.
    Finished,
    /// Its time is over.
    Expired,
    /// The busy probe did not agree in time.
    TimedOut,
}

impl End {
    /// The word that logs and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Expired => "expired",
            Self::TimedOut => "timed-out",
        }
    }
}

/// How a claim stands, given what its pod is said to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The claim counts.
    Claimed,
    /// What the pod does counts; `first` = the probe has not agreed before.
    AtWork { first: bool },
    /// It has ended.
    Over(End),
}

fn standing(claim: &Claim, says: Verdict, rules: Rules, now: Timestamp) -> Standing {
    if claim.expires_at.is_some_and(|at| at <= now) {
        return Standing::Over(End::Expired);
    }
    match (says, claim.worked_at) {
        (Verdict::Busy, worked) => Standing::AtWork { first: worked.is_none() },
        // Nothing ends while nothing is known.
        (Verdict::Unknown, _) => Standing::Claimed,
        (_, _) if rules.until_released && claim.worked_at.is_some() => Standing::Claimed,
        (Verdict::Idle, Some(_)) => Standing::Over(End::Finished),
        (_, None) if timed_out_at(claim, rules).is_some_and(|at| at <= now) => Standing::Over(End::TimedOut),
        _ => Standing::Claimed,
    }
}

fn timed_out_at(claim: &Claim, rules: Rules) -> Option<Timestamp> {
    rules.timeout.filter(|_| claim.worked_at.is_none()).map(|timeout| claim.claimed_at + timeout)
}

/// What follows from a pool's claims at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Changes of pods that are due: claims at whose pods work has begun, and claims that ended.
    pub actions: Vec<Action>,
    /// Claims that end by `actions`.
    pub ended: Vec<(String, End)>,
    /// When the next ends by itself.
    pub wake_at: Option<Timestamp>,
}

impl Seen {
    /// Adds what is due to a plan. A pod that goes is told nothing more, and one that changes by this is told the rest
    /// when it has been seen.
    pub fn join(self, plan: &mut Vec<Action>) {
        let leaving: HashSet<&str> = plan
            .iter()
            .filter_map(|a| if let Action::Remove { uid, .. } = a { Some(uid.as_str()) } else { None })
            .collect();
        let stays = |a: &Action| !matches!(a, Action::Mark { uid, .. } if leaving.contains(uid.as_str()));
        let due: Vec<Action> = self.actions.into_iter().filter(stays).collect();
        let changing: HashSet<String> = due
            .iter()
            .filter_map(|a| if let Action::Mark { uid, .. } = a { Some(uid.clone()) } else { None })
            .collect();
        plan.retain(|a| !matches!(a, Action::Mark { uid, .. } if changing.contains(uid)));
        plan.extend(due);
    }
}

/// Judges claimed pods, given what is said of each, and tells what is due.
///
/// - A pod with a claim is claimed unless it is busy or unknown. It is so until the change that ends the claim is seen.
/// - A claim that cannot be read counts: somebody wrote it.
pub fn judge(pods: &[PodView], says: &mut [Judgement], rules: Rules, now: Timestamp) -> Seen {
    let mut seen = Seen::default();
    for (pod, judgement) in pods.iter().zip(says).filter(|(pod, _)| pod.alive()) {
        let claim = match Claim::of(pod) {
            None => continue,
            Some(Ok(claim)) => claim,
            Some(Err(words)) => {
                claimed(judgement, words);
                continue;
            }
        };
        let stands = standing(&claim, judgement.verdict, rules, now);
        claimed(judgement, format!("claimed by {}", claim.by));
        match stands {
            Standing::Claimed | Standing::AtWork { first: false } => {}
            Standing::AtWork { first: true } => {
                let claim = Claim { worked_at: Some(now), ..claim.clone() };
                seen.actions.push(change(pod, Some(claim.text()), None));
            }
            Standing::Over(end) => {
                seen.actions.push(ended(pod, end, rules));
                seen.ended.push((claim.id.clone(), end));
                continue;
            }
        }
        let ends = [claim.expires_at, timed_out_at(&claim, rules)];
        let next = ends.into_iter().flatten().filter(|at| *at > now).min();
        seen.wake_at = [seen.wake_at, next].into_iter().flatten().min();
    }
    seen
}

/// Judges pods that somebody is about to claim, in the version in which they were seen: as if the claim were there. True
/// = there are some.
pub fn on_offer(pods: &[PodView], says: &mut [Judgement], offered: &HashMap<String, String>) -> bool {
    let mut some = false;
    for (pod, judgement) in pods.iter().zip(says) {
        if judgement.verdict == Verdict::Idle && offered.get(&pod.uid) == Some(&pod.resource_version) {
            claimed(judgement, "about to be claimed".to_owned());
            some = true;
        }
    }
    some
}

fn claimed(judgement: &mut Judgement, reason: String) {
    if !matches!(judgement.verdict, Verdict::Busy | Verdict::Unknown) {
        judgement.verdict = Verdict::Claimed;
        judgement.reason = reason;
    }
}

/// The change that ends a claim by itself.
fn ended(pod: &PodView, end: End, rules: Rules) -> Action {
    let used = match end {
        End::TimedOut if rules.return_after_timeout => None,
        End::TimedOut => Some(keys::ABANDONED),
        End::Finished | End::Expired => rules.after_use.then_some("true"),
    };
    change(pod, None, used)
}

fn change(pod: &PodView, claim: Option<String>, used: Option<&str>) -> Action {
    let mut annotations = Marks::from([(keys::CLAIM.to_owned(), claim)]);
    if let Some(used) = used {
        annotations.insert(keys::USED.to_owned(), Some(used.to_owned()));
    }
    Action::Mark {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        resource_version: Some(pod.resource_version.clone()),
        labels: Marks::new(),
        annotations,
    }
}

/// What a pod carries from the moment at which it is claimed: labels and annotations.
pub fn marks_of(claim: &Claim, rules: MarkRules) -> (Marks, Marks) {
    let (mut labels, mut annotations) = (Marks::new(), Marks::new());
    annotations.insert(keys::CLAIM.to_owned(), Some(claim.text()));
    marks::of_state(Verdict::Claimed, rules, &mut labels, &mut annotations);
    (labels, annotations)
}

/// The annotations of a pod whose claim is released: it is used again unless the pool says otherwise.
pub fn release(rules: Rules) -> Marks {
    let mut annotations = Marks::from([(keys::CLAIM.to_owned(), None)]);
    if rules.after_use {
        annotations.insert(keys::USED.to_owned(), Some("true".to_owned()));
    }
    annotations
}

/// Standby that may be handed out, the first one first: those fit for use before those that are to be replaced, and
/// then by the placement. `Spread` takes turns among the nodes, beginning where the fewest pods are at work; `Packed`
/// fills the nodes where the most are; else the oldest goes first. A pod that is just leaving is none.
pub fn standby<'a>(
    snapshot: Snapshot<'a>,
    placement: Placement,
    replace: &ReplaceRules,
    plan: &[Action],
    now: Timestamp,
) -> Vec<&'a PodView> {
    let leaving: HashSet<&str> = plan
        .iter()
        .filter_map(|a| if let Action::Remove { uid, .. } = a { Some(uid.as_str()) } else { None })
        .collect();
    let mut at_work: HashMap<&str, usize> = HashMap::new();
    for pod in snapshot.pods.iter().filter(|p| p.alive()) {
        let works = matches!(snapshot.verdict(pod), Verdict::Busy | Verdict::Claimed | Verdict::Unknown);
        *at_work.entry(node(pod)).or_default() += usize::from(works);
    }
    let free = |p: &&PodView| {
        p.alive()
            && p.ready()
            && !p.displaced
            && !p.force_remove()
            && !p.annotations.contains_key(keys::CLAIM)
            && !leaving.contains(p.uid.as_str())
            && snapshot.verdict(p) == Verdict::Idle
    };
    let mut free: Vec<&PodView> = snapshot.pods.iter().filter(free).collect();
    free.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let mut turns: HashMap<&str, usize> = HashMap::new();
    let mut ordered: Vec<(bool, usize, &PodView)> = free
        .into_iter()
        .map(|pod| {
            let there = at_work.get(node(pod)).copied().unwrap_or_default();
            let turn = turns.entry(node(pod)).or_default();
            *turn += 1;
            let rank = match placement {
                Placement::Youngest => 0,
                Placement::Spread => there + *turn,
                Placement::Packed => usize::MAX - there,
            };
            (unfit(snapshot, pod, replace, now).is_some(), rank, pod)
        })
        .collect();
    ordered.sort_by_key(|(unfit, rank, _)| (*unfit, *rank));
    ordered.into_iter().map(|(_, _, pod)| pod).collect()
}

fn node(pod: &PodView) -> &str {
    pod.node.as_deref().unwrap_or_default()
}
