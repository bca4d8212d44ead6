//! Spans of time as people write them: `90m`, `10h`, `1h30m`, `2d`.

const MINUTE: u64 = 60;
const UNITS: [(char, u64); 3] = [('d', 24 * 60 * MINUTE), ('h', 60 * MINUTE), ('m', MINUTE)];
/// Seven days.
pub const MAXIMUM: u64 = 7 * 24 * 60 * MINUTE;

/// Reads a span of 1 minute to 7 days; the answer is in seconds.
///
/// # Errors
/// What is wrong with the text, as the rest of a sentence that begins with it.
pub fn parse(text: &str) -> Result<u64, String> {
    const WRONG: &str = "is not a span; write for example 90m, 10h, 1h30m or 2d";
    let (mut rest, mut units, mut seconds) = (text, &UNITS[..], 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or(WRONG)?;
        let (number, after) = rest.split_at(digits);
        // Each unit once, the larger before the smaller.
        let unit = units.iter().position(|(letter, _)| after.starts_with(*letter)).ok_or(WRONG)?;
        if number.is_empty() {
            return Err(WRONG.to_owned());
        }
        // What is too large to be a number is too long a span.
        let number = number.parse().unwrap_or(u64::MAX);
        seconds = seconds.saturating_add(units[unit].1.saturating_mul(number));
        units = &units[unit + 1..];
        rest = &after[1..];
    }
    match seconds {
        _ if text.is_empty() => Err(WRONG.to_owned()),
        0 => Err("is less than 1m".to_owned()),
        1..=MAXIMUM => Ok(seconds),
        _ => Err("is more than 7d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_sums_of_days_hours_and_minutes() {
        for (text, minutes) in [
            ("1m", 1),
            ("90m", 90),
            ("10h", 600),
            ("1h30m", 90),
            ("2d", 2 * 1440),
            ("1d2h3m", 1440 + 123),
            ("7d", 7 * 1440),
            ("0h5m", 5),
        ] {
            assert_eq!(parse(text), Ok(minutes * 60), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_or_out_of_bounds_is_refused() {
        for text in ["", "10", "h", "10 h", "1.5h", "-1h", "30m1h", "1h1h", "10s", "1hour", "é", "1é"] {
            assert!(parse(text).unwrap_err().starts_with("is not a span"), "{text}");
        }
        assert_eq!(parse("0m"), Err("is less than 1m".to_owned()));
        for text in ["7d1m", "169h", "99999999999999999999999m"] {
            assert_eq!(parse(text), Err("is more than 7d".to_owned()), "{text}");
        }
    }
}
