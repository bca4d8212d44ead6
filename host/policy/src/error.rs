//! What can go wrong, in words for the status of the object that references the policy. Each
//! message says what to do next; each error has a short name for metric labels.

use std::time::Duration;

use crate::limits::Limits;

/// Why the host could not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HostError {
    /// The WebAssembly engine refused its settings.
    #[error(
        "the WebAssembly engine does not start: {0}; check that the platform is x86_64 or aarch64 Linux and that `ulimit -v` leaves 8 GiB of address space"
    )]
    Engine(String),
    /// A thread could not be started.
    #[error("cannot start a thread for policies: {0}; raise the limit on processes (pids)")]
    Thread(String),
}

/// Why a component is not used as a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are something else.
    #[error("not a WebAssembly component: {found}")]
    NotAComponent {
        /// What the bytes look like, and what to do.
        found: String,
    },
    /// A core module, which tools make when they are not told to make a component.
    #[error(
        "is a core WebAssembly module, not a component: build with `--target wasm32-wasip2` or `cargo component build`"
    )]
    CoreModule,
    /// Larger than [`crate::HostOptions::max_component_bytes`].
    #[error(
        "the component has {bytes} bytes, at most {max} are allowed: strip it, or build it optimised for size"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes end early or are not well formed.
    #[error("the component is damaged or cut short: {0}; build and upload it again")]
    Damaged(String),
    /// It does not keep to the contract in `wit/`.
    #[error("the component does not fit the contract stoker:policy@1.0.0: {0}")]
    Contract(String),
    /// The compiler gave up.
    #[error("the component does not compile: {0}")]
    Compile(String),
    /// Compiling took more processor time than [`crate::CompileLimits::cpu`].
    #[error(
        "compiling the component takes more than {} s of processor time: make it smaller, leave out code that is not needed, split large functions", limit.as_secs()
    )]
    CompileTime {
        /// The limit.
        limit: Duration,
    },
    /// Compiling took more memory than [`crate::CompileLimits::memory_bytes`].
    #[error(
        "compiling the component takes more than {} MiB of memory: make it smaller, leave out code that is not needed, split large functions", limit >> 20
    )]
    CompileMemory {
        /// The limit in bytes.
        limit: u64,
    },
    /// The fault is not the component's; another try may succeed.
    #[error("the component could not be compiled: {0}")]
    Host(String),
    /// `describe`, the first call, failed.
    #[error("describe failed: {0}")]
    Describe(#[source] CallError),
}

impl Refusal {
    /// Whether another try with the same bytes may end differently.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Host(_)
                | Self::Describe(CallError::Timeout { .. } | CallError::Busy { .. } | CallError::Host(_))
        )
    }

    /// A short name for metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAComponent { .. } => "not-a-component",
            Self::CoreModule => "core-module",
            Self::TooLarge { .. } => "too-large",
            Self::Damaged(_) => "damaged",
            Self::Contract(_) => "contract",
            Self::Compile(_) => "compile",
            Self::CompileTime { .. } => "compile-time",
            Self::CompileMemory { .. } => "compile-memory",
            Self::Host(_) => "host",
            Self::Describe(_) => "describe",
        }
    }
}

/// Why a call gave no answer that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It ran longer than allowed.
    #[error("{call} took longer than {limit:?}: make it faster{}", or_raise("timeoutMilliseconds", call, limit < &Limits::MAX_TIMEOUT))]
    Timeout {
        /// The function that was called.
        call: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// It wanted more memory than allowed and could not go on without.
    #[error("{call} needs more than {} MiB of memory: use less{}", limit >> 20, or_raise("memoryMiB", call, limit < &Limits::MAX_MEMORY_BYTES))]
    Memory {
        /// The function that was called.
        call: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// It wanted larger tables than allowed.
    #[error("{call} needs more than {limit} table elements: link less code into the component")]
    Tables {
        /// The function that was called.
        call: &'static str,
        /// The limit in elements, over all tables.
        limit: usize,
    },
    /// It recursed too deep.
    #[error("{call} used up its stack of {} KiB: bound its recursion", crate::limits::STACK_BYTES >> 10)]
    Stack {
        /// The function that was called.
        call: &'static str,
    },
    /// It stopped by itself: a panic, an abort, an exit, or something that no policy may do.
    #[error("{0}")]
    Trap(String),
    /// It answered with something that the contract does not allow.
    #[error("{0}")]
    Answer(String),
    /// The component does not export the interface that was asked.
    #[error("the policy does not export {0}: the built-in rule decides")]
    Missing(&'static str),
    /// Too many calls wait already.
    #[error("{waiting} calls of this policy wait already: make it faster, or use it for fewer objects")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// The fault is Stoker's own.
    #[error("the policy host failed: {0}; report this with the operator's log")]
    Host(String),
}

/// The advice to raise a limit, where that helps: `describe` runs for no object, and nothing is
/// past the largest limit.
fn or_raise(limit: &str, call: &str, larger: bool) -> String {
    if larger && call != "describe" { format!(", or raise policy.limits.{limit}") } else { String::new() }
}

impl CallError {
    /// A short name for metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Memory { .. } => "memory",
            Self::Tables { .. } => "tables",
            Self::Stack { .. } => "stack",
            Self::Trap(_) => "trap",
            Self::Answer(_) => "answer",
            Self::Missing(_) => "missing",
            Self::Busy { .. } => "busy",
            Self::Host(_) => "host",
        }
    }
}

/// Why a configuration is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRefusal {
    /// The policy says so; each entry is a sentence of its own.
    #[error("the policy refuses its config: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// `validate` gave no answer.
    #[error("the config could not be checked: {0}")]
    Call(#[from] CallError),
}
