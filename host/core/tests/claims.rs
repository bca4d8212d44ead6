//! What claims mean for a pool's pods, case by case.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use stoker_api::{BusyProbe, keys};
use stoker_core::PodView;
use stoker_core::claims::{Claim, End, Rules, judge, release, standby};
use stoker_core::pool::{Action, Memory, Placement, ReplaceRules, Snapshot};
use stoker_core::verdict::{self, Judgement, Verdict, remember};
use stoker_sim::look::{Says, Spec, look};
use stoker_sim::pods::{annotated, at, busy, pod, ready};

fn claim() -> Claim {
    Claim {
        id: "game-0.x".to_owned(),
        by: "matchmaker".to_owned(),
        claimed_at: at(0),
        expires_at: None,
        worked_at: None,
        token: None,
        metadata: BTreeMap::new(),
    }
}

fn claimed(pod: PodView, claim: &Claim) -> PodView {
    annotated(pod, keys::CLAIM, &claim.text())
}

/// What is thought of one pod, what is due, which claim has ended, and when to look again.
fn judged(pod: PodView, rules: Rules, now: i64) -> (Verdict, Option<Action>, Option<End>, Option<Timestamp>) {
    let pods = [pod];
    let mut says = vec![verdict::judge(&pods[0], &BusyProbe::default(), None)];
    let mut seen = judge(&pods, &mut says, rules, at(now));
    assert!(seen.actions.len() <= 1 && seen.ended.len() <= 1);
    (says[0].verdict, seen.actions.pop(), seen.ended.pop().map(|(_, end)| end), seen.wake_at)
}

fn annotations(action: Option<Action>) -> BTreeMap<String, Option<String>> {
    let Some(Action::Mark { annotations, resource_version, .. }) = action else { panic!("{action:?}") };
    assert!(resource_version.is_some(), "a claim changes only in the version that was seen");
    annotations
}

const TIMEOUT: Rules = Rules {
    timeout: Some(SignedDuration::from_secs(60)),
    return_after_timeout: false,
    until_released: false,
    after_use: false,
};

#[test]
fn a_claim_is_written_and_read() {
    let claim = Claim { expires_at: Some(at(9)), token: Some("t".to_owned()), ..claim() };
    let pod = claimed(ready(0, at(0)), &claim);
    assert_eq!(Claim::of(&pod), Some(Ok(claim)));
    assert_eq!(Claim::of(&ready(0, at(0))), None);
}

#[test]
fn an_idle_pod_with_a_claim_is_claimed_until_it_is_released() {
    let (verdict, due, end, wake) = judged(claimed(ready(0, at(0)), &claim()), Rules::default(), 1_000_000);
    assert_eq!((verdict, due, end, wake), (Verdict::Claimed, None, None, None));
}

#[test]
fn a_claim_that_cannot_be_read_counts() {
    let pod = annotated(ready(0, at(0)), keys::CLAIM, "mine");
    assert_eq!(judged(pod, TIMEOUT, 1_000_000).0, Verdict::Claimed);
}

#[test]
fn a_claimed_pod_that_is_not_ready_any_more_is_claimed() {
    let mut starting = claimed(pod(0, at(0)), &claim());
    starting.node = Some("node".to_owned());
    assert_eq!(judged(starting, Rules::default(), 1).0, Verdict::Claimed);
}

#[test]
fn work_is_noted_once_and_the_end_of_work_ends_the_claim() {
    let (verdict, due, end, _) = judged(claimed(busy(0, at(0)), &claim()), TIMEOUT, 5);
    assert_eq!((verdict, end), (Verdict::Busy, None));
    let written: Claim = serde_json::from_str(annotations(due)[keys::CLAIM].as_deref().unwrap()).unwrap();
    assert_eq!(written, Claim { worked_at: Some(at(5)), ..claim() });

    let (verdict, due, end, wake) = judged(claimed(busy(0, at(0)), &written), TIMEOUT, 500);
    assert_eq!((verdict, due, end, wake), (Verdict::Busy, None, None, None));

    let idle = claimed(ready(0, at(0)), &written);
    let (verdict, due, end, _) = judged(idle.clone(), TIMEOUT, 900);
    assert_eq!((verdict, end), (Verdict::Claimed, Some(End::Finished)));
    assert_eq!(annotations(due), BTreeMap::from([(keys::CLAIM.to_owned(), None)]));

    let until_released = Rules { until_released: true, ..TIMEOUT };
    let (verdict, due, end, _) = judged(idle.clone(), until_released, 900);
    assert_eq!((verdict, due, end), (Verdict::Claimed, None, None));

    let (_, due, _, _) = judged(idle, Rules { after_use: true, ..TIMEOUT }, 900);
    assert_eq!(annotations(due)[keys::USED].as_deref(), Some("true"));
}

#[test]
fn a_claim_that_no_work_follows_times_out_and_its_pod_is_replaced_or_returned() {
    let idle = claimed(ready(0, at(0)), &claim());
    let (verdict, due, end, wake) = judged(idle.clone(), TIMEOUT, 59);
    assert_eq!((verdict, due, end, wake), (Verdict::Claimed, None, None, Some(at(60))));
    let (_, due, end, _) = judged(idle.clone(), TIMEOUT, 60);
    assert_eq!(end, Some(End::TimedOut));
    assert_eq!(annotations(due)[keys::USED].as_deref(), Some(keys::ABANDONED));
    let (_, due, ..) = judged(idle, Rules { return_after_timeout: true, ..TIMEOUT }, 60);
    assert_eq!(annotations(due), BTreeMap::from([(keys::CLAIM.to_owned(), None)]));
}

