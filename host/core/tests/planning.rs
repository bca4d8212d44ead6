//! Which pods are made and which go, rule by rule, on pools written down by hand.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stoker_api::{BusyProbe, keys};
use stoker_core::pool::decision::decide;
use stoker_core::pool::plan::RemovalReason::{
    Drained, Finished, Forced, Replaced, Surplus, SurplusUnscheduled,
};
use stoker_core::pool::replace::replacing;
use stoker_core::pool::{Action, Asked, Memory, Placement, Settings, Snapshot, Unfit, plan};
use stoker_core::verdict::{Judgement, PodMemories, PodMemory, Verdict, judge, remember};
use stoker_core::{Phase, PodView};
use stoker_sim::pods::{BUSY, annotated, at, busy, in_phase, make_ready, pod, ready, schedule, set};
use stoker_sim::{Look, Says, Spec, look};

fn spec(idle: u32, maximum: u32) -> Spec {
    Spec { idle, maximum, ..Spec::default() }
}

/// One look by the formula, remembering.
fn see(pods: &[PodView], spec: Spec, memory: &mut Memory, now: Timestamp) -> Look {
    look(pods.to_vec(), &BusyProbe::default(), false, &Says::Nothing, spec, memory, now)
}

/// One look by an operator that has just started.
fn once(pods: &[PodView], spec: Spec) -> Look {
    see(pods, spec, &mut Memory::default(), at(100))
}

fn bound(slot: u32, created: Timestamp) -> PodView {
    let mut pod = pod(slot, created);
    schedule(&mut pod, created);
    pod
}

fn terminating(pod: PodView) -> PodView {
    PodView { terminating: true, ..pod }
}

fn forced(pod: PodView) -> PodView {
    annotated(pod, keys::FORCE_REMOVE, "true")
}

#[test]
fn busy_and_idle_target_are_filled_into_the_lowest_free_slots() {
    let pods = [busy(1, at(0)), busy(3, at(0))];
    let look = once(&pods, spec(3, 10));
    assert_eq!(look.creates(), [0, 2, 4]);
    assert!(look.removals().is_empty());
}

#[test]
fn i1_only_idle_and_unscheduled_pods_go_unscheduled_and_youngest_first() {
    let pods = [
        busy(0, at(90)),
        ready(1, at(10)),
        ready(2, at(30)),
        bound(3, at(80)),
        pod(4, at(5)),
        in_phase(ready(5, at(70)), Phase::Unknown),
        ready(6, at(20)),
    ];
    let mut memory = Memory::default();
    let none = Spec { maximum: 1, ..spec(0, 1) };
    assert_eq!(
        see(&pods, none, &mut memory, at(100)).removals(),
        [(4, SurplusUnscheduled), (2, Surplus), (6, Surplus), (1, Surplus)]
    );
    let two_too_many = once(&pods, spec(4, 10));
    assert_eq!(two_too_many.removals(), [(4, SurplusUnscheduled)], "slot 3 only starts");
    for action in &two_too_many.plan.actions {
        assert!(matches!(action, Action::Remove { resource_version: Some(v), .. } if v == "1"), "{action:?}");
    }
}

#[test]
fn i1_a_pod_that_says_busy_before_it_has_a_node_stays() {
    let pods = [annotated(pod(0, at(0)), BUSY, "true"), ready(1, at(0))];
    assert_eq!(once(&pods, Spec { maximum: 1, ..spec(0, 1) }).removals(), [(1, Surplus)]);
}

#[test]
fn i1_a_policys_victims_go_first_but_only_idle_ones() {
    let pods = [busy(0, at(0)), ready(1, at(10)), ready(2, at(20)), ready(3, at(30)), pod(4, at(0))];
    let remove = |desired, victims: &[u8]| {
        let says = Says::Wants { desired, victims: victims.to_vec() };
        let memory = &mut Memory::default();
        look(pods.to_vec(), &BusyProbe::default(), false, &says, spec(0, 9), memory, at(100)).removals()
    };
    assert_eq!(remove(3, &[0, 1]), [(4, SurplusUnscheduled), (1, Surplus)]);
    assert_eq!(remove(2, &[2, 1]), [(4, SurplusUnscheduled), (2, Surplus), (1, Surplus)]);
    assert_eq!(remove(0, &[0, 77]), [(4, SurplusUnscheduled), (3, Surplus), (2, Surplus), (1, Surplus)]);
    assert_eq!(remove(5, &[1, 2]), [], "naming victims is not wishing for fewer");
}

