//! What a decision costs whoever makes it: instructions and memory, which are the same on every machine. For the
//! author's tools; the operator bounds time instead.

use wasmtime::component::Component;
use wasmtime::{Engine, Store};

use crate::call::Failure;
use crate::contract::{busyness, scaling, warm_up};
use crate::digest::Digest;
use crate::engine;
use crate::error::{CallError, Refusal};
use crate::limits::{ANSWER_BYTES, Budget, HANDLES, Limits};
use crate::observer::{Nobody, Observer};
use crate::policy::{self, Linked, misfit};
use crate::state::{Seed, State};

/// More than any call may take.
const FUEL: u64 = u64::MAX / 2;

/// A question to a policy.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// How many replicas.
    Scale(scaling::Input),
    /// Which pods are busy.
    Classify(busyness::Input),
    /// How early to begin.
    Lead(warm_up::Input),
}

/// What one decision took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// WebAssembly instructions, as the engine counts them: about one for each, instantiation included.
    pub instructions: u64,
    /// The most memory that the instance held, in bytes.
    pub memory_bytes: usize,
}

/// A component that is compiled to count its instructions.
pub struct Meter {
    engine: Engine,
    linked: Linked,
}

impl Meter {
    /// Compiles a component within this process and without limits: of one's own only.
    ///
    /// # Errors
    /// Why the component is no policy.
    pub fn new(bytes: &[u8]) -> Result<Self, Refusal> {
        crate::check::check(bytes, usize::MAX)?;
        let host = |error: &dyn std::fmt::Display| Refusal::Host(error.to_string());
        let engine = engine::meter().map_err(|error| host(&error))?;
        let component =
            Component::new(&engine, bytes).map_err(|error| Refusal::Compile(format!("{error:#}")))?;
        let linker = policy::linker(&engine).map_err(|error| misfit(&error))?;
        let observer: std::sync::Arc<dyn Observer> = std::sync::Arc::new(Nobody);
        let linked = Linked::new(Digest::of(bytes), &linker, &component, &observer)?;
        Ok(Self { engine, linked })
    }

    /// What an answer to a question takes.
    ///
    /// # Errors
    /// When there is none.
    pub fn cost(&self, asked: &Asked) -> Result<Cost, CallError> {
        let (now, uid) = match asked {
            Asked::Scale(input) => (input.now, &input.pool.uid),
            Asked::Classify(input) => (input.now, &input.pool.uid),
            Asked::Lead(input) => (input.now, &input.pool.uid),
        };
        let seed = Seed { now, uid: uid.clone() };
        let mut store = Store::new(&self.engine, State::new(seed, Budget::new(Limits::MAX_MEMORY_BYTES)));
        store.limiter(|state| &mut state.budget);
        store.set_hostcall_fuel(ANSWER_BYTES);
        store.set_max_component_handles(HANDLES);
        self.run(&mut store, asked).map_err(|failure| match failure {
            Failure::Engine(error) => CallError::Trap(format!("{error:#}")),
            Failure::Answer(words) => CallError::Answer(words),
        })?;
        let left = store.get_fuel().map_err(|error| CallError::Host(error.to_string()))?;
        Ok(Cost { instructions: FUEL - left, memory_bytes: store.data().budget.memory() })
    }

    fn run(&self, store: &mut Store<State>, asked: &Asked) -> Result<(), Failure> {
        store.set_fuel(FUEL)?;
        // No clock runs: it is never reached.
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = self.linked.pre.instantiate(&mut *store)?;
        let missing = |name: &str| Failure::Answer(format!("the policy does not export {name}"));
        match asked {
            Asked::Scale(input) => {
                let indices = self.linked.scaling.as_ref().ok_or_else(|| missing("scaling"))?;
                indices.load(&mut *store, &instance)?.call_scale(&mut *store, input)?;
            }
            Asked::Classify(input) => {
                let indices = self.linked.busyness.as_ref().ok_or_else(|| missing("busyness"))?;
                indices.load(&mut *store, &instance)?.call_classify(&mut *store, input)?;
            }
            Asked::Lead(input) => {
                let indices = self.linked.warm_up.as_ref().ok_or_else(|| missing("warm-up"))?;
                indices.load(&mut *store, &instance)?.call_lead(&mut *store, input)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::scaling::{Counts, Demand, Startup};
    use crate::contract::types::PoolIdentity;

    fn asked(pods: u32) -> Asked {
        let zero = Counts {
            current: 0,
            ready: 0,
            starting: 0,
            idle: pods,
            busy: 0,
            claimed: 0,
            unknown: 0,
            terminating: 0,
            unschedulable: 0,
            failed: 0,
        };
        let pod = scaling::Pod {
            state: crate::contract::types::PodState::Idle,
            since: 0,
            age: 0,
            node: 0,
            cordoned: false,
            template_current: true,
        };
        Asked::Scale(scaling::Input {
            now: 0,
            pool: PoolIdentity {
                kind: String::new(),
                namespace: String::new(),
                name: String::new(),
                uid: String::new(),
                generation: 1,
            },
            config: "{}".to_owned(),
            minimum: 0,
            maximum: 10,
            idle_target: 1,
            counts: zero,
            demand: Demand { waiting: 0, misses: 0, oldest_wait: 0 },
            pods: vec![pod; pods as usize],
            history: Vec::new(),
            startup: Startup { samples: 0, p50: 0, p90: 0, p99: 0 },
            signals: Vec::new(),
            previous: None,
            state: Vec::new(),
            extensions: Vec::new(),
        })
    }

    #[test]
    fn instructions_are_the_same_each_time_and_more_for_more_pods() {
        let meter = Meter::new(crate::builtin::bytes("buffer").unwrap()).unwrap();
        let one = meter.cost(&asked(1)).unwrap();
        assert_eq!(one, meter.cost(&asked(1)).unwrap());
        let many = meter.cost(&asked(1000)).unwrap();
        assert!(many.instructions > one.instructions && one.instructions > 0, "{one:?} {many:?}");
        assert!(one.memory_bytes >= 64 << 10, "{one:?}");
    }

    #[test]
    fn what_is_not_exported_costs_nothing() {
        let meter = Meter::new(crate::builtin::bytes("fixed-lead").unwrap()).unwrap();
        assert!(meter.cost(&asked(1)).unwrap_err().to_string().contains("does not export scaling"));
    }
}
