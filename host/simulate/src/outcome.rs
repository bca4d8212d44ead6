//! What came of a load: who waited, what it cost, and how it went over time.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::best::Best;

/// A moment of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// Requests that run or wait.
    pub demand: u32,
    /// Pods at work.
    pub busy: u32,
    /// Pods that are Ready and free.
    pub standby: u32,
    /// Pods that are not Ready yet.
    pub starting: u32,
    /// Pods that there should be.
    pub target: u32,
}

/// What came of a load.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The load's name.
    pub load: String,
    /// The policy's name.
    pub policy: String,
    /// Requests.
    pub requests: usize,
    /// Requests that found no standby when they came.
    pub misses: usize,
    /// Requests that were still waiting at the end: with them the pool was full.
    pub unserved: usize,
    /// Requests whose pod was removed while it was at work. Always 0, or core breaks its first promise (I1).
    pub interrupted: usize,
    /// Half of all requests waited at most so long, in milliseconds.
    pub wait_p50: i64,
    /// Ninety-nine of a hundred.
    pub wait_p99: i64,
    /// Hours of all pods together, from creation to removal.
    pub pod_hours: f64,
    /// Of those, hours at work.
    pub busy_hours: f64,
    /// The fewest with which hindsight serves every request at once.
    pub best_hours: f64,
    /// The most pods at a time.
    pub most_pods: u32,
    /// Pods created.
    pub created: usize,
    /// Pods removed.
    pub removed: usize,
    /// Times that the pool was looked at.
    pub looks: usize,
    /// Times that the policy was asked and gave no answer.
    pub failures: usize,
    /// Why the first of those gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From the first request to the end of the last.
    #[serde(skip)]
    pub simulated: SignedDuration,
    /// How it went, at most so often as something changed.
    #[serde(skip)]
    pub points: Vec<Point>,
}

impl Outcome {
    /// The share of requests that were served at once, in percent.
    pub fn at_once(&self) -> f64 {
        if self.requests == 0 { 100.0 } else { 100.0 * (1.0 - self.misses as f64 / self.requests as f64) }
    }

    /// By how much it cost more than the best, in percent. Who serves fewer at once may cost less.
    pub fn above_best(&self) -> f64 {
        if self.best_hours == 0.0 { 0.0 } else { 100.0 * (self.pod_hours / self.best_hours - 1.0) }
    }
}

/// What is counted while a simulation runs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub waits: Vec<i64>,
    pub misses: usize,
    pub interrupted: usize,
    pub created: usize,
    pub removed: usize,
    pub looks: usize,
    pub failures: usize,
    pub error: Option<String>,
    pub most_pods: u32,
    pub pod_seconds: f64,
    pub busy_seconds: f64,
    pub points: Vec<Point>,
}

impl Tally {
    /// Time passes between two moments, with so many pods of which so many work.
    pub fn pass(&mut self, span: SignedDuration, pods: usize, busy: usize) {
        self.pod_seconds += span.as_secs_f64() * pods as f64;
        self.busy_seconds += span.as_secs_f64() * busy as f64;
    }

    /// Notes how it is now.
    pub fn note(&mut self, point: Point) {
        match self.points.last_mut() {
            Some(last) if last.at == point.at => *last = point,
            Some(last) if Point { at: point.at, ..*last } == point => {}
            _ => self.points.push(point),
        }
    }

    /// What came of it.
    pub fn finish(
        mut self,
        names: (&str, &str),
        unserved: usize,
        simulated: SignedDuration,
        best: &Best,
    ) -> Outcome {
        self.waits.sort_unstable();
        let at = |percent: usize| {
            let place = (self.waits.len() * percent).div_ceil(100).saturating_sub(1);
            self.waits.get(place).copied().unwrap_or(0)
        };
        Outcome {
            load: names.0.to_owned(),
            policy: names.1.to_owned(),
            requests: self.waits.len() + unserved,
            misses: self.misses,
            unserved,
            interrupted: self.interrupted,
            wait_p50: at(50),
            wait_p99: at(99),
            pod_hours: self.pod_seconds / 3600.0,
            busy_hours: self.busy_seconds / 3600.0,
            best_hours: best.pod_hours,
            most_pods: self.most_pods,
            created: self.created,
            removed: self.removed,
            looks: self.looks,
            failures: self.failures,
            error: self.error,
            simulated,
            points: self.points,
        }
    }
}
