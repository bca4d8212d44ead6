//! The policy host that the operator holds: asks policies on the policy threads, and hands out
//! their answers. It may block nobody who calls it.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use wasmtime::component::{Instance, Linker};
use wasmtime::{Engine, Store};

use crate::answer;
use crate::call::{self, Answer, Failure};
use crate::compile::{CompileLimits, Queue};
use crate::contract::{busyness, scaling, warm_up};
use crate::engine::{self, Clock};
use crate::error::{CallError, ConfigRefusal, HostError, Refusal};
use crate::limits::Limits;
use crate::loader::Cache;
use crate::observer::{Nobody, Observer};
use crate::policy::{self, Linked, Policy};
use crate::record::{Exchange, Record, parts};
use crate::state::{Seed, State};
use crate::workers::{Ran, Workers};

/// How much the host may take.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Calls that run at the same time; at least two, as half of them are for policies that are
    /// quick. Default: the number of processors, 2 to 4.
    pub threads: usize,
    /// Calls of one policy that may wait for a thread. Default 4096: a call waits for each object,
    /// and a restart asks for all of them.
    pub max_waiting: usize,
    /// Components that are compiled at the same time; at least two, so that one which takes long
    /// leaves a place for the others. Default 2.
    pub compilers: usize,
    /// What compiling one component may cost.
    pub compile_limits: CompileLimits,
    /// The program whose `compile MEMORY-BYTES CPU-SECONDS` runs [`crate::compile_program`].
    /// Default: the running program itself, also when its file has been replaced since.
    pub compiler: PathBuf,
    /// Largest component. Default 32 MiB.
    pub max_component_bytes: usize,
}

impl Default for HostOptions {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        Self {
            threads: processors.clamp(2, 4),
            max_waiting: 4096,
            compilers: 2,
            compile_limits: CompileLimits::default(),
            compiler: "/proc/self/exe".into(),
            max_component_bytes: 32 << 20,
        }
    }
}

/// Loads policies and asks them. A clone is the same host.
#[derive(Clone)]
pub struct PolicyHost(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) max_component_bytes: usize,
    pub(crate) cache: Cache,
    pub(crate) compilers: Arc<Queue>,
    pub(crate) compile_limits: CompileLimits,
    pub(crate) compiler: PathBuf,
    pub(crate) observer: Arc<dyn Observer>,
    clock: Arc<Clock>,
    workers: Workers,
}

