//! For the benchmark only: calls that share an instance, to tell what a fresh one costs.

use std::time::{Duration, Instant};

use wasmtime::Store;

use crate::contract::scaling;
use crate::limits::{ANSWER_BYTES, Budget, HANDLES, Limits};
use crate::policy::Policy;
use crate::state::{Seed, State};

/// How long each of `rounds` calls takes in one instance of `policy`, on this thread.
///
/// # Errors
/// When the policy does not export scaling, or a call fails.
pub fn reused(policy: &Policy, input: &scaling::Input, rounds: usize) -> wasmtime::Result<Vec<Duration>> {
    let linked = &policy.linked;
    let budget = Budget::new(Limits::MAX_MEMORY_BYTES);
    let mut store = Store::new(linked.pre.engine(), State::new(Seed::default(), budget));
    store.limiter(|state| &mut state.budget);
    store.set_max_component_handles(HANDLES);
    store.set_epoch_deadline(u64::MAX / 2);
    let instance = linked.pre.instantiate(&mut store)?;
    let indices = linked.scaling.as_ref().ok_or_else(|| wasmtime::Error::msg("no scaling"))?;
    let guest = indices.load(&mut store, &instance)?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        store.set_hostcall_fuel(ANSWER_BYTES);
        let started = Instant::now();
        guest.call_scale(&mut store, input)?;
        times.push(started.elapsed());
    }
    Ok(times)
}
