//! The rule: idle = the larger of `idleTarget` and the percentage of what is in use, rounded up.

use crate::config::Percent;

/// What the rule looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pool {
    pub busy: u32,
    /// Handed out by a claim: in use, even while its workload has not said so yet.
    pub claimed: u32,
    /// Claims that wait for a pod. Each takes a pod as soon as there is one, so it counts already,
    /// and the size does not change when it does.
    pub waiting: u32,
    pub idle_target: u32,
    pub minimum: u32,
    pub maximum: u32,
}

/// How many replicas, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub desired: u32,
    pub reason: String,
}

/// Decides for one pool.
pub fn decide(pool: &Pool, percent: Percent) -> Answer {
    let in_use = pool.busy.saturating_add(pool.claimed).saturating_add(pool.waiting);
    let idle = share(percent, in_use).max(pool.idle_target);
    let wanted = in_use.saturating_add(idle);

    let mut reason = format!("{} busy", pool.busy);
    for (count, word) in [(pool.claimed, "claimed"), (pool.waiting, "waiting")] {
        if count > 0 {
            reason += &format!(" + {count} {word}");
        }
    }
    reason += &format!(" + {} % of {in_use} rounded up, at least {}", percent.get(), pool.idle_target);

    let desired = wanted.max(pool.minimum).min(pool.maximum);
    if desired < wanted {
        reason += &format!(", cut to the maximum {desired}");
    } else if desired > wanted {
        reason += &format!(", raised to the minimum {desired}");
    }
    Answer { desired, reason }
}

/// The percentage of `count`, rounded up.
fn share(percent: Percent, count: u32) -> u32 {
    // 14.3 % of 1000 is 143.00000000000003 in binary; that must not become 144.
    const ROUNDING_ERROR: f64 = 1e-6;
    let exact = percent.get() * f64::from(count) / 100.0;
    // A cast from f64 saturates, so a huge share is the largest u32.
    (exact - ROUNDING_ERROR).ceil().max(0.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: Pool = Pool { busy: 10, claimed: 0, waiting: 0, idle_target: 1, minimum: 0, maximum: 10_000 };

    fn decided(pool: Pool, percent: f64) -> (u32, String) {
        let Answer { desired, reason } = decide(&pool, Percent::new(percent).unwrap());
        (desired, reason)
    }

    #[test]
    fn the_percentage_of_the_busy_pods_stays_idle() {
        let reason = "10 busy + 20 % of 10 rounded up, at least 1".to_owned();
        assert_eq!(decided(POOL, 20.0), (12, reason));
    }

    #[test]
    fn a_broken_pod_is_rounded_up() {
        assert_eq!(decided(Pool { busy: 11, ..POOL }, 20.0).0, 11 + 3);
        assert_eq!(decided(Pool { busy: 1, ..POOL }, 0.5).0, 1 + 1);
    }

    #[test]
    fn the_idle_target_is_the_least() {
        assert_eq!(decided(Pool { busy: 0, idle_target: 4, ..POOL }, 20.0).0, 4);
        assert_eq!(decided(Pool { idle_target: 4, ..POOL }, 20.0).0, 14);
        assert_eq!(decided(POOL, 0.0).0, 11);
    }

    #[test]
    fn rounding_errors_of_binary_numbers_add_no_pod() {
        for (percent, busy, idle) in [(14.3, 1000, 143), (0.1, 3000, 3), (110.0, 10, 11), (33.3, 1000, 333)] {
            assert_eq!(decided(Pool { busy, ..POOL }, percent).0, busy + idle, "{percent} % of {busy}");
        }
    }

    #[test]
    fn serving_a_waiting_claim_does_not_change_the_size() {
        let waiting = Pool { claimed: 4, waiting: 1, ..POOL };
        let reason = "10 busy + 4 claimed + 1 waiting + 20 % of 15 rounded up, at least 1".to_owned();
        assert_eq!(decided(waiting, 20.0), (18, reason));
        assert_eq!(decided(Pool { claimed: 5, waiting: 0, ..waiting }, 20.0).0, 18);
    }

    #[test]
    fn the_bounds_hold_and_the_reason_says_so() {
        let cut = decided(Pool { maximum: 11, ..POOL }, 20.0);
        assert_eq!(
            cut,
            (11, "10 busy + 20 % of 10 rounded up, at least 1, cut to the maximum 11".to_owned())
        );
        let raised = decided(Pool { minimum: 20, ..POOL }, 12.5);
        assert_eq!(
            raised,
            (20, "10 busy + 12.5 % of 10 rounded up, at least 1, raised to the minimum 20".to_owned())
        );
    }

    #[test]
    fn the_largest_numbers_do_not_wrap_around() {
        assert_eq!(decided(Pool { busy: u32::MAX, waiting: 7, ..POOL }, 1000.0).0, POOL.maximum);
    }
}