#[test]
fn a_claim_ends_when_its_time_is_over_whatever_its_pod_does() {
    let short = Claim { expires_at: Some(at(30)), ..claim() };
    for pod in [ready(0, at(0)), busy(0, at(0))] {
        assert_eq!(judged(claimed(pod.clone(), &short), TIMEOUT, 29).2, None);
        assert_eq!(judged(claimed(pod, &short), TIMEOUT, 30).2, Some(End::Expired));
    }
    let (.., wake) = judged(claimed(ready(0, at(0)), &short), TIMEOUT, 0);
    assert_eq!(wake, Some(at(30)));
}

#[test]
fn i3_nothing_ends_by_a_timeout_while_nothing_is_known() {
    let pods = [claimed(ready(0, at(0)), &claim())];
    let mut says = [Judgement { verdict: Verdict::Unknown, reason: String::new(), spent: false }];
    let seen = judge(&pods, &mut says, TIMEOUT, at(1_000));
    assert!(seen.actions.is_empty() && seen.ended.is_empty());
    assert_eq!(says[0].verdict, Verdict::Unknown);
}

#[test]
fn a_released_pod_is_used_again_unless_the_pool_says_otherwise() {
    assert_eq!(release(Rules::default()), BTreeMap::from([(keys::CLAIM.to_owned(), None)]));
    let replaced = release(Rules { after_use: true, ..Rules::default() });
    assert_eq!(replaced[keys::USED].as_deref(), Some("true"));
}

#[test]
fn claimed_pods_are_demand_and_are_never_removed() {
    let pods = vec![claimed(ready(0, at(0)), &claim()), ready(1, at(0)), ready(2, at(0)), ready(3, at(0))];
    let spec = Spec { idle: 1, ..Spec::default() };
    let mut memory = Memory::default();
    let look = look(pods, &BusyProbe::default(), false, &Says::Nothing, spec, &mut memory, at(100));
    assert_eq!((look.counts.claimed, look.counts.idle, look.decision.applied), (1, 3, 2));
    assert_eq!(look.decision.reason, "0 busy + 1 claimed + 1 idle");
    let gone: Vec<u32> = look.removals().into_iter().map(|(slot, _)| slot).collect();
    assert_eq!(gone, [3, 2]);
}

#[test]
fn an_abandoned_pod_is_replaced_in_a_pool_that_uses_pods_again() {
    let pods =
        vec![annotated(ready(0, at(0)), keys::USED, keys::ABANDONED), ready(1, at(0)), ready(2, at(0))];
    let spec = Spec { idle: 2, ..Spec::default() };
    let mut memory = Memory::default();
    let look = look(pods, &BusyProbe::default(), false, &Says::Nothing, spec, &mut memory, at(100));
    assert_eq!(look.removals().into_iter().map(|(slot, _)| slot).collect::<Vec<_>>(), [0]);
}

fn names(pods: &[PodView], placement: Placement) -> Vec<u32> {
    let mut memory = Memory::default();
    let says: Vec<Judgement> = pods.iter().map(|p| verdict::judge(p, &BusyProbe::default(), None)).collect();
    remember(&mut memory.pods, pods, &says, &says, at(100));
    let snapshot = Snapshot { pods, memories: &memory.pods };
    let replace = ReplaceRules { template_hash: Some("0".to_owned()), ..ReplaceRules::default() };
    standby(snapshot, placement, &replace, &[], at(100)).iter().filter_map(|p| p.slot).collect()
}

fn on(mut pod: PodView, node: &str) -> PodView {
    pod.node = Some(node.to_owned());
    pod
}

#[test]
fn the_oldest_is_handed_out_first_and_what_is_to_be_replaced_last() {
    let mut outdated = ready(3, at(0));
    outdated.template_hash = Some("old".to_owned());
    let mut displaced = ready(4, at(0));
    displaced.displaced = true;
    let pods = [ready(0, at(9)), ready(1, at(3)), busy(2, at(0)), outdated, displaced, pod(5, at(0))];
    assert_eq!(names(&pods, Placement::Youngest), [1, 0, 3]);
}

#[test]
fn spread_takes_turns_among_nodes_and_packed_fills_the_one_with_the_most_work() {
    let pods = [
        on(busy(0, at(0)), "a"),
        on(ready(1, at(1)), "a"),
        on(ready(2, at(2)), "a"),
        on(ready(3, at(3)), "b"),
        on(ready(4, at(4)), "b"),
    ];
    assert_eq!(names(&pods, Placement::Spread), [3, 1, 4, 2]);
    assert_eq!(names(&pods, Placement::Packed), [1, 2, 3, 4]);
}

#[test]
fn a_pod_that_leaves_or_is_claimed_is_not_handed_out() {
    let pods = [ready(0, at(0)), claimed(ready(1, at(0)), &claim()), ready(2, at(0))];
    let mut memory = Memory::default();
    let says: Vec<Judgement> = pods.iter().map(|p| verdict::judge(p, &BusyProbe::default(), None)).collect();
    remember(&mut memory.pods, &pods, &says, &says, at(100));
    let snapshot = Snapshot { pods: &pods, memories: &memory.pods };
    let leaves = Action::Remove {
        name: pods[0].name.clone(),
        uid: pods[0].uid.clone(),
        resource_version: None,
        reason: stoker_core::pool::RemovalReason::Surplus,
    };
    let left = standby(snapshot, Placement::Youngest, &ReplaceRules::default(), &[leaves], at(100));
    assert_eq!(left.iter().filter_map(|p| p.slot).collect::<Vec<_>>(), [2]);
}
