//! The configuration of `scheduled-buffer`: a time zone and windows, checked once so that the rule may trust
//! them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use stoker_cron::Schedule;

use crate::span;

/// JSON Schema of the configuration.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"timeZone":{"type":"string","default":"UTC","description":"Name from the IANA database, for example Europe/Berlin."},"windows":{"type":"array","maxItems":64,"items":{"type":"object","additionalProperties":false,"required":["start","duration","idleTarget"],"properties":{"start":{"type":"string","maxLength":256,"description":"Cron schedule of the begin, for example 0 8 * * 1-5."},"duration":{"type":"string","maxLength":32,"description":"1m to 7d, for example 90m, 10h or 1h30m."},"idleTarget":{"type":"integer","minimum":0,"maximum":1000000,"description":"Idle pods while the window is open."}}}}}}"#;

/// Windows that a configuration may have.
const WINDOWS: usize = 64;
/// Bytes of a schedule: reasons repeat it.
const START: usize = 256;
/// Bytes of a duration.
const DURATION: usize = 32;
/// The most replicas that a decision may ask for.
const IDLE: u64 = 1_000_000;
/// An answer has at most 16 errors.
const ERRORS: usize = 16;

/// A timetable.
#[derive(Clone, Debug)]
pub struct Timetable {
    pub zone: TimeZone,
    /// The zone's name, for people.
    pub zone_name: String,
    pub windows: Vec<Window>,
}

/// A stretch of time that comes again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// When it opens, as it was written.
    pub start: String,
    pub schedule: Schedule,
    /// How long it stays open, as it was written.
    pub duration: String,
    pub seconds: u64,
    pub idle_target: u32,
}

/// Reads the configuration.
///
/// # Errors
/// One sentence per thing that is wrong.
pub fn parse(config: &str) -> Result<Timetable, Vec<String>> {
    let Ok(keys) = serde_json::from_str::<Map<String, Value>>(config) else {
        return Err(vec![
            r#"config is not a JSON object: write for example {"windows": [{"start": "0 8 * * 1-5", "duration": "10h", "idleTarget": 20}]}"#
                .to_owned(),
        ]);
    };
    let mut errors = Vec::new();
    let mut timetable = Timetable { zone: TimeZone::UTC, zone_name: "UTC".to_owned(), windows: Vec::new() };
    for (key, value) in &keys {
        match key.as_str() {
            "timeZone" => match zone(value) {
                Ok((zone, name)) => (timetable.zone, timetable.zone_name) = (zone, name),
                Err(words) => errors.push(words),
            },
            "windows" => match value.as_array() {
                Some(windows) if windows.len() > WINDOWS => {
                    errors.push(format!("windows: {} of them, at most {WINDOWS} are allowed", windows.len()));
                }
                Some(windows) => {
                    for (index, value) in windows.iter().enumerate() {
                        match window(&format!("windows[{index}]"), value) {
                            Ok(window) => timetable.windows.push(window),
                            Err(words) => errors.extend(words),
                        }
                    }
                }
                None => errors.push(format!("windows: {} is not a list; write [{{…}}]", shown(value))),
            },
            _ => errors.push(unknown("", key, "timeZone and windows")),
        }
    }
    errors.truncate(ERRORS);
    if errors.is_empty() { Ok(timetable) } else { Err(errors) }
}

fn zone(value: &Value) -> Result<(TimeZone, String), String> {
    let zone = value.as_str().and_then(|name| TimeZone::get(name).ok());
    let name = zone.as_ref().and_then(|zone| zone.iana_name()).map(str::to_owned);
    zone.zip(name).ok_or_else(|| {
        format!(
            "timeZone: {} is not known; write a name from the IANA database, for example Europe/Berlin",
            shown(value)
        )
    })
}

fn window(place: &str, value: &Value) -> Result<Window, Vec<String>> {
    let Some(keys) = value.as_object() else {
        return Err(vec![format!(
            r#"{place}: {} is not an object; write {{"start": "0 8 * * 1-5", "duration": "10h", "idleTarget": 20}}"#,
            shown(value)
        )]);
    };
    let mut errors: Vec<String> = keys
        .keys()
        .filter(|key| !["start", "duration", "idleTarget"].contains(&key.as_str()))
        .map(|key| unknown(&format!("{place}."), key, "start, duration and idleTarget"))
        .collect();
    let start = note(start(place, keys.get("start")), &mut errors);
    let duration = note(duration(place, keys.get("duration")), &mut errors);
    let idle_target = note(idle_target(place, keys.get("idleTarget")), &mut errors);
    match (start, duration, idle_target) {
        (Some((start, schedule)), Some((duration, seconds)), Some(idle_target)) if errors.is_empty() => {
            Ok(Window { start, schedule, duration, seconds, idle_target })
        }
        _ => Err(errors),
    }
}

fn note<T>(found: Result<T, String>, errors: &mut Vec<String>) -> Option<T> {
    found.map_err(|words| errors.push(words)).ok()
}

fn start(place: &str, value: Option<&Value>) -> Result<(String, Schedule), String> {
    let place = format!("{place}.start");
    let text = text(&place, value, "a cron schedule, for example \"0 8 * * 1-5\"", START)?;
    let schedule = Schedule::parse(text).map_err(|error| format!("{place}: {error}"))?;
    // The search covers five years, and these have a 29 February.
    if schedule.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_none() {
        return Err(format!("{place}: {} names no day that there is", shown(&text.into())));
    }
    Ok((text.to_owned(), schedule))
}

