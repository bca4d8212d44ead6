//! The rule. Busy, starting and unknown are believed at once. Idle is believed when the probe has said so
//! often and long enough; until then a pod keeps the verdict that it has:
//!
//! - busy stays busy, and unknown stays unknown, for neither is removed;
//! - idle stays idle;
//! - starting becomes idle without a wait: a new pod has done no work that could go on unseen;
//! - a pod of which nothing is known, as after a restart of the operator, is unknown: it may have been busy
//!   a moment ago.

use crate::config::Patience;

/// Bounds of a verdict's `wake-after`, in milliseconds.
const SECOND: u64 = 1_000;
const DAY: u64 = 24 * 60 * 60 * SECOND;

/// What a pod is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Busy,
    Idle,
    Unknown,
    Starting,
}

/// What the rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    /// The verdict before this one.
    pub last: Option<State>,
    /// What the probe says, for how many milliseconds already, and how many results in a row.
    pub says: State,
    pub says_for: u64,
    pub results: u32,
    /// Milliseconds from one probe to the next; 0 = watched: there are no results to count.
    pub period: u64,
    /// How old the last result is, in milliseconds.
    pub result_age: u64,
}

/// A verdict, why, and in how many milliseconds it may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    pub reason: String,
    pub wake_after: Option<u64>,
}

/// Judges one pod.
pub fn judge(pod: &Pod, patience: Patience) -> Verdict {
    let clear = |reason: &str| Verdict { state: pod.says, reason: reason.to_owned(), wake_after: None };
    match pod.says {
        State::Busy => return clear("the probe says busy"),
        State::Starting => return clear("not ready yet"),
        State::Unknown => return clear("the probe gives no clear answer"),
        State::Idle => {}
    }
    let probes_left = if pod.period == 0 { 0 } else { patience.probes.saturating_sub(pod.results) };
    let time = u64::from(patience.seconds) * SECOND;
    let time_left = time.saturating_sub(pod.says_for);
    if probes_left == 0 && time_left == 0 {
        return clear("the probe says idle, often and long enough");
    }
    let state = match pod.last {
        Some(State::Idle) => return clear("idle as before"),
        Some(State::Starting) => return clear("idle from its start"),
        Some(State::Busy) => State::Busy,
        Some(State::Unknown) | None => State::Unknown,
    };
    let mut waits = Vec::new();
    if probes_left > 0 {
        waits.push(format!("{} of {} probes", pod.results, patience.probes));
    }
    if time_left > 0 {
        waits.push(format!("{} of {} s", pod.says_for / SECOND, patience.seconds));
    }
    let stays = if state == State::Busy { "still busy" } else { "not sure yet" };
    Verdict {
        state,
        reason: format!("{stays}: the probe has said idle for {}", waits.join(" and ")),
        wake_after: Some(next_probes(pod, probes_left).max(time_left).clamp(SECOND, DAY)),
    }
}

/// Milliseconds until so many more results can be there.
fn next_probes(pod: &Pod, count: u32) -> u64 {
    pod.period.saturating_mul(u64::from(count)).saturating_sub(pod.result_age)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { probes: 3, seconds: 10 };
    /// An HTTP probe every 5 s that has just said idle for the first time, of a pod that was busy.
    const POD: Pod = Pod {
        last: Some(State::Busy),
        says: State::Idle,
        says_for: 0,
        results: 1,
        period: 5_000,
        result_age: 0,
    };

    fn state(pod: Pod) -> State {
        judge(&pod, PATIENCE).state
    }

    #[test]
    fn busy_starting_and_unknown_are_believed_at_once() {
        for says in [State::Busy, State::Starting, State::Unknown] {
            for last in
                [None, Some(State::Busy), Some(State::Idle), Some(State::Unknown), Some(State::Starting)]
            {
                let verdict = judge(&Pod { says, last, ..POD }, PATIENCE);
                assert_eq!((verdict.state, verdict.wake_after), (says, None));
            }
        }
    }

    #[test]
    fn a_busy_pod_stays_busy_until_the_probes_agree_and_the_time_is_over() {
        for (results, says_for, expected) in [
            (1, 0, State::Busy),
            (2, 60_000, State::Busy),
            (3, 9_999, State::Busy),
            (3, 10_000, State::Idle),
            (9, 60_000, State::Idle),
        ] {
            assert_eq!(state(Pod { results, says_for, ..POD }), expected, "{results} results, {says_for} ms");
        }
    }

    #[test]
    fn for_a_watched_probe_the_time_alone_counts() {
        let watched = Pod { period: 0, results: 0, ..POD };
        assert_eq!(state(Pod { says_for: 9_999, ..watched }), State::Busy);
        assert_eq!(state(Pod { says_for: 10_000, ..watched }), State::Idle);
        let only_probes = Patience { probes: 3, seconds: 0 };
        assert_eq!(judge(&watched, only_probes).state, State::Idle);
    }

    #[test]
    fn until_then_the_verdict_stays_what_it_was() {
        for (last, expected) in [
            (Some(State::Busy), State::Busy),
            (Some(State::Unknown), State::Unknown),
            (Some(State::Idle), State::Idle),
            (Some(State::Starting), State::Idle),
            (None, State::Unknown),
        ] {
            assert_eq!(state(Pod { last, ..POD }), expected, "{last:?}");
        }
    }

    #[test]
    fn the_reason_tells_what_is_still_missing() {
        let reason = |pod: Pod| judge(&pod, PATIENCE).reason;
        assert_eq!(reason(POD), "still busy: the probe has said idle for 1 of 3 probes and 0 of 10 s");
        let pod = Pod { results: 4, says_for: 7_900, last: None, ..POD };
        assert_eq!(reason(pod), "not sure yet: the probe has said idle for 7 of 10 s");
    }

    #[test]
    fn it_asks_again_when_the_verdict_may_change() {
        let wake = |pod: Pod| judge(&pod, PATIENCE).wake_after;
        assert_eq!(wake(POD), Some(10_000));
        assert_eq!(wake(Pod { period: 30_000, result_age: 5_000, ..POD }), Some(55_000));
        assert_eq!(wake(Pod { results: 3, says_for: 6_000, ..POD }), Some(4_000));
        assert_eq!(wake(Pod { results: 3, says_for: 9_900, ..POD }), Some(1_000));
        assert_eq!(wake(Pod { results: 2, says_for: 60_000, result_age: 9_000, ..POD }), Some(1_000));
        assert_eq!(wake(Pod { period: u64::MAX, ..POD }), Some(DAY));
    }
}
