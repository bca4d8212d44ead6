//! When runs begin, and by which rules.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use stoker_api::ConcurrencyPolicy;
use stoker_cron::Schedule;

use crate::pool::jobs::History;

/// No warm-up begins earlier before its instant.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// Why nothing is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// `suspend`: what passes meanwhile may be made up for.
    Suspended,
    /// `paused`: what passes meanwhile is left out.
    Paused,
}

/// What the spec says, read.
#[derive(Clone, Debug)]
pub struct Rules {
    /// When runs start.
    pub schedule: Schedule,
    /// Where.
    pub zone: TimeZone,
    /// Schedule and zone in words: when they change, a new timetable begins.
    pub timetable: String,
    /// Whether something keeps runs from being created.
    pub stopped: Option<Stopped>,
    /// What becomes of a run when an earlier one is at work.
    pub concurrency: ConcurrencyPolicy,
    /// How late a run may start.
    pub deadline: Option<SignedDuration>,
    /// How many ended Jobs are kept.
    pub keep: History,
    /// Hash of everything that makes a run's Job what it is, its instant apart.
    pub hash: String,
}

impl Rules {
    /// Whether the schedule names an instant.
    pub fn names(&self, instant: Timestamp) -> bool {
        self.schedule.previous(instant, &self.zone) == Some(instant)
    }

    /// The first instant after a time.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        self.schedule.next(time, &self.zone)
    }

    /// The last instant at or before a time.
    pub fn until(&self, time: Timestamp) -> Option<Timestamp> {
        self.schedule.previous(time, &self.zone)
    }
}

/// How long before its instant a run is created.
#[derive(Clone, Debug)]
pub enum Lead {
    /// So long; at most a day.
    Before(SignedDuration),
    /// At the last instant of another schedule, at most a day before.
    Primer(Schedule),
}

impl Lead {
    /// When the warm-up of an instant begins. A primer that names no instant within a day gives none.
    pub fn start(&self, instant: Timestamp, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Before(lead) => {
                let lead = (*lead).clamp(SignedDuration::ZERO, LONGEST);
                instant.checked_sub(lead).unwrap_or(Timestamp::MIN)
            }
            Self::Primer(schedule) => {
                let primed = schedule.previous(instant, zone);
                primed.filter(|at| instant.duration_since(*at) <= LONGEST).unwrap_or(instant)
            }
        }
    }
}
