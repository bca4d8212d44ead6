//! What must hold of every look and every write, whatever happens in the cluster and however late an operator sees
//! it. A broken promise is told in words that begin with the invariant's name.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use stoker_api::keys;
use stoker_core::asked::Outcome;
use stoker_core::claims::Claim;
use stoker_core::pool::{Action, RemovalReason};
use stoker_core::verdict::Verdict;
use stoker_core::{Phase, PodView};

use crate::asking::{Hearing, LastWord};
use crate::cluster::Cluster;
use crate::look::{Look, Says};
use crate::operator::{Answer, Done, Fate};
use crate::pods::start;

/// How a promise was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

/// Kept, or how it was broken.
pub type Kept = Result<(), Broken>;

macro_rules! hold {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(Broken(format!($($words)+)));
        }
    };
}

/// What a pod does, told from the pod alone, if pods are not asked.
fn does(pod: &PodView, outage: bool) -> Verdict {
    let ready = pod.conditions.iter().find(|c| c.type_ == "Ready").map_or("False", |c| c.status.as_str());
    match (crate::pods::says_busy(pod), ready) {
        (false, "False") if pod.phase != Phase::Unknown => Verdict::Starting,
        _ if outage => Verdict::Unknown,
        (true, _) => Verdict::Busy,
        (false, "True") if pod.phase != Phase::Unknown => Verdict::Idle,
        _ => Verdict::Unknown,
    }
}

/// I3: who counts as what is what the pods say.
fn of_counts(look: &Look) -> Kept {
    for pod in &look.pods {
        let verdict = look.verdicts.get(&pod.uid).copied();
        if let Some(hearing) = &look.hearing {
            of_hearing(hearing, pod, verdict)?;
            continue;
        }
        let says = match does(pod, look.outage) {
            Verdict::Idle | Verdict::Starting if pod.alive() && pod.annotations.contains_key(keys::CLAIM) => {
                Verdict::Claimed
            }
            says => says,
        };
        hold!(verdict == Some(says), "I3: a {says:?} pod is taken to be {verdict:?}: {pod:?}");
    }
    let alive = |wanted: Verdict| {
        let says = |p: &PodView| look.verdicts.get(&p.uid) == Some(&wanted);
        look.pods.iter().filter(|p| !p.terminating && !p.phase.is_terminal() && says(p)).count()
    };
    let counts = &look.counts;
    let counted =
        [counts.idle + counts.displaced, counts.busy, counts.claimed, counts.starting, counts.unknown];
    let truth =
        [Verdict::Idle, Verdict::Busy, Verdict::Claimed, Verdict::Starting, Verdict::Unknown].map(alive);
    hold!(counted.map(|n| n as usize) == truth, "I3: {truth:?} pods are counted as {counted:?}");
    Ok(())
}

/// What is made of a pod that is asked, by what was heard of it.
fn of_hearing(hearing: &Hearing, pod: &PodView, verdict: Option<Verdict>) -> Kept {
    let (rules, heard) = (hearing.rules, hearing.heard.get(&pod.uid).copied().unwrap_or_default());
    hold!(!heard.namesake, "I1: what its namesake wrote is taken for its answer: {pod:?}");
    let fresh = |asked| hearing.now.duration_since(asked).abs() <= rules.period * 3;
    let lost = heard.unclear >= rules.threshold || heard.clear.is_some_and(|(_, asked)| !fresh(asked));
    let stands = heard.clear.map(|(outcome, _)| outcome).filter(|_| !lost);
    let free = matches!(stands, Some(Outcome::Idle | Outcome::Starting));
    let is_idle = stands == Some(Outcome::Idle) && pod.ready();
    // One that was Ready is starting only by its own word, or when it has just become it and may yet answer.
    let is_starting =
        !heard.ready || free || !lost && heard.clear.is_none() && heard.before == Some(Verdict::Starting);
    let claimed = pod.alive() && pod.annotations.contains_key(keys::CLAIM);
    let kept = match verdict {
        Some(Verdict::Busy) => stands == Some(Outcome::Busy) || lost && rules.lost_is_busy,
        _ if stands == Some(Outcome::Busy) => false,
        Some(Verdict::Idle) => is_idle && !claimed,
        Some(Verdict::Starting) => is_starting && !claimed,
        Some(Verdict::Claimed) => claimed && (is_idle || is_starting),
        Some(Verdict::Unknown) => !(free && pod.ready()),
        None => false,
    };
    hold!(kept, "I1, I3: taken to be {verdict:?} by {heard:?}: {pod:?}");
    Ok(())
}

