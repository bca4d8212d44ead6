//! The rule: the greater of what is in use and `idleTarget`, and of the forecast for the time in which a pod that is
//! created now becomes ready.

use crate::config::Config;
use crate::memory::{Memory, SLOT};

/// How long pods take to start as long as that has not been measured, in milliseconds.
const STARTUP: u64 = 60_000;
/// The longest start-up time that is believed: an hour.
const LONGEST: u64 = 3_600_000;

/// What the rule looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pool {
    pub busy: u32,
    /// Handed out by a claim: in use, even while its workload has not said so yet.
    pub claimed: u32,
    /// Claims that wait for a pod.
    pub waiting: u32,
    pub idle_target: u32,
    pub minimum: u32,
    pub maximum: u32,
    /// Nine of ten pods start within so many milliseconds; None = not measured.
    pub startup: Option<u64>,
}

/// How many replicas, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub desired: u32,
    pub reason: String,
    /// In milliseconds.
    pub wake_after: u64,
}

/// Decides for one pool, and learns from it.
pub fn decide(pool: &Pool, config: &Config, memory: &mut Memory, now: i64) -> Answer {
    let in_use = pool.busy.saturating_add(pool.claimed).saturating_add(pool.waiting);
    memory.note(now, in_use, config.rate);
    let ahead = pool.startup.unwrap_or(STARTUP).min(LONGEST) as i64 + i64::from(config.margin_seconds) * 1000;
    let now_needed = in_use.saturating_add(pool.idle_target);
    let mut wanted = now_needed;
    let mut reason = format!("{in_use} in use + {} idle", pool.idle_target);
    if let Some((expected, from)) = memory.forecast(now, now.saturating_add(ahead)) {
        // Rounding errors of binary numbers add no pod.
        let expected = (expected * (1.0 + config.margin_percent / 100.0) - 1e-6).ceil().max(0.0) as u32;
        if expected > now_needed {
            wanted = expected;
            let when = if from > now {
                format!("in {} min", (from - now + 59_999) / 60_000)
            } else {
                "now".to_owned()
            };
            reason = format!("{expected} expected {when}; {in_use} in use");
        }
    }
    let desired = wanted.max(pool.minimum).min(pool.maximum);
    if desired < wanted {
        reason += &format!(", cut to the maximum {desired}");
    } else if desired > wanted {
        reason += &format!(", raised to the minimum {desired}");
    }
    Answer { desired, reason, wake_after: wake_after(now, ahead) }
}

/// How long it is until another slot is watched, or comes into the time that is looked at.
fn wake_after(now: i64, ahead: i64) -> u64 {
    let until_next = |at: i64| SLOT - at.rem_euclid(SLOT);
    let wake = until_next(now).min(until_next(now.saturating_add(ahead)));
    wake.clamp(1000, SLOT) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: i64 = 1_767_571_200_000;
    const DAY: i64 = 96 * SLOT;
    const POOL: Pool = Pool {
        busy: 2,
        claimed: 0,
        waiting: 0,
        idle_target: 3,
        minimum: 0,
        maximum: 100,
        startup: Some(60_000),
    };

    /// A memory in which nine were in use from 08:00 to 08:15 of the day before.
    fn learned() -> Memory {
        let mut memory = Memory::new(Config::DEFAULT.season);
        for (slot, in_use) in [(31, 1), (32, 9), (33, 1), (34, 1)] {
            memory.note(MONDAY + slot * SLOT, in_use, 0.5);
        }
        memory
    }

    fn at(slot: i64, more: i64) -> Answer {
        decide(&POOL, &Config::DEFAULT, &mut learned(), MONDAY + DAY + slot * SLOT + more)
    }

    #[test]
    fn at_first_it_is_the_plain_buffer() {
        let answer = decide(&POOL, &Config::DEFAULT, &mut Memory::new(Config::DEFAULT.season), MONDAY);
        assert_eq!((answer.desired, answer.reason.as_str()), (5, "2 in use + 3 idle"));
    }

    #[test]
    fn what_was_needed_the_day_before_is_ready_in_time() {
        // Pods start within a minute, and a minute of margin: from 07:58 on.
        assert_eq!(at(31, SLOT - 121_000).desired, 5);
        let ahead = at(31, SLOT - 120_000);
        assert_eq!((ahead.desired, ahead.reason.as_str()), (10, "10 expected in 2 min; 2 in use"));
        assert_eq!(at(32, 0).reason, "10 expected now; 2 in use");
        assert_eq!(at(33, 0).desired, 5, "over");
    }

    #[test]
    fn never_fewer_than_in_use_and_the_idle_target() {
        let busy = Pool { busy: 30, claimed: 1, waiting: 2, ..POOL };
        let answer = decide(&busy, &Config::DEFAULT, &mut learned(), MONDAY + DAY + 32 * SLOT);
        assert_eq!((answer.desired, answer.reason.as_str()), (36, "33 in use + 3 idle"));
    }

    #[test]
    fn the_bounds_hold_and_the_reason_says_so() {
        let cut = Pool { maximum: 6, ..POOL };
        let answer = decide(&cut, &Config::DEFAULT, &mut learned(), MONDAY + DAY + 32 * SLOT);
        assert_eq!(answer.desired, 6);
        assert!(answer.reason.ends_with(", cut to the maximum 6"), "{}", answer.reason);
        let raised = Pool { minimum: 20, ..POOL };
        let answer = decide(&raised, &Config::DEFAULT, &mut learned(), MONDAY);
        assert!(
            answer.desired == 20 && answer.reason.ends_with("raised to the minimum 20"),
            "{}",
            answer.reason
        );
    }

    #[test]
    fn it_wakes_where_a_slot_ends_or_comes_into_sight() {
        assert_eq!(at(31, 0).wake_after, SLOT as u64 - 120_000);
        assert_eq!(at(31, SLOT - 120_000).wake_after, 120_000);
        assert_eq!(at(31, SLOT - 1).wake_after, 1000);
    }

    #[test]
    fn numbers_that_are_too_large_do_not_wrap_around() {
        let pool = Pool { busy: u32::MAX, waiting: 7, startup: Some(u64::MAX), ..POOL };
        let mut memory = Memory::new(Config::DEFAULT.season);
        assert_eq!(decide(&pool, &Config::DEFAULT, &mut memory, i64::MAX - 1).desired, 100);
        assert_eq!(decide(&pool, &Config::DEFAULT, &mut memory, i64::MIN + 1).desired, 100);
    }
}
