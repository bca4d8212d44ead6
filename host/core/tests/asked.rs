//! What answers to questions mean, case by case, and what several of them come to.
#![allow(clippy::unwrap_used)]

use jiff::SignedDuration;
use stoker_api::{BusyProbe, BusyProbeMode, ExecProbe, HttpProbe, ProbeFailure, RedisWords, TreatAs};
use stoker_core::asked::{Answer, Answers, Outcome, Rules, Standing, is_older};
use stoker_core::pool::Snapshot;
use stoker_core::verdict::{Judgement, PodMemories, Verdict, judge, judge_asked, not_answering, remember};
use stoker_core::{Phase, PodView};
use stoker_sim::pods::{at, in_phase, make_ready, pod, ready, schedule, set};

use Outcome::{Busy, Idle, Starting, Unclear};

const RULES: Rules = Rules { period: SignedDuration::from_secs(10), threshold: 3, lost_is_busy: false };
const OR_BUSY: Rules = Rules { lost_is_busy: true, ..RULES };

fn answer(outcome: Outcome) -> Answer {
    Answer { outcome, words: format!("{outcome:?}") }
}

/// Answers, one a period from second 0.
fn answers(outcomes: &[Outcome]) -> Answers {
    let mut all = Answers::default();
    for (i, outcome) in outcomes.iter().enumerate() {
        all.note(answer(*outcome), at(i as i64 * 10));
    }
    all
}

/// A pod that never was Ready.
fn fresh() -> PodView {
    let mut pod = pod(0, at(0));
    schedule(&mut pod, at(0));
    pod
}

/// One that was, and is not now.
fn unready() -> PodView {
    let mut pod = ready(0, at(0));
    set(&mut pod, "Ready", "False", at(90));
    pod
}

/// What is remembered of a pod after these verdicts.
fn remembered(pod: &PodView, verdicts: &[Verdict]) -> PodMemories {
    let mut memories = PodMemories::new();
    for verdict in verdicts {
        let seen = [Judgement { verdict: *verdict, reason: String::new(), spent: false }];
        remember(&mut memories, std::slice::from_ref(pod), &seen, &seen, at(0));
    }
    memories
}

#[test]
fn an_http_status_is_busy_idle_or_says_nothing() {
    for (status, want) in [
        (200, Busy),
        (204, Busy),
        (299, Busy),
        (503, Idle),
        (101, Unclear),
        (301, Unclear),
        (302, Unclear),
        (400, Unclear),
        (404, Unclear),
        (429, Unclear),
        (500, Unclear),
        (502, Unclear),
        (504, Unclear),
    ] {
        assert_eq!(Answer::http(status, true).outcome, want, "{status}");
        let opposite = match want {
            Busy => Idle,
            Idle => Busy,
            other => other,
        };
        assert_eq!(Answer::http(status, false).outcome, opposite, "{status}, successIsBusy false");
    }
    assert_eq!(Answer::http(302, true).words, "HTTP 302, and redirects are not followed");
}

#[test]
fn an_exit_code_is_busy_idle_or_says_nothing() {
    for (code, want, opposite) in [
        (0, Busy, Idle),
        (1, Idle, Busy),
        (2, Unclear, Unclear),
        (126, Unclear, Unclear),
        (127, Unclear, Unclear),
        (128, Unclear, Unclear),
        (137, Unclear, Unclear),
        (255, Unclear, Unclear),
        (-1, Unclear, Unclear),
    ] {
        assert_eq!(Answer::exec(code, true).outcome, want, "{code}");
        assert_eq!(Answer::exec(code, false).outcome, opposite, "{code}, successIsBusy false");
    }
}

