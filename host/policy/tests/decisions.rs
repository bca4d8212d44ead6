//! Decisions: what the built-ins answer, that the same input gives the same answer, and that
//! what a guest says is kept.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::sync::Arc;

use fixtures::{DECISION, Guest, builtin, evidence, host, input, limits, loaded};
use stoker_policy::contract::busyness;
use stoker_policy::{ConfigRefusal, LogLevel, builtin};

#[tokio::test]
async fn every_builtin_loads_and_takes_an_empty_config() {
    let host = host();
    for name in builtin::NAMES {
        let policy = builtin(&host, name).await;
        assert_eq!(policy.info().name, *name);
        host.validate(&policy, "{}", limits(1_000)).await.unwrap();
    }
    assert!(builtin::bytes("no-such").is_none());
}

#[tokio::test]
async fn the_buffer_is_what_is_busy_and_the_idle_target_within_the_bounds() {
    let host = host();
    let buffer = builtin(&host, "buffer").await;
    assert!(buffer.exports().scaling && !buffer.exports().busyness && !buffer.exports().warm_up);
    for (busy, idle, desired) in [(0, 0, 3), (2, 3, 5), (97, 0, 100), (100, 3, 100)] {
        let answer = host.scale(&buffer, limits(1_000), input(busy, idle)).await.unwrap();
        assert_eq!(answer.value.desired, desired, "{busy} busy: {}", answer.value.reason);
        assert!(!answer.value.reason.is_empty());
    }
}

#[tokio::test]
async fn a_config_that_a_policy_does_not_take_is_refused_with_its_words() {
    let host = host();
    let policy = builtin(&host, "percent-buffer").await;
    let refusal = host.validate(&policy, r#"{"percent": -5}"#, limits(1_000)).await.unwrap_err();
    assert!(matches!(&refusal, ConfigRefusal::Invalid(words) if words[0].contains("percent")), "{refusal}");
}

#[tokio::test]
async fn the_probe_decides_which_pods_are_busy() {
    let host = host();
    let policy = builtin(&host, "probe-verdict").await;
    let states =
        [busyness::VerdictState::Busy, busyness::VerdictState::Idle, busyness::VerdictState::Unknown];
    let input = busyness::Input {
        now: 0,
        pool: fixtures::pool(),
        config: "{}".into(),
        asks: None,
        pods: states.into_iter().map(evidence).collect(),
        extensions: vec![],
    };
    let answer = host.classify(&policy, limits(1_000), input).await.unwrap();
    let verdicts: Vec<_> = answer.value.iter().map(|verdict| verdict.state).collect();
    assert_eq!(verdicts, states);
}

#[tokio::test]
async fn two_policies_take_turns() {
    let host = host();
    let four =
        host.load(Guest { scale: "(i32.store (i32.const 2048) (i32.const 4))", ..Guest::default() }.bytes());
    let nine =
        host.load(Guest { scale: "(i32.store (i32.const 2048) (i32.const 9))", ..Guest::default() }.bytes());
    let (four, nine) = (four.await.unwrap(), nine.await.unwrap());
    assert_ne!(four.digest(), nine.digest());
    for (policy, desired) in [(&four, 4), (&nine, 9), (&four, 4), (&nine, 9)] {
        let answer = host.scale(policy, limits(1_000), input(0, 0)).await.unwrap();
        assert_eq!(answer.value.desired, desired);
    }
}

#[tokio::test]
async fn an_instance_remembers_nothing() {
    let (host, policy) = loaded(Guest {
        more: "(global $calls (mut i32) (i32.const 0))",
        scale: "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (global.get $calls)))",
        ..Guest::default()
    })
    .await;
    for _ in 0..5 {
        let answer = host.scale(&policy, limits(1_000), input(0, 0)).await.unwrap();
        assert_eq!(answer.value.desired, 1);
    }
}

/// A guest whose state is 8 random bytes, the wall clock's seconds and nanoseconds, and the
/// monotonic clock's reading after it has slept for an hour.
fn tells_time_and_chance() -> Guest {
    assert_eq!(DECISION, 2048);
    Guest {
        world: "package: wasi:random@0.2.6; interface random { get-random-u64: func() -> u64; }
                package: wasi:io@0.2.6; interface poll { resource pollable { block: func(); } }
                package: wasi:clocks@0.2.6;
                    interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
                    interface monotonic-clock {
                        use wasi:io/poll@0.2.6.{pollable};
                        now: func() -> u64; subscribe-duration: func(when: u64) -> pollable;
                    }
                world: import wasi:random/random@0.2.6; import wasi:clocks/wall-clock@0.2.6;
                    import wasi:clocks/monotonic-clock@0.2.6;
                    include stoker:policy/scaling-policy@1.0.0;",
        imports: r#"
            (import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))
            (import "wasi:clocks/wall-clock@0.2.6" "now" (func $wall (param i32)))
            (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $monotonic (result i64)))
            (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $wait (param i64) (result i32)))
            (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))"#,
        scale: "(call $block (call $wait (i64.const 3600000000000)))
            (i64.store (i32.const 3000) (call $random))
            (call $wall (i32.const 3008))
            (i64.store (i32.const 3024) (call $monotonic))
            (i32.store (i32.const 2104) (i32.const 3000)) (i32.store (i32.const 2108) (i32.const 32))",
        ..Guest::default()
    }
}