#[test]
fn ended_pods_go_and_are_replaced_whatever_their_annotation_says() {
    let pods = [
        in_phase(busy(0, at(0)), Phase::Succeeded),
        in_phase(ready(1, at(0)), Phase::Failed),
        ready(2, at(0)),
    ];
    let look = once(&pods, spec(2, 10));
    assert_eq!(look.removals(), [(0, Finished), (1, Finished)]);
    assert_eq!(look.creates(), [3], "the slots of the ended are free once they are gone");
}

#[test]
fn i2_ended_and_terminating_pods_take_room_below_the_maximum() {
    let pods = [terminating(ready(0, at(0))), in_phase(ready(1, at(0)), Phase::Succeeded), ready(2, at(0))];
    for (maximum, want) in [(3, vec![]), (4, vec![3]), (5, vec![3, 4])] {
        assert_eq!(once(&pods, spec(5, maximum)).creates(), want, "maximum {maximum}");
    }
}

#[test]
fn i2_pods_in_slots_past_a_lowered_maximum_and_without_a_slot_take_room() {
    let stray = PodView { slot: None, name: "stray".to_owned(), uid: "stray".to_owned(), ..busy(0, at(0)) };
    let pods = [terminating(busy(7, at(0))), terminating(busy(8, at(0))), stray];
    assert!(once(&pods, spec(5, 3)).creates().is_empty());
    assert_eq!(once(&pods, spec(5, 4)).creates(), [0]);
}

#[test]
fn a_terminating_pod_is_not_removed_again_and_is_replaced_at_once() {
    let pods = [forced(terminating(ready(0, at(0)))), terminating(in_phase(ready(1, at(0)), Phase::Failed))];
    let look = once(&pods, spec(1, 10));
    assert!(look.removals().is_empty());
    assert_eq!(look.creates(), [2]);
}

#[test]
fn i7_a_slot_whose_name_another_has_is_passed_over() {
    let pods = [ready(0, at(0))];
    let mut memory = Memory::default();
    let seen = see(&pods, spec(1, 5), &mut memory, at(0));
    let mut settings = spec(1, 5).settings();
    settings.conflicts = [1, 2].into();
    let snapshot = Snapshot { pods: &pods, memories: &memory.pods.clone() };
    let decision = stoker_core::pool::Decision { applied: 5, ..seen.decision };
    let plan = plan(snapshot, &seen.counts, &decision, &settings, &mut memory, at(0));
    assert_eq!(plan.actions, [Action::Create { slot: 3 }, Action::Create { slot: 4 }]);
}

#[test]
fn force_remove_removes_a_busy_pod_and_only_the_word_true_does() {
    let word = |value| annotated(busy(1, at(0)), keys::FORCE_REMOVE, value);
    assert_eq!(once(&[busy(0, at(0)), word("true")], spec(0, 10)).removals(), [(1, Forced)]);
    assert_eq!(once(&[busy(0, at(0)), word("false")], spec(0, 10)).removals(), []);
    assert_eq!(once(&[busy(0, at(0)), word("")], spec(0, 10)).removals(), []);
}

#[test]
fn no_idle_pod_goes_for_one_that_is_not_ready_yet() {
    let mut pods =
        vec![ready(0, at(0)), ready(1, at(0)), ready(2, at(0)), bound(3, at(90)), bound(4, at(90))];
    assert!(once(&pods, spec(3, 10)).removals().is_empty(), "five for three, two of which only start");
    make_ready(&mut pods[3], at(95));
    assert_eq!(once(&pods, spec(3, 10)).removals(), [(3, Surplus)]);
    // Below that number standby goes whatever starts.
    assert_eq!(once(&pods, spec(1, 10)).removals().len(), 3);
}

#[test]
fn a_forced_removal_is_one_of_the_surplus_and_costs_no_idle_pod_beside_it() {
    let pods = [ready(0, at(0)), forced(ready(1, at(0))), ready(2, at(50))];
    assert_eq!(once(&pods, spec(2, 10)).removals(), [(1, Forced)]);
    assert_eq!(once(&pods, spec(1, 10)).removals(), [(1, Forced), (2, Surplus)]);
}

