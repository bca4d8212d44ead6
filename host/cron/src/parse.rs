//! The text of a schedule: its five fields, or one of the words with `@`.

use std::str::FromStr;

use crate::Schedule;
use crate::field::{DAY, HOUR, Kind, MINUTE, MONTH, Set, WEEKDAY, Wrong, quoted};

/// Why a text is not a schedule, and where. Its words are shorter than 256 bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {words}")]
pub struct ParseError {
    column: usize,
    words: String,
}

impl ParseError {
    /// The character at which the trouble begins, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    fn at_begin(words: impl Into<String>) -> Self {
        Self { column: 1, words: words.into() }
    }
}

const FIELDS: [Kind; 5] = [MINUTE, HOUR, DAY, MONTH, WEEKDAY];

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// Words that name the field, the column, and what would be right.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err(ParseError::at_begin(
                "a schedule has no time zone of its own; use the field timeZone",
            ));
        }
        if text.starts_with('@') {
            return named(text);
        }
        let fields = fields(text);
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            let found = fields.len();
            return Err(ParseError {
                // At the first that is too many, or behind the last.
                column: fields.get(FIELDS.len()).map_or(text.chars().count() + 1, |(column, _)| *column),
                words: format!(
                    "{found} fields instead of 5: minute, hour, day of the month, month, day of the week; for \
                     example 0 8 * * 1-5"
                ),
            });
        };
        Ok(Self {
            minutes: field(MINUTE, minutes)?,
            hours: field(HOUR, hours)?,
            days: field(DAY, days)?,
            months: field(MONTH, months)?,
            weekdays: field(WEEKDAY, weekdays)?,
        })
    }
}

impl FromStr for Schedule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

/// The words between blanks, each with its column.
fn fields(text: &str) -> Vec<(usize, &str)> {
    let mut column = 1;
    let mut fields = Vec::new();
    for part in text.split(char::is_whitespace) {
        if !part.is_empty() {
            fields.push((column, part));
        }
        column += part.chars().count() + 1;
    }
    fields
}

fn field(kind: Kind, (column, text): (usize, &str)) -> Result<Set, ParseError> {
    kind.parse(text).map_err(|Wrong { at, words }| ParseError {
        column: column + at,
        words: format!("{}: {words}", kind.name),
    })
}

fn named(text: &str) -> Result<Schedule, ParseError> {
    let hourly = Schedule {
        minutes: Set::one(0),
        hours: Set::all(HOUR),
        days: Set::all(DAY),
        months: Set::all(MONTH),
        weekdays: Set::all(WEEKDAY),
    };
    let daily = Schedule { hours: Set::one(0), ..hourly };
    let monthly = Schedule { days: Set::one(1), ..daily };
    match text {
        "@hourly" => Ok(hourly),
        "@daily" | "@midnight" => Ok(daily),
        "@weekly" => Ok(Schedule { weekdays: Set::one(0), ..daily }),
        "@monthly" => Ok(monthly),
        "@yearly" | "@annually" => Ok(Schedule { months: Set::one(1), ..monthly }),
        _ if text.starts_with("@every") => Err(ParseError::at_begin(
            "@every counts from a beginning that is not known here; name the times, for example */5 * * * *",
        )),
        _ => Err(ParseError::at_begin(format!(
            "{} is not known; there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually",
            quoted(text)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Schedule {
        Schedule::parse(text).unwrap()
    }

    #[test]
    fn words_stand_for_fields() {
        for (word, fields) in [
            ("@hourly", "0 * * * *"),
            ("@daily", "0 0 * * *"),
            ("@midnight", "0 0 * * *"),
            ("@weekly", "0 0 * * 0"),
            ("@monthly", "0 0 1 * *"),
            ("@yearly", "0 0 1 1 *"),
            ("@annually", "0 0 1 1 ?"),
        ] {
            assert_eq!(parsed(word), parsed(fields), "{word}");
        }
    }

    #[test]
    fn blanks_around_fields_do_not_matter() {
        assert_eq!(parsed("  0\t8 * *  mon "), parsed("0 8 * * 1"));
    }

    #[test]
    fn errors_name_the_field_the_column_and_what_would_be_right() {
        for (text, error) in [
            ("0 25 * * *", "column 3: hour: 25 is above 23"),
            ("0 8 * *  1-7", "column 12: day of the week: 7 is above 6; Sunday is 0"),
            (
                "0 8 * * L",
                "column 9: day of the week: \"L\" is not a value; write 0 to 6 or sun to sat, a range such as \
                 0-4, or *",
            ),
            (
                "0 8 * *",
                "column 8: 4 fields instead of 5: minute, hour, day of the month, month, day of the week; for \
                 example 0 8 * * 1-5",
            ),
            (
                "0 0 8 * * 1",
                "column 11: 6 fields instead of 5: minute, hour, day of the month, month, day of the week; for \
                 example 0 8 * * 1-5",
            ),
            (
                "",
                "column 1: 0 fields instead of 5: minute, hour, day of the month, month, day of the week; for \
                 example 0 8 * * 1-5",
            ),
            (
                "CRON_TZ=Europe/Berlin 0 8 * * *",
                "column 1: a schedule has no time zone of its own; use the field timeZone",
            ),
            ("TZ=UTC 0 8 * * *", "column 1: a schedule has no time zone of its own; use the field timeZone"),
            (
                "@every 1h",
                "column 1: @every counts from a beginning that is not known here; name the times, for example \
                 */5 * * * *",
            ),
            (
                "@Daily",
                "column 1: \"@Daily\" is not known; there are @hourly, @daily, @midnight, @weekly, @monthly, \
                 @yearly and @annually",
            ),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err().to_string(), error, "{text}");
        }
    }

    #[test]
    fn the_words_stay_short_whatever_the_text_is() {
        for text in [
            "€".repeat(5_000),
            format!("@{}", "\u{1}".repeat(5_000)),
            format!("{} * * * *", "9".repeat(5_000)),
        ] {
            let words = Schedule::parse(&text).unwrap_err().to_string();
            assert!(words.len() < 256, "{} bytes: {words}", words.len());
        }
    }
}