impl PolicyHost {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the engine or a thread does not start.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        Self::observed(options, Arc::new(Nobody))
    }

    /// Starts the threads; `observer` is told of all work.
    ///
    /// # Errors
    /// When the engine or a thread does not start.
    pub fn observed(options: HostOptions, observer: Arc<dyn Observer>) -> Result<Self, HostError> {
        let threads = options.threads.max(2);
        let engine = engine::runner(threads)?;
        let linker = policy::linker(&engine).map_err(|error| HostError::Engine(format!("{error:#}")))?;
        Ok(Self(Arc::new(Inner {
            clock: Arc::new(Clock::start(&engine)?),
            workers: Workers::start(threads, options.max_waiting.max(1))?,
            compilers: Queue::new(options.compilers),
            compile_limits: options.compile_limits,
            compiler: options.compiler,
            observer,
            cache: Cache::default(),
            max_component_bytes: options.max_component_bytes,
            linker,
            engine,
        })))
    }

    /// The policy that `bytes` are, for nobody in particular: see [`Self::load_for`].
    ///
    /// # Errors
    /// Why the component is not used.
    pub async fn load(&self, bytes: Arc<[u8]>) -> Result<Arc<Policy>, Refusal> {
        self.load_for("", bytes).await
    }

    /// The policy that `bytes` are: checked against the contract, compiled, linked and described.
    ///
    /// The work is done once for a digest, even when many ask at once, and kept for as long as
    /// somebody holds the policy, or it is among the last ones that were wanted. When everybody
    /// who asked has given up, the work ends. Tenants (namespaces, say) take turns at the compiler.
    ///
    /// # Errors
    /// Why the component is not used. Unless the fault is the host's, that is remembered.
    pub async fn load_for(&self, tenant: &str, bytes: Arc<[u8]>) -> Result<Arc<Policy>, Refusal> {
        crate::loader::load(&self.0, tenant, bytes).await
    }

    /// Asks the policy whether it takes `config`, a JSON text.
    ///
    /// # Errors
    /// The policy's own sentences, or why it gave no answer.
    pub async fn validate(
        &self,
        policy: &Arc<Policy>,
        config: &str,
        limits: Limits,
    ) -> Result<(), ConfigRefusal> {
        let config = config.to_owned();
        let run = move |linked: &Linked, store: &mut Store<State>, instance: &Instance| {
            let guest = linked.settings.load(&mut *store, instance)?;
            match guest.call_validate(&mut *store, &config)? {
                Ok(()) => Ok(Vec::new()),
                Err(errors) => answer::config_errors(errors).map_err(Failure::Answer),
            }
        };
        let answer = self.0.ask(&policy.linked, limits, Seed::default(), "validate", run).await?;
        if answer.value.is_empty() { Ok(()) } else { Err(ConfigRefusal::Invalid(answer.value)) }
    }

    /// Asks how many replicas the pool should have.
    ///
    /// # Errors
    /// Why there is no answer that counts: I3 says what then.
    pub async fn scale(
        &self,
        policy: &Arc<Policy>,
        limits: Limits,
        input: scaling::Input,
    ) -> Result<Answer<scaling::Decision>, CallError> {
        if policy.linked.scaling.is_none() {
            return Err(CallError::Missing("scaling"));
        }
        let kept = self.kept(&input);
        let seed = Seed { now: input.now, uid: input.pool.uid.clone() };
        let run = move |linked: &Linked, store: &mut Store<State>, instance: &Instance| {
            let indices = linked.scaling.as_ref().ok_or_else(|| missing("scaling"))?;
            let guest = indices.load(&mut *store, instance)?;
            let mut answer = guest.call_scale(&mut *store, &input)?;
            answer::scale(&mut answer, &input).map_err(Failure::Answer)?;
            Ok(answer)
        };
        let answer = self.0.ask(&policy.linked, limits, seed, "scale", run).await;
        if let Some(input) = kept {
            let (said, outcome) = parts(answer.clone());
            let exchange = Exchange::Scale { input, answer: said };
            self.0.observer.decided(Record::new(policy, limits, exchange, outcome));
        }
        answer
    }

    /// Asks which pods are busy. The answer has a verdict for each pod of the input, in its order.
    ///
    /// # Errors
    /// Why there is no answer that counts; the verdicts are unknown then.
    pub async fn classify(
        &self,
        policy: &Arc<Policy>,
        limits: Limits,
        input: busyness::Input,
    ) -> Result<Answer<Vec<busyness::Verdict>>, CallError> {
        if policy.linked.busyness.is_none() {
            return Err(CallError::Missing("busyness"));
        }
        let kept = self.kept(&input);
        let seed = Seed { now: input.now, uid: input.pool.uid.clone() };
        let run = move |linked: &Linked, store: &mut Store<State>, instance: &Instance| {
            let indices = linked.busyness.as_ref().ok_or_else(|| missing("busyness"))?;
            let guest = indices.load(&mut *store, instance)?;
            let mut answer = guest.call_classify(&mut *store, &input)?;
            answer::classify(&mut answer, input.pods.len()).map_err(Failure::Answer)?;
            Ok(answer)
        };
        let answer = self.0.ask(&policy.linked, limits, seed, "classify", run).await;
        if let Some(input) = kept {
            let (said, outcome) = parts(answer.clone());
            let exchange = Exchange::Classify { input, answer: said };
            self.0.observer.decided(Record::new(policy, limits, exchange, outcome));
        }
        answer
    }

    /// Asks how long before the next instant the warm-up begins.
    ///
    /// # Errors
    /// Why there is no answer that counts; the configured warm-up holds then.
    pub async fn lead(
        &self,
        policy: &Arc<Policy>,
        limits: Limits,
        input: warm_up::Input,
    ) -> Result<Answer<warm_up::Decision>, CallError> {
        if policy.linked.warm_up.is_none() {
            return Err(CallError::Missing("warm-up"));
        }
        let kept = self.kept(&input);
        let seed = Seed { now: input.now, uid: input.pool.uid.clone() };
        let run = move |linked: &Linked, store: &mut Store<State>, instance: &Instance| {
            let indices = linked.warm_up.as_ref().ok_or_else(|| missing("warm-up"))?;
            let guest = indices.load(&mut *store, instance)?;
            let mut answer = guest.call_lead(&mut *store, &input)?;
            answer::lead(&mut answer).map_err(Failure::Answer)?;
            Ok(answer)
        };
        let answer = self.0.ask(&policy.linked, limits, seed, "lead", run).await;
        if let Some(input) = kept {
            let (said, outcome) = parts(answer.clone());
            let exchange = Exchange::Lead { input, answer: said };
            self.0.observer.decided(Record::new(policy, limits, exchange, outcome));
        }
        answer
    }

    /// A copy of an input, if somebody wants records.
    fn kept<T: Clone>(&self, input: &T) -> Option<Box<T>> {
        self.0.observer.records().then(|| Box::new(input.clone()))
    }

    /// Calls that wait for a thread, for a gauge.
    pub fn waiting(&self) -> usize {
        self.0.workers.waiting()
    }

    /// Components compiled since the start, for a counter.
    pub fn compiled(&self) -> u64 {
        self.0.cache.compiled()
    }
}

