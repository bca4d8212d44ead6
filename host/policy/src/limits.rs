//! The bounds on a call, and the count of memory and tables that an instance holds. Sums over the
//! whole instance, because the engine's own limits are for each memory.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// Stack for WebAssembly code. Every instance of an engine has the same.
pub(crate) const STACK_BYTES: usize = 512 << 10;
/// What a guest may hand to the host at once: an answer, or one message. The contract says 1 MiB;
/// the rest is for the fixed parts of records.
pub(crate) const ANSWER_BYTES: usize = (1 << 20) + (64 << 10);
/// Elements in all tables together; the largest language runtimes have about 20,000.
pub(crate) const TABLE_ELEMENTS: usize = 200_000;
/// Live handles to host resources such as streams; a runtime holds a handful.
pub(crate) const HANDLES: usize = 1_000;

/// What one call may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processor time from the start of instantiation to the end of the call; 10 s more by the wall
    /// clock, without the wait for a thread. 1 ms to 10 s, default 100 ms.
    pub timeout: Duration,
    /// Bytes in all linear memories together. 1 MiB to 64 MiB, default 32 MiB.
    pub memory_bytes: usize,
}

impl Limits {
    /// The longest time that may be allowed.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(10);
    /// The most memory that may be allowed: what a slot of the allocator reserves.
    pub const MAX_MEMORY_BYTES: usize = 64 << 20;

    /// `describe` runs once for each component, before any object's limits are known.
    pub(crate) const DESCRIBE: Self =
        Self { timeout: Duration::from_secs(1), memory_bytes: Self::MAX_MEMORY_BYTES };

    /// The same, but no longer than that.
    pub(crate) fn within(self, longest: Duration) -> Self {
        Self { timeout: self.timeout.min(longest), ..self }
    }

    /// The same, within what may be allowed.
    pub(crate) fn clamped(self) -> Self {
        Self {
            timeout: self.timeout.clamp(Duration::from_millis(1), Self::MAX_TIMEOUT),
            memory_bytes: self.memory_bytes.clamp(1 << 20, Self::MAX_MEMORY_BYTES),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(100), memory_bytes: 32 << 20 }
    }
}

/// Counts what an instance holds and refuses growth past the limits.
///
/// A refused growth does not end the call: a guest may cope with it. When the call fails after
/// all, the refusal is the cause that gets reported.
#[derive(Debug)]
pub(crate) struct Budget {
    memory_limit: usize,
    memory: usize,
    tables: usize,
    pub(crate) memory_refused: bool,
    pub(crate) tables_refused: bool,
}

impl Budget {
    /// Bytes of memory that the instance holds: it never gives any back.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    pub(crate) fn new(memory_limit: usize) -> Self {
        Self { memory_limit, memory: 0, tables: 0, memory_refused: false, tables_refused: false }
    }
}

/// The new total, if it is within the limit.
fn grown(total: usize, current: usize, desired: usize, limit: usize) -> Option<usize> {
    total.checked_add(desired.saturating_sub(current)).filter(|sum| *sum <= limit)
}

impl ResourceLimiter for Budget {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let Some(sum) = grown(self.memory, current, desired, self.memory_limit) else {
            self.memory_refused = true;
            return Ok(false);
        };
        self.memory = sum;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let Some(sum) = grown(self.tables, current, desired, TABLE_ELEMENTS) else {
            self.tables_refused = true;
            return Ok(false);
        };
        self.tables = sum;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_are_summed() {
        let mut budget = Budget::new(3 << 16);
        assert!(budget.memory_growing(0, 1 << 16, None).unwrap());
        assert!(budget.memory_growing(0, 1 << 16, None).unwrap());
        assert!(budget.memory_growing(1 << 16, 2 << 16, None).unwrap());
        assert!(!budget.memory_growing(1 << 16, 2 << 16, None).unwrap());
        assert!(budget.memory_refused);
    }

    #[test]
    fn a_growth_past_the_address_space_is_refused() {
        let mut budget = Budget::new(usize::MAX);
        assert!(budget.memory_growing(0, usize::MAX, None).unwrap());
        assert!(!budget.memory_growing(0, usize::MAX, None).unwrap());
    }

    #[test]
    fn limits_stay_within_what_may_be_allowed() {
        let wild = Limits { timeout: Duration::from_secs(3600), memory_bytes: usize::MAX }.clamped();
        assert_eq!(wild, Limits { timeout: Limits::MAX_TIMEOUT, memory_bytes: Limits::MAX_MEMORY_BYTES });
        let none = Limits { timeout: Duration::ZERO, memory_bytes: 0 }.clamped();
        assert_eq!(none, Limits { timeout: Duration::from_millis(1), memory_bytes: 1 << 20 });
    }
}
