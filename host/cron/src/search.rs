//! The search for the instants that a schedule names. It walks over the spans of time in which the zone's
//! offset from UTC is one and the same: within a span local time runs evenly, so what is named in local time
//! is found by arithmetic alone, and what a change skips or repeats comes out by itself.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::Schedule;

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Kubernetes gives up after the fifth calendar year past the one it starts in.
const YEARS: i16 = 5;

impl Schedule {
    /// The first instant after `after`, itself excluded, that the schedule names in `zone`; nothing when there
    /// is none up to the end of the fifth year after.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = Timestamp::from_second(floor(after).checked_add(1)?).ok()?;
        let last_year = zone.to_offset(from).to_datetime(from).year().saturating_add(YEARS);
        let end = end_of(last_year);
        loop {
            let offset = zone.to_offset(from);
            let change = zone.following(from).next().map(|transition| transition.timestamp());
            let local = offset.to_datetime(from);
            if local > end {
                return None;
            }
            // Whole seconds, so the last one of a span is the one before the change.
            let span_end = match change {
                Some(change) => offset.to_datetime(second_before(change)?),
                None => DateTime::MAX,
            };
            if let Some(found) = self.at_or_after(local, end.min(span_end)) {
                return instant(found, offset);
            }
            from = change?;
        }
    }

    /// The last instant at or before `at_or_before` that the schedule names in `zone`; nothing when there is
    /// none down to the begin of the fifth year before.
    pub fn previous(&self, at_or_before: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = Timestamp::from_second(floor(at_or_before)).ok()?;
        let first_year = zone.to_offset(from).to_datetime(from).year().saturating_sub(YEARS);
        let begin = begin_of(first_year);
        loop {
            let offset = zone.to_offset(from);
            // The change with which this span began: the last one at or before `from`.
            let change = zone.preceding(second_after(from)).next().map(|transition| transition.timestamp());
            let local = offset.to_datetime(from);
            if local < begin {
                return None;
            }
            let span_begin = change.map_or(DateTime::MIN, |change| offset.to_datetime(change));
            if let Some(found) = self.at_or_before(local, begin.max(span_begin)) {
                return instant(found, offset);
            }
            from = second_before(change?)?;
        }
    }

    /// The first local time from `local` to `last` that is named, where clocks do not change.
    fn at_or_after(&self, local: DateTime, last: DateTime) -> Option<DateTime> {
        // A minute is named by its first second.
        let begin = if local.second() == 0 { local } else { local.checked_add(MINUTE).ok()? };
        let (mut date, mut hour, mut minute) = (begin.date(), number(begin.hour()), number(begin.minute()));
        while date <= last.date() {
            if !self.months.has(number(date.month())) {
                date = date.last_of_month().tomorrow().ok()?;
            } else if self.names_day(date)
                && let Some(time) = self.time_at_or_after(hour, minute)
            {
                let found = date.to_datetime(time);
                return (found <= last).then_some(found);
            } else {
                date = date.tomorrow().ok()?;
            }
            (hour, minute) = (0, 0);
        }
        None
    }

    /// The last local time from `local` down to `first` that is named, where clocks do not change.
    fn at_or_before(&self, local: DateTime, first: DateTime) -> Option<DateTime> {
        let (mut date, mut hour, mut minute) = (local.date(), number(local.hour()), number(local.minute()));
        while date >= first.date() {
            if !self.months.has(number(date.month())) {
                date = date.first_of_month().yesterday().ok()?;
            } else if self.names_day(date)
                && let Some(time) = self.time_at_or_before(hour, minute)
            {
                let found = date.to_datetime(time);
                return (found >= first).then_some(found);
            } else {
                date = date.yesterday().ok()?;
            }
            (hour, minute) = (23, 59);
        }
        None
    }

    /// Whether the day of a named month is named. Restricting both kinds of day means either.
    fn names_day(&self, date: Date) -> bool {
        let day = self.days.has(number(date.day()));
        let weekday = self.weekdays.has(number(date.weekday().to_sunday_zero_offset()));
        if self.days.star || self.weekdays.star { day && weekday } else { day || weekday }
    }

    fn time_at_or_after(&self, hour: u8, minute: u8) -> Option<Time> {
        if self.hours.has(hour)
            && let Some(minute) = self.minutes.at_or_above(minute)
        {
            return time(hour, minute);
        }
        time(self.hours.at_or_above(hour + 1)?, self.minutes.at_or_above(0)?)
    }

    fn time_at_or_before(&self, hour: u8, minute: u8) -> Option<Time> {
        if self.hours.has(hour)
            && let Some(minute) = self.minutes.at_or_below(minute)
        {
            return time(hour, minute);
        }
        time(self.hours.at_or_below(hour.checked_sub(1)?)?, self.minutes.at_or_below(59)?)
    }
}

/// Parts of dates and times are small and not negative.
fn number(part: i8) -> u8 {
    part.unsigned_abs()
}

fn time(hour: u8, minute: u8) -> Option<Time> {
    Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()
}

fn instant(local: DateTime, offset: Offset) -> Option<Timestamp> {
    offset.to_timestamp(local).ok()
}

fn floor(instant: Timestamp) -> i64 {
    instant.as_second() - i64::from(instant.subsec_nanosecond() < 0)
}

fn second_after(instant: Timestamp) -> Timestamp {
    instant.checked_add(SECOND).unwrap_or(Timestamp::MAX)
}

fn second_before(instant: Timestamp) -> Option<Timestamp> {
    instant.checked_sub(SECOND).ok()
}

fn end_of(year: i16) -> DateTime {
    Date::new(year, 12, 31).map_or(DateTime::MAX, |day| day.at(23, 59, 59, 0))
}

fn begin_of(year: i16) -> DateTime {
    Date::new(year, 1, 1).map_or(DateTime::MIN, |day| day.at(0, 0, 0, 0))
}