#[tokio::test]
async fn the_same_input_gives_the_same_answer_and_clocks_stand() {
    let (host, policy) = loaded(tells_time_and_chance()).await;
    let first = host.scale(&policy, limits(1_000), input(2, 3)).await.unwrap();
    let again = host.scale(&policy, limits(1_000), input(2, 3)).await.unwrap();
    assert_eq!(first.value, again.value);

    let number = |from: usize| u64::from_le_bytes(first.value.state[from..from + 8].try_into().unwrap());
    assert_eq!(number(8), 1_700_000_000);
    assert_eq!(number(16) as u32, 123_000_000);
    assert_eq!(number(24), 1_700_000_000_123_000_000);
}

#[tokio::test]
async fn another_pool_or_another_time_gets_other_random_numbers() {
    let (host, policy) = loaded(tells_time_and_chance()).await;
    let mut states = Vec::new();
    for (now, uid) in [(1, "a"), (2, "a"), (1, "b")] {
        let mut input = input(2, 3);
        (input.now, input.pool.uid) = (now, uid.into());
        states.push(host.scale(&policy, limits(1_000), input).await.unwrap().value.state[..8].to_vec());
    }
    assert!(states[0] != states[1] && states[0] != states[2] && states[1] != states[2]);
}

#[tokio::test]
async fn what_a_guest_logs_is_kept_with_the_answer() {
    let (host, policy) = loaded(Guest {
        imports: r#"(import "stoker:policy/log@1.0.0" "write" (func $write (param i32 i32 i32)))"#,
        scale: "(call $write (i32.const 2) (i32.const 16) (i32.const 4))",
        ..Guest::default()
    })
    .await;
    let answer = host.scale(&policy, limits(1_000), input(2, 3)).await.unwrap();
    assert_eq!(answer.log.len(), 1);
    assert_eq!((answer.log[0].level, answer.log[0].message.as_str()), (LogLevel::Warn, "test"));
}

/// Writes `test` to standard error, then does what `then` says.
fn says_and(then: &'static str) -> Guest {
    Guest {
        world: "package: wasi:io@0.2.6; interface error { resource error; }
                    interface streams {
                        use error.{error};
                        variant stream-error { last-operation-failed(error), closed }
                        resource output-stream {
                            blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                        }
                    }
                package: wasi:cli@0.2.6; interface exit { exit: func(status: result); }
                    interface stderr { use wasi:io/streams@0.2.6.{output-stream}; get-stderr: func() -> output-stream; }
                package: wasi:filesystem@0.2.6; interface types { remove-everything: func(); }
                world: import wasi:cli/stderr@0.2.6; import wasi:cli/exit@0.2.6; import wasi:filesystem/types@0.2.6;
                    include stoker:policy/scaling-policy@1.0.0;",
        imports: r#"
            (import "wasi:cli/stderr@0.2.6" "get-stderr" (func $stderr (result i32)))
            (import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))
            (import "wasi:filesystem/types@0.2.6" "remove-everything" (func $remove))
            (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush"
                (func $write (param i32 i32 i32 i32)))"#,
        more: "(func $say (call $write (call $stderr) (i32.const 16) (i32.const 4) (i32.const 3000)))",
        scale: then,
        ..Guest::default()
    }
}

#[tokio::test]
async fn standard_error_is_kept_with_the_answer() {
    let (host, policy) = loaded(says_and("(call $say) (call $say)")).await;
    let answer = host.scale(&policy, limits(1_000), input(2, 3)).await.unwrap();
    let said: Vec<_> = answer.log.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(said, [(LogLevel::Stderr, "testtest")]);
}

#[tokio::test]
async fn what_a_guest_does_instead_of_answering_is_told_with_its_last_words() {
    for (then, words) in [
        ("(call $say) unreachable", "unreachable"),
        ("(call $say) (call $exit (i32.const 1))", "exited with code 1"),
        (
            "(call $say) (call $remove)",
            "called wasi:filesystem/types#remove-everything, and a policy has no files",
        ),
    ] {
        let (host, policy) = loaded(says_and(then)).await;
        let error = host.scale(&policy, limits(1_000), input(2, 3)).await.unwrap_err();
        assert_eq!(error.kind(), "trap");
        let text = error.to_string();
        assert!(text.contains(words) && text.ends_with("it last wrote: test"), "{text}");
    }
}

#[tokio::test]
async fn dropping_the_host_ends_its_calls() {
    let (host, policy) = loaded(Guest { scale: fixtures::SPIN, ..Guest::default() }).await;
    let (other, held) = (host.clone(), Arc::clone(&policy));
    let call = tokio::spawn(async move { other.scale(&held, limits(50), input(2, 3)).await });
    drop((host, policy));
    assert_eq!(call.await.unwrap().unwrap_err().kind(), "timeout");
}
