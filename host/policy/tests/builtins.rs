//! The built-in policies through the real host: what they refuse, what they decide, and how long it takes.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fixtures::{evidence, input, limits};
use stoker_policy::contract::busyness::{self, VerdictState};
use stoker_policy::contract::{scaling, warm_up};
use stoker_policy::{ConfigRefusal, Limits, Policy, PolicyHost, builtin};
use tokio::sync::OnceCell;

/// A host with a built-in policy, compiled once for all tests here: that takes longer than they do.
async fn loaded(name: &'static str) -> &'static (PolicyHost, Arc<Policy>) {
    static LOADED: [OnceCell<(PolicyHost, Arc<Policy>)>; builtin::NAMES.len()] =
        [const { OnceCell::const_new() }; builtin::NAMES.len()];
    let index = builtin::NAMES.iter().position(|known| *known == name).unwrap();
    let load = async || {
        let host = fixtures::host();
        let policy = fixtures::builtin(&host, name).await;
        (host, policy)
    };
    LOADED[index].get_or_init(load).await
}

/// The words with which a policy refuses a config.
async fn refusal(host: &PolicyHost, policy: &Arc<Policy>, config: &str) -> Vec<String> {
    match host.validate(policy, config, Limits::default()).await {
        Err(ConfigRefusal::Invalid(words)) => words,
        other => panic!("{config}: {other:?}"),
    }
}

async fn scale(host: &PolicyHost, policy: &Arc<Policy>, input: scaling::Input) -> scaling::Decision {
    host.scale(policy, Limits::default(), input).await.unwrap().value
}

fn configured(input: scaling::Input, config: &str) -> scaling::Input {
    scaling::Input { config: config.into(), ..input }
}

/// Milliseconds of a time of day, UTC, `HH:MM:SS`, on a day that begins at `day` seconds.
fn at(day: i64, time: &str) -> i64 {
    let seconds = time.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap());
    (day + seconds) * 1_000
}

/// Monday, 13 July 2026.
const SUMMER: i64 = 1_783_900_800;
/// Sunday, 25 October 2026, on which the clocks go back in Europe.
const CHANGE: i64 = 1_792_886_400;

mod scheduled_buffer {
    use super::*;

    const OFFICE: &str = r#"{"timeZone": "Europe/Berlin", "windows": [
        {"start": "0 8 * * 1-5", "duration": "10h", "idleTarget": 20},
        {"start": "0 12 * * *", "duration": "1h30m", "idleTarget": 30}]}"#;

    #[tokio::test]
    async fn the_greatest_open_window_holds_and_the_next_edge_wakes() {
        let (host, policy) = loaded("scheduled-buffer").await;
        host.validate(policy, OFFICE, Limits::default()).await.unwrap();
        for (day, time, idle, wake, words) in [
            (SUMMER, "05:59:30", 3, 30_000, "outside of all windows"),
            (SUMMER, "06:00:00", 20, 4 * 3_600_000, "in the window 0 8 * * 1-5 for 10h (Europe/Berlin)"),
            (SUMMER, "10:00:00", 30, 90 * 60_000, "in the window 0 12 * * * for 1h30m"),
            (SUMMER, "11:30:00", 20, 16_200_000, "until 2026-07-13 18:00"),
            (SUMMER, "16:00:00", 3, 14 * 3_600_000, "outside of all windows"),
            // In winter time the same local times are an hour later.
            (CHANGE, "10:59:59", 3, 1_000, "outside of all windows"),
            (CHANGE, "11:00:00", 30, 90 * 60_000, "until 2026-10-25 13:30"),
        ] {
            let input = scaling::Input { now: at(day, time), ..configured(input(2, 3), OFFICE) };
            let decision = scale(host, policy, input).await;
            assert_eq!((decision.desired, decision.wake_after), (2 + idle, Some(wake)), "{time}");
            assert!(decision.reason.contains(words), "{time}: {}", decision.reason);
        }
    }

    #[tokio::test]
    async fn a_wrong_config_is_refused_with_its_place() {
        let (host, policy) = loaded("scheduled-buffer").await;
        let config = r#"{"timeZone": "Mars", "windows": [
            {"start": "0 8 * * 1-7", "duration": "10h", "idleTarget": 20},
            {"start": "@every 1h", "duration": "10", "idleTarget": -1}]}"#;
        assert_eq!(
            refusal(host, policy, config).await,
            [
                "timeZone: \"Mars\" is not known; write a name from the IANA database, for example Europe/Berlin",
                "windows[0].start: column 11: day of the week: 7 is above 6; Sunday is 0",
                "windows[1].start: column 1: @every counts from a beginning that is not known here; name the \
                 times, for example */5 * * * *",
                "windows[1].duration: \"10\" is not a span; write for example 90m, 10h, 1h30m or 2d",
                "windows[1].idleTarget: -1 is not a whole number from 0",
            ]
        );
    }

    #[tokio::test]
    async fn the_largest_timetable_is_decided_within_the_limits() {
        let (host, policy) = loaded("scheduled-buffer").await;
        let window = r#"{"start": "59 23 29 2 *", "duration": "1m", "idleTarget": 9}"#;
        let config =
            format!(r#"{{"timeZone": "Africa/Casablanca", "windows": [{}]}}"#, [window; 64].join(","));
        host.validate(policy, &config, Limits::default()).await.unwrap();
        let input = scaling::Input { now: at(SUMMER, "00:00:00"), ..configured(input(2, 3), &config) };
        let begun = Instant::now();
        assert_eq!(scale(host, policy, input).await.desired, 5);
        println!("64 windows: {:?}", begun.elapsed());
    }
}

