//! A guest is bounded whatever it does (I8), and each bound is reported by its name.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fixtures::{Guest, SPIN, builtin, host, input, limits, loaded, options};
use stoker_policy::{CallError, ConfigRefusal, HostOptions, Limits, PolicyHost};

async fn scale_error(guest: Guest) -> CallError {
    let (host, policy) = loaded(guest).await;
    host.scale(&policy, limits(100), input(2, 3)).await.unwrap_err()
}

#[tokio::test]
async fn a_loop_in_scale_ends_at_the_time_limit() {
    let (host, policy) = loaded(Guest { scale: SPIN, ..Guest::default() }).await;
    let started = Instant::now();
    let error = host.scale(&policy, limits(50), input(2, 3)).await.unwrap_err();
    assert_eq!(error, CallError::Timeout { call: "scale", limit: Duration::from_millis(50) });
    let took = started.elapsed();
    assert!((50..10_100).contains(&took.as_millis()), "{took:?}");
    assert!(error.to_string().contains("timeoutMilliseconds"));
}

#[tokio::test]
async fn a_busy_machine_does_not_shorten_a_calls_time() {
    let scale = "(local $left i32)
        (local.set $left (i32.const 60000000))
        (loop $more
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $more (local.get $left)))";
    let (host, policy) = loaded(Guest { scale, ..Guest::default() }).await;
    let answer = host.scale(&policy, limits(10_000), input(2, 3)).await.unwrap();
    let limit = Limits { timeout: answer.timing.processor * 3 + Duration::from_millis(5), ..limits(1) };
    // Enough others for the call to take many times as long by the wall clock.
    let done = Arc::new(AtomicBool::new(false));
    let others = thread::available_parallelism().unwrap().get() * 4;
    let others: Vec<_> = (0..others)
        .map(|_| {
            let done = Arc::clone(&done);
            thread::spawn(move || while !done.load(Ordering::Relaxed) {})
        })
        .collect();
    let answers =
        [host.scale(&policy, limit, input(2, 3)).await, host.scale(&policy, limit, input(2, 3)).await];
    done.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|other| other.join().unwrap());
    for answer in answers {
        let timing = answer.unwrap().timing;
        println!("{limit:?} {timing:?}");
    }
}

#[tokio::test]
async fn a_loop_in_validate_ends_at_the_time_limit() {
    let (host, policy) = loaded(Guest { validate: SPIN, ..Guest::default() }).await;
    let refusal = host.validate(&policy, "{}", limits(20)).await.unwrap_err();
    assert!(matches!(refusal, ConfigRefusal::Call(CallError::Timeout { call: "validate", .. })), "{refusal}");
}

#[tokio::test]
async fn the_clock_wakes_up_again_for_a_call_after_a_rest() {
    let (host, policy) = loaded(Guest { scale: SPIN, ..Guest::default() }).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(120)).await;
        let call = host.scale(&policy, limits(20), input(2, 3));
        let error = tokio::time::timeout(Duration::from_secs(30), call).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), "timeout");
    }
}

#[tokio::test]
async fn endless_growth_of_memory_is_stopped() {
    // As allocators do: abort when memory cannot grow.
    let scale = "(loop $more
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $more))";
    let error = scale_error(Guest { scale, ..Guest::default() }).await;
    assert_eq!(error, CallError::Memory { call: "scale", limit: 32 << 20 });
}

#[tokio::test]
async fn a_guest_that_copes_with_refused_memory_may_answer() {
    let scale = "(drop (memory.grow (i32.const 5000)))";
    let (host, policy) = loaded(Guest { scale, ..Guest::default() }).await;
    host.scale(&policy, limits(100), input(2, 3)).await.unwrap();
}

#[tokio::test]
async fn memory_within_a_raised_limit_is_granted() {
    let scale = "(if (i32.eq (memory.grow (i32.const 600)) (i32.const -1)) (then unreachable))";
    let (host, policy) = loaded(Guest { scale, ..Guest::default() }).await;
    assert_eq!(host.scale(&policy, limits(500), input(2, 3)).await.unwrap_err().kind(), "memory");
    let raised = Limits { memory_bytes: 60 << 20, ..limits(500) };
    host.scale(&policy, raised, input(2, 3)).await.unwrap();
}

#[tokio::test]
async fn endless_growth_of_a_table_is_stopped() {
    let error = scale_error(Guest {
        more: "(table $t 1 funcref)",
        scale: "(loop $more
            (if (i32.eq (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1)) (then unreachable))
            (br $more))",
        ..Guest::default()
    })
    .await;
    assert_eq!(error.kind(), "tables", "{error}");
}

#[tokio::test]
async fn endless_recursion_is_stopped() {
    let scale = "(drop (call $scale (local.get $input)))";
    let error = scale_error(Guest { scale, ..Guest::default() }).await;
    assert_eq!(error, CallError::Stack { call: "scale" });
}

#[tokio::test]
async fn a_trap_is_reported_as_one() {
    let error = scale_error(Guest { scale: "unreachable", ..Guest::default() }).await;
    assert!(matches!(&error, CallError::Trap(words) if words.contains("unreachable")), "{error}");
}

