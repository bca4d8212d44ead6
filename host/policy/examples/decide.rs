//! Prints how long a decision takes, each with a fresh instance: alone, and with the way to the
//! thread and back. `cargo run --release -p stoker-policy --example decide [POLICY.wasm]`
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;

const ROUNDS: usize = 5_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let host = stoker_policy::PolicyHost::new(Default::default()).unwrap();
    let bytes: Arc<[u8]> = match std::env::args().nth(1) {
        Some(file) => std::fs::read(file).unwrap().into(),
        None => stoker_policy::builtin::bytes("buffer").unwrap().into(),
    };
    let started = Instant::now();
    let policy = host.load(bytes).await.unwrap();
    println!("{} loaded in {:?}", policy.info().name, started.elapsed());
    let limits = fixtures::limits(1_000);
    for pods in [0, 100, 1_000] {
        let (mut alone, mut whole) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS + ROUNDS / 10 {
            let input = fixtures::input(pods / 2, pods - pods / 2);
            let started = Instant::now();
            let answer = host.scale(&policy, limits, input).await.unwrap();
            // The first tenth warms up.
            if round >= ROUNDS / 10 {
                whole.push(started.elapsed());
                alone.push(answer.timing.total());
            }
            if round == 0 && !answer.log.is_empty() {
                println!("{:?} {:?}", answer.value, answer.log);
            }
        }
        println!("{pods:>5} pods: call {}   with the threads {}", quantiles(alone), quantiles(whole));
    }
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!("p50 {:>8.1?} p99 {:>8.1?}", at(0.5), at(0.99))
}