mod expression {
    use super::*;

    const EXAMPLE: &str = r#"{"desired": "busy + max(idleTarget, int(busy * 0.2))"}"#;

    fn config(desired: &str) -> String {
        format!(r#"{{"desired": "{desired}"}}"#)
    }

    #[tokio::test]
    async fn the_expression_gives_the_number_of_replicas() {
        let (host, policy) = loaded("expression").await;
        host.validate(policy, EXAMPLE, Limits::default()).await.unwrap();
        for (busy, desired) in [(0, 3), (2, 5), (40, 48), (100, 100)] {
            let decision = scale(host, policy, configured(input(busy, 3), EXAMPLE)).await;
            assert_eq!(decision.desired, desired, "{}", decision.reason);
        }
        let decision = scale(host, policy, configured(input(40, 3), EXAMPLE)).await;
        assert_eq!(
            decision.reason,
            "48 by busy + max(idleTarget, int(busy * 0.2)), with busy 40, idleTarget 3"
        );
    }

    #[tokio::test]
    async fn signals_and_the_clock_may_be_used() {
        let (host, policy) = loaded("expression").await;
        let config = config("hour >= 8 ? ceil(signals.queue / 8) : idleTarget");
        host.validate(policy, &config, Limits::default()).await.unwrap();
        let queue = scaling::Signal { name: "queue".into(), value: Ok(33.0), age: 1_000 };
        for (day, time, desired, wake) in
            [(SUMMER, "07:59:00", 3, 60_000), (SUMMER, "08:00:00", 5, 3_600_000)]
        {
            let input = scaling::Input {
                now: at(day, time),
                signals: vec![queue.clone()],
                ..configured(input(2, 3), &config)
            };
            let decision = scale(host, policy, input).await;
            assert_eq!((decision.desired, decision.wake_after), (desired, Some(wake)), "{time}");
        }
    }

    #[tokio::test]
    async fn a_wrong_expression_is_refused_with_its_column() {
        let (host, policy) = loaded("expression").await;
        for (desired, words) in [
            ("busy + bussy", "desired: column 8: unknown variable \"bussy\"; there are busy, claimed, "),
            ("busy + nearest(3)", "desired: column 8: unknown function \"nearest\"; there are max, min, "),
            ("busy + (3", "desired: column 10: expected ')'"),
            ("busy - 100", "desired: the result -90 is negative; write max(0, …), tried with busy 10"),
            ("busy > 1", "desired: the result is true or false, not a number"),
            ("60 / busy", "desired: division by zero, tried with busy 0 when nothing runs"),
        ] {
            let errors = refusal(host, policy, &config(desired)).await;
            assert!(errors.len() == 1 && errors[0].starts_with(words), "{errors:?}");
        }
    }

    #[tokio::test]
    async fn i3_a_result_that_is_no_number_of_replicas_fails_the_call() {
        let (host, policy) = loaded("expression").await;
        let lost = scaling::Signal { name: "queue".into(), value: Err("timeout".into()), age: 60_000 };
        for (desired, words) in [
            ("signals.queue", "\"queue\" has no value now"),
            ("8 - busy", "the result -2 is negative"),
            ("6 / (busy - 10)", "division by zero"),
        ] {
            let input =
                scaling::Input { signals: vec![lost.clone()], ..configured(input(10, 3), &config(desired)) };
            let error = host.scale(policy, Limits::default(), input).await.unwrap_err();
            assert_eq!(error.kind(), "trap");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    /// The largest expressions that are accepted, in the shapes that go deepest.
    #[tokio::test]
    async fn what_is_accepted_fits_into_the_stack_and_the_time() {
        let (host, policy) = loaded("expression").await;
        let brackets = format!("{}busy{}", "(".repeat(24), ")".repeat(24));
        let calls = format!("{}busy{}", "max(1, ".repeat(24), ")".repeat(24));
        let loops = format!("size({}[1]{})", "[1].map(x, ".repeat(11), ")".repeat(11));
        for (shape, desired) in [
            ("brackets", brackets),
            ("calls", calls),
            ("sum", vec!["busy"; 200].join(" + ")),
            ("power", vec!["1.0"; 100].join(" * ")),
            ("choices", format!("{}3", "busy > 0 ? 1 : ".repeat(66))),
            ("conditions", format!("{} ? 1 : 2", vec!["busy > 0"; 60].join(" || "))),
            ("minuses", format!("{}3", "- ".repeat(96))),
            ("loops", loops),
            ("list", format!("size([{}])", vec!["1"; 190].join(","))),
        ] {
            let begun = Instant::now();
            host.validate(policy, &config(&desired), Limits::default()).await.unwrap();
            scale(host, policy, configured(input(60, 40), &config(&desired))).await;
            println!("{shape}: {:?}", begun.elapsed());
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_in_words() {
        let (host, policy) = loaded("expression").await;
        for desired in [
            "(".repeat(2_000),
            "[".repeat(4_000),
            "-".repeat(4_000),
            "!".repeat(4_000),
            vec!["1"; 2_000].join("+"),
            "1?".repeat(2_000),
            "a.".repeat(2_000),
            "1 in ".repeat(800),
            "x".repeat(5_000),
        ] {
            let errors = refusal(host, policy, &config(&desired)).await;
            assert!(errors[0].starts_with("desired: "), "{errors:?}");
        }
    }

    #[tokio::test]
    async fn an_endless_calculation_ends_at_the_time_limit() {
        let (host, policy) = loaded("expression").await;
        let list = "[1,1,1,1,1,1,1,1]";
        let nested = format!("size({}1{})", format!("{list}.map(x, ").repeat(7), ")".repeat(7));
        let begun = Instant::now();
        let refusal = host.validate(policy, &config(&nested), limits(100)).await.unwrap_err();
        assert!(matches!(refusal, ConfigRefusal::Call(_)), "{refusal}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    /// The expression is parsed anew for each decision; that must not matter.
    #[tokio::test]
    async fn a_decision_over_100_pods_takes_far_less_than_10_ms() {
        let (host, policy) = loaded("expression").await;
        let mut times = Vec::new();
        for _ in 0..100 {
            let input = configured(input(60, 40), EXAMPLE);
            let begun = Instant::now();
            assert_eq!(scale(host, policy, input).await.desired, 72);
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        println!("p50 {:?}, p90 {:?}, longest {:?}", times[50], times[90], times[99]);
        // The median: other tests run beside this one.
        assert!(times[50] < Duration::from_millis(5), "{:?}", times[50]);
    }
}

mod hysteresis {
    use super::*;

    const PERIOD: u64 = 5_000;

    /// A pod that was last found to be `last`, of which `results` probes in a row say `says`, since `seconds`.
    fn pod(last: Option<VerdictState>, says: VerdictState, results: u32, seconds: i64) -> busyness::Evidence {
        busyness::Evidence {
            last: last.map(|last| (last, 0)),
            probe: busyness::Probe::Http(busyness::HttpAnswer { status: 200, body: vec![] }),
            probe_says_since: NOW - seconds * 1_000,
            probe_says_results: results,
            ..evidence(says)
        }
    }

    const NOW: i64 = 1_700_000_000_000;

    fn asked(
        config: &str,
        kind: busyness::ProbeKind,
        period: u64,
        pods: Vec<busyness::Evidence>,
    ) -> busyness::Input {
        busyness::Input {
            now: NOW,
            pool: fixtures::pool(),
            config: config.into(),
            asks: Some(busyness::Question { kind, subject: "/busy".into(), period }),
            pods,
            extensions: vec![],
        }
    }

    #[tokio::test]
    async fn busy_is_believed_at_once_and_idle_after_agreeing_probes() {
        use VerdictState::{Busy, Idle, Starting, Unknown};
        let (host, policy) = loaded("hysteresis").await;
        assert!(policy.exports().busyness && !policy.exports().scaling);
        let config = r#"{"probes": 3, "seconds": 10}"#;
        host.validate(policy, config, Limits::default()).await.unwrap();
        let cases = [
            (pod(Some(Idle), Busy, 1, 0), Busy, None),
            (pod(Some(Busy), Idle, 1, 0), Busy, Some(10_000)),
            (pod(Some(Busy), Idle, 2, 60), Busy, Some(5_000)),
            (pod(Some(Busy), Idle, 3, 8), Busy, Some(2_000)),
            (pod(Some(Busy), Idle, 3, 10), Idle, None),
            (pod(Some(Unknown), Idle, 2, 60), Unknown, Some(5_000)),
            (pod(Some(Starting), Idle, 1, 0), Idle, None),
            (pod(None, Idle, 1, 0), Unknown, Some(10_000)),
            (pod(Some(Busy), Unknown, 1, 0), Unknown, None),
            (pod(None, Starting, 1, 0), Starting, None),
        ];
        let pods = cases.iter().map(|(pod, ..)| pod.clone()).collect();
        let input = asked(config, busyness::ProbeKind::Http, PERIOD, pods);
        let verdicts = host.classify(policy, Limits::default(), input).await.unwrap().value;
        for (index, (verdict, (_, state, wake))) in verdicts.iter().zip(cases).enumerate() {
            assert_eq!((verdict.state, verdict.wake_after), (state, wake), "{index}: {}", verdict.reason);
        }
        assert_eq!(verdicts[1].reason, "still busy: the probe has said idle for 1 of 3 probes and 0 of 10 s");
    }

    #[tokio::test]
    async fn for_a_watched_probe_only_the_seconds_count() {
        use VerdictState::{Busy, Idle};
        let (host, policy) = loaded("hysteresis").await;
        for (config, seconds, state) in
            [(r#"{"probes": 3}"#, 0, Idle), (r#"{"seconds": 10}"#, 9, Busy), (r#"{"seconds": 10}"#, 10, Idle)]
        {
            let pods = vec![pod(Some(Busy), Idle, 0, seconds)];
            let input = asked(config, busyness::ProbeKind::Annotation, 0, pods);
            let verdicts = host.classify(policy, Limits::default(), input).await.unwrap().value;
            assert_eq!(verdicts[0].state, state, "{config}: {}", verdicts[0].reason);
        }
    }

    #[tokio::test]
    async fn a_wrong_config_is_refused_in_words() {
        let (host, policy) = loaded("hysteresis").await;
        assert_eq!(
            refusal(host, policy, r#"{"probes": 0, "second": 3}"#).await,
            ["probes: 0 is below 1", "second: unknown key; there are probes and seconds"]
        );
    }
}

mod json_status {
    use super::*;

    #[tokio::test]
    async fn a_field_of_what_the_probe_finds_says_what_a_pod_does() {
        use VerdictState::{Busy, Idle, Starting, Unknown};
        use busyness::Probe;
        let (host, policy) = loaded("json-status").await;
        assert!(policy.exports().busyness && !policy.exports().scaling);
        let config = r#"{"pointer": "/game/state", "busy": ["playing"], "idle": ["lobby"]}"#;
        host.validate(policy, config, Limits::default()).await.unwrap();
        let body = |state: &str| format!(r#"{{"game": {{"state": "{state}"}}}}"#).into_bytes();
        let http = |state| Probe::Http(busyness::HttpAnswer { status: 200, body: body(state) });
        let exec = |exit_code| Probe::Exec(busyness::ExecAnswer { exit_code, stdout: b"lobby\n".to_vec() });
        let cases = [
            (http("playing"), Busy),
            (http("lobby"), Idle),
            (http("starting"), Starting),
            (http("crashed"), Unknown),
            (exec(0), Idle),
            (exec(127), Unknown),
            (Probe::Redis(Some(body("lobby"))), Idle),
            (Probe::Redis(None), Unknown),
            (Probe::Annotation(Some("playing".into())), Busy),
            (Probe::Annotation(None), Unknown),
            (Probe::Error("connection refused".into()), Unknown),
            (Probe::None, Unknown),
        ];
        // The probe's own settings take each 200 for busy; the policy does not care.
        let pods =
            cases.iter().map(|(probe, _)| busyness::Evidence { probe: probe.clone(), ..evidence(Busy) });
        let asks =
            busyness::Question { kind: busyness::ProbeKind::Http, subject: "/state".into(), period: 10_000 };
        let input = busyness::Input {
            now: 0,
            pool: fixtures::pool(),
            config: config.into(),
            asks: Some(asks),
            pods: pods.collect(),
            extensions: vec![],
        };
        let verdicts = host.classify(policy, Limits::default(), input).await.unwrap().value;
        for (verdict, (probe, state)) in verdicts.iter().zip(&cases) {
            assert_eq!(verdict.state, *state, "{probe:?}: {}", verdict.reason);
        }
        assert_eq!(verdicts[0].reason, "it says playing");
    }

    #[tokio::test]
    async fn a_wrong_config_is_refused_in_words() {
        let (host, policy) = loaded("json-status").await;
        assert_eq!(
            refusal(host, policy, r#"{"pointer": "state", "idle": ["busy"]}"#).await,
            [
                "pointer: state does not begin with /; write for example /status",
                "busy: stands in busy and in idle; a word can mean only one state",
            ]
        );
    }
}

mod leads {
    use super::*;

    const CONFIGURED: u64 = 600_000;

    /// A run that took so many milliseconds to be scheduled, to pull and to start.
    fn run(schedule: u64, pull: u64, start: u64) -> warm_up::Phases {
        warm_up::Phases {
            instant: 0,
            schedule: Some(schedule),
            pull: Some(pull),
            start: Some(start),
            ready: Some(2_000),
        }
    }

    /// Runs of warm nodes, 31 s to 39 s, and the oldest one on a cold node.
    fn runs() -> Vec<warm_up::Phases> {
        (1..10).map(|second| run(30_000, 0, second * 1_000)).chain([run(60_000, 200_000, 40_000)]).collect()
    }

    async fn lead(
        name: &'static str,
        config: &str,
        configured: u64,
        runs: Vec<warm_up::Phases>,
    ) -> warm_up::Decision {
        let (host, policy) = loaded(name).await;
        host.validate(policy, config, Limits::default()).await.unwrap();
        let input = warm_up::Input { config: config.into(), configured, runs, ..fixtures::warm_up_input() };
        host.lead(policy, Limits::default(), input).await.unwrap().value
    }

    #[tokio::test]
    async fn fixed_lead_answers_what_the_object_says() {
        let (_, policy) = loaded("fixed-lead").await;
        assert!(policy.exports().warm_up && !policy.exports().scaling && !policy.exports().busyness);
        for configured in [0, 1, CONFIGURED, 86_400_000] {
            let decision = lead("fixed-lead", "{}", configured, runs()).await;
            assert_eq!((decision.lead, decision.state), (configured, vec![]), "{}", decision.reason);
        }
        assert_eq!(lead("fixed-lead", "{}", CONFIGURED, vec![]).await.reason, "600 s as configured");
        assert_eq!(lead("fixed-lead", "{}", u64::MAX, vec![]).await.lead, 86_400_000);
    }

    #[tokio::test]
    async fn learned_lead_answers_what_most_runs_took_and_a_margin() {
        let (_, policy) = loaded("learned-lead").await;
        assert!(policy.exports().warm_up && !policy.exports().scaling && !policy.exports().busyness);
        for (config, expected, reason) in [
            ("{}", 49_000, "quantile 0.9 of 10 runs: 39 s, + 10 s margin"),
            (r#"{"quantile": 1}"#, 310_000, "quantile 1 of 10 runs: 300 s, + 10 s margin"),
            (r#"{"quantile": 0.5}"#, 45_000, "quantile 0.5 of 10 runs: 35 s, + 10 s margin"),
            (r#"{"marginSeconds": 0, "runs": 3}"#, 33_000, "quantile 0.9 of 3 runs: 33 s, + 0 s margin"),
            (r#"{"includeReady": true}"#, 51_000, "quantile 0.9 of 10 runs: 41 s, + 10 s margin"),
            (
                r#"{"quantile": 1, "maxSeconds": 60}"#,
                60_000,
                "quantile 1 of 10 runs: 300 s, + 10 s margin, cut to the maximum 60 s",
            ),
            (
                r#"{"minSeconds": 120}"#,
                120_000,
                "quantile 0.9 of 10 runs: 39 s, + 10 s margin, raised to the minimum 120 s",
            ),
            (r#"{"minRuns": 11}"#, CONFIGURED, "600 s as configured: 10 runs measured, 11 are needed"),
        ] {
            let decision = lead("learned-lead", config, CONFIGURED, runs()).await;
            assert_eq!((decision.lead, decision.reason.as_str()), (expected, reason), "{config}");
            assert!(decision.state.is_empty());
        }
    }

    #[tokio::test]
    async fn whatever_was_measured_learned_lead_keeps_the_contract() {
        let unknown =
            warm_up::Phases { instant: i64::MIN, schedule: None, pull: None, start: None, ready: None };
        let endless = run(u64::MAX, u64::MAX, u64::MAX);
        for (runs, configured, expected) in [
            (vec![], u64::MAX, 86_400_000),
            (vec![unknown; 32], CONFIGURED, CONFIGURED),
            (vec![endless; 32], CONFIGURED, 3_600_000),
            (vec![endless; 32], u64::MAX, 86_400_000),
            (vec![run(0, 0, 0); 32], CONFIGURED, 10_000),
        ] {
            assert_eq!(lead("learned-lead", "{}", configured, runs).await.lead, expected);
        }
    }

    #[tokio::test]
    async fn a_wrong_config_is_refused_in_words() {
        let (host, policy) = loaded("fixed-lead").await;
        assert_eq!(
            refusal(host, policy, r#"{"quantile":1}"#).await,
            [
                r#"config: fixed-lead takes no keys, found {"quantile":1}; remove it and set the warm-up in the object's spec"#
            ]
        );
        let (host, policy) = loaded("learned-lead").await;
        assert_eq!(
            refusal(host, policy, r#"{"quantile": 95, "runs": 0, "minSeconds": "5"}"#).await,
            [
                r#"minSeconds: "5" is not a whole number; write one from 0 to 86400, without quotes"#,
                "quantile: 95 is above 1; write a share, for example 0.9 for 90 %",
                "runs: 0 is below 1",
            ]
        );
        assert_eq!(
            refusal(host, policy, r#"{"minSeconds": 60, "maxSeconds": 30}"#).await,
            ["maxSeconds: 30 is below minSeconds, 60; write at least that, or a lower minSeconds"]
        );
    }
}