/// What must hold of any look and its plan, by what was seen.
pub fn of_look(look: &Look) -> Kept {
    of_counts(look)?;
    of_plan(look)
}

/// What must hold of any plan, by what was seen, whatever the members are.
pub fn of_plan(look: &Look) -> Kept {
    let mut slots = BTreeSet::new();
    for action in &look.plan.actions {
        match action {
            Action::Create { slot } => {
                hold!(!look.draining, "a pod is made for a pool that is being deleted");
                hold!(*slot < look.spec.maximum, "I2: slot {slot} is past the maximum");
                hold!(slots.insert(*slot), "I2: slot {slot} is filled twice");
                hold!(look.pods.iter().all(|p| p.slot != Some(*slot)), "I2: slot {slot} is taken");
            }
            Action::Mark { uid, labels, annotations, .. } => {
                hold!(look.pod(uid).is_some_and(PodView::alive), "{uid} is marked, and is not alive");
                hold!(!(labels.is_empty() && annotations.is_empty()), "I10: a patch of nothing");
            }
            Action::Remove { .. } => of_removal(look, action)?,
        }
    }
    if !slots.is_empty() {
        let all = look.pods.len() + slots.len();
        hold!(all <= look.spec.maximum as usize, "I2: {all} pods, more than there is room for");
        let alive = look.pods.iter().filter(|p| p.alive()).count() + slots.len();
        let most = look.decision.applied as usize + look.unfit;
        hold!(alive <= most, "I3: {alive} pods, more than the target and what is replaced");
    }
    // Standby is not given up for its replacement, but one pod at a time where there is no room for both.
    let verdict = |uid: &String| look.verdicts.get(uid);
    let able = look.pods.iter().filter(|p| p.alive() && verdict(&p.uid) != Some(&Verdict::Starting)).count();
    let replaced = |a: &&Action| match a {
        Action::Remove { uid, reason: RemovalReason::Replaced(_), .. } => {
            verdict(uid) != Some(&Verdict::Starting)
        }
        _ => false,
    };
    let replaced = look.plan.actions.iter().filter(replaced).count();
    let left = able.saturating_sub(replaced);
    hold!(replaced <= 1 || left >= look.decision.applied as usize, "I3: standby is given up to be replaced");
    // Claims end whether the pool is paused or not.
    let of_claim =
        |a: &Action| matches!(a, Action::Mark { annotations, .. } if annotations.contains_key(keys::CLAIM));
    hold!(!look.spec.paused || look.plan.actions.iter().all(of_claim), "a paused pool is changed");
    hold!(look.decision.applied <= look.spec.maximum, "I2: the target is past the maximum");
    Ok(())
}

fn of_removal(look: &Look, action: &Action) -> Kept {
    let Action::Remove { uid, resource_version, reason, .. } = action else { return Ok(()) };
    let Some(pod) = look.pod(uid) else { return Err(Broken(format!("{uid} is removed, and was not seen"))) };
    let verdict = look.verdicts.get(uid).copied().unwrap_or(Verdict::Unknown);
    hold!(!pod.terminating, "{uid} is removed twice");
    let spare = match reason {
        RemovalReason::Finished => {
            hold!(pod.phase.is_terminal(), "{uid} has not ended");
            return Ok(());
        }
        RemovalReason::Forced => {
            hold!(pod.force_remove(), "I1: {uid} is not forced");
            return Ok(());
        }
        RemovalReason::Replaced(_) | RemovalReason::Drained => {
            // One that is asked may be Ready already, and is asked once more before it goes.
            let ready = pod.ready() && look.hearing.is_none();
            verdict == Verdict::Idle || (verdict == Verdict::Starting && !ready)
        }
        RemovalReason::Surplus | RemovalReason::SurplusUnscheduled => {
            verdict == Verdict::Idle || (verdict == Verdict::Starting && pod.node.is_none())
        }
    };
    hold!(spare, "I1: a {verdict:?} pod is removed: {action:?}");
    hold!(
        resource_version.as_ref() == Some(&pod.resource_version),
        "I1: not for the version seen: {action:?}"
    );
    Ok(())
}