#[test]
fn a_paused_pool_makes_and_removes_nothing() {
    let pods =
        [in_phase(ready(0, at(0)), Phase::Failed), forced(ready(1, at(0))), ready(2, at(0)), ready(3, at(0))];
    for idle in [0, 1, 9] {
        let look = once(&pods, Spec { paused: true, ..spec(idle, 10) });
        assert_eq!((look.plan.actions, look.plan.wake_at), (vec![], None));
    }
}

#[test]
fn a_surplus_goes_when_it_has_lasted_the_delay_and_the_plan_says_when_that_is() {
    let pods = [busy(0, at(0)), ready(1, at(0)), ready(2, at(0))];
    let thirty = Spec { delay: 30, ..spec(2, 10) };
    let mut memory = Memory::default();
    assert!(see(&pods, thirty, &mut memory, at(0)).plan.actions.is_empty());
    // The busy one is done: one is too many.
    let pods = [ready(0, at(0)), ready(1, at(1)), ready(2, at(2))];
    let early = see(&pods, thirty, &mut memory, at(10));
    assert_eq!((early.removals(), early.plan.surplus, early.plan.wake_at), (vec![], 1, Some(at(40))));
    assert_eq!(see(&pods, thirty, &mut memory, at(39)).removals(), []);
    assert_eq!(see(&pods, thirty, &mut memory, at(40)).removals(), [(2, Surplus)]);
}

#[test]
fn a_restart_starts_the_delay_anew_and_a_rise_needs_none() {
    let pods = [ready(0, at(0)), ready(1, at(1))];
    let thirty = Spec { delay: 30, ..spec(1, 10) };
    let mut memory = Memory::default();
    assert_eq!(see(&pods, thirty, &mut memory, at(1000)).removals(), []);
    assert_eq!(see(&pods, thirty, &mut memory, at(1030)).removals(), [(1, Surplus)]);
    assert_eq!(once(&pods, Spec { delay: 30, ..spec(4, 10) }).creates(), [2, 3]);
}

/// A pool of one that is Ready for good, and one whose pods fail as soon as they are made.
struct Failing {
    memory: Memory,
    good: PodView,
    made: u32,
}

impl Failing {
    /// The pod that was made at a moment has failed at another; what is planned then.
    fn fails(&mut self, created: Timestamp, now: Timestamp) -> (Look, PodView) {
        self.made += 1;
        let mut pod = in_phase(pod(1, created), Phase::Failed);
        pod.uid = format!("failed-{}", self.made);
        let look = see(&[self.good.clone(), pod.clone()], spec(2, 10), &mut self.memory, now);
        assert_eq!(look.removals(), [(1, Finished)]);
        (look, pod)
    }
}

#[test]
fn pods_that_keep_failing_are_replaced_after_ten_seconds_doubling() {
    let mut pool = Failing { memory: Memory::default(), good: ready(0, at(0)), made: 0 };
    let (first, _) = pool.fails(at(100), at(101));
    assert_eq!(first.creates(), [2], "the first is replaced at once");
    let mut now = 102;
    for wait in [10, 20, 40, 80] {
        let (look, failed) = pool.fails(at(now - 1), at(now));
        assert_eq!((look.creates(), look.plan.wake_at), (vec![], Some(at(now + wait))));
        assert!(look.plan.held_back.is_some());
        let pods = [pool.good.clone(), failed];
        assert!(see(&pods, spec(2, 10), &mut pool.memory, at(now + wait - 1)).creates().is_empty());
        assert_eq!(see(&pods, spec(2, 10), &mut pool.memory, at(now + wait)).creates(), [2]);
        now += wait + 1;
    }
    assert!(pool.memory.backoff.keeps_failing());
}

#[test]
fn while_failed_pods_wait_the_rest_of_the_pool_goes_on() {
    let mut pool = Failing { memory: Memory::default(), good: ready(0, at(0)), made: 0 };
    pool.fails(at(100), at(101));
    let (_, failed) = pool.fails(at(102), at(103));
    // The good one is taken, so that one more is wanted beside the one that waits.
    let pods = [busy(0, at(0)), failed];
    assert_eq!(see(&pods, spec(2, 10), &mut pool.memory, at(104)).creates(), [2]);
    let spare = [busy(0, at(0)), ready(3, at(0)), ready(4, at(0)), ready(5, at(0))];
    assert_eq!(see(&spare, spec(2, 10), &mut pool.memory, at(105)).removals(), [(5, Surplus)]);
}

