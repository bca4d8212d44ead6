//! Random schedules against an oracle that asks of each minute, one by one, whether it is named.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{DAY, MINUTE, SECONDS, ZONES, fields, instant, near};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stoker_cron::Schedule;

/// The oracle looks at this many days.
const DAYS: i64 = 6;

/// The minutes of the oracle's days, from `first` down.
fn minutes_down(first: i64) -> impl Iterator<Item = Timestamp> {
    (0..DAYS * DAY / MINUTE).map(move |count| Timestamp::from_second(first - count * MINUTE).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_search_finds_what_the_oracle_finds(
        fields in fields(),
        zone in prop::sample::select(&ZONES[..]),
        second in SECONDS,
        near in near(),
    ) {
        let zone = fixtures::zone(zone);
        let schedule = Schedule::parse(&fields.text).unwrap();
        let from = instant(&zone, second, near);
        let minute = from.as_second().div_euclid(MINUTE) * MINUTE;

        let next = schedule.next(from, &zone);
        match fields.first(minute + MINUTE, minute + DAYS * DAY, &zone) {
            Some(expected) => prop_assert_eq!(next, Some(expected), "after {} for {}", from, fields.text),
            None => {
                let far = |at: Timestamp| fields.name(at, &zone) && at.as_second() >= minute + DAYS * DAY;
                prop_assert!(next.is_none_or(far), "{:?} for {}", next, fields.text);
            }
        }

        let previous = schedule.previous(from, &zone);
        match minutes_down(minute).find(|at| fields.name(*at, &zone)) {
            Some(expected) => prop_assert_eq!(previous, Some(expected), "to {} for {}", from, fields.text),
            None => {
                let far = |at: Timestamp| fields.name(at, &zone) && at.as_second() <= minute - DAYS * DAY;
                prop_assert!(previous.is_none_or(far), "{:?} for {}", previous, fields.text);
            }
        }
    }

    #[test]
    fn next_and_previous_agree(
        fields in fields(),
        zone in prop::sample::select(&ZONES[..]),
        second in SECONDS,
    ) {
        let zone = fixtures::zone(zone);
        let schedule = Schedule::parse(&fields.text).unwrap();
        let from = Timestamp::from_second(second).unwrap();
        if let Some(next) = schedule.next(from, &zone) {
            prop_assert!(next > from);
            prop_assert_eq!(schedule.previous(next, &zone), Some(next));
            let just_before = next.checked_sub(SignedDuration::from_nanos(1)).unwrap();
            prop_assert!(schedule.previous(just_before, &zone).is_none_or(|before| before <= from));
        }
    }

    #[test]
    fn no_text_brings_the_parser_down(text in "\\PC{0,40}|[-0-9*?/,@ a-z]{0,30}") {
        let words = Schedule::parse(&text).err().map(|error| error.to_string());
        prop_assert!(words.is_none_or(|words| words.len() < 256));
    }
}