/// I3: the target is the formula's or the policy's within the bounds; a failing policy neither shrinks nor inflates.
/// `held` is the last target that was decided without failure.
pub fn of_target(look: &Look, says: &Says, busy_for_sizing: u32, held: Option<u32>) -> Kept {
    let spec = look.spec;
    let bound = |n: u32| n.max(spec.minimum).min(spec.maximum);
    let formula = bound(busy_for_sizing + spec.idle);
    let wanted = match says {
        Says::Nothing => formula,
        Says::Wants { desired, .. } => bound(*desired),
        Says::Fails => held.unwrap_or(0).min(spec.maximum).max(formula),
    };
    let applied = look.decision.applied;
    hold!(applied == wanted, "I3: the target is {applied}, not {wanted} (formula {formula}, held {held:?})");
    Ok(())
}

/// What must hold of a write, by the truth.
pub fn of_write(cluster: &Cluster, done: &Done) -> Kept {
    let written = !matches!(done.fate, Fate::Lost | Fate::Refused);
    let Some(op) = cluster.operators.get(done.operator) else { return Ok(()) };
    if let Some(latest) = op.pool.iter().next() {
        hold!(latest.spec == done.look.spec, "I4: a plan for another generation is carried out: {done:?}");
        hold!(
            latest.deleting == done.look.draining,
            "I4: the plan is for a pool that is not deleted: {done:?}"
        );
    }
    hold!(!(done.missed_before && done.sure), "I10: a pod that is gone is acted on again: {:?}", done.action);
    match &done.action {
        Action::Create { slot } if written => of_creation(cluster, done, *slot),
        Action::Remove { uid, reason, .. } if written => {
            let changed = cluster.removed_by.get(uid) == Some(&op.life);
            if let Some(before) = done.before.as_ref().filter(|p| changed && !p.terminating && &p.uid == uid)
            {
                let anyway = before.phase.is_terminal() || before.force_remove();
                let claimed = before.annotations.contains_key(keys::CLAIM);
                hold!(anyway || !claimed, "I1: a claimed pod is removed as {reason:?}: {before:?}");
                if !anyway && !of_last_word(cluster, before, &done.last_words)? {
                    hold!(!cluster.is_busy(before), "I1: a busy pod is removed as {reason:?}: {before:?}");
                }
            }
            of_shrinking(cluster, done)
        }
        Action::Mark { annotations, .. } if annotations.contains_key(keys::CLAIM) => {
            of_claim_change(cluster, done)
        }
        _ => Ok(()),
    }?;
    of_claims(cluster)
}

/// A claim that is granted is its pod's only one, given what the pod truly was before.
pub fn of_claim(cluster: &Cluster, before: &PodView) -> Kept {
    let taken = before.annotations.get(keys::CLAIM);
    hold!(taken.is_none(), "a pod is handed out twice: {before:?}");
    hold!(before.alive(), "a pod that is going or has ended is handed out: {before:?}");
    // One that is asked may have taken up work since.
    let busy = cluster.servers.is_none() && cluster.is_busy(before);
    hold!(!busy, "a busy pod is handed out: {before:?}");
    of_claims(cluster)
}

