//! The rule: idle = the larger of `idleTarget` and the queue's length by pod, rounded up.

use crate::config::Config;

/// What the rule looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pool {
    pub busy: u32,
    /// Handed out by a claim.
    pub claimed: u32,
    /// Claims that wait for a pod: each takes one as soon as there is one.
    pub waiting: u32,
    pub idle_target: u32,
    pub minimum: u32,
    pub maximum: u32,
    /// The size that was applied last.
    pub last: Option<u32>,
}

/// How long the queue is.
#[derive(Clone, Debug, PartialEq)]
pub enum Length {
    Known(f64),
    /// There is no number, and has not been for so long.
    Failed {
        why: String,
        seconds: u64,
    },
    /// No signal has the name.
    Missing,
}

/// How many replicas, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub desired: u32,
    pub reason: String,
}

/// Decides for one pool.
pub fn decide(pool: &Pool, length: &Length, config: &Config) -> Answer {
    let in_use = pool.busy.saturating_add(pool.claimed).saturating_add(pool.waiting);
    let name: String = config.signal.chars().take(63).collect();
    let mut held = 0;
    let (idle, words) = match length {
        Length::Known(length) => {
            let wanted = pods(*length, config.per_replica);
            let words =
                format!("{name} {length} at {} a pod, at least {}", config.per_replica, pool.idle_target);
            (wanted.max(pool.idle_target), words)
        }
        Length::Failed { why, seconds } => {
            held = pool.last.unwrap_or(0);
            let why: String = why.chars().take(300).collect();
            (pool.idle_target, format!("{} idle; no {name} for {seconds} s: {why}", pool.idle_target))
        }
        Length::Missing => {
            held = pool.last.unwrap_or(0);
            (pool.idle_target, format!("{} idle; spec.signals has none named {name}", pool.idle_target))
        }
    };
    let wanted = in_use.saturating_add(idle);
    let mut reason = format!("{} busy", pool.busy);
    for (count, word) in [(pool.claimed, "claimed"), (pool.waiting, "waiting")] {
        if count > 0 {
            reason += &format!(" + {count} {word}");
        }
    }
    reason += &format!(" + {words}");
    if held > wanted {
        reason += &format!(", holding the last {held}");
    }
    let wanted = wanted.max(held);
    let desired = wanted.max(pool.minimum).min(pool.maximum);
    if desired < wanted {
        reason += &format!(", cut to the maximum {desired}");
    } else if desired > wanted {
        reason += &format!(", raised to the minimum {desired}");
    }
    Answer { desired, reason }
}

/// Pods for so many waiting things.
fn pods(length: f64, per_replica: f64) -> u32 {
    // A quotient that is whole but for the last bits of its binary form is whole.
    const ROUNDING_ERROR: f64 = 1e-6;
    // A cast from f64 saturates.
    (length / per_replica - ROUNDING_ERROR).ceil().max(0.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: Pool =
        Pool { busy: 2, claimed: 0, waiting: 0, idle_target: 1, minimum: 0, maximum: 100, last: Some(9) };

    fn at(per_replica: f64) -> Config {
        Config { per_replica, ..Config::default() }
    }

    fn decided(pool: Pool, length: f64, per_replica: f64) -> u32 {
        decide(&pool, &Length::Known(length), &at(per_replica)).desired
    }

    #[test]
    fn each_pod_is_for_so_many_and_a_broken_one_is_rounded_up() {
        for (length, per_replica, desired) in [
            (0.0, 5.0, 3),
            (5.0, 5.0, 3),
            (6.0, 5.0, 4),
            (50.0, 5.0, 12),
            (1.0, 0.1, 12),
            (0.3, 0.1, 5),
            (-7.0, 1.0, 3),
        ] {
            assert_eq!(decided(POOL, length, per_replica), desired, "{length} at {per_replica}");
        }
    }

    #[test]
    fn the_reason_tells_the_sum() {
        let pool = Pool { claimed: 1, waiting: 2, ..POOL };
        let answer = decide(&pool, &Length::Known(12.0), &at(5.0));
        let reason = "2 busy + 1 claimed + 2 waiting + queue 12 at 5 a pod, at least 1".to_owned();
        assert_eq!(answer, Answer { desired: 8, reason });
    }

    #[test]
    fn i3_without_a_number_the_size_does_not_fall_and_the_reason_says_why() {
        let failed = Length::Failed { why: "HTTP 503".to_owned(), seconds: 42 };
        let answer = decide(&POOL, &failed, &at(5.0));
        let reason = "2 busy + 1 idle; no queue for 42 s: HTTP 503, holding the last 9".to_owned();
        assert_eq!(answer, Answer { desired: 9, reason });
        // More in use are still served.
        assert_eq!(decide(&Pool { busy: 20, ..POOL }, &failed, &at(5.0)).desired, 21);
        let none = decide(&Pool { last: None, ..POOL }, &Length::Missing, &at(5.0));
        assert_eq!(none.desired, 3);
        assert_eq!(none.reason, "2 busy + 1 idle; spec.signals has none named queue");
    }

    #[test]
    fn the_bounds_hold_and_the_largest_numbers_do_not_wrap_around() {
        assert_eq!(decided(POOL, 1e300, 1e-300), 100);
        assert_eq!(decided(Pool { minimum: 50, ..POOL }, 1.0, 1.0), 50);
        let cut = decide(&POOL, &Length::Known(1000.0), &at(1.0));
        assert!(cut.reason.ends_with("cut to the maximum 100"), "{}", cut.reason);
    }
}
