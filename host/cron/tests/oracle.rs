//! Random schedules against an oracle that asks of each minute, one by one, whether it is named.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use proptest::prelude::*;
use stoker_cron::Schedule;

const ZONES: [&str; 14] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Asia/Tehran",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Antarctica/Troll",
];
/// From 1973, when no offset had seconds any more, to 2052.
const SECONDS: std::ops::Range<i64> = 100_000_000..2_600_000_000;
/// The oracle looks at this many days.
const DAYS: i64 = 6;
const MINUTE: i64 = 60;

/// A field as a person would write it, and the values that are meant.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    values: BTreeSet<i8>,
    star: bool,
}

fn plain(text: String, values: impl Iterator<Item = i8>) -> Field {
    Field { text, values: values.collect(), star: false }
}

fn item(minimum: i8, maximum: i8) -> impl Strategy<Value = Field> {
    let all = Field { text: "*".to_owned(), values: (minimum..=maximum).collect(), star: true };
    let (number, step) = (minimum..=maximum, 1..=maximum);
    let range = (number.clone(), number.clone()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        3 => number.clone().prop_map(|n| plain(n.to_string(), n..=n)),
        2 => range.clone().prop_map(|(low, high)| plain(format!("{low}-{high}"), low..=high)),
        1 => (range, step.clone()).prop_map(|((low, high), step)| {
            plain(format!("{low}-{high}/{step}"), (low..=high).step_by(step as usize))
        }),
        1 => (number, step.clone()).prop_map(move |(low, step)| {
            plain(format!("{low}/{step}"), (low..=maximum).step_by(step as usize))
        }),
        1 => (step, any::<bool>()).prop_map(move |(step, star)| Field {
            text: format!("{}/{step}", if star { '*' } else { '?' }),
            values: (minimum..=maximum).step_by(step as usize).collect(),
            star: step == 1,
        }),
        1 => Just(all),
    ]
}

fn field(minimum: i8, maximum: i8) -> impl Strategy<Value = Field> {
    let all = Field { text: "*".to_owned(), values: (minimum..=maximum).collect(), star: true };
    prop_oneof![
        Just(all),
        prop::collection::vec(item(minimum, maximum), 1..4).prop_map(|items| Field {
            text: items.iter().map(|item| item.text.as_str()).collect::<Vec<_>>().join(","),
            values: items.iter().flat_map(|item| item.values.clone()).collect(),
            star: items.iter().any(|item| item.star),
        }),
    ]
}

type Fields = (Field, Field, Field, Field, Field);

fn fields() -> impl Strategy<Value = Fields> {
    (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6))
}

fn text((minutes, hours, days, months, weekdays): &Fields) -> String {
    [minutes, hours, days, months, weekdays].map(|field| field.text.as_str()).join(" ")
}

/// Whether the fields name this instant.
fn named((minutes, hours, days, months, weekdays): &Fields, at: Timestamp, zone: &TimeZone) -> bool {
    let local = at.to_zoned(zone.clone());
    let day = days.values.contains(&local.day());
    let weekday = weekdays.values.contains(&local.weekday().to_sunday_zero_offset());
    let either = !days.star && !weekdays.star;
    local.second() == 0
        && minutes.values.contains(&local.minute())
        && hours.values.contains(&local.hour())
        && months.values.contains(&local.month())
        && (if either { day || weekday } else { day && weekday })
}

/// An instant, or one at a distance from the next change of the clocks.
fn instant(zone: &TimeZone, second: i64, distance: Option<i64>) -> Timestamp {
    let at = Timestamp::from_second(second).unwrap();
    match (distance, zone.following(at).next()) {
        (Some(distance), Some(change)) => {
            change.timestamp().checked_add(SignedDuration::from_secs(distance)).unwrap()
        }
        _ => at,
    }
}

/// The minutes of the oracle's days, from `first` on, or down when `step` is negative.
fn minutes(first: i64, step: i64) -> impl Iterator<Item = Timestamp> {
    (0..DAYS * 24 * 60).map(move |count| Timestamp::from_second(first + count * step).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_search_finds_what_the_oracle_finds(
        fields in fields(),
        zone in prop::sample::select(&ZONES[..]),
        second in SECONDS,
        distance in prop::option::of(-3 * 86_400_i64..86_400),
    ) {
        let zone = TimeZone::get(zone).unwrap();
        let schedule = Schedule::parse(&text(&fields)).unwrap();
        let from = instant(&zone, second, distance);
        let minute = from.as_second().div_euclid(MINUTE) * MINUTE;

        let next = schedule.next(from, &zone);
        match minutes(minute + MINUTE, MINUTE).find(|at| named(&fields, *at, &zone)) {
            Some(expected) => prop_assert_eq!(next, Some(expected), "after {} for {}", from, text(&fields)),
            None => {
                let far = |at: Timestamp| named(&fields, at, &zone) && at.as_second() >= minute + DAYS * 86_400;
                prop_assert!(next.is_none_or(far), "{:?} for {}", next, text(&fields));
            }
        }

        let previous = schedule.previous(from, &zone);
        match minutes(minute, -MINUTE).find(|at| named(&fields, *at, &zone)) {
            Some(expected) => prop_assert_eq!(previous, Some(expected), "to {} for {}", from, text(&fields)),
            None => {
                let far = |at: Timestamp| named(&fields, at, &zone) && at.as_second() <= minute - DAYS * 86_400;
                prop_assert!(previous.is_none_or(far), "{:?} for {}", previous, text(&fields));
            }
        }
    }

    #[test]
    fn next_and_previous_agree(
        fields in fields(),
        zone in prop::sample::select(&ZONES[..]),
        second in SECONDS,
    ) {
        let zone = TimeZone::get(zone).unwrap();
        let schedule = Schedule::parse(&text(&fields)).unwrap();
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
