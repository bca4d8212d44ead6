//! The hostile corpus: what somebody may upload to harm the operator, a row each. Every row ends
//! as its line says, at the step and with the very words, and the host decides as before.
#![allow(clippy::unwrap_used)]

#[path = "hostile/answers.rs"]
mod answers;
#[path = "hostile/bombs.rs"]
mod bombs;
#[path = "hostile/case.rs"]
mod case;
#[path = "hostile/files.rs"]
mod files;
mod fixtures;
#[path = "hostile/greed.rs"]
mod greed;
#[path = "hostile/process.rs"]
mod process;
#[path = "hostile/shape.rs"]
mod shape;
#[path = "hostile/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use case::{Case, End};
use fixtures::{Guest, builtin, input, limits, options};
use stoker_policy::{HostOptions, PolicyHost};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Messages are for a status, an Event and a terminal.
const LONGEST_MESSAGE: usize = 2 << 10;
/// What the host's process may hold more than before, at its peak.
const MEMORY_GROWTH: u64 = 100 << 20;

static PANICS: AtomicUsize = AtomicUsize::new(0);
/// The tests look at the memory and the children of their common process, one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i8_the_hostile_corpus_ends_in_words_and_harms_nothing() {
    let _alone = ALONE.lock().await;
    std::panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        PANICS.fetch_add(1, SeqCst);
    }));
    let cases = [files::rows(), shape::rows(), greed::rows(), answers::rows(), world::rows()].concat();
    let bombs = bombs::rows();
    let host = PolicyHost::new(options()).unwrap();
    still_decides(&host, "the beginning").await;

    process::forget_peak();
    let before = process::peak_bytes();
    println!("{:62} {:8} {:16} {:>7}  message", "name", "step", "kind", "ms");
    let mut wrong = run(&host, &cases).await;
    let (refused, decided) = files::flips(&host, 200).await;
    println!("200 bits flipped: {refused} refused, {decided} decided");
    for (compile_limits, cases) in &bombs {
        let host = PolicyHost::new(HostOptions { compile_limits: *compile_limits, ..options() }).unwrap();
        wrong.extend(run(&host, cases).await);
    }
    let growth = process::peak_bytes().saturating_sub(before);
    println!("the host's peak of memory grew by {} MiB over {} MiB", growth >> 20, before >> 20);

    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(PANICS.load(SeqCst), 0, "the host panicked");
    assert!(growth < MEMORY_GROWTH, "{growth} bytes");
}

/// Runs the rows one after the other; returns what is not as it must be.
async fn run(host: &PolicyHost, cases: &[Case]) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let started = Instant::now();
        let end = case.run(host).await;
        report(case, &end, started);
        if end != case.end {
            wrong.push(format!("{}:\n   is {end:?}\n  not {:?}", case.name, case.end));
        }
        if let End::Fails(_, kind, message) = &end {
            wrong.extend(in_words(kind, message).map(|problem| format!("{}: {problem}", case.name)));
        }
        still_decides(host, &case.name).await;
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_costly_components_of_one_tenant_do_not_hold_up_another_ones() {
    let _alone = ALONE.lock().await;
    let host = PolicyHost::new(HostOptions { compilers: 2, ..options() }).unwrap();
    let mut costly = JoinSet::new();
    for number in 0..4 {
        let (host, bytes) = (host.clone(), Arc::from(bombs::endless(number)));
        costly.spawn(async move { host.load_for("mallory", bytes).await.map(drop) });
    }
    until("both compilers have a costly one", || process::compilers() == 2).await;
    let good = Guest { scale: "(i32.store (i32.const 2048) (i32.const 7))", ..Guest::default() };
    let policy = host.load_for("alice", good.bytes()).await.unwrap();
    assert!(costly.try_join_next().is_none(), "a costly one ended first");
    let answer = host.scale(&policy, limits(8_000), input(2, 3)).await.unwrap();
    assert_eq!(answer.value.desired, 7);

    costly.shutdown().await;
    until("no compiler is left", || process::compilers() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiling_ends_when_nobody_waits_for_it() {
    let _alone = ALONE.lock().await;
    let host = PolicyHost::new(options()).unwrap();
    let mut load = Box::pin(host.load(bombs::endless(0).into()));
    tokio::select! {
        ended = &mut load => panic!("it ended: {ended:?}"),
        () = until("the compiler runs", || process::compilers() == 1) => {}
    }
    drop(load);
    until("the compiler is gone", || process::compilers() == 0).await;
    still_decides(&host, "a load that was given up").await;
}

/// Waits for a condition that holds within a second or so on an idle machine.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn report(case: &Case, end: &End, started: Instant) {
    let took = started.elapsed().as_millis();
    let (step, kind, message) = match end {
        End::Fails(step, kind, message) => (format!("{step:?}"), *kind, message.as_str()),
        End::Answers(_) => ("-".to_owned(), "harmless", ""),
    };
    println!(
        "{:62} {step:8} {kind:16} {took:>7}  {}",
        case.name,
        &message[..message.floor_char_boundary(3000)]
    );
}

/// What is wrong with a message: it fits where it is shown, and the fault is never the host's own.
fn in_words(kind: &str, message: &str) -> Option<String> {
    if message.is_empty() || message.len() > LONGEST_MESSAGE {
        return Some(format!("a message of {} bytes", message.len()));
    }
    let wrong = message.contains(char::is_control)
        || ["host", "busy"].contains(&kind)
        || message.contains("panicked");
    wrong.then(|| format!("{message:?}"))
}

/// The host goes on deciding for others.
async fn still_decides(host: &PolicyHost, after: &str) {
    let good = builtin(host, "buffer").await;
    let answer = host.scale(&good, limits(8_000), input(2, 3)).await.unwrap();
    assert_eq!(answer.value.desired, 5, "after {after}");
}
