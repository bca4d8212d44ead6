//! Changes of the clocks, ends of years and of time: where a search may go wrong, or on forever.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use stoker_cron::Schedule;

/// The next `count` instants after `after`.
fn following(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (Schedule::parse(schedule).unwrap(), fixtures::zone(zone));
    let first = schedule.next(after.parse().unwrap(), &zone);
    let all = std::iter::successors(first, |last| schedule.next(*last, &zone));
    all.take(count).map(|instant| instant.to_string()).collect()
}

/// The last `count` instants up to `until`, the latest first.
fn preceding(schedule: &str, zone: &str, until: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (Schedule::parse(schedule).unwrap(), fixtures::zone(zone));
    let first = schedule.previous(until.parse().unwrap(), &zone);
    let just_before = |instant: &Timestamp| instant.checked_sub(SignedDuration::from_nanos(1)).unwrap();
    let all = std::iter::successors(first, |last| schedule.previous(just_before(last), &zone));
    all.take(count).map(|instant| instant.to_string()).collect()
}

#[test]
fn a_time_that_is_skipped_is_not_made_up_for() {
    let (schedule, zone) = ("30 2 * * *", "Europe/Berlin");
    assert_eq!(following(schedule, zone, "2026-03-28T01:30:00Z", 1), ["2026-03-30T00:30:00Z"]);
    assert_eq!(preceding(schedule, zone, "2026-03-30T00:29:59Z", 1), ["2026-03-28T01:30:00Z"]);
}

#[test]
fn a_time_that_occurs_twice_is_named_twice() {
    let (schedule, zone) = ("30 1 * * *", "America/New_York");
    let named =
        ["2026-10-31T05:30:00Z", "2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"];
    assert_eq!(following(schedule, zone, "2026-10-31T05:00:00Z", 4), named);
    let mut backwards = preceding(schedule, zone, "2026-11-02T06:30:00Z", 4);
    backwards.reverse();
    assert_eq!(backwards, named);
}

#[test]
fn half_an_hour_may_be_skipped_and_repeated() {
    let zone = "Australia/Lord_Howe";
    // 02:00 +10:30 becomes 02:30 +11:00.
    assert_eq!(
        following("*/15 2 * * *", zone, "2026-10-03T15:00:00Z", 3),
        ["2026-10-03T15:30:00Z", "2026-10-03T15:45:00Z", "2026-10-04T15:00:00Z"]
    );
    // 02:00 +11:00 becomes 01:30 +10:30.
    assert_eq!(
        following("45 1 * * *", zone, "2026-04-04T14:00:00Z", 2),
        ["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"]
    );
}

#[test]
fn a_day_without_a_midnight_has_its_other_times() {
    let zone = "America/Sao_Paulo";
    // On 2018-11-04 the clock went from 00:00 to 01:00.
    assert_eq!(following("0 0 * * 0", zone, "2018-11-03T12:00:00Z", 1), ["2018-11-11T02:00:00Z"]);
    assert_eq!(following("0 1 * * 0", zone, "2018-11-03T12:00:00Z", 1), ["2018-11-04T03:00:00Z"]);
    assert_eq!(following("0 5 * * 6", zone, "2018-11-03T12:00:00Z", 1), ["2018-11-10T07:00:00Z"]);
}

#[test]
fn a_month_that_begins_with_a_change_is_not_lost() {
    // On 2001-04-01 the clock went from 00:00 to 01:00.
    assert_eq!(following("@yearly", "America/Havana", "2001-03-07T00:00:00Z", 1), ["2002-01-01T05:00:00Z"]);
}

#[test]
fn a_day_that_a_zone_left_out_is_not_named() {
    // Samoa crossed the date line and had no 30 December 2011.
    let (schedule, zone) = ("0 12 29-31 12 *", "Pacific/Apia");
    assert_eq!(
        following(schedule, zone, "2011-12-29T00:00:00Z", 2),
        ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"]
    );
    assert_eq!(following("0 12 30 12 *", zone, "2011-12-01T00:00:00Z", 1), ["2012-12-29T22:00:00Z"]);
}

#[test]
fn offsets_with_seconds_are_taken_as_they_were() {
    // Until 1972 Monrovia was 44 minutes and 30 seconds behind.
    let (schedule, zone) = ("0 0 * * *", "Africa/Monrovia");
    assert_eq!(following(schedule, zone, "1971-06-01T00:00:00Z", 1), ["1971-06-01T00:44:30Z"]);
    assert_eq!(preceding(schedule, zone, "1971-06-02T00:00:00Z", 1), ["1971-06-01T00:44:30Z"]);
}

#[test]
fn next_is_strictly_after_and_previous_is_at_or_before() {
    let (daily, zone) = ("0 8 * * *", "UTC");
    let at = "2026-01-01T08:00:00Z";
    assert_eq!(following(daily, zone, at, 1), ["2026-01-02T08:00:00Z"]);
    assert_eq!(following(daily, zone, "2026-01-01T07:59:59.999999999Z", 1), [at]);
    assert_eq!(preceding(daily, zone, at, 1), [at]);
    assert_eq!(preceding(daily, zone, "2026-01-01T07:59:59.999999999Z", 1), ["2025-12-31T08:00:00Z"]);
    assert_eq!(preceding(daily, zone, "1969-12-31T07:59:59.5Z", 1), ["1969-12-30T08:00:00Z"]);
}

#[test]
fn what_never_comes_ends_soon() {
    for zone in ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca"] {
        for schedule in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "30 4 30 2 ?"] {
            let begun = Instant::now();
            assert!(following(schedule, zone, "2026-01-01T00:00:00Z", 1).is_empty());
            assert!(preceding(schedule, zone, "2026-01-01T00:00:00Z", 1).is_empty());
            assert!(begun.elapsed() < Duration::from_secs(1), "{schedule} in {zone}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn the_search_covers_five_calendar_years() {
    let leap = "0 0 29 2 *";
    assert_eq!(following(leap, "UTC", "2099-01-01T00:00:00Z", 1), ["2104-02-29T00:00:00Z"]);
    assert!(following(leap, "UTC", "2098-12-31T23:00:00Z", 1).is_empty());
    assert_eq!(preceding(leap, "UTC", "2101-12-31T00:00:00Z", 1), ["2096-02-29T00:00:00Z"]);
    assert!(preceding(leap, "UTC", "2102-01-01T00:00:00Z", 1).is_empty());
}

#[test]
fn the_ends_of_time_are_no_trap() {
    for zone in ["UTC", "Europe/Berlin", "Pacific/Kiritimati"] {
        let (every, zone) = (Schedule::parse("* * * * *").unwrap(), fixtures::zone(zone));
        assert_eq!(every.next(Timestamp::MAX, &zone), None);
        assert!(every.previous(Timestamp::MAX, &zone).is_some());
        assert!(every.next(Timestamp::MIN, &zone).is_some());
        let never = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(never.next(Timestamp::MIN, &zone), None);
        assert_eq!(never.previous(Timestamp::MIN, &zone), None);
    }
}
