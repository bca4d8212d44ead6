//! Answers of pods that are asked (modes http, exec and redis): what one means, and what several in a row come
//! to. The meanings are those of the older systems; what is not clearly busy or idle is unclear, never idle.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stoker_api::{BusyProbe, RedisWords, TreatAs};

/// An answer older than this many periods is none (I1).
const FRESH_PERIODS: i32 = 3;

/// A longer value in Redis says nothing: one is a word and a time, and whoever writes may write without end.
pub const REDIS_VALUE_BYTES: usize = 4096;

/// What one answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// At work.
    Busy,
    /// Free.
    Idle,
    /// Not yet able to work.
    Starting,
    /// It cannot be told, or there was no answer.
    Unclear,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it means.
    pub outcome: Outcome,
    /// What it was, for people.
    pub words: String,
}

impl Answer {
    /// No answer, or none that says anything.
    pub fn unclear(words: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unclear, words: words.into() }
    }

    /// What an HTTP status means: 2xx and 503 are opposites, all others say nothing.
    pub fn http(status: u16, success_is_busy: bool) -> Self {
        let outcome = match status {
            200..300 => either(success_is_busy),
            503 => either(!success_is_busy),
            _ => Outcome::Unclear,
        };
        let redirect = if (300..400).contains(&status) { ", and redirects are not followed" } else { "" };
        Self { outcome, words: format!("HTTP {status}{redirect}") }
    }

    /// What an exit code means: 0 and 1 are opposites, all others say nothing.
    pub fn exec(code: i32, success_is_busy: bool) -> Self {
        let outcome = match code {
            0 => either(success_is_busy),
            1 => either(!success_is_busy),
            _ => Outcome::Unclear,
        };
        Self { outcome, words: format!("exit code {code}") }
    }

    /// What a pod's value in Redis means: `{"status": …, "updated_at": epoch seconds}`, or the word alone. A
    /// value from before the pod was created is a namesake's.
    pub fn redis(value: Option<&[u8]>, words: &RedisWords, created: Timestamp) -> Self {
        const NONE: &str = "Redis has no value for it";
        let Some(value) = value else { return Self::unclear(NONE) };
        if value.len() > REDIS_VALUE_BYTES {
            let length = value.len();
            return Self::unclear(format!(
                "its value in Redis is {length} bytes long, {REDIS_VALUE_BYTES} may be"
            ));
        }
        let Ok(text) = str::from_utf8(value) else {
            return Self::unclear(format!("its value in Redis is {} bytes that are no text", value.len()));
        };
        if is_older(value, created) {
            return Self::unclear(format!("{NONE}: what is there is older than the pod"));
        }
        let word = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(object)) => match object.get("status").and_then(Value::as_str) {
                Some(status) => status.to_owned(),
                None => return Self::unclear("its value in Redis has no status"),
            },
            Ok(Value::String(word)) => word,
            _ => text.trim().to_owned(),
        };
        let means = |list: &[String]| list.iter().any(|w| w.eq_ignore_ascii_case(&word));
        let outcome = if means(&words.busy) {
            Outcome::Busy
        } else if means(&words.idle) {
            Outcome::Idle
        } else if means(&words.starting) {
            Outcome::Starting
        } else {
            Outcome::Unclear
        };
        let word: String = word.chars().take(60).collect();
        Self { outcome, words: format!("Redis says {word}") }
    }
}

/// A value in Redis says by its `updated_at` that it is older than the pod, and so a namesake's.
pub fn is_older(value: &[u8], created: Timestamp) -> bool {
    let value = Some(value).filter(|value| value.len() <= REDIS_VALUE_BYTES);
    let value = value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
    let updated = value.and_then(|value| value.get("updated_at")?.as_f64());
    // The pod's own time is in whole seconds, cut.
    updated.is_some_and(|at| at < created.as_second() as f64)
}

fn either(busy: bool) -> Outcome {
    if busy { Outcome::Busy } else { Outcome::Idle }
}

/// How answers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// From one question to the next.
    pub period: SignedDuration,
    /// Unclear answers in a row until the last clear one no longer stands.
    pub threshold: u32,
    /// A pod that gives no clear answer counts as busy.
    pub lost_is_busy: bool,
}

impl Rules {
    /// Those of a probe; none where nobody is asked.
    pub fn of(probe: &BusyProbe) -> Option<Self> {
        let failure = probe.probe_failure.clone().unwrap_or_default();
        probe.period_seconds().map(|period| Self {
            period: SignedDuration::from_secs(i64::from(period)),
            threshold: failure.threshold,
            lost_is_busy: failure.treat_as == TreatAs::Busy,
        })
    }

    /// An answer to a question that was asked then is none any more (I1). One from the future is from before the clock
    /// was set back: how old it is cannot be told.
    pub fn too_old(&self, asked: Timestamp, now: Timestamp) -> bool {
        now.duration_since(asked).abs() > self.period * FRESH_PERIODS
    }
}

/// What answers come to at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no clear answer yet, and it is too early to worry.
    NotYet,
    /// The last clear answer holds.
    Clear(Outcome),
    /// There were too many unclear answers, or none for too long.
    Lost,
}

/// The answers of one pod, as far as they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    last: Option<(Answer, Timestamp)>,
    clear: Option<(Outcome, Timestamp)>,
    unclear_in_a_row: u32,
    same_in_a_row: u32,
}

impl Answers {
    /// Takes in an answer to a question that was asked then.
    pub fn note(&mut self, answer: Answer, asked: Timestamp) {
        let same = self.last.as_ref().is_some_and(|(last, _)| last.outcome == answer.outcome);
        self.same_in_a_row = if same { self.same_in_a_row.saturating_add(1) } else { 1 };
        if answer.outcome == Outcome::Unclear {
            self.unclear_in_a_row = self.unclear_in_a_row.saturating_add(1);
        } else {
            self.unclear_in_a_row = 0;
            self.clear = Some((answer.outcome, asked));
        }
        self.last = Some((answer, asked));
    }

    /// What they come to now.
    pub fn standing(&self, rules: Rules, now: Timestamp) -> Standing {
        match self.clear {
            _ if self.unclear_in_a_row >= rules.threshold => Standing::Lost,
            Some((_, at)) if rules.too_old(at, now) => Standing::Lost,
            Some((outcome, _)) => Standing::Clear(outcome),
            None => Standing::NotYet,
        }
    }

    /// The last answer, and when it was asked for.
    pub fn last(&self) -> Option<(&Answer, Timestamp)> {
        self.last.as_ref().map(|(answer, at)| (answer, *at))
    }

    /// How many answers in a row meant the same.
    pub fn same_in_a_row(&self) -> u32 {
        self.same_in_a_row
    }

    /// Why they come to what they do, for people.
    pub fn words(&self, standing: Standing) -> String {
        let Some((last, at)) = &self.last else { return "not asked yet".to_owned() };
        match standing {
            Standing::Lost if last.outcome != Outcome::Unclear => {
                format!("not asked since {at:.0}")
            }
            Standing::Clear(_) if last.outcome == Outcome::Unclear => {
                format!("as it said before ({} now)", last.words)
            }
            _ => last.words.clone(),
        }
    }
}
