//! How long pods took from their creation until they were Ready for the first time, over a pool's last starts.

use std::collections::{HashSet, VecDeque};

use crate::PodView;

/// Starts that are remembered.
const KEPT: usize = 64;

/// The last starts of a pool.
#[derive(Clone, Debug, Default)]
pub struct Startups {
    /// In milliseconds, the newest last.
    took: VecDeque<u64>,
    /// Pods that have been noted, by UID.
    noted: HashSet<String>,
}

/// Starts of a pool, in milliseconds; all zero when none was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartupTimes {
    /// How many starts that is.
    pub samples: u32,
    /// Half of them took at most so long.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// Ninety-nine of a hundred.
    pub p99: u64,
}

impl Startups {
    /// Takes note of pods that are Ready for the first time. Kubernetes tells times in whole seconds, and of a pod whose
    /// containers were restarted not when it was Ready first.
    pub fn note(&mut self, pods: &[PodView]) {
        let present: HashSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.noted.retain(|uid| present.contains(uid.as_str()));
        for pod in pods.iter().filter(|pod| pod.ready()) {
            let since = pod.condition("Ready").and_then(|condition| condition.since);
            let Some(since) = since.filter(|_| self.noted.insert(pod.uid.clone()) && pod.restarts == 0)
            else {
                continue;
            };
            let took = since.duration_since(pod.created).as_millis();
            self.took.push_back(u64::try_from(took).unwrap_or(0));
            if self.took.len() > KEPT {
                self.took.pop_front();
            }
        }
    }

    /// What they tell.
    pub fn times(&self) -> StartupTimes {
        let mut sorted: Vec<u64> = self.took.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(place).copied().unwrap_or(0)
        };
        StartupTimes {
            samples: u32::try_from(sorted.len()).unwrap_or(u32::MAX),
            p50: at(50),
            p90: at(90),
            p99: at(99),
        }
    }
}
