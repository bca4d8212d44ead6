//! Schedules with which older systems warmed up cron jobs: the first warm-up after a given time, which begins
//! so many minutes before an instant. The instant is moved back, not the schedule's fields, so a warm-up may
//! begin in the hour, day or year before.
#![allow(clippy::unwrap_used)]

mod fixtures;

use jiff::{SignedDuration, Timestamp};
use stoker_cron::Schedule;

/// A Wednesday.
const NOON: &str = "2026-01-14T12:00:00Z";

/// The first `count` begins of warm-ups after `after`, without their seconds.
fn warm_ups(schedule: &str, zone: &str, minutes: i64, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (Schedule::parse(schedule).unwrap(), fixtures::zone(zone));
    let lead = SignedDuration::from_mins(minutes);
    let after = after.parse::<Timestamp>().unwrap().checked_add(lead).unwrap();
    let instants = std::iter::successors(schedule.next(after, &zone), |last| schedule.next(*last, &zone));
    let begins = instants.map(|instant| instant.checked_sub(lead).unwrap().to_string());
    begins.take(count).map(|begin| begin.strip_suffix(":00Z").unwrap().to_owned()).collect()
}

fn check(cases: &[(&str, i64, &str)]) {
    for (schedule, minutes, begin) in cases {
        assert_eq!(
            warm_ups(schedule, "UTC", *minutes, NOON, 1),
            [*begin],
            "{schedule} with {minutes} minutes"
        );
    }
}

#[test]
fn a_warm_up_begins_its_minutes_before_the_first_instant() {
    check(&[
        ("30 * * 10 *", 5, "2026-10-01T00:25"),
        ("0 0 * * *", 10, "2026-01-14T23:50"),
        ("0/15 * 1 * *", 10, "2026-01-31T23:50"),
        ("*/30 * 1 * *", 10, "2026-01-31T23:50"),
        ("30 14-16 * * *", 10, "2026-01-14T14:20"),
        // Monday the 19th comes before the 25th.
        ("5 * */12 * 1,2", 5, "2026-01-19T00:00"),
        ("15/30 5 * * *", 5, "2026-01-15T05:10"),
        ("15-20 12 * * 5", 5, "2026-01-16T12:10"),
        ("5,12,48,56 * * * 5", 10, "2026-01-15T23:55"),
        ("*/30 * * * *", 15, "2026-01-14T12:15"),
        ("5/30 * * * *", 5, "2026-01-14T12:30"),
        ("0 1 * * 5", 10, "2026-01-16T00:50"),
        ("0 9 * * MON-FRI", 5, "2026-01-15T08:55"),
        ("0 14 * * *", 60, "2026-01-14T13:00"),
        ("0 14 * * *", 61, "2026-01-14T12:59"),
        ("59 14 * * *", 90, "2026-01-14T13:29"),
    ]);
}

#[test]
fn what_the_older_system_refused_is_taken() {
    check(&[
        ("0 14-16 * * *", 10, "2026-01-14T13:50"),
        ("0-15 0 * * *", 10, "2026-01-14T23:50"),
        ("0 0 * * 5", 10, "2026-01-15T23:50"),
        ("0 * * * 5", 10, "2026-01-15T23:50"),
        ("*/15 6 * * *", 10, "2026-01-15T05:50"),
        ("0 6,18 * * *", 10, "2026-01-14T17:50"),
        ("0 */2 * * *", 10, "2026-01-14T13:50"),
        ("10-40/10 * * * *", 5, "2026-01-14T12:05"),
        ("10-40/10 6 * * *", 15, "2026-01-15T05:55"),
        ("1-5,10-15 * * * *", 10, "2026-01-14T12:01"),
        ("1-5,10-15 6 * * *", 3, "2026-01-15T05:58"),
        ("0 0 1 * *", 10, "2026-01-31T23:50"),
        ("0 8 ? * 4", 10, "2026-01-15T07:50"),
        ("0 8 15 * ?", 10, "2026-01-15T07:50"),
        ("@hourly", 10, "2026-01-14T12:50"),
    ]);
}

#[test]
fn a_time_zone_counts() {
    let mornings = |zone, after| warm_ups("0 9 * * MON-FRI", zone, 5, after, 2);
    assert_eq!(mornings("Europe/Berlin", NOON), ["2026-01-15T07:55", "2026-01-16T07:55"]);
    // From the Friday before the clocks change to the Monday after.
    assert_eq!(mornings("Europe/Berlin", "2026-03-27T00:00:00Z"), ["2026-03-27T07:55", "2026-03-30T06:55"]);
    // The warm-up begins on the day before, as there it is still that day.
    assert_eq!(warm_ups("0 0 1 * *", "Asia/Kolkata", 10, NOON, 1), ["2026-01-31T18:20"]);
}

#[test]
fn quarters_of_an_hour_on_the_first_of_a_month_begin_in_the_month_before() {
    let begins = warm_ups("0/15 * 1 * *", "UTC", 10, NOON, 97);
    assert_eq!(begins[..3], ["2026-01-31T23:50", "2026-02-01T00:05", "2026-02-01T00:20"]);
    assert_eq!(begins[94..], ["2026-02-01T23:20", "2026-02-01T23:35", "2026-02-28T23:50"]);
}

#[test]
fn a_warm_up_may_be_as_long_as_the_time_between_instants_or_longer() {
    for (schedule, minutes, begins) in [
        ("0 * * * *", 60, ["2026-01-14T13:00", "2026-01-14T14:00", "2026-01-14T15:00"]),
        ("0 * * * *", 90, ["2026-01-14T12:30", "2026-01-14T13:30", "2026-01-14T14:30"]),
        ("0 0 1 1 *", 1_440, ["2026-12-31T00:00", "2027-12-31T00:00", "2028-12-31T00:00"]),
    ] {
        assert_eq!(warm_ups(schedule, "UTC", minutes, NOON, 3), begins, "{schedule} with {minutes} minutes");
    }
}

#[test]
fn none_of_many_warm_ups_is_lost_and_none_begins_twice() {
    for (apart, minutes) in [(1, 1), (3, 2), (4, 2), (4, 3), (5, 4), (5, 5), (10, 4)] {
        let begins = warm_ups(&format!("*/{apart} * * * *"), "UTC", minutes, NOON, 2_000);
        let noon = NOON.parse::<Timestamp>().unwrap().as_second();
        let first = (1..).find(|minute| (minute + minutes) % apart == 0).unwrap();
        for (index, begin) in (0..).zip(&begins) {
            let at = format!("{begin}:00Z").parse::<Timestamp>().unwrap().as_second();
            assert_eq!(at, noon + (first + index * apart) * 60, "{apart} apart with {minutes}, {index}");
        }
        assert_eq!(begins.len(), 2_000);
    }
}

#[test]
fn what_both_refuse_is_refused() {
    for schedule in
        ["", " ", "*", "* * * *", "30 14", "TZ=UTC 0 8 * * *", "CRON_TZ=Europe/Berlin 0 8 * * *", "@every 1h"]
    {
        assert!(Schedule::parse(schedule).is_err(), "{schedule}");
    }
}
