//! How many pods are made within a second.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// When pods were made, within the last second.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    made: VecDeque<(Timestamp, u32)>,
}

impl Pace {
    /// How many of the wanted pods may be made now, and when more may.
    pub fn allow(&mut self, wanted: u32, limit: Option<u32>, now: Timestamp) -> (u32, Option<Timestamp>) {
        let Some(limit) = limit else {
            self.made.clear();
            return (wanted, None);
        };
        while self.made.front().is_some_and(|(at, _)| *at + SECOND <= now) {
            self.made.pop_front();
        }
        let recent: u32 = self.made.iter().map(|(_, count)| count).sum();
        let allowed = wanted.min(limit.max(1).saturating_sub(recent));
        let again = (allowed < wanted).then(|| self.made.front().map_or(now, |(at, _)| *at) + SECOND);
        (allowed, again)
    }

    /// Notes what was made.
    pub fn took(&mut self, count: usize, now: Timestamp) {
        if count > 0 {
            self.made.push_back((now, u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }

    /// Moves all that was made by so much into the past.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        self.made.iter_mut().for_each(|(at, _)| *at -= by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn no_second_sees_more_than_the_limit() {
        let mut pace = Pace::default();
        assert_eq!(pace.allow(5, Some(3), at(0)), (3, Some(at(1000))));
        pace.took(3, at(0));
        assert_eq!(pace.allow(2, Some(3), at(999)), (0, Some(at(1000))));
        assert_eq!(pace.allow(2, Some(3), at(1000)), (2, None));
    }

    #[test]
    fn without_a_limit_all_are_made() {
        assert_eq!(Pace::default().allow(500, None, at(0)), (500, None));
    }
}
