//! The rule: what is in use or waited for, and on top the greatest idle target of the windows that are open
//! now; outside of all windows the object's own. Then, when to look again: at the next edge of any window.

use jiff::{SignedDuration, Timestamp};

use crate::config::{Timetable, Window};

/// Bounds of a decision's `wake-after`, in milliseconds.
const SECOND: i64 = 1_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;

/// What the rule looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pool {
    pub busy: u32,
    /// Handed out by a claim: in use, even while its workload has not said so yet.
    pub claimed: u32,
    /// Claims that wait for a pod. Each takes a pod as soon as there is one, so it counts already.
    pub waiting: u32,
    pub idle_target: u32,
    pub minimum: u32,
    pub maximum: u32,
}

/// How many replicas, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub desired: u32,
    pub reason: String,
    /// In milliseconds.
    pub wake_after: Option<u64>,
}

/// Decides for one pool.
pub fn decide(pool: &Pool, timetable: &Timetable, now: Timestamp) -> Answer {
    let in_use = pool.busy.saturating_add(pool.claimed).saturating_add(pool.waiting);
    let open = open_window(timetable, now);
    let idle = open.map_or(pool.idle_target, |(window, _)| window.idle_target);
    let wanted = in_use.saturating_add(idle);

    let mut reason = format!("{} busy", pool.busy);
    for (count, word) in [(pool.claimed, "claimed"), (pool.waiting, "waiting")] {
        if count > 0 {
            reason += &format!(" + {count} {word}");
        }
    }
    reason += &format!(" + {idle} idle ");
    reason += &match open {
        Some((window, end)) => format!(
            "in the window {} for {} ({}), until {}",
            window.start,
            window.duration,
            timetable.zone_name,
            local(timetable, end)
        ),
        None => "outside of all windows".to_owned(),
    };

    let desired = wanted.max(pool.minimum).min(pool.maximum);
    if desired < wanted {
        reason += &format!(", cut to the maximum {desired}");
    } else if desired > wanted {
        reason += &format!(", raised to the minimum {desired}");
    }
    Answer { desired, reason, wake_after: wake_after(timetable, now) }
}

/// The open window with the greatest idle target, the first of equal ones, and when it closes.
fn open_window(timetable: &Timetable, now: Timestamp) -> Option<(&Window, Timestamp)> {
    let open = timetable.windows.iter().filter_map(|window| Some((window, closes(window, timetable, now)?)));
    open.reduce(|best, other| if other.0.idle_target > best.0.idle_target { other } else { best })
}

/// When the window closes, if it is open. It may begin again before: then it stays open for longer, and the
/// latest begin tells until when.
fn closes(window: &Window, timetable: &Timetable, now: Timestamp) -> Option<Timestamp> {
    let begin = window.schedule.previous(now, &timetable.zone)?;
    let span = SignedDuration::from_secs(i64::try_from(window.seconds).ok()?);
    begin.checked_add(span).ok().filter(|end| *end > now)
}

/// How long it is to the next begin or end of a window.
fn wake_after(timetable: &Timetable, now: Timestamp) -> Option<u64> {
    let edges = timetable.windows.iter().flat_map(|window| {
        [window.schedule.next(now, &timetable.zone), closes(window, timetable, now)].into_iter().flatten()
    });
    // Never early: a moment before the edge the answer would be the same as now.
    let left = edges.min()?.duration_since(now).as_millis().clamp(i128::from(SECOND), i128::from(DAY));
    u64::try_from(left).ok()
}