#[test]
fn failures_are_forgotten_when_a_replacement_has_been_seen_ready_for_ten_seconds_whatever_it_says_itself() {
    let mut pool = Failing { memory: Memory::default(), good: ready(0, at(0)), made: 0 };
    let failed_at = at(100) + SignedDuration::from_millis(700);
    pool.fails(at(99), failed_at);
    assert_eq!(pool.memory.backoff.rounds, 1);
    // The API server's clock and the kubelet's are an hour behind.
    let mut replacement = bound(2, at(100 - 3600));
    let pods = |replacement: &PodView| [ready(0, at(0)), replacement.clone()];
    let starting = see(&pods(&replacement), spec(2, 10), &mut pool.memory, at(101));
    assert_eq!(starting.plan.wake_at, None, "it tells when it is Ready");
    make_ready(&mut replacement, at(102 - 3600));
    let young = see(&pods(&replacement), spec(2, 10), &mut pool.memory, at(102));
    assert_eq!(young.plan.wake_at, Some(at(112)));
    let held_out = see(&pods(&replacement), spec(2, 10), &mut pool.memory, at(112));
    assert_eq!((pool.memory.backoff.rounds, held_out.plan.wake_at), (0, None));
    // So the next failure is a first one.
    set(&mut replacement, "Ready", "False", at(200));
    let next = see(&pods(&in_phase(replacement, Phase::Failed)), spec(2, 10), &mut pool.memory, at(200));
    assert_eq!(next.creates(), [1]);
}

#[test]
fn pods_that_were_ready_all_along_do_not_excuse_one_that_fails() {
    let mut pool = Failing { memory: Memory::default(), good: ready(0, at(0)), made: 0 };
    pool.fails(at(500), at(501));
    let (look, _) = pool.fails(at(520), at(521));
    assert!(look.creates().is_empty());
    assert_eq!(pool.memory.backoff.rounds, 2);
}

#[test]
fn a_pod_that_succeeds_late_is_no_failure_and_one_that_does_at_once_is_by_the_operators_clock() {
    for skew in [-86_400, -3, 0, 3, 86_400] {
        for (lived, rounds) in [(9, 1), (10, 0), (3600, 0)] {
            let mut memory = Memory::default();
            see(&[pod(0, at(skew))], spec(1, 10), &mut memory, at(0));
            let ended = in_phase(ready(0, at(skew)), Phase::Succeeded);
            assert_eq!(see(&[ended], spec(1, 10), &mut memory, at(lived)).creates(), [1]);
            assert_eq!(memory.backoff.rounds, rounds, "lived {lived} s, its clock is off by {skew} s");
        }
    }
}

#[test]
fn after_a_restart_pods_are_as_old_as_they_say_but_never_from_the_future() {
    for (created, rounds) in [(-3600, 0), (-10, 0), (-9, 1), (0, 1), (3600, 1)] {
        let mut memory = Memory::default();
        let ended = in_phase(ready(0, at(created)), Phase::Succeeded);
        assert_eq!(see(&[ended], spec(1, 10), &mut memory, at(0)).creates(), [1]);
        assert_eq!(memory.backoff.rounds, rounds, "created at {created}");
    }
}

#[test]
fn i3_a_failing_policy_keeps_the_size_that_it_last_asked_for_and_grows_with_the_load() {
    let idle: Vec<PodView> = (0..6).map(|slot| ready(slot, at(0))).collect();
    let all_busy: Vec<PodView> = (0..6).map(|slot| busy(slot, at(0))).collect();
    let mut memory = Memory::default();
    let mut ask = |pods: &[PodView], says: Says, maximum, seconds| {
        look(pods.to_vec(), &BusyProbe::default(), false, &says, spec(2, maximum), &mut memory, at(seconds))
    };
    ask(&idle, Says::Wants { desired: 6, victims: vec![] }, 20, 0);
    let failing = ask(&idle, Says::Fails, 20, 100);
    assert_eq!((failing.decision.applied, failing.plan.actions.len()), (6, 0));
    assert_eq!(ask(&all_busy, Says::Fails, 20, 101).creates(), [6, 7]);
    assert_eq!(ask(&all_busy, Says::Fails, 7, 102).creates(), [6]);
    assert_eq!(ask(&idle, Says::Fails, 20, 103).decision.applied, 6, "failures do not become what is held");
}

