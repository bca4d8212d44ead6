//! What belongs to one call: its clock reading, random numbers, log and budget. It is made from
//! the input alone, so the same input gives the same answer.

use sha2::{Digest as _, Sha256};

use crate::contract::bindings::stoker::policy::{log, types};
use crate::limits::Budget;
use crate::log::{Log, LogLevel};

/// The store's data.
pub(crate) struct State {
    pub(crate) budget: Budget,
    pub(crate) log: Log,
    seed: Seed,
    random: Option<u64>,
}

/// From what clocks and random numbers derive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seed {
    /// Milliseconds since 1970.
    pub(crate) now: i64,
    /// UID of the object; empty for `describe` and `validate`, which are for no object.
    pub(crate) uid: String,
}

impl State {
    pub(crate) fn new(seed: Seed, budget: Budget) -> Self {
        Self { budget, log: Log::default(), seed, random: None }
    }

    /// Milliseconds since 1970; a time before that is taken as 1970.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.seed.now).unwrap_or(0)
    }

    /// The next number of the seeded sequence (SplitMix64). Nothing here needs to be secret.
    pub(crate) fn random(&mut self) -> u64 {
        let seed = &self.seed;
        let state = self.random.get_or_insert_with(|| first(seed));
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn first(seed: &Seed) -> u64 {
    let hash = Sha256::new().chain_update(seed.now.to_le_bytes()).chain_update(&seed.uid).finalize();
    hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl types::Host for State {}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.log.write(level, &message);
        Ok(())
    }
}
