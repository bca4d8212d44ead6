//! What a probe's reading means, case by case, and what is remembered of it.

use jiff::Timestamp;
use stoker_api::{BusyProbe, BusyProbeMode, ConditionProbe, ConditionStatus};
use stoker_core::pool::Snapshot;
use stoker_core::verdict::{Judgement, PodMemories, Verdict, judge, probe_since, remember};
use stoker_core::{Phase, PodView};
use stoker_sim::pods::{BUSY, annotated, at, busy, in_phase, make_ready, pod, ready, schedule, set};

fn annotation() -> BusyProbe {
    BusyProbe::default()
}

fn condition(type_: &str, busy_status: ConditionStatus) -> BusyProbe {
    BusyProbe {
        mode: BusyProbeMode::Condition,
        condition: Some(ConditionProbe { type_: type_.to_owned(), busy_status }),
        ..BusyProbe::default()
    }
}

fn with(mut pod: PodView, type_: &str, status: &str, seconds: i64) -> PodView {
    set(&mut pod, type_, status, at(seconds));
    pod
}

/// The verdict without memory, as after a restart.
fn afresh(pod: &PodView, probe: &BusyProbe) -> Verdict {
    judge(pod, probe, None).verdict
}

/// Looks at a pod's states one after the other, remembering; returns the last verdict.
fn in_turn(states: &[PodView], probe: &BusyProbe) -> Verdict {
    let mut memories = PodMemories::new();
    let mut last = Verdict::Unknown;
    for state in states {
        let judged = judge(state, probe, memories.get(&state.uid));
        last = judged.verdict;
        let judged = [judged];
        remember(&mut memories, std::slice::from_ref(state), &judged, &judged, at(0));
    }
    last
}

#[test]
fn only_true_in_any_case_is_busy_in_an_annotation() {
    for (value, want) in [
        ("true", Verdict::Busy),
        ("True", Verdict::Busy),
        ("TRUE", Verdict::Busy),
        ("tRuE", Verdict::Busy),
        ("false", Verdict::Idle),
        ("", Verdict::Idle),
        ("yes", Verdict::Idle),
        ("1", Verdict::Idle),
        (" true", Verdict::Idle),
    ] {
        assert_eq!(afresh(&annotated(ready(0, at(0)), BUSY, value), &annotation()), want, "{value:?}");
    }
    assert_eq!(afresh(&ready(0, at(0)), &annotation()), Verdict::Idle, "no annotation");
}

#[test]
fn the_annotation_that_the_spec_names_decides_and_no_other() {
    let probe = BusyProbe { annotation_key: "game/on".to_owned(), ..BusyProbe::default() };
    assert_eq!(afresh(&busy(0, at(0)), &probe), Verdict::Idle);
    assert_eq!(afresh(&annotated(ready(0, at(0)), "game/on", "true"), &probe), Verdict::Busy);
}

#[test]
fn a_pod_that_is_not_ready_is_starting_unless_it_says_that_it_is_busy() {
    let mut bound = pod(0, at(0));
    schedule(&mut bound, at(1));
    let unready = with(ready(0, at(0)), "Ready", "False", 20);
    for (what, pod) in [("new", &pod(0, at(0))), ("on a node", &bound), ("unready again", &unready)] {
        assert_eq!(afresh(pod, &annotation()), Verdict::Starting, "{what}");
        let says = annotated(pod.clone(), BUSY, "true");
        assert_eq!(afresh(&says, &annotation()), Verdict::Busy, "{what}");
    }
    assert_eq!(in_turn(&[ready(0, at(0)), unready], &annotation()), Verdict::Starting);
}

#[test]
fn i1_a_pod_whose_node_does_not_answer_is_unknown_and_never_idle() {
    let gone = in_phase(ready(0, at(0)), Phase::Unknown);
    let silent = with(ready(0, at(0)), "Ready", "Unknown", 20);
    for probe in
        [annotation(), condition("App", ConditionStatus::True), condition("App", ConditionStatus::False)]
    {
        assert_eq!(afresh(&gone, &probe), Verdict::Unknown, "{probe:?}");
        assert_eq!(afresh(&silent, &probe), Verdict::Unknown, "{probe:?}");
    }
    assert_eq!(afresh(&annotated(gone, BUSY, "true"), &annotation()), Verdict::Busy, "the last word stands");
}

#[test]
fn a_condition_says_busy_idle_or_unknown() {
    for (busy_status, status, want) in [
        (ConditionStatus::True, Some("True"), Verdict::Busy),
        (ConditionStatus::True, Some("False"), Verdict::Idle),
        (ConditionStatus::True, Some("Unknown"), Verdict::Unknown),
        (ConditionStatus::True, None, Verdict::Idle),
        (ConditionStatus::False, Some("False"), Verdict::Busy),
        (ConditionStatus::False, Some("True"), Verdict::Idle),
        (ConditionStatus::False, Some("Unknown"), Verdict::Unknown),
        (ConditionStatus::False, None, Verdict::Idle),
    ] {
        let mut pod = ready(0, at(0));
        if let Some(status) = status {
            set(&mut pod, "App", status, at(5));
        }
        assert_eq!(afresh(&pod, &condition("App", busy_status)), want, "{busy_status:?}, {status:?}");
    }
    let unready = with(with(ready(0, at(0)), "Ready", "False", 9), "App", "True", 9);
    assert_eq!(afresh(&unready, &condition("App", ConditionStatus::True)), Verdict::Busy);
    assert_eq!(afresh(&unready, &condition("App", ConditionStatus::False)), Verdict::Starting);
}