fn local(timetable: &Timetable, instant: Timestamp) -> String {
    let local = timetable.zone.to_datetime(instant);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}",
        local.year(),
        local.month(),
        local.day(),
        local.hour(),
        local.minute()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const POOL: Pool = Pool { busy: 2, claimed: 0, waiting: 0, idle_target: 3, minimum: 0, maximum: 100 };
    const OFFICE: &str = r#"{"timeZone":"Europe/Berlin","windows":[{"start":"0 8 * * 1-5","duration":"10h","idleTarget":20}]}"#;

    fn decided(config: &str, now: &str) -> Answer {
        decide(&POOL, &parse(config).unwrap(), now.parse().unwrap())
    }

    fn idle(config: &str, now: &str) -> u32 {
        decided(config, now).desired - POOL.busy
    }

    #[test]
    fn in_a_window_its_idle_target_holds_and_the_reason_names_it() {
        // A Monday in winter, 12:00 in Berlin.
        let answer = decided(OFFICE, "2026-01-12T11:00:00Z");
        assert_eq!(answer.desired, 22);
        assert_eq!(
            answer.reason,
            "2 busy + 20 idle in the window 0 8 * * 1-5 for 10h (Europe/Berlin), until 2026-01-12 18:00"
        );
        assert_eq!(answer.wake_after, Some(6 * 60 * 60 * 1000));
    }

    #[test]
    fn outside_of_windows_the_objects_idle_target_holds() {
        // A Saturday; the next window is on Monday, more than a day away.
        let answer = decided(OFFICE, "2026-01-10T11:00:00Z");
        assert_eq!((answer.desired, answer.wake_after), (5, Some(24 * 60 * 60 * 1000)));
        assert_eq!(answer.reason, "2 busy + 3 idle outside of all windows");
        assert_eq!(decided("{}", "2026-01-10T11:00:00Z").wake_after, None);
    }

    #[test]
    fn a_window_holds_from_its_first_to_before_its_last_instant() {
        for (now, expected) in [
            ("2026-01-12T06:59:59.999Z", 3),
            ("2026-01-12T07:00:00Z", 20),
            ("2026-01-12T16:59:59.999Z", 20),
            ("2026-01-12T17:00:00Z", 3),
            // In summer the same local times are an hour earlier.
            ("2026-07-13T06:00:00Z", 20),
            ("2026-07-13T16:00:00Z", 3),
        ] {
            assert_eq!(idle(OFFICE, now), expected, "{now}");
        }
    }

    #[test]
    fn the_next_edge_is_asked_for_and_not_before_a_second_is_over() {
        assert_eq!(decided(OFFICE, "2026-01-12T06:59:00.500Z").wake_after, Some(59_500));
        assert_eq!(decided(OFFICE, "2026-01-12T06:59:59.700Z").wake_after, Some(1_000));
    }

    #[test]
    fn of_overlapping_windows_the_greatest_idle_target_wins() {
        let config = r#"{"windows":[
            {"start":"0 8 * * *","duration":"10h","idleTarget":20},
            {"start":"0 12 * * *","duration":"2h","idleTarget":50},
            {"start":"0 13 * * *","duration":"30m","idleTarget":0}]}"#;
        for (hour, expected) in [("08", 20), ("12", 50), ("13", 50), ("14", 20), ("18", 3)] {
            assert_eq!(idle(config, &format!("2026-01-12T{hour}:00:00Z")), expected, "{hour}");
        }
    }

    #[test]
    fn a_window_may_ask_for_less_than_the_object() {
        let night = r#"{"windows":[{"start":"0 22 * * *","duration":"8h","idleTarget":0}]}"#;
        assert_eq!(idle(night, "2026-01-12T02:00:00Z"), 0);
    }

    #[test]
    fn a_window_that_begins_again_stays_open() {
        let config = r#"{"windows":[{"start":"*/30 * * * *","duration":"1h","idleTarget":9}]}"#;
        assert_eq!(idle(config, "2026-01-12T02:29:00Z"), 9);
        assert!(decided(config, "2026-01-12T02:29:00Z").reason.ends_with("until 2026-01-12 03:00"));
    }

    #[test]
    fn a_window_lasts_as_long_as_it_says_when_clocks_change() {
        // From 01:00 on 29 March 2026 in Berlin, where 02:00 became 03:00.
        let config = r#"{"timeZone":"Europe/Berlin","windows":[{"start":"0 1 * * *","duration":"4h","idleTarget":9}]}"#;
        assert_eq!(idle(config, "2026-03-29T03:59:59Z"), 9);
        assert_eq!(idle(config, "2026-03-29T04:00:00Z"), 3);
    }

    #[test]
    fn a_week_is_long_enough_to_be_open_always() {
        let config = r#"{"windows":[{"start":"@weekly","duration":"7d","idleTarget":9}]}"#;
        for now in ["2026-01-11T00:00:00Z", "2026-01-13T05:06:07Z", "2026-01-17T23:59:59Z"] {
            assert_eq!(idle(config, now), 9, "{now}");
        }
    }

    #[test]
    fn what_is_in_use_counts_and_the_bounds_hold() {
        let timetable = parse(OFFICE).unwrap();
        let now = "2026-01-12T11:00:00Z".parse().unwrap();
        let answer = decide(&Pool { claimed: 4, waiting: 1, maximum: 25, ..POOL }, &timetable, now);
        assert_eq!(answer.desired, 25);
        assert!(answer.reason.starts_with("2 busy + 4 claimed + 1 waiting + 20 idle in the window"));
        assert!(answer.reason.ends_with(", cut to the maximum 25"));
        let answer = decide(&Pool { minimum: 30, ..POOL }, &timetable, now);
        assert!(answer.reason.ends_with(", raised to the minimum 30"));
    }
}