#[test]
fn a_value_in_redis_is_json_or_a_word() {
    let created = at(1000);
    let second = created.as_second();
    let means = |value: &str| Answer::redis(Some(value.as_bytes()), &RedisWords::default(), created).outcome;
    for (value, want) in [
        (r#"{"status":"busy"}"#.to_owned(), Busy),
        (r#"{"status":"idle","more":[1]}"#.to_owned(), Idle),
        (r#"{"status":"starting"}"#.to_owned(), Starting),
        (r#"{"status":"error"}"#.to_owned(), Unclear),
        (r#"{"status":""}"#.to_owned(), Unclear),
        (r#"{"status":1}"#.to_owned(), Unclear),
        (r#"{"state":"idle"}"#.to_owned(), Unclear),
        (format!(r#"{{"status":"idle","updated_at":{second}}}"#), Idle),
        (format!(r#"{{"status":"idle","updated_at":{}.5}}"#, second), Idle),
        (format!(r#"{{"status":"idle","updated_at":{}}}"#, second - 1), Unclear),
        (format!(r#"{{"status":"busy","updated_at":{}}}"#, second - 1), Unclear),
        ("busy".to_owned(), Busy),
        (" Idle\n".to_owned(), Idle),
        (r#""idle""#.to_owned(), Idle),
        ("STARTING".to_owned(), Starting),
        ("error".to_owned(), Unclear),
        ("not idle".to_owned(), Unclear),
        (String::new(), Unclear),
        ("1".to_owned(), Unclear),
        ("[\"idle\"]".to_owned(), Unclear),
        ("{\"status\":\"idle\"".to_owned(), Unclear),
    ] {
        assert_eq!(means(&value), want, "{value:?}");
    }
    assert_eq!(Answer::redis(None, &RedisWords::default(), created).outcome, Unclear);
    assert_eq!(Answer::redis(Some(&[0xff, 0]), &RedisWords::default(), created).outcome, Unclear);
}

#[test]
fn a_value_in_redis_is_read_up_to_four_kibibytes() {
    let value = |length: usize| format!("{:<length$}", r#"{"status":"idle"}"#);
    let answer = |value: &str| Answer::redis(Some(value.as_bytes()), &RedisWords::default(), at(0));
    assert_eq!(answer(&value(4096)).outcome, Idle);
    let long = answer(&value(4097));
    let words = "its value in Redis is 4097 bytes long, 4096 may be";
    assert_eq!((long.outcome, long.words.as_str()), (Unclear, words));
    let old = |length: usize| format!("{:<length$}", r#"{"updated_at":1}"#).into_bytes();
    assert!(is_older(&old(4096), at(0)));
    assert!(!is_older(&old(4097), at(0)), "it is not read");
}

#[test]
fn words_for_redis_are_the_pools_own() {
    let words =
        RedisWords { busy: vec!["playing".into(), "full".into()], idle: vec!["0".into()], starting: vec![] };
    for (value, want) in [
        ("playing", Busy),
        ("full", Busy),
        ("0", Idle),
        ("busy", Unclear),
        ("idle", Unclear),
        ("starting", Unclear),
    ] {
        assert_eq!(Answer::redis(Some(value.as_bytes()), &words, at(0)).outcome, want, "{value}");
    }
}

#[test]
fn one_unclear_answer_changes_nothing_and_as_many_as_the_threshold_do() {
    for (history, want) in [
        (&[][..], Standing::NotYet),
        (&[Unclear], Standing::NotYet),
        (&[Unclear, Unclear], Standing::NotYet),
        (&[Unclear, Unclear, Unclear], Standing::Lost),
        (&[Idle, Unclear], Standing::Clear(Idle)),
        (&[Busy, Unclear, Unclear], Standing::Clear(Busy)),
        (&[Busy, Unclear, Unclear, Unclear], Standing::Lost),
        (&[Busy, Unclear, Unclear, Idle], Standing::Clear(Idle)),
        (&[Unclear, Unclear, Busy, Unclear, Unclear], Standing::Clear(Busy)),
        (&[Idle, Unclear, Unclear, Unclear, Busy], Standing::Clear(Busy)),
    ] {
        // Asked as often as it says, a clear answer is never too old.
        let now = at((history.len() as i64 - 1).max(0) * 10);
        assert_eq!(answers(history).standing(RULES, now), want, "{history:?}");
    }
    let at_once = Rules { threshold: 1, ..RULES };
    assert_eq!(answers(&[Idle, Unclear]).standing(at_once, at(10)), Standing::Lost);
}

#[test]
fn i1_an_answer_older_than_three_periods_is_none() {
    let idle = answers(&[Idle]);
    assert_eq!(idle.standing(RULES, at(30)), Standing::Clear(Idle));
    assert_eq!(idle.standing(RULES, at(31)), Standing::Lost);
    assert_eq!(idle.words(Standing::Lost), format!("not asked since {}", at(0)));
    // The clock was set back: its age cannot be told.
    assert_eq!(idle.standing(RULES, at(-30)), Standing::Clear(Idle));
    assert_eq!(idle.standing(RULES, at(-31)), Standing::Lost);
    // Nor does an unclear one keep it young.
    assert_eq!(answers(&[Idle, Unclear]).standing(RULES, at(31)), Standing::Lost);
}

#[test]
fn answers_in_a_row_are_counted() {
    assert_eq!(answers(&[]).same_in_a_row(), 0);
    assert_eq!(answers(&[Idle, Idle, Idle]).same_in_a_row(), 3);
    assert_eq!(answers(&[Idle, Idle, Busy]).same_in_a_row(), 1);
    assert_eq!(answers(&[Unclear, Unclear]).same_in_a_row(), 2);
}

#[test]
fn the_probe_says_how_answers_are_taken() {
    let http = |http: Option<HttpProbe>, failure: Option<ProbeFailure>| BusyProbe {
        mode: BusyProbeMode::Http,
        http,
        probe_failure: failure,
        ..BusyProbe::default()
    };
    assert_eq!(Rules::of(&BusyProbe::default()), None);
    assert_eq!(Rules::of(&http(None, None)), Some(RULES));
    let quick = HttpProbe { period_seconds: 2, ..HttpProbe::default() };
    let failure = ProbeFailure { threshold: 1, treat_as: TreatAs::Busy };
    let want = Rules { period: SignedDuration::from_secs(2), threshold: 1, lost_is_busy: true };
    assert_eq!(Rules::of(&http(Some(quick), Some(failure))), Some(want));
    let exec = ExecProbe { period_seconds: 7, ..ExecProbe::default() };
    let exec = BusyProbe { mode: BusyProbeMode::Exec, exec: Some(exec), ..BusyProbe::default() };
    assert_eq!(Rules::of(&exec).unwrap().period, SignedDuration::from_secs(7));
}

#[test]
#[allow(clippy::type_complexity)]
fn answers_make_verdicts() {
    let silent = in_phase(ready(0, at(0)), Phase::Unknown);
    use Verdict as V;
    let cases: &[(&str, PodView, &[V], &[Outcome], V)] = &[
        ("busy", ready(0, at(0)), &[V::Starting], &[Busy], V::Busy),
        ("idle", ready(0, at(0)), &[V::Starting], &[Idle], V::Idle),
        ("starting by its own word", ready(0, at(0)), &[V::Starting], &[Starting], V::Starting),
        ("just Ready, not asked", ready(0, at(0)), &[V::Starting], &[], V::Starting),
        ("just Ready, one unclear", ready(0, at(0)), &[V::Starting], &[Unclear], V::Starting),
        ("just Ready, three unclear", ready(0, at(0)), &[V::Starting], &[Unclear; 3], V::Unknown),
        ("not asked after a restart", ready(0, at(0)), &[], &[], V::Unknown),
        ("one unclear after a restart", ready(0, at(0)), &[], &[Unclear], V::Unknown),
        ("not asked since another probe was set", ready(0, at(0)), &[V::Busy], &[], V::Unknown),
        ("unclear once while idle", ready(0, at(0)), &[V::Idle], &[Idle, Unclear], V::Idle),
        ("unclear once while busy", ready(0, at(0)), &[V::Busy], &[Busy, Unclear], V::Busy),
        ("lost while idle", ready(0, at(0)), &[V::Idle], &[Idle, Unclear, Unclear, Unclear], V::Unknown),
        ("never Ready, not asked", fresh(), &[], &[], V::Starting),
        ("never Ready, idle by Redis", fresh(), &[], &[Idle], V::Starting),
        ("never Ready, busy by Redis", fresh(), &[], &[Busy], V::Busy),
        ("never Ready, no value in Redis", fresh(), &[], &[Unclear; 3], V::Starting),
        ("unready again, idle", unready(), &[V::Idle], &[Idle], V::Starting),
        ("unready at work", unready(), &[V::Busy], &[Busy], V::Busy),
        ("unready, lost", unready(), &[V::Busy], &[Busy, Unclear, Unclear, Unclear], V::Unknown),
        ("silent node, idle", silent.clone(), &[V::Idle], &[Idle], V::Unknown),
        ("silent node, busy", silent, &[V::Busy], &[Busy], V::Busy),
    ];
    for (what, pod, past, history, want) in cases {
        let memories = remembered(pod, past);
        let now = at((history.len() as i64 - 1).max(0) * 10);
        let answers = answers(history);
        let judged = judge_asked(pod, RULES, Some(&answers), memories.get(&pod.uid), now);
        assert_eq!(judged.verdict, *want, "{what}: {}", judged.reason);
        let or_busy = judge_asked(pod, OR_BUSY, Some(&answers), memories.get(&pod.uid), now);
        let lost = answers.standing(RULES, now) == Standing::Lost && *want == V::Unknown;
        assert_eq!(or_busy.verdict, if lost { V::Busy } else { *want }, "{what}, treatAs Busy");
    }
    let none = judge_asked(&ready(0, at(0)), RULES, None, None, at(0));
    assert_eq!((none.verdict, none.reason.as_str()), (V::Unknown, "not asked yet"));
}

#[test]
fn nothing_is_read_off_a_pod_that_is_asked() {
    for mode in [BusyProbeMode::Http, BusyProbeMode::Exec, BusyProbeMode::Redis] {
        let probe = BusyProbe { mode, ..BusyProbe::default() };
        assert_eq!(judge(&ready(0, at(0)), &probe, None).verdict, Verdict::Unknown, "{mode:?}");
        assert_eq!(judge(&fresh(), &probe, None).verdict, Verdict::Starting, "{mode:?}");
    }
}

#[test]
fn i3_a_total_outage_changes_no_count_that_sizing_reads() {
    let pods: Vec<PodView> = (0..5).map(|slot| ready(slot, at(0))).collect();
    let mut memories = PodMemories::new();
    let mut all: Vec<Answers> = vec![Answers::default(); 5];
    let mut sizes = Vec::new();
    for round in 0..10 {
        let now = at(round * 10);
        for (i, answers) in all.iter_mut().enumerate() {
            let outcome = if round > 1 {
                Unclear
            } else if i < 2 {
                Busy
            } else {
                Idle
            };
            answers.note(answer(outcome), now);
        }
        let judged: Vec<_> = pods
            .iter()
            .zip(&all)
            .map(|(pod, answers)| judge_asked(pod, RULES, Some(answers), memories.get(&pod.uid), now))
            .collect();
        remember(&mut memories, &pods, &judged, &judged, now);
        let counts = Snapshot { pods: &pods, memories: &memories }.counts();
        sizes.push((counts.busy_for_sizing, counts.current));
        let unknown = if round < 4 { 0 } else { 5 };
        assert_eq!(counts.unknown, unknown, "in round {round}");
    }
    assert_eq!(sizes, [(2, 5); 10]);
}

#[test]
fn who_gives_no_clear_answer_is_told_with_the_first_ones_reason() {
    let mut other = ready(1, at(0));
    make_ready(&mut other, at(0));
    let pods = [ready(0, at(0)), other, fresh()];
    let mut silent = Answers::default();
    for i in 0..3 {
        silent.note(Answer::unclear("connection refused"), at(i * 10));
    }
    let all = [(pods[0].uid.clone(), answers(&[Idle])), (pods[1].uid.clone(), silent)].into();
    let told = not_answering(&pods, RULES, &all, &PodMemories::new(), at(20));
    assert_eq!(told, Some((1, format!("{} (connection refused)", pods[1].name))));
    let well = [(pods[0].uid.clone(), answers(&[Idle]))].into();
    assert_eq!(not_answering(&pods, RULES, &well, &PodMemories::new(), at(20)), None);
}