fn missing(interface: &str) -> Failure {
    Failure::Answer(format!("the policy does not export {interface}"))
}

impl Inner {
    /// Puts a call into the queue. The answer arrives on the receiver; whoever drops it before a
    /// thread is free saves the call.
    fn submit<T: Send + 'static>(
        &self,
        linked: &Arc<Linked>,
        limits: Limits,
        seed: Seed,
        call: &'static str,
        function: impl Fn(&Linked, &mut Store<State>, &Instance) -> Result<T, Failure> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<Answer<T>, CallError>>, CallError> {
        let (sender, receiver) = oneshot::channel();
        let (policy, clock) = (Arc::clone(linked), Arc::clone(&self.clock));
        let mut sender = Some(sender);
        let job = Box::new(move |longest: Option<Duration>| {
            if sender.as_ref().is_none_or(oneshot::Sender::is_closed) {
                return Ran::Unwanted;
            }
            let given = longest.map_or(limits, |longest| limits.within(longest));
            let (answer, timing) =
                call::run(&policy, &clock, given, seed.clone(), call, |store, instance| {
                    function(&policy, store, instance)
                });
            if given != limits && matches!(answer, Err(CallError::Timeout { .. })) {
                return Ran::CutOff;
            }
            policy.lane.note(timing.processor);
            let outcome = answer.as_ref().err().map_or("ok", CallError::kind);
            policy.observer.called(&policy.digest, call, outcome, timing);
            // Nobody may be left to hear it, which is fine.
            let _ = sender.take().map(|sender| sender.send(answer));
            Ran::Done(timing.processor)
        });
        self.workers.submit(&linked.lane, job)?;
        Ok(receiver)
    }

    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        linked: &Arc<Linked>,
        limits: Limits,
        seed: Seed,
        call: &'static str,
        function: impl Fn(&Linked, &mut Store<State>, &Instance) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Answer<T>, CallError> {
        match self.submit(linked, limits, seed, call, function)?.await {
            Ok(answer) => answer,
            Err(_) => Err(gone(call)),
        }
    }
}

/// The thread dropped the call instead of answering.
fn gone(call: &str) -> CallError {
    CallError::Host(format!("{call} was dropped by its thread"))
}
