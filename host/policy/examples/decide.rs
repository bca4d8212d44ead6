//! Measures decisions, compiling and memory, all in one run, and prints Markdown.
//!
//! `cargo run --release -p stoker-policy --features bench --example decide`
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stoker_policy::contract::scaling;
use stoker_policy::{CompileCost, Digest, Limits, Observer, Policy, PolicyHost, Timing, bench, builtin};

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;

const ROUNDS: usize = 3_000;
/// The first tenth warms up.
const WARM_UP: usize = ROUNDS / 10;
const DISTINCT: u8 = 100;

#[derive(Default)]
struct Costs(Mutex<Option<CompileCost>>);

impl Observer for Costs {
    fn compiled(&self, _: &Digest, _: &'static str, cost: CompileCost) {
        *self.0.lock().unwrap() = Some(cost);
    }
    fn called(&self, _: &Digest, _: &'static str, _: &'static str, _: Timing) {}
    fn forgotten(&self, _: &Digest) {}
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    // The host starts this program again as its compiler.
    if let [_, command, memory, seconds] = &arguments[..]
        && command == "compile"
    {
        return stoker_policy::compile_program(memory.parse().unwrap(), seconds.parse().unwrap());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
    ExitCode::SUCCESS
}

async fn measure() {
    let costs = Arc::new(Costs::default());
    let host = PolicyHost::observed(Default::default(), costs.clone()).unwrap();
    println!("| policy | component | loaded in | of it the compiler | its memory |\n|---|---|---|---|---|");
    let mut policies = Vec::new();
    for name in builtin::NAMES {
        let bytes: Arc<[u8]> = builtin::bytes(name).unwrap().into();
        let (size, started) = (bytes.len() >> 10, Instant::now());
        let policy = host.load(bytes).await.unwrap();
        let took = started.elapsed();
        let cost = costs.0.lock().unwrap().take().unwrap();
        println!("| {name} | {size} KiB | {took:.1?} | {:.1?} | {} MiB |", cost.took, cost.peak_bytes >> 20);
        policies.push(policy);
    }
    println!(
        "\n| policy, pods | native p50 | reused instance p50 | fresh instance p50 / p99 | of it instantiation p50 | with queue and threads p50 / p99 | a second, one after the other |\n|---|---|---|---|---|---|---|"
    );
    for policy in policies.iter().filter(|policy| policy.exports().scaling) {
        let config =
            if policy.info().name == "expression" { r#"{"desired":"busy + idleTarget"}"# } else { "{}" };
        let config = if policy.info().name == "scheduled-buffer" {
            r#"{"windows":[{"start":"0 8 * * *","duration":"10h","idleTarget":5}]}"#
        } else {
            config
        };
        for pods in [0, 10, 100, 1_000] {
            decisions(&host, policy, config, pods).await;
        }
    }
    let before = memory();
    let mut held = Vec::new();
    for number in 0..DISTINCT {
        let component = [builtin::bytes("buffer").unwrap(), &[0, 3, 1, b'n', number]].concat();
        held.push(host.load(component.into()).await.unwrap());
    }
    let grown = memory().saturating_sub(before);
    println!(
        "\n{DISTINCT} distinct policies like `buffer`: {:.1} MiB, {} KiB each",
        grown as f64 / f64::from(1 << 20),
        grown / usize::from(DISTINCT) >> 10
    );
}

async fn decisions(host: &PolicyHost, policy: &Arc<Policy>, config: &str, pods: u32) {
    let input = || scaling::Input { config: config.to_owned(), ..fixtures::input(pods / 2, pods - pods / 2) };
    let limits = Limits { timeout: Duration::from_secs(1), ..Limits::default() };
    let (mut native, mut fresh, mut instantiate, mut whole) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS + WARM_UP {
        let given = input();
        let started = Instant::now();
        black_box(closure(black_box(&given)));
        let by_closure = started.elapsed();
        let started = Instant::now();
        let answer = host.scale(policy, limits, given).await.unwrap();
        if round >= WARM_UP {
            native.push(by_closure);
            whole.push(started.elapsed());
            fresh.push(answer.timing.total());
            instantiate.push(answer.timing.instantiate);
        }
    }
    let reused = bench::reused(policy, &input(), ROUNDS + WARM_UP).unwrap().split_off(WARM_UP);
    let second = 1.0 / (whole.iter().sum::<Duration>().as_secs_f64() / whole.len() as f64);
    println!(
        "| {}, {pods} | {:.2?} | {:.1?} | {:.1?} / {:.1?} | {:.1?} | {:.1?} / {:.1?} | {second:.0} |",
        policy.info().name,
        at(&mut native, 0.5),
        at(&mut reused.clone(), 0.5),
        at(&mut fresh, 0.5),
        at(&mut fresh, 0.99),
        at(&mut instantiate, 0.5),
        at(&mut whole, 0.5),
        at(&mut whole, 0.99),
    );
}

/// What `buffer` does, natively.
fn closure(input: &scaling::Input) -> (u32, String) {
    let in_use = input.counts.busy + input.counts.claimed + input.demand.waiting;
    let desired = (in_use + input.idle_target).clamp(input.minimum, input.maximum.max(input.minimum));
    (desired, format!("{in_use} busy + {} idle", input.idle_target))
}

fn at(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

/// Bytes of memory that this process holds.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}
