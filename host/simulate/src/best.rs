//! The best with hindsight: the fewest pod-hours with which every request is served at once.
//!
//! At each moment at least as many pods must be Ready as requests run. Sort the moments by level: the k-th pod is needed
//! whenever at least k requests run. Between two times at which it is needed, whoever knows the future either keeps it
//! idle, or lets it go and has another one ready in time, which costs the start-up time: the cheaper of both. As the pool
//! had time to fill before the load begins, each level may be Ready from then on, at no more than waiting until its first
//! use. Levels do not depend on each other, so that their sum is the least there is. The start-up time that counts is the
//! median: with pods that all start as fast, nobody who serves every request at once takes less; where start-up times
//! vary, a lucky policy may by a little.

use jiff::{SignedDuration, Timestamp};

use crate::load::Load;

/// What hindsight needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Hours of all pods together, from creation to removal.
    pub pod_hours: f64,
    /// Of those, hours at work.
    pub busy_hours: f64,
    /// The most requests that run at a time.
    pub peak: usize,
}

/// The best for a load. Where pods are `Jobs`, each serves one request, so that none is kept and each costs its start, but for those
/// that are Ready when the load begins.
pub fn best(load: &Load, startup: SignedDuration, jobs: bool) -> Best {
    let mut changes: Vec<(Timestamp, bool)> = Vec::new();
    for request in &load.requests {
        changes.push((request.at, true));
        changes.push((request.at + request.lasts, false));
    }
    // What ends at a moment makes room for what begins then.
    changes.sort_unstable();
    let start = startup.as_secs_f64();
    // Since when each level is not needed; None = it has never been, so since the load began.
    let mut idle_since: Vec<Timestamp> = Vec::new();
    let (first, _) = load.span();
    let (mut running, mut seconds) = (0, 0.0);
    for (at, begins) in changes {
        if begins {
            seconds += match idle_since.get(running) {
                Some(_) if jobs => start,
                Some(since) => at.duration_since(*since).as_secs_f64().min(start),
                None => {
                    idle_since.push(at);
                    at.duration_since(first).as_secs_f64().min(start)
                }
            };
            running += 1;
        } else {
            running -= 1;
            idle_since[running] = at;
        }
    }
    let busy: f64 = load.requests.iter().map(|request| request.lasts.as_secs_f64()).sum();
    Best { pod_hours: (seconds + busy) / 3600.0, busy_hours: busy / 3600.0, peak: idle_since.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Request, monday};

    fn hours(requests: &[(i64, i64)], startup: i64) -> f64 {
        of_pods(requests, startup, false)
    }

    fn of_pods(requests: &[(i64, i64)], startup: i64, jobs: bool) -> f64 {
        let of = |(at, lasts): &(i64, i64)| Request {
            at: monday() + SignedDuration::from_secs(*at),
            lasts: SignedDuration::from_secs(*lasts),
        };
        let load = Load::new("a", requests.iter().map(of).collect());
        (best(&load, SignedDuration::from_secs(startup), jobs).pod_hours * 3600.0).round()
    }

    #[test]
    fn a_gap_costs_as_much_as_a_start_at_most() {
        assert_eq!(hours(&[(0, 100)], 30), 100.0, "it is Ready when the load begins");
        assert_eq!(hours(&[(0, 100), (110, 100)], 30), 210.0, "kept for ten seconds");
        assert_eq!(hours(&[(0, 100), (200, 100)], 30), 230.0, "another one starts");
        assert_eq!(hours(&[(0, 100), (100, 100)], 30), 200.0, "one after the other");
        assert_eq!(hours(&[(0, 100), (50, 100)], 30), 230.0, "two at a time");
    }

    #[test]
    fn each_job_costs_its_start() {
        assert_eq!(of_pods(&[(0, 100), (110, 100)], 30, true), 230.0);
        assert_eq!(
            of_pods(&[(0, 100), (10, 100)], 30, true),
            210.0,
            "the second one is waited for from the beginning"
        );
    }
}
