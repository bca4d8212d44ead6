//! Cron schedules as Kubernetes' CronJob reads them: which instants a schedule names in a time zone.
//! No clock and no I/O: the instant to start from and the zone are arguments. Builds for WebAssembly, too.
//!
//! A schedule has five fields, `minute hour day-of-month month day-of-week`, or is one of `@hourly`, `@daily`,
//! `@midnight`, `@weekly`, `@monthly`, `@yearly` and `@annually`. A field is a list, separated by commas, of
//! values, ranges `8-17`, and steps `*/5`, `8-17/2` or `5/15` (from 5 to the field's end). `*` and `?` are the
//! whole range; months and weekdays have English names of three letters, and Sunday is 0 only.
//!
//! An instant is named when its local time is. So a local time that a change of the clocks skips is not made
//! up for, and one that occurs twice is named twice. When both the day of the month and the weekday are
//! restricted, either is enough; `*` with a step above 1 restricts.
//!
//! Kubernetes takes five things that are refused here, because none of them can be meant as it acts: `@every`,
//! which names no instants without a beginning; the prefixes `TZ=` and `CRON_TZ=`, for which there is a field;
//! a field of commas only, which names nothing; `*-5`, which it reads as `*`; and a Turkish `İ`, which it takes
//! for an `i`. And where clocks change near midnight, by other than full hours, not at a full hour, or back by
//! more than one, its search loses times that the rule names, at worst a whole year's, turns back, or does not
//! end; here they are found. All else is the same: the tests compare the two live.
//!
//! ```
//! use jiff::{Timestamp, tz::TimeZone};
//!
//! let weekdays = stoker_cron::Schedule::parse("0 8 * * mon-fri")?;
//! let saturday: Timestamp = "2026-03-28T12:00:00Z".parse()?;
//! let berlin = TimeZone::get("Europe/Berlin")?;
//! assert_eq!(weekdays.next(saturday, &berlin), Some("2026-03-30T06:00:00Z".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

mod field;
mod parse;
mod search;

use field::Set;
pub use parse::ParseError;

/// A schedule: which minutes of the local time it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
}