/// A pod of an older template.
fn outdated(pod: PodView) -> PodView {
    PodView { template_hash: Some("old".to_owned()), ..pod }
}

fn displaced(pod: PodView) -> PodView {
    PodView { displaced: true, ..pod }
}

#[test]
fn a_rollout_makes_one_beside_and_takes_one_for_each_that_is_ready() {
    let mut pods = vec![outdated(ready(0, at(0))), outdated(ready(1, at(1))), outdated(busy(2, at(2)))];
    let first = once(&pods, spec(2, 10));
    assert_eq!((first.creates(), first.removals()), (vec![3], vec![]));
    // While it starts, nothing goes, and no other is made.
    pods.push(bound(3, at(99)));
    let second = once(&pods, spec(2, 10));
    assert_eq!((second.creates(), second.removals()), (vec![], vec![]));
    // It is Ready: the oldest of the idle ones goes. The busy one stays.
    make_ready(&mut pods[3], at(100));
    let third = once(&pods, spec(2, 10));
    assert_eq!(third.removals(), [(0, Replaced(Unfit::Outdated))]);
    assert_eq!(third.plan.replacing, 2);
}

#[test]
fn a_template_whose_pods_never_get_ready_leaves_the_old_standby() {
    let mut pods: Vec<_> = (0..4).map(|slot| outdated(ready(slot, at(0)))).collect();
    let spec = Spec { surge: 2, ..spec(4, 10) };
    let mut memory = Memory::default();
    assert_eq!(see(&pods, spec, &mut memory, at(100)).creates(), [4, 5]);
    pods.extend([bound(4, at(100)), bound(5, at(100))]);
    for later in [101, 400, 4_000] {
        let look = see(&pods, spec, &mut memory, at(later));
        assert_eq!((look.creates(), look.removals()), (vec![], vec![]), "{later}");
        assert_eq!(look.counts.idle, 4);
    }
}

#[test]
fn without_surge_or_room_one_goes_before_its_replacement_comes() {
    for spec in [Spec { surge: 0, ..spec(3, 10) }, spec(3, 3)] {
        let pods: Vec<_> = (0..3).map(|slot| outdated(ready(slot, at(slot.into())))).collect();
        let look = once(&pods, spec);
        assert_eq!((look.creates(), look.removals()), (vec![], vec![(0, Replaced(Unfit::Outdated))]));
        // Its place is filled before the next goes.
        let look = once(&[pods[1].clone(), pods[2].clone(), bound(0, at(99))], spec);
        assert_eq!((look.creates(), look.removals()), (vec![], vec![]));
    }
}

#[test]
fn displaced_standby_is_replaced_at_once_and_goes_last() {
    let mut pods: Vec<_> = (0..3).map(|slot| displaced(ready(slot, at(0)))).collect();
    pods.push(busy(3, at(0)));
    let look = once(&pods, spec(3, 10));
    assert_eq!((look.creates(), look.removals()), (vec![4, 5, 6], vec![]));
    assert_eq!((look.counts.idle, look.counts.displaced), (0, 3));
    pods.extend([ready(4, at(99)), ready(5, at(99)), bound(6, at(99))]);
    let look = once(&pods, spec(3, 10));
    let going: Vec<_> = look.removals();
    assert_eq!(going, [(0, Replaced(Unfit::Displaced)), (1, Replaced(Unfit::Displaced))]);
    // A busy pod on such a node is left to its work and its node.
    let look =
        once(&[displaced(busy(0, at(0))), ready(1, at(0)), ready(2, at(0)), ready(3, at(0))], spec(3, 10));
    assert_eq!(look.removals(), []);
}

#[test]
fn a_used_pod_is_marked_while_busy_and_replaced_when_idle() {
    let spec = Spec { after_use: true, ..spec(1, 10) };
    let look = once(&[busy(0, at(0)), ready(1, at(0))], spec);
    let marked = look.plan.actions.iter().any(
        |a| matches!(a, Action::Mark { uid, annotations, .. } if uid == "uid-0" && annotations[keys::USED].as_deref() == Some("true")),
    );
    assert!(marked, "{:?}", look.plan.actions);
    let used = annotated(ready(0, at(0)), keys::USED, "true");
    let look = once(&[used.clone(), ready(1, at(0))], spec);
    assert_eq!(look.removals(), [(0, Replaced(Unfit::Used))]);
    let look = once(&[used, ready(1, at(5))], Spec { after_use: false, ..spec });
    assert_eq!(look.removals(), [(1, Surplus)], "reuse: the mark means nothing, the youngest goes");
}

