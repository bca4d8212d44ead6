//! From what was asked for to the target that applies: bounds, and what holds when a policy fails (I3).

use super::Counts;

/// What was asked for, and by whom.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Nobody in particular: the documented formula decides.
    Formula,
    /// A policy answered.
    Policy {
        /// Replicas that it wants.
        desired: u32,
        /// Its reason.
        reason: String,
        /// UIDs of idle pods that it would remove first.
        victims: Vec<String>,
    },
    /// A policy should have answered and did not.
    Failed {
        /// Why not, in words.
        error: String,
    },
}

/// What kept the applied number of replicas from being the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// Nothing.
    None,
    /// minReplicas.
    Minimum,
    /// maxReplicas.
    Maximum,
    /// The policy failed, and the last good target was greater than the formula's.
    Hold,
    /// The pool is paused.
    Paused,
}

impl LimitedBy {
    /// The word that status shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::Hold => "hold",
            Self::Paused => "paused",
        }
    }
}

/// A pool's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// minReplicas
    pub minimum: u32,
    /// maxReplicas; it wins over the minimum.
    pub maximum: u32,
    /// idleTarget
    pub idle_target: u32,
}

/// One answer, as applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What was asked for, before bounds.
    pub raw: u32,
    /// The target.
    pub applied: u32,
    /// What made the difference.
    pub limited_by: LimitedBy,
    /// In words.
    pub reason: String,
    /// UIDs of pods to remove first.
    pub victims: Vec<String>,
    /// It came from the formula or a policy without failure, so that it may be held on to.
    pub good: bool,
}

/// The documented formula: as many as are busy, claimed or waited for, and the idle target beside them, within the
/// bounds.
pub fn formula(counts: &Counts, bounds: Bounds) -> u32 {
    bound(plain(counts, bounds), bounds).0
}

fn plain(counts: &Counts, bounds: Bounds) -> u32 {
    counts.busy_for_sizing.saturating_add(counts.waiting).saturating_add(bounds.idle_target)
}

/// The formula in words; claims are named where there are any.
fn words(counts: &Counts, bounds: Bounds) -> String {
    let mut words = format!("{} busy", counts.busy_for_sizing.saturating_sub(counts.claimed));
    for (count, word) in [(counts.claimed, "claimed"), (counts.waiting, "waiting")] {
        if count > 0 {
            words.push_str(&format!(" + {count} {word}"));
        }
    }
    format!("{words} + {} idle", bounds.idle_target)
}

fn bound(raw: u32, bounds: Bounds) -> (u32, LimitedBy) {
    if raw > bounds.maximum {
        (bounds.maximum, LimitedBy::Maximum)
    } else if raw < bounds.minimum.min(bounds.maximum) {
        (bounds.minimum.min(bounds.maximum), LimitedBy::Minimum)
    } else {
        (raw, LimitedBy::None)
    }
}

/// Turns what was asked for into the target.
pub fn decide(asked: Asked, counts: &Counts, bounds: Bounds, last_good: Option<u32>) -> Decision {
    let (plain, words) = (plain(counts, bounds), words(counts, bounds));
    let (raw, reason, victims, good) = match asked {
        Asked::Formula => (plain, words, Vec::new(), true),
        Asked::Policy { desired, reason, victims } => (desired, reason, victims, true),
        Asked::Failed { error } => {
            let formula = formula(counts, bounds);
            let held = last_good.unwrap_or(0).max(formula);
            let how = if held > formula {
                format!("holding the last good target {held}")
            } else {
                format!("the formula decides: {words}")
            };
            (held, format!("{how} ({error})"), Vec::new(), false)
        }
    };
    let (applied, mut limited_by) = bound(raw, bounds);
    if !good && limited_by == LimitedBy::None && applied > formula(counts, bounds) {
        limited_by = LimitedBy::Hold;
    }
    let reason = match limited_by {
        LimitedBy::Maximum => format!("{reason}, cut to the maximum {applied}"),
        LimitedBy::Minimum => format!("{reason}, raised to the minimum {applied}"),
        _ => reason,
    };
    Decision { raw, applied, limited_by, reason, victims, good }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(busy: u32) -> Counts {
        Counts { busy, busy_for_sizing: busy, ..Counts::default() }
    }

    const BOUNDS: Bounds = Bounds { minimum: 2, maximum: 10, idle_target: 3 };

    #[test]
    fn the_formula_is_busy_plus_idle_target_within_bounds() {
        for (busy, want, limit) in [
            (0, 3, LimitedBy::None),
            (2, 5, LimitedBy::None),
            (7, 10, LimitedBy::None),
            (9, 10, LimitedBy::Maximum),
        ] {
            let d = decide(Asked::Formula, &counts(busy), BOUNDS, None);
            assert_eq!((d.applied, d.limited_by), (want, limit), "busy {busy}");
        }
    }

    #[test]
    fn maximum_wins_over_minimum() {
        let odd = Bounds { minimum: 8, maximum: 4, idle_target: 0 };
        assert_eq!(decide(Asked::Formula, &counts(0), odd, None).applied, 4);
    }

    #[test]
    fn a_policy_is_kept_within_bounds() {
        for (desired, want, limit) in
            [(0, 2, LimitedBy::Minimum), (4, 4, LimitedBy::None), (4_000_000, 10, LimitedBy::Maximum)]
        {
            let asked = Asked::Policy { desired, reason: String::new(), victims: vec![] };
            let d = decide(asked, &counts(1), BOUNDS, None);
            assert_eq!((d.raw, d.applied, d.limited_by), (desired, want, limit));
        }
    }

    #[test]
    fn i3_a_failing_policy_holds_the_last_good_target_or_the_formula_whichever_is_greater() {
        let failed = || Asked::Failed { error: "trapped".to_owned() };
        let held = decide(failed(), &counts(1), BOUNDS, Some(8));
        assert_eq!((held.applied, held.limited_by, held.good), (8, LimitedBy::Hold, false));
        let grown = decide(failed(), &counts(6), BOUNDS, Some(8));
        assert_eq!((grown.applied, grown.limited_by), (9, LimitedBy::None));
        let capped = decide(failed(), &counts(0), BOUNDS, Some(50));
        assert_eq!((capped.applied, capped.limited_by), (10, LimitedBy::Maximum));
    }
}
