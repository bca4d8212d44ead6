//! Compiling, which nothing in the engine bounds: a crafted component of 100 KB takes minutes and
//! gigabytes. So it happens in a child process of the same program with limits on processor time
//! and memory, a few at a time, and fairly: one who uploads many costly components waits behind
//! the others.
//!
//! ```text
//! queue ─ turn ─▶ child: bytes on stdin ─ limits, compile ─▶ artefact on stdout ─▶ load
//! ```

mod artefact;
mod child;
mod program;
mod queue;

use std::time::Duration;

pub(crate) use artefact::Artefact;
pub(crate) use child::{Ended, compile};
pub use program::main as compile_program;
pub(crate) use queue::{Pace, Queue};

/// What compiling one component may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Processor time, in whole seconds. Default 60 s: interpreters of JavaScript and Python take
    /// about 20 s, a policy in Rust a tenth of a second.
    pub cpu: Duration,
    /// Memory, as address space. Default 1 GiB: the interpreters take 300 MB.
    pub memory_bytes: u64,
}

impl CompileLimits {
    /// Processor time of the first try. A component that needs more gives its turn to the others
    /// and begins anew when a turn for costly ones is free.
    pub(crate) const QUICK: Duration = Duration::from_secs(5);
    /// Wall time for a second of processor time: the child gives way to everything else, and
    /// other work may be going on.
    pub(crate) const WALL_FACTOR: u32 = 10;

    pub(crate) fn quick(self) -> Self {
        Self { cpu: self.cpu.min(Self::QUICK), ..self }
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { cpu: Duration::from_secs(60), memory_bytes: 1 << 30 }
    }
}

/// What compiling one component took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileCost {
    /// From the start of the child to its end.
    pub took: Duration,
    /// The most memory that the child held, in bytes, its own program included; 0 when it did not
    /// live to tell.
    pub peak_bytes: u64,
}