#[test]
fn stale_standby_is_recycled_a_few_at_a_time() {
    let spec = Spec { max_idle: Some(60), surge: 1, ..spec(3, 10) };
    let pods: Vec<_> = (0..3).map(|slot| ready(slot, at(0))).collect();
    let mut memory = Memory::default();
    let look = see(&pods, spec, &mut memory, at(100));
    assert_eq!((look.creates(), look.plan.wake_at), (vec![], Some(at(160))));
    let look = see(&pods, spec, &mut memory, at(160));
    assert_eq!((look.creates(), look.removals()), (vec![3], vec![]));
    let with_new = [&pods[..], &[ready(3, at(160))]].concat();
    let look = see(&with_new, spec, &mut memory, at(165));
    assert_eq!(look.removals(), [(0, Replaced(Unfit::Stale))]);
}

#[test]
fn no_more_pods_a_second_are_made_than_allowed() {
    let spec = Spec { per_second: Some(2), ..spec(5, 10) };
    let mut memory = Memory::default();
    let look = see(&[], spec, &mut memory, at(100));
    assert_eq!((look.creates(), look.plan.wake_at), (vec![0, 1], Some(at(101))));
    let pods = [bound(0, at(100)), bound(1, at(100))];
    assert!(see(&pods, spec, &mut memory, at(100)).creates().is_empty());
    assert_eq!(see(&pods, spec, &mut memory, at(101)).creates(), [2, 3]);
}

fn on(slot: u32, node: &str, created: Timestamp) -> PodView {
    PodView { node: Some(node.to_owned()), ..ready(slot, created) }
}

#[test]
fn placement_says_which_surplus_goes_first_and_each_choice_counts_for_the_next() {
    use Placement::{Packed, Spread, Youngest};
    // The younger, the higher the slot.
    let pool = |nodes: &[&str]| -> Vec<PodView> {
        (0..).zip(nodes).map(|(slot, node)| on(slot, node, at(i64::from(slot)))).collect()
    };
    let uneven = pool(&["full", "full", "full", "full", "some", "some", "one"]);
    let even = pool(&["a", "b", "c", "a", "b", "c"]);
    for (pods, placement, going) in [
        (&uneven, Youngest, [6, 5, 4, 3]),
        (&uneven, Spread, [3, 2, 5, 1]),
        (&uneven, Packed, [6, 5, 4, 3]),
        (&even, Youngest, [5, 4, 3, 2]),
        (&even, Spread, [5, 4, 3, 2]),
        (&even, Packed, [5, 2, 4, 1]),
    ] {
        let look = once(pods, Spec { placement, ..spec(pods.len() as u32 - 4, 10) });
        assert_eq!(look.removals(), going.map(|slot| (slot, Surplus)), "{placement:?}");
    }
}

#[test]
fn of_pods_made_in_the_same_second_the_one_in_the_highest_slot_goes_first() {
    for placement in [Placement::Youngest, Placement::Spread, Placement::Packed] {
        let pods: Vec<_> = (0..12).map(|slot| on(slot, "node", at(0))).collect();
        let look = once(&pods, Spec { placement, ..spec(9, 12) });
        assert_eq!(look.removals(), [(11, Surplus), (10, Surplus), (9, Surplus)], "{placement:?}");
    }
}

/// Pods on each node before and after a pool of idle and busy pods shrinks by so many: (all, idle).
fn shrink(
    pods: &[(u8, bool)],
    by: u32,
    placement: Placement,
) -> (BTreeMap<u8, [u32; 2]>, BTreeMap<u8, [u32; 2]>) {
    let all: Vec<PodView> = (0..)
        .zip(pods)
        .map(|(slot, (node, busy))| {
            let pod = on(slot, &node.to_string(), at(i64::from(slot) / 3));
            if *busy { annotated(pod, BUSY, "true") } else { pod }
        })
        .collect();
    let busy = pods.iter().filter(|(_, busy)| *busy).count() as u32;
    let idle = (pods.len() as u32 - busy).saturating_sub(by);
    let look = once(&all, Spec { placement, ..spec(idle, 100) });
    let gone: Vec<u32> = look.removals().into_iter().map(|(slot, _)| slot).collect();
    let count = |stays: &dyn Fn(u32) -> bool| {
        let mut nodes: BTreeMap<u8, [u32; 2]> = pods.iter().map(|(node, _)| (*node, [0, 0])).collect();
        for (_, (node, busy)) in (0..).zip(pods).filter(|(slot, _)| stays(*slot)) {
            let [all, idle] = nodes.entry(*node).or_default();
            *all += 1;
            *idle += u32::from(!busy);
        }
        nodes
    };
    (count(&|_| true), count(&|slot| !gone.contains(&slot)))
}

