//! The rule of waiting, apart from the system's clock: open when the clock shows the instant, never before.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

/// What waiting needs of the system.
pub trait Clock {
    /// The time of day, which may be set to anything at any moment.
    fn now(&self) -> SystemTime;

    /// The signal that asks to end, if one came.
    fn signal(&mut self) -> nix::Result<Option<Signal>>;

    /// Returns when the clock may show the instant, was set, or a signal came. May return for nothing.
    fn sleep_until(&mut self, instant: SystemTime) -> nix::Result<()>;
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The clock showed the instant, and this much more.
    Open { late: Duration },
    /// A signal came before.
    Ended(Signal),
}

/// Waits for the instant; calls `begins` once if it is still to come. A wake is never taken for the instant: each
/// looks at the clock again. A signal that is there when the gate could open wins.
pub fn wait(instant: SystemTime, clock: &mut impl Clock, begins: impl FnOnce()) -> nix::Result<Outcome> {
    let mut begins = Some(begins);
    loop {
        if let Some(signal) = clock.signal()? {
            return Ok(Outcome::Ended(signal));
        }
        if let Ok(late) = clock.now().duration_since(instant) {
            return Ok(Outcome::Open { late });
        }
        if let Some(begins) = begins.take() {
            begins();
        }
        clock.sleep_until(instant)?;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::UNIX_EPOCH;

    use nix::errno::Errno;
    use proptest::prelude::*;

    use super::*;

    /// What happens during one sleep.
    #[derive(Clone, Debug)]
    enum Event {
        /// The timer fires, and the clock shows this many nanoseconds more (or less) than the instant.
        Wakes(i64),
        Signal(Signal),
        Fails(Errno),
    }

    /// A clock that shows what a story says. Times are in nanoseconds from the instant.
    struct Story {
        shows: i64,
        events: VecDeque<Event>,
        signal: Option<Signal>,
        sleeps: usize,
    }

    fn instant() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn at(nanoseconds: i64) -> SystemTime {
        let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
        if nanoseconds < 0 { instant() - distance } else { instant() + distance }
    }

    impl Clock for Story {
        fn now(&self) -> SystemTime {
            at(self.shows)
        }

        fn signal(&mut self) -> nix::Result<Option<Signal>> {
            Ok(self.signal.take())
        }

        fn sleep_until(&mut self, until: SystemTime) -> nix::Result<()> {
            assert_eq!(until, instant());
            self.sleeps += 1;
            match self.events.pop_front().expect("the gate sleeps on after the end of the story") {
                Event::Wakes(shows) => self.shows = shows,
                Event::Signal(signal) => self.signal = Some(signal),
                Event::Fails(error) => return Err(error),
            }
            Ok(())
        }
    }

    fn story(shows: i64, events: impl IntoIterator<Item = Event>) -> Story {
        Story { shows, events: events.into_iter().collect(), signal: None, sleeps: 0 }
    }

    /// The outcome, and how often the beginning was told.
    fn told(story: &mut Story) -> (nix::Result<Outcome>, usize) {
        let mut begun = 0;
        (wait(instant(), story, || begun += 1), begun)
    }

    const fn open(nanoseconds: u64) -> Outcome {
        Outcome::Open { late: Duration::from_nanos(nanoseconds) }
    }

    #[test]
    fn a_past_instant_opens_at_once_and_nothing_is_said_of_waiting() {
        for late in [0, 1, 86_400_000_000_000] {
            let mut story = story(late, []);
            assert_eq!(told(&mut story), (Ok(open(late.unsigned_abs())), 0));
            assert_eq!(story.sleeps, 0);
        }
    }

    #[test]
    fn a_wake_a_nanosecond_early_waits_on() {
        let mut story = story(-1_000_000_000, [Event::Wakes(-1), Event::Wakes(0)]);
        assert_eq!(told(&mut story), (Ok(open(0)), 1));
        assert_eq!(story.sleeps, 2);
    }

    #[test]
    fn a_clock_set_back_while_waiting_waits_on() {
        // The timer fires for the old time of day; or it was cancelled, and the instant is an hour further away.
        let mut story =
            story(-1, [Event::Wakes(-3_600_000_000_000), Event::Wakes(-1), Event::Wakes(213_000)]);
        assert_eq!(told(&mut story), (Ok(open(213_000)), 1));
        assert_eq!(story.sleeps, 3);
    }

    #[test]
    fn a_clock_set_forward_opens_at_the_look_after() {
        let mut story = story(-3_600_000_000_000, [Event::Wakes(5_000_000_000)]);
        assert_eq!(told(&mut story), (Ok(open(5_000_000_000)), 1));
    }

    #[test]
    fn a_wake_for_nothing_looks_again() {
        let mut story = story(-7, [Event::Wakes(-7), Event::Wakes(-7), Event::Wakes(0)]);
        assert_eq!(told(&mut story), (Ok(open(0)), 1));
        assert_eq!(story.sleeps, 3);
    }

    #[test]
    fn a_signal_ends_the_wait_also_at_the_instant_itself() {
        let mut waits = story(-9, [Event::Signal(Signal::SIGTERM)]);
        assert_eq!(told(&mut waits), (Ok(Outcome::Ended(Signal::SIGTERM)), 1));
        let mut opens = story(9, []);
        opens.signal = Some(Signal::SIGHUP);
        assert_eq!(told(&mut opens), (Ok(Outcome::Ended(Signal::SIGHUP)), 0));
    }

    #[test]
    fn what_fails_is_returned_and_opens_nothing() {
        let mut story = story(-9, [Event::Fails(Errno::EPERM)]);
        assert_eq!(told(&mut story), (Err(Errno::EPERM), 1));
    }

    proptest! {
        /// Whatever the clock does: the gate opens at the first look that shows the instant, and at no other.
        #[test]
        fn the_gate_opens_at_the_first_look_that_shows_the_instant(
            first in -1_000_000_000i64..100,
            wakes in prop::collection::vec(prop_oneof![-3i64..3, -4_000_000_000_000i64..1_000_000_000], 0..20),
        ) {
            let looks = [&[first], wakes.as_slice(), &[0]].concat();
            let opens = looks.iter().position(|shows| *shows >= 0).unwrap();
            let mut story = story(first, looks[1..].iter().map(|shows| Event::Wakes(*shows)));
            let (outcome, begun) = told(&mut story);
            prop_assert_eq!(outcome, Ok(open(looks[opens].unsigned_abs())));
            prop_assert_eq!(story.sleeps, opens);
            prop_assert_eq!(begun, usize::from(opens > 0));
        }
    }
}
