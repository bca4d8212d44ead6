//! What the spec says of times, read.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use stoker_api::NodeBatchJobSpec;
use stoker_cron::Schedule;

/// When executions begin.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// The schedule, if there is one, and its time zone.
    pub schedule: Option<(Schedule, TimeZone)>,
    /// Both in words: when they change, a new timetable begins.
    pub words: String,
    /// How long after the object's creation the execution at the startup begins.
    pub startup_delay: SignedDuration,
    /// How late an execution may begin.
    pub deadline: Option<SignedDuration>,
}

/// A duration of hours, minutes and seconds, such as `1h30m`.
///
/// # Errors
/// When it is none, in words; `field` says which it is.
pub fn span(field: &str, text: &str) -> Result<SignedDuration, String> {
    text.parse().map_err(|error| format!("{field} `{text}`: {error}; write for example 10s, 5m or 1h30m"))
}

impl Timetable {
    /// Reads it.
    ///
    /// # Errors
    /// What the spec cannot mean, in words.
    pub fn read(spec: &NodeBatchJobSpec) -> Result<Self, String> {
        let named = spec.time_zone.as_deref().unwrap_or("UTC");
        let schedule = match &spec.schedule {
            None => None,
            Some(text) => {
                let zone = TimeZone::get(named).map_err(|_| {
                    format!("spec.timeZone `{named}` is no IANA time zone: write for example Europe/Berlin")
                })?;
                let schedule =
                    Schedule::parse(text).map_err(|error| format!("spec.schedule `{text}`: {error}"))?;
                Some((schedule, zone))
            }
        };
        if let Some(ttl) = &spec.reports.ttl {
            span("spec.reports.ttl", ttl)?;
        }
        let words = spec.schedule.as_ref().map(|text| format!("{text} in {named}")).unwrap_or_default();
        let startup = spec.startup_delay.as_deref().map(|text| span("spec.startupDelay", text));
        Ok(Self {
            schedule,
            words,
            startup_delay: startup.transpose()?.unwrap_or_default(),
            deadline: spec.starting_deadline_seconds.map(|s| SignedDuration::from_secs(s.into())),
        })
    }

    /// The first instant after a time.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        self.schedule.as_ref().and_then(|(schedule, zone)| schedule.next(time, zone))
    }

    /// The last instant at or before a time.
    pub fn until(&self, time: Timestamp) -> Option<Timestamp> {
        self.schedule.as_ref().and_then(|(schedule, zone)| schedule.previous(time, zone))
    }
}
