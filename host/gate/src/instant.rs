//! Instants as text: RFC 3339 in UTC. What could mean an earlier moment than it says is refused.

use std::ffi::CStr;
use std::time::SystemTime;

/// How an instant is written.
pub const EXAMPLE: &str = "2026-11-22T09:00:00Z";

/// Where the seconds are in a text such as [`EXAMPLE`]; their fraction follows.
const SECONDS: std::ops::Range<usize> = 17..19;

/// Reads an instant from 1970 to 9999. The error says what is wrong and shows how it is done.
pub fn parse(text: &CStr) -> Result<SystemTime, String> {
    let refuse = |why: &str| {
        let shown = text.to_string_lossy();
        Err(format!("{shown:?} is not an instant: {why}; write it in RFC 3339 and UTC, such as {EXAMPLE}"))
    };
    let Ok(text) = text.to_str() else {
        return refuse("it is not text");
    };
    if !text.ends_with('Z') {
        return refuse("it does not end with Z");
    }
    // The parser would take these for a moment before.
    let bytes = text.as_bytes();
    if bytes.get(SECONDS) == Some(b"60") {
        return refuse("leap seconds have no instant of their own, name the second after it");
    }
    if let Some([b'.', fraction @ .., b'Z']) = bytes.get(SECONDS.end..)
        && (!(1..=9).contains(&fraction.len()) || !fraction.iter().all(u8::is_ascii_digit))
    {
        return refuse("a fraction of a second has one to nine digits");
    }
    match humantime::parse_rfc3339(text) {
        Ok(instant) => Ok(instant),
        Err(humantime::TimestampError::OutOfRange) => refuse("there is no such date or time from 1970 on"),
        Err(_) => refuse("its form is another"),
    }
}

/// The instant as text, in its shortest form.
pub fn name(instant: SystemTime) -> String {
    humantime::format_rfc3339(instant).to_string()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<SystemTime, String> {
        parse(&CString::new(text).unwrap())
    }

    #[test]
    fn an_instant_is_read_to_the_nanosecond() {
        for (text, seconds, nanoseconds) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2000-02-29T23:59:59Z", 951_868_799, 0),
            ("2026-11-22T09:00:00Z", 1_795_338_000, 0),
            ("2026-11-22T09:00:00.5Z", 1_795_338_000, 500_000_000),
            ("2026-11-22T09:00:00.123456789Z", 1_795_338_000, 123_456_789),
            ("2026-11-22T09:00:00.000000001Z", 1_795_338_000, 1),
            ("9999-12-31T23:59:59.999999999Z", 253_402_300_799, 999_999_999),
        ] {
            assert_eq!(read(text), Ok(UNIX_EPOCH + Duration::new(seconds, nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused_with_the_reason_and_an_example() {
        for (text, why) in [
            ("", "does not end with Z"),
            ("now", "does not end with Z"),
            ("1795338000", "does not end with Z"),
            ("2026-11-22T09:00:00", "does not end with Z"),
            ("2026-11-22T09:00:00+01:00", "does not end with Z"),
            ("2026-11-22T09:00:00+00:00", "does not end with Z"),
            ("2026-11-22T09:00:00z", "does not end with Z"),
            ("Z", "form is another"),
            ("2026-11-22Z", "form is another"),
            ("2026-11-22T09:00Z", "form is another"),
            ("2026-11-22 at 09:00:00Z", "form is another"),
            ("2026-11-22T09:00:0éZ", "form is another"),
            ("+026-11-22T09:00:00Z", "form is another"),
            ("2026-13-22T09:00:00Z", "no such date"),
            ("2026-02-29T09:00:00Z", "no such date"),
            ("2026-11-22T24:00:00Z", "no such date"),
            ("2026-11-22T09:60:00Z", "no such date"),
            ("2026-11-22T09:00:61Z", "no such date"),
            ("1969-12-31T23:59:59Z", "no such date"),
            ("2016-12-31T23:59:60Z", "leap second"),
            ("2026-11-22T09:00:00.Z", "one to nine digits"),
            ("2026-11-22T09:00:00.1234567890Z", "one to nine digits"),
            ("2026-11-22T09:00:00.1 Z", "one to nine digits"),
            ("2026-11-22T09:00:00.12+4567Z", "one to nine digits"),
        ] {
            let refusal = read(text).expect_err(text);
            assert!(refusal.contains(why) && refusal.contains(EXAMPLE), "{text}: {refusal}");
        }
    }

    proptest! {
        #[test]
        fn an_instant_is_read_as_it_was_named(seconds in 0..253_402_300_800u64, nanoseconds in 0..1_000_000_000u32) {
            let instant = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
            prop_assert_eq!(read(&name(instant)), Ok(instant));
        }

        /// However many digits, and if they are zeros, too.
        #[test]
        fn a_fraction_is_never_cut(second in 0..60u32, digits in "[0-9]{1,9}") {
            let whole = read(&format!("2026-11-22T09:00:{second:02}Z")).unwrap();
            let fraction = Duration::from_nanos(format!("{digits:0<9}").parse().unwrap());
            prop_assert_eq!(read(&format!("2026-11-22T09:00:{second:02}.{digits}Z")), Ok(whole + fraction));
        }

        #[test]
        fn any_text_is_read_or_refused_in_words(text in "[^\0]{0,40}") {
            if let Err(refusal) = read(&text) {
                prop_assert!(refusal.contains(EXAMPLE));
            }
        }
    }

    #[test]
    fn a_text_with_a_wrong_byte_is_refused_or_the_instant_that_it_names() {
        let right = b"2026-11-22T09:00:00.123456789Z";
        for (place, byte) in (0..right.len()).flat_map(|place| (1..=u8::MAX).map(move |byte| (place, byte))) {
            let mut text = right.to_vec();
            text[place] = byte;
            if let Ok(instant) = parse(&CString::new(text.clone()).unwrap()) {
                assert_eq!(name(instant).as_bytes(), text);
            }
        }
    }
}
