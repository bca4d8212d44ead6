//! How much may be under way at once, so that memory, threads and files stay bounded whoever reports.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;
use crate::slot::PodSlot;

/// Bytes that one permit of the memory's semaphore stands for.
pub const UNIT: usize = 4 << 10;

/// Pods whose Events are remembered before those that have been silent are forgotten.
const REMEMBERED: usize = 10_000;

/// Bounds of the service itself; those of a NodeBatchJob come on top.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Uploads of files at once. Each takes about 200 KiB of memory.
    pub uploads: usize,
    /// Requests of one pod at once.
    pub per_pod: usize,
    /// Results and events at once.
    pub messages: usize,
    /// Bytes of results and events in memory at once.
    pub message_memory: usize,
    /// Bytes of a result's body; reading it takes some ten times as much for a moment.
    pub result_bytes: usize,
    /// Bytes of an event's body.
    pub event_bytes: usize,
    /// Events that a pod may send at once.
    pub event_burst: NonZeroU32,
    /// Events of a pod a minute, after those.
    pub events_per_minute: NonZeroU32,
    /// Requests at once of pods that the watch of the cluster has yet to show.
    pub strangers: usize,
    /// How long these are waited for.
    pub patience: Duration,
    /// How long a body may pause.
    pub idle: Duration,
    /// How long a body may take.
    pub whole: Duration,
    /// How long executions of NodeBatchJobs that are gone are kept.
    pub orphans: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uploads: 256,
            per_pod: 8,
            messages: 1024,
            message_memory: 16 << 20,
            result_bytes: 1 << 20,
            event_bytes: 64 << 10,
            event_burst: const { NonZeroU32::new(25).unwrap() },
            events_per_minute: const { NonZeroU32::new(12).unwrap() },
            strangers: 1024,
            patience: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            whole: Duration::from_secs(600),
            orphans: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// Lets requests in.
pub struct Gate {
    uploads: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    per_pod: usize,
    pods: Arc<Mutex<HashMap<PodSlot, usize>>>,
    events: DefaultKeyedRateLimiter<PodSlot>,
}

/// A request that was let in. Dropped, it makes room for another.
pub struct Pass {
    slot: PodSlot,
    pods: Arc<Mutex<HashMap<PodSlot, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub fn new(limits: &Limits) -> Self {
        Self {
            uploads: Arc::new(Semaphore::new(limits.uploads)),
            messages: Arc::new(Semaphore::new(limits.messages)),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            memory: Arc::new(Semaphore::new(limits.message_memory / UNIT)),
            per_pod: limits.per_pod,
            pods: Arc::default(),
            events: RateLimiter::keyed(
                Quota::per_minute(limits.events_per_minute).allow_burst(limits.event_burst),
            ),
        }
    }

    /// Whether the pod may send an Event now: each is a write to the API server.
    pub fn event(&self, slot: &PodSlot) -> Result<(), Refusal> {
        if self.events.len() > REMEMBERED {
            self.events.retain_recent();
        }
        self.events.check_key(slot).map_err(|early| {
            let wait = early.wait_time_from(DefaultClock::default().now());
            Refusal::EventsTooOften(wait.as_secs().saturating_add(1))
        })
    }

    /// Lets an upload in, or says that there are too many.
    pub fn upload(&self, slot: &PodSlot) -> Result<Pass, Refusal> {
        self.enter(&self.uploads, slot)
    }

    /// Lets a result or an event in, or says that there are too many.
    pub fn message(&self, slot: &PodSlot) -> Result<Pass, Refusal> {
        self.enter(&self.messages, slot)
    }

    /// Lets a request wait for its pod to be shown, or says that too many do.
    pub fn stranger(&self, slot: &PodSlot) -> Result<Pass, Refusal> {
        self.enter(&self.strangers, slot)
    }

    fn enter(&self, which: &Arc<Semaphore>, slot: &PodSlot) -> Result<Pass, Refusal> {
        let permit = which.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = pods.entry(slot.clone()).or_default();
        if *busy >= self.per_pod {
            return Err(Refusal::PodBusy);
        }
        *busy += 1;
        Ok(Pass { slot: slot.clone(), pods: self.pods.clone(), _permit: permit })
    }

    /// Room in memory for that many bytes of a message. Nobody waits for it while holding some.
    pub fn memory(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        self.memory.clone().try_acquire_many_owned(units).map_err(|_| Refusal::Busy)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(busy) = pods.get_mut(&self.slot) {
            *busy -= 1;
            if *busy == 0 {
                pods.remove(&self.slot);
            }
        }
    }
}
