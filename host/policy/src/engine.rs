//! The WebAssembly engine's settings, and the clock that ends calls which take too long. The
//! settings are what makes a decision repeatable and a guest bounded; nothing else sets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::error::HostError;
use crate::limits::{Limits, STACK_BYTES, TABLE_ELEMENTS};

/// One step of the clock that deadlines are counted in.
const TICK: Duration = Duration::from_millis(1);
/// Steps without a call after which the clock stops. Waking it costs more than a few idle steps.
const IDLE_TICKS: u32 = 50;

/// Linear memories kept ready. More than run at once, so that a policy finds a slot that still
/// holds its image when several policies take turns. With `Limits::MAX_MEMORY_BYTES` each this
/// reserves 4 GiB of addresses, not of memory.
const MEMORY_SLOTS: u32 = 64;
/// What one component may hold; components that tools make have about four core instances.
const CORE_INSTANCES_PER_COMPONENT: u32 = 32;
const MEMORIES_PER_COMPONENT: u32 = 8;
const TABLES_PER_COMPONENT: u32 = 16;
/// Bytes of a slot that are zeroed in place rather than given back to the system.
const KEEP_RESIDENT: usize = 32 << 10;
/// An image of a memory's first contents may be this large however little of it is data; a larger
/// one is at least half data. Otherwise some bytes of a component become 16 MiB of code each.
const SPARSE_IMAGE_BYTES: u64 = 64 << 10;
/// Beyond the end of a memory. Bounds are checked in code, so it needs to cover small offsets only.
const GUARD_BYTES: u64 = 64 << 10;

/// The engine that runs components, for at most `threads` calls at a time.
pub(crate) fn runner(threads: usize) -> Result<Engine, HostError> {
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(threads)
        .total_core_instances(threads.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(MEMORY_SLOTS.max(threads.saturating_mul(MEMORIES_PER_COMPONENT)))
        .total_tables(MEMORY_SLOTS.max(threads.saturating_mul(TABLES_PER_COMPONENT)))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(Limits::MAX_MEMORY_BYTES)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT);

    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    engine(&config)
}

/// The engine that compiles what [`runner`] runs, without room for instances.
pub(crate) fn compiler() -> Result<Engine, HostError> {
    engine(&settings())
}

/// The engine that counts instructions.
pub(crate) fn meter() -> Result<Engine, HostError> {
    let mut config = settings();
    config.consume_fuel(true);
    engine(&config)
}

fn engine(config: &Config) -> Result<Engine, HostError> {
    Engine::new(config).map_err(|error| HostError::Engine(format!("{error:#}")))
}

/// What compiled code depends on: the same for both engines.
fn settings() -> Config {
    let mut config = Config::new();
    config
        .memory_reservation(Limits::MAX_MEMORY_BYTES as u64)
        .memory_guard_size(GUARD_BYTES)
        .memory_guaranteed_dense_image_size(SPARSE_IMAGE_BYTES)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // The same input must give the same answer on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        .shared_memory(false)
        // A trap's message is for people who have the source, not the addresses.
        .wasm_backtrace_max_frames(None);
    config
}

/// Advances the engine's epoch while calls run, and sleeps while none does.
pub(crate) struct Clock {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    parked: AtomicBool,
    stopped: AtomicBool,
}

/// A call that the clock counts for, until it is dropped.
pub(crate) struct Running<'a>(&'a Shared);

impl Clock {
    /// Starts the clock's thread.
    pub(crate) fn start(engine: &Engine) -> Result<Self, HostError> {
        let shared = Arc::new(Shared::default());
        let (engine, state) = (engine.clone(), Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("policy-clock".into())
            .spawn(move || tick(&engine, &state))
            .map_err(|error| HostError::Thread(error.to_string()))?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Counts a call in, waking the clock if it sleeps.
    pub(crate) fn run(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, SeqCst);
        if self.shared.parked.load(SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }

    /// Deadline for [`wasmtime::Store::set_epoch_deadline`]. One more than needed, because the
    /// present step has begun already.
    pub(crate) fn ticks(timeout: Duration) -> u64 {
        u64::try_from(timeout.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn tick(engine: &Engine, shared: &Shared) {
    let mut idle = 0;
    let mut due = Instant::now() + TICK;
    while !shared.stopped.load(SeqCst) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A late wake-up makes up for the steps that it missed.
        while due <= Instant::now() {
            engine.increment_epoch();
            due += TICK;
        }
        idle = if shared.running.load(SeqCst) == 0 { idle + 1 } else { 0 };
        if idle < IDLE_TICKS {
            continue;
        }
        // `parked` is set before `running` is read, and `run` does it the other way round, so a
        // call that begins now is seen here or wakes this thread.
        shared.parked.store(true, SeqCst);
        while shared.running.load(SeqCst) == 0 && !shared.stopped.load(SeqCst) {
            thread::park();
        }
        shared.parked.store(false, SeqCst);
        due = Instant::now() + TICK;
    }
}
