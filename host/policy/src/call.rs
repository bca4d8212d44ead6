//! One call: a fresh instance, its limits, the answer or the reason why there is none. It runs on
//! one of the policy threads and keeps nothing for the next call.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::Instance;
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::engine::Clock;
use crate::error::CallError;
use crate::limits::{ANSWER_BYTES, Budget, HANDLES, Limits, TABLE_ELEMENTS};
use crate::log::{LogLine, brief};
use crate::policy::Linked;
use crate::state::{Seed, State};

/// The engine's words for a guest that hands over more than [`ANSWER_BYTES`]; it has no type for it.
const TOO_MUCH: &str = "fuel allocated for hostcalls has been exhausted";

/// How much longer than its limit on processor time a call may take by the wall clock, on a machine that is busy.
const WALL_SLACK: Duration = Duration::from_secs(10);

/// What a policy answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// The answer, within the contract's bounds.
    pub value: T,
    /// What the policy noted on the way, at most 64 lines and 8 KiB.
    pub log: Vec<LogLine>,
    /// How many more lines there were.
    pub log_dropped: u32,
    /// How long it took.
    pub timing: Timing,
}

/// How long a call took, without the wait for a thread: by the wall clock where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Making the instance; its start functions are part of it.
    pub instantiate: Duration,
    /// The call itself.
    pub call: Duration,
    /// Processor time of both together, which a busy machine does not prolong.
    pub processor: Duration,
}

impl Timing {
    /// Instance and call together.
    pub fn total(self) -> Duration {
        self.instantiate + self.call
    }
}

/// Processor time of this thread since its start.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Why the guest's function gave nothing.
pub(crate) enum Failure {
    /// The engine ended it.
    Engine(wasmtime::Error),
    /// The answer is not valid.
    Answer(String),
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Engine(error)
    }
}

/// Runs `function` of a fresh instance of `policy`.
pub(crate) fn run<T>(
    policy: &Linked,
    clock: &Clock,
    limits: Limits,
    seed: Seed,
    call: &'static str,
    function: impl FnOnce(&mut Store<State>, &Instance) -> Result<T, Failure>,
) -> (Result<Answer<T>, CallError>, Timing) {
    let limits = limits.clamped();
    let (started, began) = (Instant::now(), processor_time());
    let running = clock.run();
    let mut store = Store::new(policy.pre.engine(), State::new(seed, Budget::new(limits.memory_bytes)));
    store.limiter(|state| &mut state.budget);
    store.set_hostcall_fuel(ANSWER_BYTES);
    store.set_max_component_handles(HANDLES);
    // Set once: instantiation, which may run the guest's start functions, counts, too.
    store.set_epoch_deadline(Clock::ticks(limits.timeout));
    // The clock counts wall time, and makes up in one go for what it was late: neither is the call's doing.
    store.epoch_deadline_callback(move |_| {
        let left = limits.timeout.saturating_sub(processor_time().saturating_sub(began));
        if left.is_zero() || started.elapsed() >= limits.timeout + WALL_SLACK {
            return Err(Trap::Interrupt.into());
        }
        Ok(UpdateDeadline::Continue(Clock::ticks(left)))
    });

    let instance = policy.pre.instantiate(&mut store);
    let instantiate = started.elapsed();
    let result = match instance {
        Ok(instance) => function(&mut store, &instance),
        Err(error) => Err(Failure::Engine(error)),
    };
    drop(running);
    let mut state = store.into_data();
    let timing = Timing {
        instantiate,
        call: started.elapsed().saturating_sub(instantiate),
        processor: processor_time().saturating_sub(began),
    };
    let answer = match result {
        Ok(value) => {
            let (log, log_dropped) = state.log.finish();
            Ok(Answer { value, log, log_dropped, timing })
        }
        Err(Failure::Answer(problem)) => Err(CallError::Answer(problem)),
        Err(Failure::Engine(error)) => Err(in_words(&error, &mut state, limits, call)),
    };
    (answer, timing)
}

fn in_words(error: &wasmtime::Error, state: &mut State, limits: Limits, call: &'static str) -> CallError {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => return CallError::Timeout { call, limit: limits.timeout },
        Some(Trap::StackOverflow) => return CallError::Stack { call },
        _ => {}
    }
    if state.budget.memory_refused {
        return CallError::Memory { call, limit: limits.memory_bytes };
    }
    if state.budget.tables_refused {
        return CallError::Tables { call, limit: TABLE_ELEMENTS };
    }
    let text = format!("{error:#}");
    if text.contains(TOO_MUCH) {
        return CallError::Answer(format!("{call} handed over more than 1 MiB at once: answer with less"));
    }
    let said = state.log.last_words().map(|words| format!("; it last wrote: {words}")).unwrap_or_default();
    CallError::Trap(format!("{call} stopped: {}{said}", brief(&text)))
}