proptest! {
    #[test]
    fn spread_leaves_the_pool_as_even_as_idle_pods_allow(
        pods in prop::collection::vec((0..5u8, prop::bool::weighted(0.3)), 0..30), by in 0..30u32,
    ) {
        let (before, after) = shrink(&pods, by, Placement::Spread);
        for (node, [all, _]) in &after {
            if before[node] == after[node] {
                continue;
            }
            // It lost pods; no other that could have lost one instead is fuller than it was then.
            for (other, [more, idle]) in &after {
                prop_assert!(*idle == 0 || *more <= all + 1, "{other} has {more}, {node} has {all}: {after:?}");
            }
        }
    }

    #[test]
    fn packed_empties_one_node_before_it_touches_the_next(
        pods in prop::collection::vec((0..5u8, prop::bool::weighted(0.3)), 0..30), by in 0..30u32,
    ) {
        let (before, after) = shrink(&pods, by, Placement::Packed);
        let touched = || after.iter().filter(|(node, now)| before[node] != **now);
        prop_assert!(touched().filter(|(_, [_, idle])| *idle > 0).count() <= 1, "{before:?} {after:?}");
        // The emptiest were taken.
        let fullest = touched().map(|(node, _)| before[node][0]).max().unwrap_or(0);
        for (node, [all, idle]) in &after {
            let spared = before[node] == after[node] && *idle > 0;
            prop_assert!(!spared || *all >= fullest, "{node} was spared: {before:?} {after:?}");
        }
    }
}