fn duration(place: &str, value: Option<&Value>) -> Result<(String, u64), String> {
    let place = format!("{place}.duration");
    let text = text(&place, value, "a span, for example \"10h\"", DURATION)?;
    let seconds = span::parse(text).map_err(|words| format!("{place}: {} {words}", shown(&text.into())))?;
    Ok((text.to_owned(), seconds))
}

fn idle_target(place: &str, value: Option<&Value>) -> Result<u32, String> {
    let place = format!("{place}.idleTarget");
    let Some(value) = value else {
        return Err(format!("{place} is missing; write a number from 0"));
    };
    match value.as_u64() {
        Some(number @ 0..=IDLE) => u32::try_from(number).map_err(|error| format!("{place}: {error}")),
        Some(number) => Err(format!("{place}: {number} is above {IDLE}")),
        None => Err(format!("{place}: {} is not a whole number from 0", shown(value))),
    }
}

fn text<'a>(place: &str, value: Option<&'a Value>, wanted: &str, most: usize) -> Result<&'a str, String> {
    match value {
        None => Err(format!("{place} is missing; write {wanted}")),
        Some(Value::String(text)) if text.len() > most => {
            Err(format!("{place}: {} bytes, at most {most} are allowed", text.len()))
        }
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("{place}: {} is not a text; write {wanted}", shown(other))),
    }
}

fn unknown(place: &str, key: &str, known: &str) -> String {
    let key: String = key.chars().take(60).collect();
    format!("{place}{key}: unknown key; there are {known}")
}

/// A value as an error may quote it: an error has at most 512 bytes.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: &str = r#"{"start":"0 8 * * 1-5","duration":"10h","idleTarget":20}"#;

    fn errors(config: &str) -> Vec<String> {
        parse(config).unwrap_err()
    }

    #[test]
    fn without_windows_there_is_an_empty_timetable_in_utc() {
        let timetable = parse("{}").unwrap();
        assert_eq!((timetable.zone_name.as_str(), timetable.windows.len()), ("UTC", 0));
    }

    #[test]
    fn a_timetable_is_read() {
        let timetable = parse(&format!(r#"{{"timeZone":"Europe/Berlin","windows":[{WINDOW}]}}"#)).unwrap();
        assert_eq!(timetable.zone_name, "Europe/Berlin");
        let expected = Window {
            start: "0 8 * * 1-5".to_owned(),
            schedule: Schedule::parse("0 8 * * 1-5").unwrap(),
            duration: "10h".to_owned(),
            seconds: 36_000,
            idle_target: 20,
        };
        assert_eq!(timetable.windows, [expected]);
    }

    #[test]
    fn errors_say_what_is_wrong_where_and_what_would_be_right() {
        for (config, error) in [
            (
                r#"{"timeZone":"Europe/Berln"}"#,
                "timeZone: \"Europe/Berln\" is not known; write a name from the IANA database, for example \
                 Europe/Berlin",
            ),
            (r#"{"windws":[]}"#, "windws: unknown key; there are timeZone and windows"),
            (r#"{"windows":{}}"#, "windows: {} is not a list; write [{…}]"),
            (
                r#"{"windows":[{"start":"0 25 * * *","duration":"10h","idleTarget":20}]}"#,
                "windows[0].start: column 3: hour: 25 is above 23",
            ),
            (
                r#"{"windows":[{"start":"0 0 30 2 *","duration":"10h","idleTarget":20}]}"#,
                "windows[0].start: \"0 0 30 2 *\" names no day that there is",
            ),
            (
                r#"{"windows":[{"start":"CRON_TZ=UTC 0 0 1 2 *","duration":"10h","idleTarget":20}]}"#,
                "windows[0].start: column 1: a schedule has no time zone of its own; use the field timeZone",
            ),
            (
                r#"{"windows":[{"start":"@daily","duration":"10","idleTarget":20}]}"#,
                "windows[0].duration: \"10\" is not a span; write for example 90m, 10h, 1h30m or 2d",
            ),
            (
                r#"{"windows":[{"start":"@daily","duration":"8d","idleTarget":20}]}"#,
                "windows[0].duration: \"8d\" is more than 7d",
            ),
            (
                r#"{"windows":[{"start":"@daily","duration":"1h"}]}"#,
                "windows[0].idleTarget is missing; write a number from 0",
            ),
            (
                r#"{"windows":[{"start":"@daily","duration":"1h","idleTarget":-1}]}"#,
                "windows[0].idleTarget: -1 is not a whole number from 0",
            ),
            (
                r#"{"windows":[{"start":"@daily","duration":"1h","idleTarget":1,"end":"9h"}]}"#,
                "windows[0].end: unknown key; there are start, duration and idleTarget",
            ),
        ] {
            assert_eq!(errors(config), [error], "{config}");
        }
    }

    #[test]
    fn sixty_four_windows_are_allowed() {
        let windows = |count: usize| format!(r#"{{"windows":[{}]}}"#, vec![WINDOW; count].join(","));
        assert_eq!(parse(&windows(64)).unwrap().windows.len(), 64);
        assert_eq!(errors(&windows(65)), ["windows: 65 of them, at most 64 are allowed"]);
    }

    #[test]
    fn errors_are_within_the_contract() {
        let long = "é€".repeat(2_000);
        let wrong = serde_json::json!({"start": long, "duration": 5, "idleTarget": long, &*long: 1});
        let config = serde_json::json!({"timeZone": long, &*long: 1, "windows": vec![wrong; 60]}).to_string();
        let errors = errors(&config);
        assert_eq!(errors.len(), 16);
        assert!(errors.iter().all(|error| error.len() <= 512), "{errors:?}");
    }

    #[test]
    fn the_schema_is_json_and_names_the_bounds() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert_eq!(schema["properties"]["windows"]["maxItems"], WINDOWS);
    }
}