/// No claim that was granted is lost for as long as its pod lives.
fn of_claims(cluster: &Cluster) -> Kept {
    for (uid, id) in &cluster.claims {
        if let Some(pod) = cluster.pods.by_uid(uid).filter(|pod| pod.alive()) {
            let claim = Claim::of(pod).and_then(Result::ok);
            hold!(claim.is_some_and(|claim| &claim.id == id), "the claim {id} is lost: {pod:?}");
        }
    }
    Ok(())
}

/// A claim is changed only as its rules say, by what its pod truly was.
fn of_claim_change(cluster: &Cluster, done: &Done) -> Kept {
    let (Answer::Marked, Some(before)) = (&done.answer, &done.before) else { return Ok(()) };
    let Action::Mark { annotations, .. } = &done.action else { return Ok(()) };
    let rules = done.look.spec.claims;
    let Some(Ok(claim)) = Claim::of(before) else {
        return Err(Broken(format!("a claim that is not there is changed: {before:?}")));
    };
    // Of one that is asked only its answers are known.
    let asked = cluster.servers.is_some();
    let busy = cluster.is_busy(before);
    match annotations.get(keys::CLAIM).cloned().flatten() {
        Some(text) => {
            let mut after = PodView::clone(before);
            after.annotations.insert(keys::CLAIM.to_owned(), text);
            let same = Claim::of(&after).and_then(Result::ok).map(|new| Claim { worked_at: None, ..new });
            hold!(
                same.as_ref() == Some(&claim) && (busy || asked),
                "work is noted that is none: {before:?} {after:?}"
            );
        }
        None => {
            let finished = claim.worked_at.is_some() && !rules.until_released && (!busy || asked);
            let timed_out = claim.worked_at.is_none() && rules.timeout.is_some() && (!busy || asked);
            let expired = claim.expires_at.is_some();
            hold!(finished || timed_out || expired, "a claim is ended that lasts: {before:?}");
        }
    }
    Ok(())
}

/// I1: a pod that is asked goes only if its last word was that it is idle, so that it was not at work when it was asked.
/// Tells whether it was asked: from then on it may have taken up work.
pub fn of_last_word(cluster: &Cluster, before: &PodView, words: &[LastWord]) -> Result<bool, Broken> {
    let Some(servers) = &cluster.servers else { return Ok(false) };
    let word = words.iter().find(|word| word.uid == before.uid);
    hold!(word.is_some() || !servers.was_ready(&before.uid), "I1: {before:?} goes, and was not asked before");
    let Some(word) = word else { return Ok(false) };
    hold!(word.answer.outcome == Outcome::Idle, "I1: {before:?} goes, and its last word was {word:?}");
    let busy = servers.busy_since(&before.uid).filter(|since| *since < word.sent);
    hold!(busy.is_none(), "I1: {before:?} goes, at work since {busy:?}: {word:?}");
    Ok(true)
}

fn of_creation(cluster: &Cluster, done: &Done, slot: u32) -> Kept {
    let look = &done.look;
    let Some(op) = cluster.operators.get(done.operator) else { return Ok(()) };
    if matches!(done.answer, Answer::Existed(_)) && done.fate == Fate::Passes {
        return Ok(());
    }
    // One operator knows all that it made, so that a lowered maximum holds at once. Two that see each other late
    // have only the names: those bound the pool by the greatest maximum that was ever in force.
    let alone = cluster.operators.len() == 1 && done.sure;
    let most = if alone { look.spec.maximum } else { cluster.greatest_maximum };
    let pods = cluster.pods.len();
    hold!(pods <= most as usize, "I2: {pods} pods exist, {most} may: {:?}", look.spec);
    // A pod of its own that it does not see is not made again in another slot.
    let creates = look.creates();
    let twin = cluster.pods.iter().find(|p| {
        let mine = cluster.made_by.get(&p.uid) == Some(&op.life);
        let seen = look.pod(&p.uid).is_some() || look.pods.iter().any(|q| q.slot == p.slot);
        let tried = p.slot.is_some_and(|slot| creates.contains(&slot) || slot >= look.spec.maximum);
        mine && p.alive() && !seen && !tried
    });
    let twin = twin.filter(|_| !look.tried.contains(&slot)).map(|twin| &twin.name);
    hold!(twin.is_none(), "I3: a pod is made in slot {slot}, and {twin:?} is there unseen: one too many");
    Ok(())
}

