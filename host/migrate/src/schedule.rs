//! Schedules: what the older systems' cron library took and Stoker does not is rewritten where that can be done.

use crate::notes::Notes;

/// A schedule and its time zone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Timetable {
    /// The cron expression.
    pub schedule: String,
    /// The time zone that stood in it.
    pub zone: Option<String>,
}

/// Reads a schedule that stands at `path`; what Stoker cannot read is carried as it is, with a warning.
pub(crate) fn read(text: &str, path: &str, notes: &mut Notes) -> Timetable {
    let trimmed = text.trim();
    let zoned = trimmed.strip_prefix("CRON_TZ=").or_else(|| trimmed.strip_prefix("TZ="));
    let (zone, schedule) = match zoned.and_then(|rest| rest.split_once(char::is_whitespace)) {
        Some((zone, rest)) => {
            notes.change(format!("{path}: the time zone {zone} that stood in it is in timeZone"));
            (Some(zone.to_owned()), rest.trim())
        }
        None => (None, trimmed),
    };
    let schedule = match schedule.strip_prefix("@every").map(|period| (period.trim(), every(period.trim()))) {
        Some((period, Some(cron))) => {
            notes.change(format!(
                "{path} is {cron}, not @every {period}: at these times by the clock, whenever the operator started"
            ));
            cron
        }
        _ => schedule.to_owned(),
    };
    if let Err(error) = stoker_cron::Schedule::parse(&schedule) {
        notes.warn(format!("{path} is no schedule that Stoker can read, so that nothing will run: {error}"));
    }
    Timetable { schedule, zone }
}

/// A cron expression for a period that divides the hour or the day.
fn every(period: &str) -> Option<String> {
    let seconds = crate::values::go_duration(period)?;
    let minutes = seconds / 60;
    match minutes {
        _ if seconds % 60 != 0 || minutes == 0 => None,
        1 => Some("* * * * *".to_owned()),
        2..60 if 60 % minutes == 0 => Some(format!("*/{minutes} * * * *")),
        60 => Some("0 * * * *".to_owned()),
        1440 => Some("0 0 * * *".to_owned()),
        _ if minutes % 60 == 0 && minutes < 1440 && 1440 % minutes == 0 => {
            Some(format!("0 */{} * * *", minutes / 60))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_of_the_older_library_are_rewritten_where_that_can_be_done() {
        let cases = [
            ("42 3 * * *", "42 3 * * *", None, 0),
            (" 0/15 * 1 * * ", "0/15 * 1 * *", None, 0),
            ("CRON_TZ=Europe/Berlin 0 9 * * MON-FRI", "0 9 * * MON-FRI", Some("Europe/Berlin"), 0),
            ("@every 10m", "*/10 * * * *", None, 0),
            ("@every 1h30m", "@every 1h30m", None, 1),
            ("@every 6h", "0 */6 * * *", None, 0),
            ("@every 24h", "0 0 * * *", None, 0),
            ("@every 45s", "@every 45s", None, 1),
            ("@hourly", "@hourly", None, 0),
            ("soon", "soon", None, 1),
        ];
        for (text, schedule, zone, warnings) in cases {
            let mut notes = Notes::default();
            let read = read(text, "schedule", &mut notes);
            let wanted = Timetable { schedule: schedule.to_owned(), zone: zone.map(str::to_owned) };
            assert_eq!(read, wanted, "{text}");
            assert_eq!(notes.warnings.len(), warnings, "{text}: {notes:?}");
        }
    }
}
