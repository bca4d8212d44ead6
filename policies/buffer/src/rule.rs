//! The rule: what is in use or waited for, and the idle target on top, within the bounds.

/// What the rule looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pool {
    pub busy: u32,
    /// Handed out by a claim: in use, even while its workload has not said so yet.
    pub claimed: u32,
    /// Claims that wait for a pod. Each takes a pod as soon as there is one, so it counts already.
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
pub fn decide(pool: &Pool) -> Answer {
    let in_use = pool.busy.saturating_add(pool.claimed).saturating_add(pool.waiting);
    let wanted = in_use.saturating_add(pool.idle_target);

    let mut reason = format!("{} busy", pool.busy);
    for (count, word) in [(pool.claimed, "claimed"), (pool.waiting, "waiting")] {
        if count > 0 {
            reason += &format!(" + {count} {word}");
        }
    }
    reason += &format!(" + {} idle", pool.idle_target);

    let desired = wanted.max(pool.minimum).min(pool.maximum);
    if desired < wanted {
        reason += &format!(", cut to the maximum {desired}");
    } else if desired > wanted {
        reason += &format!(", raised to the minimum {desired}");
    }
    Answer { desired, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: Pool = Pool { busy: 2, claimed: 0, waiting: 0, idle_target: 3, minimum: 0, maximum: 100 };

    fn decided(pool: Pool) -> (u32, String) {
        let Answer { desired, reason } = decide(&pool);
        (desired, reason)
    }

    #[test]
    fn busy_pods_and_the_idle_target_add_up() {
        assert_eq!(decided(POOL), (5, "2 busy + 3 idle".to_owned()));
    }

    #[test]
    fn a_pool_without_work_keeps_the_idle_target() {
        assert_eq!(decided(Pool { busy: 0, ..POOL }), (3, "0 busy + 3 idle".to_owned()));
    }

    #[test]
    fn claimed_pods_and_waiting_claims_count_as_in_use() {
        let pool = Pool { claimed: 4, waiting: 1, ..POOL };
        assert_eq!(decided(pool), (10, "2 busy + 4 claimed + 1 waiting + 3 idle".to_owned()));
    }

    #[test]
    fn the_maximum_cuts_and_the_reason_says_so() {
        let pool = Pool { maximum: 4, ..POOL };
        assert_eq!(decided(pool), (4, "2 busy + 3 idle, cut to the maximum 4".to_owned()));
    }

    #[test]
    fn the_minimum_raises_and_the_reason_says_so() {
        let pool = Pool { minimum: 8, ..POOL };
        assert_eq!(decided(pool), (8, "2 busy + 3 idle, raised to the minimum 8".to_owned()));
    }

    #[test]
    fn the_largest_numbers_do_not_wrap_around() {
        let pool = Pool { busy: u32::MAX, claimed: u32::MAX, waiting: 1, idle_target: u32::MAX, ..POOL };
        assert_eq!(decided(pool).0, POOL.maximum);
    }
}
