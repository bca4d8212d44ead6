//! Which pods are made and which go, rule by rule, on pools written down by hand.

mod fixtures;

use fixtures::{
    BUSY, Look, Says, Spec, annotated, at, busy, in_phase, look, make_ready, pod, ready, schedule, set,
};
use jiff::Timestamp;
use stoker_api::{BusyProbe, keys};
use stoker_core::pool::plan::RemovalReason::{Finished, Forced, Surplus, SurplusUnscheduled};
use stoker_core::pool::{Action, Memory};
use stoker_core::{Phase, PodView};

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
    assert_eq!(two_too_many.removals(), [(4, SurplusUnscheduled), (2, Surplus)]);
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
    let snapshot = stoker_core::pool::Snapshot { pods: &pods, memories: &memory.pods.clone() };
    let decision = stoker_core::pool::Decision { applied: 5, ..seen.decision };
    let plan = stoker_core::pool::plan(snapshot, &seen.counts, &decision, &settings, &mut memory, at(0));
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
    assert_eq!(see(&spare, spec(2, 10), &mut pool.memory, at(105)).removals(), [(3, Surplus)]);
}

#[test]
fn failures_are_forgotten_when_a_replacement_made_in_the_same_second_has_held_out() {
    let mut pool = Failing { memory: Memory::default(), good: ready(0, at(0)), made: 0 };
    let failed_at = at(100) + jiff::SignedDuration::from_millis(700);
    pool.fails(at(99), failed_at);
    assert_eq!(pool.memory.backoff.rounds, 1);
    // Creation times have whole seconds, so that the replacement looks older than the failure.
    let mut replacement = bound(2, at(100));
    let pods = |replacement: &PodView| [ready(0, at(0)), replacement.clone()];
    let starting = see(&pods(&replacement), spec(2, 10), &mut pool.memory, at(101));
    assert_eq!(starting.plan.wake_at, None, "it tells when it is Ready");
    make_ready(&mut replacement, at(102));
    let young = see(&pods(&replacement), spec(2, 10), &mut pool.memory, at(103));
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
fn a_pod_that_succeeds_late_is_no_failure_and_one_that_does_at_once_is() {
    for (lived, rounds) in [(9, 1), (10, 0), (3600, 0)] {
        let mut memory = Memory::default();
        let pods = [in_phase(ready(0, at(0)), Phase::Succeeded)];
        assert_eq!(see(&pods, spec(1, 10), &mut memory, at(lived)).creates(), [1]);
        assert_eq!(memory.backoff.rounds, rounds, "lived {lived} s");
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
