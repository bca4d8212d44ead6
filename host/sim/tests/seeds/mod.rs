//! Random stories by numbered seeds: `SEEDS=n` runs so many for each property (2,000 unless told), `SEED=n`
//! runs that one again. A story that breaks a promise is told in its smallest form.
#![allow(dead_code, clippy::unwrap_used)]

use std::cell::Cell;
use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

const SEEDS: u64 = 2_000;

/// How often a story that breaks a promise is made smaller.
const SHRINKING: u32 = 20_000;

thread_local! {
    /// What is done in a story is told.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Tells what is done, if it is to be.
pub fn tell(what: impl FnOnce() -> String) {
    if TELLING.get() {
        println!("{}", what());
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Draws the story of a seed, which is made smaller so often at most.
fn runner(seed: u64, max_shrink_iters: u32) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Whether a property of a story does not hold for one of the first seeds.
pub fn breaks<S: Strategy>(
    seeds: u64,
    story: S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) -> bool {
    (0..seeds).any(|seed| matches!(runner(seed, 0).run(&story, &property), Err(TestError::Fail(..))))
}

/// Checks a property of a story for each seed.
pub fn run<S: Strategy>(story: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Clone + Debug,
{
    run_few(SEEDS, story, property);
}

/// The same, for so many seeds unless told: of stories that take longer.
pub fn run_few<S: Strategy>(few: u64, story: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Clone + Debug,
{
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(few),
    };
    for seed in seeds {
        let mut runner = runner(seed, SHRINKING);
        match runner.run(&story, &property) {
            Ok(()) => {}
            Err(TestError::Fail(reason, story)) => {
                println!("the smallest story that breaks the promise:\n{story:#?}\nas it happens:");
                TELLING.set(true);
                // Once more, to tell what was done in it; how it ends is known.
                property(story).ok();
                panic!(
                    "seed {seed}: {reason}\nagain: SEED={seed} cargo test --workspace --test {}",
                    env!("CARGO_CRATE_NAME")
                )
            }
            Err(TestError::Abort(reason)) => panic!("seed {seed}: no story: {reason}"),
        }
    }
}
