//! What comes over a pool: requests, each of which keeps a pod busy for a while.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Requests that a load may hold.
const MOST: usize = 2_000_000;

/// The longest request, in seconds: some four months.
const LONGEST: i64 = 10_000_000;

/// The last time of a load, in seconds since 1970: the beginning of 2200. From there a request of any length still ends
/// within what a timestamp can hold.
const LAST: i64 = 7_258_118_400;

/// When loads begin whose times are counted from their beginning: a Monday at midnight UTC.
const MONDAY: i64 = 1_767_571_200;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it comes.
    pub at: Timestamp,
    /// How long it keeps a pod busy.
    pub lasts: SignedDuration,
}

/// Requests in the order in which they come.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Its name for people.
    pub name: String,
    /// The requests.
    pub requests: Vec<Request>,
}

/// The beginning of loads that have none of their own.
pub(crate) fn monday() -> Timestamp {
    Timestamp::from_second(MONDAY).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Load {
    /// A load, its requests in order.
    pub fn new(name: &str, mut requests: Vec<Request>) -> Self {
        requests.sort_by_key(|request| (request.at, request.lasts));
        Self { name: name.to_owned(), requests }
    }

    /// Reads a load: CSV with the columns `at,duration` (a line for each request) or `time,busy` (how many are busy from
    /// then on), or the answer to a Prometheus range query, in which each series counts busy ones.
    ///
    /// Times are RFC 3339 or seconds from the beginning, durations seconds or such as `5m`.
    ///
    /// # Errors
    /// Which line and column cannot be read, and what is expected there.
    pub fn read(name: &str, text: &str) -> Result<Self> {
        // Spreadsheets write a byte order mark.
        let text = text.trim_start_matches('\u{feff}');
        let load = if text.trim_start().starts_with('{') { prometheus(text)? } else { csv(text)? };
        ensure!(!load.is_empty(), "it holds no request");
        ensure!(load.len() <= MOST, "it holds {} requests, at most {MOST} are simulated", load.len());
        Ok(Self::new(name, load))
    }

    /// When the first request comes, and when the last one is over.
    pub fn span(&self) -> (Timestamp, Timestamp) {
        let first = self.requests.first().map_or_else(monday, |request| request.at);
        let last = self.requests.iter().map(|request| request.at + request.lasts).max();
        (first, last.unwrap_or(first))
    }
}

fn csv(text: &str) -> Result<Vec<Request>> {
    let mut lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let (number, head) =
        lines.next().map_or((1, String::new()), |(i, line)| (i + 1, line.replace(' ', "").to_lowercase()));
    let of_requests = match head.as_str() {
        "at,duration" => true,
        "time,busy" => false,
        _ => bail!(
            "line {number}: the columns are at,duration (requests) or time,busy (how many are busy), not {head:?}"
        ),
    };
    let (mut requests, mut samples) = (Vec::new(), Vec::new());
    for (i, line) in lines {
        let place = |column: usize| format!("line {}, column {column}", i + 1);
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let [first, second] = cells[..] else {
            bail!("line {}: two columns are expected, there are {}", i + 1, cells.len());
        };
        let at = time(first).with_context(|| place(1))?;
        if of_requests {
            let lasts = duration(second).with_context(|| place(2))?;
            requests.push(Request { at, lasts });
        } else {
            let busy = second.parse::<f64>().ok().filter(|busy| (0.0..=1e6).contains(busy));
            let busy = busy
                .ok_or_else(|| anyhow!("{second:?} is not a number from 0 to 1000000"))
                .with_context(|| place(2))?;
            if samples.last().is_some_and(|(before, _)| *before >= at) {
                bail!("{}: times must ascend", place(1));
            }
            samples.push((at, busy.round() as usize));
        }
    }
    Ok(if of_requests { requests } else { occupied(&samples) })
}

fn time(text: &str) -> Result<Timestamp> {
    let wrong =
        || anyhow!("{text:?} is not a time: write 2026-06-01T09:00:00Z, or seconds from the beginning");
    if let Ok(seconds) = text.parse::<f64>() {
        ensure!((0.0..=3.2e8).contains(&seconds), "{text:?} is not within ten years of the beginning");
        return Ok(monday() + SignedDuration::from_millis((seconds * 1000.0).round() as i64));
    }
    dated(text.parse().map_err(|_| wrong())?)
}

/// A time that is within what can be simulated.
fn dated(at: Timestamp) -> Result<Timestamp> {
    ensure!((0..LAST).contains(&at.as_second()), "{at} is not from 1970 to 2199");
    Ok(at)
}

fn duration(text: &str) -> Result<SignedDuration> {
    let wrong = || anyhow!("{text:?} is not a duration: write seconds, or such as 5m");
    let span = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds.abs() <= LONGEST as f64 => {
            SignedDuration::from_millis((seconds * 1000.0).round() as i64)
        }
        Ok(_) => return Err(wrong()),
        Err(_) => text.parse().map_err(|_| wrong())?,
    };
    ensure!(span.is_positive(), "{text:?} is not above zero");
    ensure!(span.as_secs() <= LONGEST, "{text:?} is longer than {LONGEST} seconds");
    Ok(span)
}