#[test]
fn readiness_dropped_at_work_is_busy_and_readiness_not_reached_is_starting() {
    let probe = condition("Ready", ConditionStatus::False);
    let mut bound = pod(0, at(0));
    schedule(&mut bound, at(1));
    let mut running = in_phase(bound.clone(), Phase::Running);
    running.containers_started = Some(at(3));
    let mut up = running.clone();
    make_ready(&mut up, at(8));
    let at_work = with(up.clone(), "Ready", "False", 30);
    let lost = with(up.clone(), "Ready", "Unknown", 40);

    assert_eq!(afresh(&pod(0, at(0)), &probe), Verdict::Starting, "no condition yet");
    assert_eq!(in_turn(&[bound.clone(), running.clone()], &probe), Verdict::Starting);
    assert_eq!(in_turn(&[bound, running.clone(), up.clone()], &probe), Verdict::Idle);
    assert_eq!(in_turn(&[up.clone(), at_work.clone()], &probe), Verdict::Busy);
    assert_eq!(in_turn(&[up.clone(), at_work.clone(), up], &probe), Verdict::Idle);
    assert_eq!(in_turn(&[at_work.clone(), lost], &probe), Verdict::Unknown);
    // After a restart nothing is remembered, and the transition times tell.
    assert_eq!(afresh(&running, &probe), Verdict::Starting);
    assert_eq!(afresh(&at_work, &probe), Verdict::Busy);
}

#[test]
fn with_ready_meaning_busy_a_pod_that_was_ready_is_idle_when_it_is_not() {
    let probe = condition("Ready", ConditionStatus::True);
    let up = ready(0, at(0));
    let done = with(up.clone(), "Ready", "False", 30);
    let mut never = pod(0, at(0));
    schedule(&mut never, at(1));
    assert_eq!(afresh(&up, &probe), Verdict::Busy);
    assert_eq!(in_turn(&[up, done.clone()], &probe), Verdict::Idle);
    assert_eq!(afresh(&done, &probe), Verdict::Idle);
    assert_eq!(afresh(&never, &probe), Verdict::Starting);
}

#[test]
fn what_is_remembered_ends_with_the_pod_and_a_namesake_starts_anew() {
    let probe = condition("Ready", ConditionStatus::False);
    let mut namesake = pod(0, at(50));
    namesake.uid = "another".to_owned();
    schedule(&mut namesake, at(51));
    assert_eq!(in_turn(&[ready(0, at(0)), namesake], &probe), Verdict::Starting);

    let mut memories = PodMemories::new();
    let seen = [Judgement { verdict: Verdict::Idle, reason: String::new(), spent: false }];
    remember(&mut memories, &[ready(0, at(0))], &seen, &seen, at(1));
    remember(&mut memories, &[], &[], &[], at(2));
    assert!(memories.is_empty());
}

#[test]
fn a_verdict_is_remembered_since_it_first_held() {
    let mut memories = PodMemories::new();
    let pods = [ready(0, at(0))];
    let mut see = |verdict, now: Timestamp| {
        let seen = [Judgement { verdict, reason: String::new(), spent: false }];
        remember(&mut memories, &pods, &seen, &seen, now);
        memories["uid-0"].since
    };
    assert_eq!(see(Verdict::Idle, at(1)), at(1));
    assert_eq!(see(Verdict::Idle, at(5)), at(1));
    assert_eq!(see(Verdict::Busy, at(9)), at(9));
    assert_eq!(see(Verdict::Idle, at(12)), at(12));
}

#[test]
fn what_the_probe_says_is_remembered_beside_a_policys_verdict() {
    let mut memories = PodMemories::new();
    let pods = [ready(0, at(0))];
    let seen = |verdict| [Judgement { verdict, reason: String::new(), spent: false }];
    // The policy goes on calling it busy; the probe has said idle since 5.
    for (says, now) in [(Verdict::Busy, 1), (Verdict::Idle, 5), (Verdict::Idle, 9)] {
        let memory = memories.get("uid-0");
        assert_eq!(probe_since(memory, says, at(now)), if says == Verdict::Idle { at(5) } else { at(1) });
        remember(&mut memories, &pods, &seen(Verdict::Busy), &seen(says), at(now));
    }
    assert_eq!(memories["uid-0"].probe, (Verdict::Idle, at(5)));
    assert_eq!((memories["uid-0"].verdict, memories["uid-0"].since), (Verdict::Busy, at(1)));
}

#[test]
fn i3_an_unknown_pod_counts_for_sizing_as_it_was_last_known() {
    use Verdict::{Busy, Idle, Starting, Unknown};
    for (past, want) in [
        (vec![Busy, Unknown], 1),
        (vec![Busy, Unknown, Unknown], 1),
        (vec![Idle, Unknown], 0),
        (vec![Busy, Idle, Unknown], 0),
        (vec![Busy, Starting, Unknown], 0),
        (vec![Starting, Unknown], 0),
        (vec![Unknown], 0),
        (vec![Busy, Unknown, Idle], 0),
    ] {
        let mut memories = PodMemories::new();
        let pods = [ready(0, at(0))];
        for verdict in &past {
            let seen = [Judgement { verdict: *verdict, reason: String::new(), spent: false }];
            remember(&mut memories, &pods, &seen, &seen, at(1));
        }
        let counts = Snapshot { pods: &pods, memories: &memories }.counts();
        assert_eq!(counts.busy_for_sizing, want, "{past:?}");
    }
    // A pod that was never judged is unknown, not idle.
    let counts = Snapshot { pods: &[ready(0, at(0))], memories: &PodMemories::new() }.counts();
    assert_eq!((counts.unknown, counts.idle), (1, 0));
}
