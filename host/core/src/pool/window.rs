//! The scale-down delay: a pool shrinks to the greatest target of the last so many seconds, so that a surplus
//! must have lasted that long before anything goes.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

/// Targets over time, greatest first: a later, greater target makes the earlier, smaller ones meaningless.
#[derive(Clone, Debug, Default)]
pub struct Window {
    samples: VecDeque<(Timestamp, u32)>,
}

/// What the window allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The pool must not shrink below this.
    pub replicas: u32,
    /// When that may change if the target stays.
    pub until: Option<Timestamp>,
}

impl Window {
    /// Notes the target and says what the delay allows. A window without past (after a restart) holds what
    /// exists for a whole delay.
    pub fn note(&mut self, now: Timestamp, target: u32, existing: u32, delay: SignedDuration) -> Floor {
        if self.samples.is_empty() && existing > target {
            self.samples.push_back((now, existing));
        }
        while self.samples.back().is_some_and(|(_, t)| *t < target) {
            self.samples.pop_back();
        }
        if self.samples.back().is_none_or(|(_, t)| *t != target) {
            self.samples.push_back((now, target));
        }
        // A sample counts until the one after it began.
        while self.samples.len() > 1 && self.samples[1].0 + delay <= now {
            self.samples.pop_front();
        }
        let until = (self.samples.len() > 1).then(|| self.samples[1].0 + delay);
        Floor { replicas: self.samples.front().map_or(target, |(_, t)| *t), until }
    }

    /// Moves all samples by so much into the past.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        self.samples.iter_mut().for_each(|(at, _)| *at -= by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + s).unwrap()
    }

    const DELAY: SignedDuration = SignedDuration::from_secs(30);

    #[test]
    fn a_surplus_must_last_the_whole_delay() {
        let mut w = Window::default();
        assert_eq!(w.note(at(0), 5, 5, DELAY).replicas, 5);
        assert_eq!(w.note(at(10), 3, 5, DELAY), Floor { replicas: 5, until: Some(at(40)) });
        assert_eq!(w.note(at(39), 3, 5, DELAY).replicas, 5);
        assert_eq!(w.note(at(40), 3, 5, DELAY), Floor { replicas: 3, until: None });
    }

    #[test]
    fn a_rise_in_between_starts_the_delay_anew() {
        let mut w = Window::default();
        w.note(at(0), 5, 5, DELAY);
        w.note(at(10), 3, 5, DELAY);
        w.note(at(30), 5, 5, DELAY);
        w.note(at(31), 3, 5, DELAY);
        assert_eq!(w.note(at(45), 3, 5, DELAY).replicas, 5);
        assert_eq!(w.note(at(61), 3, 5, DELAY).replicas, 3);
    }

    #[test]
    fn falls_in_steps_go_in_steps() {
        let mut w = Window::default();
        w.note(at(0), 9, 9, DELAY);
        w.note(at(10), 6, 9, DELAY);
        w.note(at(20), 3, 9, DELAY);
        assert_eq!(w.note(at(41), 3, 9, DELAY), Floor { replicas: 6, until: Some(at(50)) });
        assert_eq!(w.note(at(50), 3, 6, DELAY).replicas, 3);
    }

    #[test]
    fn a_restart_holds_what_exists_for_a_delay() {
        let mut w = Window::default();
        assert_eq!(w.note(at(0), 3, 8, DELAY).replicas, 8);
        assert_eq!(w.note(at(29), 3, 8, DELAY).replicas, 8);
        assert_eq!(w.note(at(30), 3, 8, DELAY).replicas, 3);
    }

    #[test]
    fn no_delay_means_at_once() {
        let mut w = Window::default();
        assert_eq!(w.note(at(0), 3, 8, SignedDuration::ZERO).replicas, 3);
    }
}