/// Requests that keep as many busy as the samples say. Those that came first end first.
fn occupied(samples: &[(Timestamp, usize)]) -> Vec<Request> {
    let (mut running, mut requests) = (std::collections::VecDeque::new(), Vec::new());
    for (at, busy) in samples {
        while running.len() > *busy {
            if let Some(began) = running.pop_front() {
                requests.push(Request { at: began, lasts: at.duration_since(began) });
            }
        }
        while running.len() < *busy {
            running.push_back(*at);
        }
    }
    // Nobody knows how long the last sample holds: as long as the one before.
    if let [.., (before, _), (last, _)] = samples {
        let end = *last + last.duration_since(*before);
        requests
            .extend(running.into_iter().map(|began| Request { at: began, lasts: end.duration_since(began) }));
    }
    requests
}

fn prometheus(text: &str) -> Result<Vec<Request>> {
    let answer: Value = serde_json::from_str(text).context("neither CSV nor JSON that can be read")?;
    if answer["status"] != "success" || answer["data"]["resultType"] != "matrix" {
        bail!("the answer to a range query is expected: status success, resultType matrix");
    }
    let mut requests = Vec::new();
    for (i, series) in answer["data"]["result"].as_array().into_iter().flatten().enumerate() {
        let mut samples: Vec<(Timestamp, usize)> = Vec::new();
        for (k, sample) in series["values"].as_array().into_iter().flatten().enumerate() {
            let wrong = || {
                anyhow!("series {}, value {}: [seconds, \"number\"] is expected, not {sample}", i + 1, k + 1)
            };
            let at = sample[0].as_f64().ok_or_else(wrong)?;
            let busy = sample[1].as_str().and_then(|text| text.parse::<f64>().ok());
            let busy = busy.filter(|busy| (0.0..=1e6).contains(busy)).ok_or_else(wrong)?;
            let at = Timestamp::from_millisecond((at * 1000.0).round() as i64).map_err(|_| wrong())?;
            let place = || format!("series {}, value {}", i + 1, k + 1);
            let at = dated(at).with_context(place)?;
            ensure!(samples.last().is_none_or(|(before, _)| *before < at), "{}: times must ascend", place());
            samples.push((at, busy.round() as usize));
        }
        requests.extend(occupied(&samples));
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(text: &str) -> Vec<(i64, i64)> {
        let load = Load::read("a", text).unwrap();
        let of = |request: &Request| (request.at.duration_since(monday()).as_secs(), request.lasts.as_secs());
        load.requests.iter().map(of).collect()
    }

    #[test]
    fn requests_are_read_in_any_order() {
        assert_eq!(requests("at,duration\n10, 5m\n0,2.0\n\n# later\n"), [(0, 2), (10, 300)]);
        assert_eq!(requests("\u{feff}at,duration\r\n0,1\r\n"), [(0, 1)], "as spreadsheets write it");
        assert_eq!(requests("at, duration\n2026-01-05T00:01:00Z,1\n"), [(60, 1)]);
    }

    #[test]
    fn how_many_are_busy_becomes_requests() {
        assert_eq!(requests("time,busy\n0,1\n60,3\n120,0\n"), [(0, 120), (60, 60), (60, 60)]);
        // The last sample holds as long as the one before.
        assert_eq!(requests("time,busy\n0,0\n60,1\n"), [(60, 60)]);
    }

    #[test]
    fn a_prometheus_answer_is_read() {
        let text = r#"{"status": "success", "data": {"resultType": "matrix", "result": [
            {"metric": {"pool": "a"}, "values": [[1767571200, "1"], [1767571260, "0"]]},
            {"metric": {"pool": "b"}, "values": [[1767571230, "2"], [1767571260, "0"]]}
        ]}}"#;
        assert_eq!(requests(text), [(0, 60), (30, 30), (30, 30)]);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        for (text, words) in [
            ("when,what\n", "line 1: the columns are at,duration (requests) or time,busy"),
            ("at,duration\n1,2,3\n", "line 2: two columns are expected, there are 3"),
            ("at,duration\n1,2\nnoon,2\n", "line 3, column 1: \"noon\" is not a time"),
            ("at,duration\n1,soon\n", "line 2, column 2: \"soon\" is not a duration"),
            ("at,duration\n1,0\n", "line 2, column 2: \"0\" is not above zero"),
            (
                "at,duration\n1,99999999999h\n",
                "line 2, column 2: \"99999999999h\" is longer than 10000000 seconds",
            ),
            (
                "at,duration\n9999-12-30T00:00:00Z,5\n",
                "line 2, column 1: 9999-12-30T00:00:00Z is not from 1970 to 2199",
            ),
            ("# a note\n\nwhen,what\n", "line 3: the columns are"),
            (
                r#"{"status":"success","data":{"resultType":"matrix","result":[{"values":[[60,"2"],[0,"0"]]}]}}"#,
                "series 1, value 2: times must ascend",
            ),
            ("at,duration\n1,NaN\n", "line 2, column 2: \"NaN\" is not a duration"),
            ("at,duration\n-1,1\n", "line 2, column 1: \"-1\" is not within"),
            ("time,busy\n0,-1\n", "line 2, column 2: \"-1\" is not a number from 0"),
            ("time,busy\n0,1\n0,1\n", "line 3, column 1: times must ascend"),
            ("at,duration\n", "it holds no request"),
            ("{\"status\": \"error\"}", "the answer to a range query is expected"),
        ] {
            let error = format!("{:#}", Load::read("a", text).unwrap_err());
            assert!(error.starts_with(words), "{error}");
        }
    }
}