/// A pod that is spare is not removed while another that the operator removed looks alive to it.
fn of_shrinking(cluster: &Cluster, done: &Done) -> Kept {
    let Action::Remove { uid, reason, .. } = &done.action else { return Ok(()) };
    let Some(op) = cluster.operators.get(done.operator) else { return Ok(()) };
    let counted = matches!(
        reason,
        RemovalReason::Surplus | RemovalReason::SurplusUnscheduled | RemovalReason::Replaced(_)
    );
    // What was begun before was decided by what was seen then.
    if !counted || !done.sure || done.look.doubted.contains(uid) {
        return Ok(());
    }
    let planned = |uid: &str| {
        let this = |a: &Action| matches!(a, Action::Remove { uid: u, .. } if u == uid);
        done.look.plan.actions.iter().any(this)
    };
    let ghost = done.look.pods.iter().find(|p| {
        let mine = cluster.removed_by.get(&p.uid) == Some(&op.life);
        p.alive() && mine && !planned(&p.uid) && cluster.pods.by_uid(&p.uid).is_none_or(|p| p.terminating)
    });
    let ghost = ghost.map(|ghost| &ghost.name);
    hold!(ghost.is_none(), "I3: a pod is removed, and {ghost:?} went before unseen: one too few");
    Ok(())
}

/// Nothing happens any more but what Kubernetes and the operators do: nodes answer, terminating pods go, the others
/// get Ready; looks follow changes, failed writes and alarms. In the end there is nothing to do or to wait for, the
/// pool has its size, and nothing turns up later by itself (I10). Returns the last looks.
pub fn of_rest(cluster: &mut Cluster) -> Result<Vec<Arc<Look>>, Broken> {
    for node in cluster.nodes.names() {
        cluster.lose(&node, false);
    }
    cluster.add_node("node-0");
    cluster.cordon("node-0", false);
    cluster.heal();
    let mut last = vec![None; cluster.operators.len()];
    // A maximum's worth of pods made and removed, the longest delays and back-offs, with room to spare.
    for _ in 0..400 {
        let mut rests = true;
        for name in cluster.pods.names() {
            cluster.pods.finish(&name);
            cluster.schedule(&name, 0);
            cluster.change(&name, start);
        }
        cluster.notice();
        for (operator, last) in last.iter_mut().enumerate() {
            while cluster.act(operator, Fate::Passes).is_some() {}
            cluster.tell_all(operator);
            cluster.ask_all(operator);
            let Some(op) = cluster.operators.get(operator) else { continue };
            let now = cluster.now + op.clock;
            if !(op.due || last.is_none() || op.wake.is_some_and(|at| at <= now)) {
                continue;
            }
            rests = false;
            *last = cluster.look(operator);
            if let Some(look) = last {
                of_look(look)?;
            }
            while let Some(done) = cluster.act(operator, Fate::Passes) {
                of_write(cluster, &done)?;
            }
        }
        if !rests {
            cluster.pass(SignedDuration::from_millis(100));
            continue;
        }
        let waits =
            cluster.operators.iter().filter_map(|op| Some(op.wake?.duration_since(cluster.now + op.clock)));
        let Some(wait) = waits.min() else {
            cluster.pass(SignedDuration::from_hours(1));
            let mut looks = Vec::new();
            for operator in 0..cluster.operators.len() {
                cluster.ask_all(operator);
                looks.extend(cluster.look(operator));
            }
            let waits = looks.iter().find(|l| !l.plan.actions.is_empty() || l.plan.wake_at.is_some());
            hold!(waits.is_none(), "I10: something turns up by itself an hour later: {waits:?}");
            return Ok(looks);
        };
        hold!(wait <= SignedDuration::from_mins(6), "it waits for {wait:?}, longer than any delay lasts");
        cluster.pass(wait);
    }
    Err(Broken(format!("I10: no rest: {:?}", last.last())))
}