#[tokio::test]
async fn a_huge_answer_is_refused() {
    // A reason of 8 MiB.
    let scale = "(drop (memory.grow (i32.const 200)))
        (i32.store (i32.const 2052) (i32.const 0)) (i32.store (i32.const 2056) (i32.const 8388608))";
    let error = scale_error(Guest { scale, ..Guest::default() }).await;
    assert!(matches!(&error, CallError::Answer(words) if words.contains("1 MiB")), "{error}");
}

#[tokio::test]
async fn a_reason_outside_of_the_memory_is_refused() {
    let scale =
        "(i32.store (i32.const 2052) (i32.const 0x7fffffff)) (i32.store (i32.const 2056) (i32.const 100))";
    let error = scale_error(Guest { scale, ..Guest::default() }).await;
    assert_eq!(error.kind(), "trap", "{error}");
}

#[tokio::test]
async fn invalid_answers_are_refused_in_words() {
    // Fields of the record at 2048 in the order of the contract; what they point to is zeros.
    let cases = [
        ("(i32.store (i32.const 2048) (i32.const 4000000000))", "desired 4000000000, at most 1000000"),
        ("(i32.store (i32.const 2056) (i32.const 1025))", "reason of 1025 bytes, at most 1024"),
        ("(i32.store (i32.const 2108) (i32.const 4097))", "state of 4097 bytes, at most 4096"),
        ("(i32.store8 (i32.const 2072) (i32.const 1))", "wake-after 0 ms"),
        // One victim: the pod whose index lies at 3000.
        (
            "(i32.store (i32.const 2060) (i32.const 3000)) (i32.store (i32.const 2064) (i32.const 1))",
            "is busy",
        ),
        (
            "(i32.store (i32.const 3000) (i32.const 7))
             (i32.store (i32.const 2060) (i32.const 3000)) (i32.store (i32.const 2064) (i32.const 1))",
            "victim 7, but there are 5 pods",
        ),
        (
            "(i32.store (i32.const 3000) (i32.const 4)) (i32.store (i32.const 3004) (i32.const 4))
             (i32.store (i32.const 2060) (i32.const 3000)) (i32.store (i32.const 2064) (i32.const 2))",
            "victim 4 twice",
        ),
        (
            "(i32.store (i32.const 2112) (i32.const 4096)) (i32.store (i32.const 2116) (i32.const 33))",
            "33 extensions",
        ),
    ];
    for (scale, words) in cases {
        let error = scale_error(Guest { scale, ..Guest::default() }).await;
        assert!(matches!(&error, CallError::Answer(text) if text.contains(words)), "{words}: {error}");
    }
}

#[tokio::test]
async fn an_interface_that_is_not_exported_is_missing() {
    let (host, policy) = loaded(Guest::default()).await;
    let error = host.lead(&policy, limits(100), fixtures::warm_up_input()).await.unwrap_err();
    assert_eq!(error, CallError::Missing("warm-up"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_policies_that_hang_do_not_hold_up_another_ones_calls() {
    let host = host();
    let buffer = builtin(&host, "buffer").await;
    host.scale(&buffer, limits(1_000), input(2, 3)).await.unwrap();
    // Two hanging policies with many objects each, as many as there are threads.
    let hanging =
        [Guest { scale: SPIN, ..Guest::default() }, Guest { scale: SPIN, memory: "3", ..Guest::default() }];
    let mut hung = tokio::task::JoinSet::new();
    for guest in hanging {
        let policy = host.load(guest.bytes()).await.unwrap();
        for _ in 0..50 {
            let (host, policy) = (host.clone(), Arc::clone(&policy));
            hung.spawn(async move { host.scale(&policy, limits(300), input(2, 3)).await });
        }
    }
    // Each may have run one call before it was known to be slow.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(host.waiting() > 50);
    for _ in 0..20 {
        let started = Instant::now();
        host.scale(&buffer, limits(1_000), input(2, 3)).await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(150), "{:?}", started.elapsed());
    }
    assert!(host.waiting() > 0, "the hanging policies were to be still at it");
    hung.abort_all();
}

#[tokio::test]
async fn calls_past_the_queue_are_turned_away() {
    let host = PolicyHost::new(HostOptions { max_waiting: 2, ..options() }).unwrap();
    let policy = host.load(Guest { scale: SPIN, ..Guest::default() }.bytes()).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (host, policy) = (host.clone(), Arc::clone(&policy));
        calls.spawn(async move { host.scale(&policy, limits(50), input(2, 3)).await.unwrap_err().kind() });
    }
    let kinds = calls.join_all().await;
    assert!(kinds.contains(&"busy") && kinds.contains(&"timeout"), "{kinds:?}");
}

#[tokio::test]
async fn calls_that_nobody_waits_for_are_skipped() {
    let (host, policy) = loaded(Guest { scale: SPIN, ..Guest::default() }).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (host, policy) = (host.clone(), Arc::clone(&policy));
        calls.spawn(async move { host.scale(&policy, limits(1_000), input(2, 3)).await });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    calls.shutdown().await;
    let started = Instant::now();
    host.scale(&policy, limits(10), input(2, 3)).await.unwrap_err();
    // All of them would take minutes.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}