#[test]
fn labels_tell_the_state_once() {
    let spec = Spec { labels: true, ..spec(1, 10) };
    let look = once(&[busy(0, at(0)), ready(1, at(0))], spec);
    let marks: Vec<_> = look
        .plan
        .actions
        .iter()
        .filter_map(|a| match a {
            Action::Mark { labels, annotations, .. } => {
                Some((labels[keys::STATE].as_deref(), annotations[keys::SAFE_TO_EVICT].as_deref()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(marks, [(Some("busy"), Some("false")), (Some("idle"), Some("true"))]);
    let told = |mut pod: PodView, state: &str, evict: &str| {
        pod.labels.insert(keys::STATE.to_owned(), state.to_owned());
        pod.annotations.insert(keys::SAFE_TO_EVICT.to_owned(), evict.to_owned());
        if evict == "false" {
            pod.annotations.insert(keys::DO_NOT_DISRUPT.to_owned(), "true".to_owned());
        }
        pod
    };
    let pods = [told(busy(0, at(0)), "busy", "false"), told(ready(1, at(0)), "idle", "true")];
    assert_eq!(once(&pods, spec).plan.actions, []);
}

#[test]
fn draining_takes_all_but_busy_and_unknown_pods_and_makes_none() {
    let pods = [busy(0, at(0)), ready(1, at(0)), bound(2, at(0)), in_phase(ready(3, at(0)), Phase::Unknown)];
    let mut memory = Memory::default();
    let judged: Vec<_> = pods.iter().map(|p| judge(p, &BusyProbe::default(), None)).collect();
    remember(&mut memory.pods, &pods, &judged, &judged, at(1));
    let memories = memory.pods.clone();
    let snapshot = Snapshot { pods: &pods, memories: &memories };
    let counts = snapshot.counts();
    let decision = decide(Asked::Formula, &counts, spec(5, 10).bounds(), None);
    let settings = Settings { draining: true, ..spec(5, 10).settings() };
    let plan = plan(snapshot, &counts, &decision, &settings, &mut memory, at(1));
    let going: Vec<_> = plan
        .actions
        .iter()
        .map(|a| match a {
            Action::Remove { uid, reason, resource_version: Some(_), .. } => (uid.as_str(), *reason),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(going, [("uid-1", Drained), ("uid-2", Drained)]);
}

#[test]
fn pods_that_do_not_start_are_told_with_the_reason() {
    let mut stuck = bound(0, at(0));
    stuck.waiting = Some("ImagePullBackOff: no such image".to_owned());
    let pods = [stuck, ready(1, at(0)), bound(2, at(90))];
    let look = once(&pods, spec(3, 10));
    let memories: PodMemories = look
        .verdicts
        .iter()
        .map(|(uid, verdict)| {
            let ever_ready = *verdict == Verdict::Idle;
            let memory = PodMemory {
                seen: pods.iter().find(|p| &p.uid == uid).unwrap().created,
                first_ready: None,
                ever_ready,
                verdict: *verdict,
                since: at(0),
                last_clear: None,
                probe: (*verdict, at(0)),
                spent: false,
            };
            (uid.clone(), memory)
        })
        .collect();
    let snapshot = Snapshot { pods: &pods, memories: &memories };
    let (told, next) = snapshot.not_starting(SignedDuration::from_secs(60), at(100));
    let (count, why) = told.unwrap();
    assert_eq!((count, next), (1, Some(at(150))));
    assert!(why.contains("ImagePullBackOff: no such image"), "{why}");
}

#[test]
fn pods_of_an_older_template_that_were_never_ready_make_room_at_once() {
    // The template was wrong, and is mended: what never started is in the way of what will.
    let old: Vec<_> = (0..3).map(|slot| outdated(ready(slot, at(0)))).collect();
    let never = [outdated(bound(3, at(50))), outdated(bound(4, at(50)))];
    let look = once(&[&old[..], &never[..]].concat(), Spec { surge: 2, ..spec(3, 10) });
    assert_eq!(look.creates(), [5, 6]);
    assert_eq!(look.removals(), [(3, Replaced(Unfit::Outdated)), (4, Replaced(Unfit::Outdated))]);
}

#[test]
fn a_pod_that_the_policy_calls_spent_is_replaced_also_while_the_policy_fails() {
    let pods = [ready(0, at(0)), ready(1, at(0))];
    let mut memory = Memory::default();
    let mut judge_as = |verdict, spent, now| {
        let judged: Vec<_> = [spent, false]
            .into_iter()
            .map(|spent| Judgement { verdict, reason: String::new(), spent })
            .collect();
        remember(&mut memory.pods, &pods, &judged, &judged, now);
        let memories = memory.pods.clone();
        let spec = spec(2, 10);
        let found = replacing(Snapshot { pods: &pods, memories: &memories }, &spec.rules(), 2, 10, now);
        let idle: Vec<_> = found.idle.iter().map(|(pod, why)| (pod.slot, *why)).collect();
        (idle, memories["uid-0"].spent)
    };
    let spent = (vec![(Some(0), Unfit::Used)], true);
    assert_eq!(judge_as(Verdict::Idle, true, at(1)), spent);
    // Nothing is known of it now, and nothing goes; what was said is not taken back.
    assert_eq!(judge_as(Verdict::Unknown, false, at(2)), (vec![], true));
    assert_eq!(judge_as(Verdict::Idle, false, at(3)), (vec![], false), "the policy says otherwise");
}

#[test]
fn i3_pods_of_which_nothing_was_ever_known_hold_the_size_that_they_find() {
    // After a restart: two pods do not tell what they do, three say that they are idle.
    let silent = |slot| in_phase(ready(slot, at(0)), Phase::Unknown);
    let idle: Vec<_> = (2..5).map(|slot| ready(slot, at(0))).collect();
    let pods = [&[silent(0), silent(1)][..], &idle].concat();
    let mut memory = Memory::default();
    let look = see(&pods, spec(3, 10), &mut memory, at(100));
    assert_eq!((look.decision.applied, look.creates(), look.removals()), (3, vec![], vec![]));
    // One of them is idle, the other was at work: the surplus is what it is.
    let pods = [&[ready(0, at(0)), busy(1, at(0))][..], &idle].concat();
    assert_eq!(see(&pods, spec(3, 10), &mut memory, at(101)).removals().len(), 1);
    // What was known once counts as it was.
    let pods = [&[silent(0), silent(1)][..], &idle].concat();
    let look = see(&pods, spec(3, 10), &mut memory, at(102));
    assert_eq!((look.decision.applied, look.removals().len()), (4, 1));
}
