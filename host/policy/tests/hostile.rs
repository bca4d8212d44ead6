//! The hostile corpus: what somebody may upload to harm the operator, a row each. Every row ends
//! as its line says, at the step and with the very words, and the host decides as before.
#![allow(clippy::unwrap_used)]

mod fixtures;
#[path = "hostile/answers.rs"]
mod answers;
#[path = "hostile/case.rs"]
mod case;
#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/greed.rs"]
mod greed;
#[path = "hostile/process.rs"]
mod process;
#[path = "hostile/shape.rs"]
mod shape;
#[path = "hostile/world.rs"]
mod world;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use case::{Case, End};
use fixtures::{builtin, input, limits, options};
use stoker_policy::PolicyHost;

/// Messages are for a status, an Event and a terminal.
const LONGEST_MESSAGE: usize = 2 << 10;
/// What the host's process may hold more than before, at its peak.
const MEMORY_GROWTH: u64 = 300 << 20;

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i8_the_hostile_corpus_ends_in_words_and_harms_nothing() {
    std::panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        PANICS.fetch_add(1, SeqCst);
    }));
    let cases: Vec<Case> = [files::rows(), shape::rows(), greed::rows(), answers::rows(), world::rows()].into_iter().flatten().collect();
    let host = PolicyHost::new(options()).unwrap();
    still_decides(&host, "the beginning").await;

    process::forget_peak();
    let before = process::peak_bytes();
    let mut wrong = Vec::new();
    println!("{:62} {:8} {:16} {:>7}  message", "name", "step", "kind", "ms");
    for case in &cases {
        let started = Instant::now();
        let end = case.run(&host).await;
        report(case, &end, started);
        if end != case.end {
            wrong.push(format!("{}:\n   is {end:?}\n  not {:?}", case.name, case.end));
        }
        if let End::Fails(_, kind, message) = &end {
            in_words(&case.name, kind, message);
        }
        still_decides(&host, &case.name).await;
    }
    let (refused, decided) = files::flips(&host, 200).await;
    let growth = process::peak_bytes().saturating_sub(before);
    println!("200 bits flipped: {refused} refused, {decided} decided");
    println!("the host's peak of memory grew by {} MiB over {} MiB", growth >> 20, before >> 20);
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(PANICS.load(SeqCst), 0, "the host panicked");
    assert!(growth < MEMORY_GROWTH, "{growth} bytes");
}

fn report(case: &Case, end: &End, started: Instant) {
    let took = started.elapsed().as_millis();
    let (step, kind, message) = match end {
        End::Fails(step, kind, message) => (format!("{step:?}"), *kind, message.as_str()),
        End::Answers(_) => ("-".to_owned(), "harmless", ""),
    };
    println!("{:62} {step:8} {kind:16} {took:>7}  {}", case.name, &message[..message.floor_char_boundary(3000)]);
}

/// A message fits where it is shown, and the fault is never the host's own.
fn in_words(name: &str, kind: &str, message: &str) {
    assert!(!message.is_empty() && message.len() <= LONGEST_MESSAGE, "{name}: {} bytes", message.len());
    assert!(!message.contains(char::is_control), "{name}: {message:?}");
    assert!(!["host", "busy"].contains(&kind) && !message.contains("panicked"), "{name}: {message}");
}

/// The host goes on deciding for others.
async fn still_decides(host: &PolicyHost, after: &str) {
    let good = builtin(host, "buffer").await;
    let answer = host.scale(&good, limits(8_000), input(2, 3)).await.unwrap();
    assert_eq!(answer.value.desired, 5, "after {after}");
}
