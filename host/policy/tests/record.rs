//! Records come back from a line of JSON as they were, to the last bit, whatever they hold.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{Guest, SPIN, builtin, evidence, host, input, limits, loaded, warm_up_input};
use proptest::prelude::*;
use stoker_policy::contract::{busyness, scaling, warm_up};
use stoker_policy::{Comparison, Exchange, Fault, Outcome, RECORD_VERSION, Record, parts};

fn record(exchange: Exchange) -> Record {
    Record {
        version: RECORD_VERSION,
        digest: "sha256:0".to_owned(),
        policy: "a 1".to_owned(),
        timeout_milliseconds: 100,
        memory_bytes: 32 << 20,
        exchange,
        outcome: Outcome::default(),
    }
}

/// What is read of what was written: a line.
fn again(record: &Record) -> Record {
    let line = serde_json::to_string(record).unwrap();
    assert!(!line.contains('\n'), "{line}");
    serde_json::from_str(&line).unwrap()
}

fn signal(number: f64) -> scaling::Signal {
    scaling::Signal { name: "queue".to_owned(), value: Ok(number), age: 0 }
}

fn with_signals(signals: Vec<scaling::Signal>) -> Record {
    record(Exchange::Scale { input: Box::new(scaling::Input { signals, ..input(1, 1) }), answer: None })
}

/// Equality takes 0.0 and -0.0 for the same; bits do not.
fn bits(record: &Record) -> Vec<u64> {
    let Exchange::Scale { input, .. } = &record.exchange else { panic!("{record:?}") };
    input.signals.iter().filter_map(|signal| Some(signal.value.as_ref().ok()?.to_bits())).collect()
}

proptest! {
    #[test]
    fn numbers_of_signals_come_back_bit_for_bit(
        numbers in prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..64)
    ) {
        let signals = numbers.into_iter().filter(|number| number.is_finite()).map(signal).collect();
        let record = with_signals(signals);
        prop_assert_eq!(bits(&again(&record)), bits(&record));
    }

    #[test]
    fn texts_bytes_and_large_numbers_come_back(
        text in any::<String>(), bytes in any::<Vec<u8>>(), span in any::<u64>(), time in any::<i64>()
    ) {
        let mut asked = scaling::Input { state: bytes.clone(), now: time, config: text.clone(), ..input(1, 0) };
        asked.demand.oldest_wait = span;
        asked.extensions = vec![(text.clone(), String::new())];
        asked.signals = vec![scaling::Signal { name: text.clone(), value: Err(text), age: span }];
        let answer = scaling::Decision {
            desired: 1, reason: String::new(), victims: vec![u32::MAX], wake_after: Some(span), valid_until: Some(time),
            state: bytes, extensions: Vec::new(),
        };
        let record = record(Exchange::Scale { input: Box::new(asked), answer: Some(answer) });
        prop_assert_eq!(again(&record), record);
    }
}

#[test]
fn odd_numbers_come_back_bit_for_bit() {
    let odd = [0.0, -0.0, 0.1 + 0.2, f64::MIN_POSITIVE, 5e-324, f64::MAX, f64::MIN, f64::EPSILON, 1e23, -1.5];
    let record = with_signals(odd.into_iter().map(signal).collect());
    assert_eq!(bits(&again(&record)), odd.map(f64::to_bits));
}

#[test]
fn each_kind_of_probe_answer_comes_back() {
    use busyness::{ExecAnswer, HttpAnswer, Probe};
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let probes = [
        Probe::None,
        Probe::Annotation(None),
        Probe::Annotation(Some("\u{2028}\"\\\n\0".to_owned())),
        Probe::Condition(Some("True".to_owned())),
        Probe::Http(HttpAnswer { status: u16::MAX, body: all.clone() }),
        Probe::Exec(ExecAnswer { exit_code: i32::MIN, stdout: Vec::new() }),
        Probe::Redis(None),
        Probe::Redis(Some(all)),
        Probe::Error("no route".to_owned()),
    ];
    let pods = probes.into_iter().map(|probe| busyness::Evidence {
        probe,
        last: Some((busyness::VerdictState::Busy, i64::MIN)),
        age: u64::MAX,
        ..evidence(busyness::VerdictState::Idle)
    });
    let asked = busyness::Input {
        now: i64::MAX,
        pool: fixtures::pool(),
        config: "{}".to_owned(),
        asks: None,
        pods: pods.collect(),
        extensions: Vec::new(),
    };
    let record = record(Exchange::Classify { input: Box::new(asked), answer: None });
    assert_eq!(again(&record), record);
}

#[test]
fn leads_and_errors_come_back() {
    let answer =
        warm_up::Decision { lead: 1, reason: "a".to_owned(), state: vec![0], extensions: Vec::new() };
    for (answer, error) in [(Some(answer), None), (None, Some("trap"))] {
        let mut record = record(Exchange::Lead { input: Box::new(warm_up_input()), answer });
        record.outcome.error =
            error.map(|kind| Fault { kind: kind.to_owned(), words: "it \"stopped\"".to_owned() });
        record.outcome.took_microseconds = Some(u64::MAX);
        assert_eq!(again(&record), record);
    }
}

#[tokio::test]
async fn what_was_recorded_is_the_same_when_it_is_asked_again_and_what_was_not_said_is_told() {
    let host = host();
    let buffer = builtin(&host, "buffer").await;
    let asked = input(2, 3);
    let (answer, outcome) = parts(host.scale(&buffer, limits(1_000), asked.clone()).await);
    assert!(outcome.took_microseconds.is_some(), "{outcome:?}");
    let exchange = Exchange::Scale { input: Box::new(asked), answer };
    let record = again(&Record::new(&buffer, limits(1_000), exchange, outcome));
    let replayed = record.replay(&host, &buffer).await;
    assert_eq!(replayed.comparison, Comparison::Same);

    let mut other = record.clone();
    let Exchange::Scale { answer: Some(answer), .. } = &mut other.exchange else { panic!("{other:?}") };
    answer.state.push(1);
    let replayed = other.replay(&host, &buffer).await;
    assert_eq!(replayed.comparison, Comparison::Differs);
    assert_eq!((&replayed.now.exchange, &replayed.now.digest), (&record.exchange, &record.digest));
}

#[tokio::test]
async fn an_endless_decision_is_the_same_again_and_a_lack_of_time_then_says_nothing() {
    let (host, endless) = loaded(Guest { scale: SPIN, ..Guest::default() }).await;
    let (answer, outcome) = parts(host.scale(&endless, limits(20), input(1, 0)).await);
    assert_eq!(outcome.error.as_ref().map(|fault| fault.kind.as_str()), Some("timeout"));
    let exchange = Exchange::Scale { input: Box::new(input(1, 0)), answer };
    let record = again(&Record::new(&endless, limits(20), exchange, outcome));
    assert_eq!(record.replay(&host, &endless).await.comparison, Comparison::Same);

    let buffer = builtin(&host, "buffer").await;
    assert_eq!(record.replay(&host, &buffer).await.comparison, Comparison::Machine);
    let quick = Record { digest: buffer.digest().to_string(), ..record.clone() };
    assert_eq!(quick.replay(&host, &buffer).await.comparison, Comparison::Machine);
}
