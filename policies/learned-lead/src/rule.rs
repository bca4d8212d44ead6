//! The rule: of the newest runs that were measured, the quantile of how long they took from creation to start
//! (or to Ready), and a margin, within the bounds. All times are in milliseconds.
//!
//! A run was measured when its last phase that counts is known, or a later one. An earlier phase that is not
//! known counts as 0: it did not happen, as a pull on a node that has the image. A run of which only the
//! beginning is known, because it failed or is still under way, does not count: it would look quick.
//!
//! The quantile is the nearest rank, so it is always the time of a run that took place. With the default, 0.9,
//! it is the slowest run as long as there are fewer than ten, and from then on one in ten may be slower, such
//! as the one on a new node that had to pull the image.

use crate::config::Config;

const SECOND: u64 = 1_000;
/// The longest lead that a policy may answer with.
const LONGEST: u64 = 24 * 60 * 60 * SECOND;
/// The longest lead when the configuration names none and the object asks for less: a bad night must not let
/// warm-ups begin a day early unless somebody wants it so.
const LONGEST_BY_DEFAULT: u64 = 60 * 60 * SECOND;

/// How long the phases of a run took, as far as they were measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    pub schedule: Option<u64>,
    pub pull: Option<u64>,
    pub start: Option<u64>,
    pub ready: Option<u64>,
}

impl Phases {
    /// How long the run took; nothing when it was not measured to the end.
    fn sum(&self, include_ready: bool) -> Option<u64> {
        let end = if include_ready { self.ready } else { self.start.or(self.ready) };
        end?;
        let ready = if include_ready { self.ready } else { None };
        let phases = [self.schedule, self.pull, self.start, ready];
        Some(phases.into_iter().flatten().fold(0, u64::saturating_add))
    }
}

/// How long before the instant the warm-up begins, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// At most 24 h.
    pub lead: u64,
    pub reason: String,
}

/// Decides for one object; `runs` has the newest first.
pub fn decide(runs: &[Phases], configured: u64, config: &Config) -> Answer {
    let measured = runs.iter().filter_map(|run| run.sum(config.include_ready));
    // At most 32.
    let mut times: Vec<u64> = measured.take(config.runs as usize).collect();
    times.sort_unstable();
    let Some(time) =
        nearest_rank(&times, config.quantile).filter(|_| times.len() >= config.min_runs as usize)
    else {
        return too_few(times.len(), configured, config);
    };

    let margin = u64::from(config.margin_seconds) * SECOND;
    let wanted = time.saturating_add(margin);
    let mut reason = format!(
        "quantile {} of {}: {} s, + {} s margin",
        config.quantile,
        runs_in_words(times.len()),
        seconds(time),
        seconds(margin)
    );
    let least = u64::from(config.min_seconds) * SECOND;
    let most = match config.max_seconds {
        Some(most) => u64::from(most) * SECOND,
        None => LONGEST_BY_DEFAULT.max(configured).max(least).min(LONGEST),
    };
    let lead = wanted.max(least).min(most);
    if lead < wanted {
        reason += &format!(", cut to the maximum {} s", seconds(lead));
    } else if lead > wanted {
        reason += &format!(", raised to the minimum {} s", seconds(lead));
    }
    Answer { lead, reason }
}

fn too_few(measured: usize, configured: u64, config: &Config) -> Answer {
    let lead = configured.min(LONGEST);
    let mut reason = format!(
        "{} s as configured: {} measured{}, {} are needed",
        seconds(configured),
        runs_in_words(measured),
        if config.include_ready { " to Ready" } else { "" },
        config.min_runs
    );
    if lead < configured {
        reason += &format!(", cut to the longest lead of a policy, {} s", seconds(lead));
    }
    Answer { lead, reason }
}

/// The least of the sorted times that is at least as long as this share of them; nothing when there are none.
fn nearest_rank(sorted: &[u64], quantile: f64) -> Option<u64> {
    // 0.56 of 25 is 14.000000000000002 in binary; that must not become the 15th.
    const ROUNDING_ERROR: f64 = 1e-9;
    // There are at most 32, and a cast saturates.
    let rank = (quantile * sorted.len() as f64 - ROUNDING_ERROR).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn runs_in_words(count: usize) -> String {
    format!("{count} run{}", if count == 1 { "" } else { "s" })
}

/// Milliseconds as seconds with as many decimals as they need.
fn seconds(milliseconds: u64) -> String {
    let (whole, rest) = (milliseconds / SECOND, milliseconds % SECOND);
    let text = format!("{whole}.{rest:03}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: u64 = 600_000;

    /// A run that took so many seconds, of which some in each phase.
    fn run(seconds: u64) -> Phases {
        let rest = seconds * SECOND - seconds / 2 * SECOND;
        Phases { schedule: Some(seconds / 2 * SECOND), pull: None, start: Some(rest), ready: Some(7_000) }
    }

    fn runs(seconds: impl IntoIterator<Item = u64>) -> Vec<Phases> {
        seconds.into_iter().map(run).collect()
    }

    fn lead(runs: &[Phases], config: &Config) -> u64 {
        decide(runs, CONFIGURED, config).lead
    }

    #[test]
    fn most_of_the_runs_and_a_margin_decide() {
        // Nine from 31 s to 39 s, and one on a cold node.
        let runs = runs((31..40).chain([300]));
        let reason = "quantile 0.9 of 10 runs: 39 s, + 10 s margin".to_owned();
        assert_eq!(decide(&runs, CONFIGURED, &Config::DEFAULT), Answer { lead: 49_000, reason });
    }

    #[test]
    fn of_few_runs_the_slowest_decides() {
        assert_eq!(lead(&runs([31, 300, 32]), &Config::DEFAULT), 310_000);
        assert_eq!(lead(&runs((31..39).chain([300])), &Config::DEFAULT), 310_000);
        let slowest = Config { quantile: 1.0, ..Config::DEFAULT };
        assert_eq!(lead(&runs((31..50).chain([300])), &slowest), 310_000);
    }

    #[test]
    fn with_too_few_measured_runs_the_configured_lead_holds() {
        let none = Phases::default();
        let reason = "600 s as configured: 2 runs measured, 3 are needed".to_owned();
        let runs = [run(31), none, run(32), none];
        assert_eq!(decide(&runs, CONFIGURED, &Config::DEFAULT), Answer { lead: CONFIGURED, reason });
        for runs in [&[] as &[Phases], &[none; 32]] {
            let reason = "600 s as configured: 0 runs measured, 3 are needed".to_owned();
            assert_eq!(decide(runs, CONFIGURED, &Config::DEFAULT), Answer { lead: CONFIGURED, reason });
        }
        let ready = Config { include_ready: true, ..Config::DEFAULT };
        let reason = "600 s as configured: 0 runs measured to Ready, 3 are needed";
        let unready = Phases { ready: None, ..run(31) };
        assert_eq!(decide(&[unready; 9], CONFIGURED, &ready).reason, reason);
        let one = Config { min_runs: 1, ..Config::DEFAULT };
        assert_eq!(decide(&[run(31)], 0, &one).reason, "quantile 0.9 of 1 run: 31 s, + 10 s margin");
    }

    #[test]
    fn the_bounds_of_the_lead_do_not_touch_the_configured_one() {
        let config = Config { min_seconds: 60, max_seconds: Some(120), ..Config::DEFAULT };
        for configured in [0, 30_000, CONFIGURED] {
            assert_eq!(decide(&runs([90, 90]), configured, &config).lead, configured);
        }
    }

    #[test]
    fn the_newest_measured_runs_count() {
        let mut all = runs([40; 20]);
        all.extend(runs([900; 12]));
        assert_eq!(lead(&all, &Config::DEFAULT), 50_000);
        // Those that were not measured take nobody's place.
        all[0] = Phases::default();
        assert_eq!(lead(&all, &Config { quantile: 1.0, ..Config::DEFAULT }), 910_000);
        let newest = Config { runs: 3, ..Config::DEFAULT };
        assert_eq!(lead(&runs([31, 32, 33, 900]), &newest), 43_000);
    }

    #[test]
    fn a_run_counts_when_it_was_measured_to_its_end() {
        let phases = |schedule, pull, start, ready| Phases { schedule, pull, start, ready };
        for (run, to_start, to_ready) in [
            (phases(None, None, None, None), None, None),
            (phases(Some(1), None, None, None), None, None),
            (phases(Some(1), Some(20), None, None), None, None),
            (phases(Some(1), Some(20), Some(300), None), Some(321), None),
            (phases(Some(1), Some(20), Some(300), Some(4000)), Some(321), Some(4321)),
            (phases(Some(1), None, Some(300), Some(4000)), Some(301), Some(4301)),
            (phases(None, Some(20), Some(300), None), Some(320), None),
            (phases(None, None, Some(300), None), Some(300), None),
            (phases(None, None, None, Some(4000)), Some(0), Some(4000)),
            (phases(Some(1), Some(20), None, Some(4000)), Some(21), Some(4021)),
            (phases(Some(0), Some(0), Some(0), Some(0)), Some(0), Some(0)),
        ] {
            assert_eq!((run.sum(false), run.sum(true)), (to_start, to_ready), "{run:?}");
        }
    }

    #[test]
    fn by_choice_the_time_to_ready_counts() {
        let ready = Config { include_ready: true, ..Config::DEFAULT };
        assert_eq!(lead(&runs([31, 32, 33]), &ready), 50_000);
    }

    #[test]
    fn the_bounds_hold_and_the_reason_says_so() {
        let none = Config { margin_seconds: 0, ..Config::DEFAULT };
        assert_eq!(
            decide(&runs([1, 1, 1]), CONFIGURED, &none),
            Answer {
                lead: 5_000,
                reason: "quantile 0.9 of 3 runs: 1 s, + 0 s margin, raised to the minimum 5 s".to_owned()
            }
        );
        let short = Config { max_seconds: Some(60), ..Config::DEFAULT };
        assert_eq!(
            decide(&runs([70, 70, 70]), CONFIGURED, &short),
            Answer {
                lead: 60_000,
                reason: "quantile 0.9 of 3 runs: 70 s, + 10 s margin, cut to the maximum 60 s".to_owned()
            }
        );
    }

    #[test]
    fn without_a_maximum_an_hour_or_the_configured_lead_is_the_longest() {
        let slow = runs([50_000; 3]);
        let long = Config { min_seconds: 9_000, ..Config::DEFAULT };
        for (configured, config, longest) in [
            (0, Config::DEFAULT, 3_600_000),
            (CONFIGURED, Config::DEFAULT, 3_600_000),
            (7_200_000, Config::DEFAULT, 7_200_000),
            (0, long, 9_000_000),
            (u64::MAX, Config::DEFAULT, 50_010_000),
        ] {
            assert_eq!(decide(&slow, configured, &config).lead, longest, "{configured}");
        }
    }

    /// A share of hundredths, against its definition, without broken numbers.
    #[test]
    fn the_quantile_is_the_least_time_that_was_enough_for_so_many_runs() {
        let mut chance = 1_u64;
        for count in 1..=32_u64 {
            let mut times: Vec<u64> = (0..count)
                .map(|_| {
                    chance = chance
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (chance >> 33) % 50
                })
                .collect();
            times.sort_unstable();
            for hundredths in 0..=100 {
                let enough_for = |time: &u64| times.iter().filter(|other| *other <= time).count() as u64;
                let expected =
                    times.iter().copied().find(|time| enough_for(time) * 100 >= hundredths * count);
                let found = nearest_rank(&times, hundredths as f64 / 100.0);
                assert_eq!(found, expected, "{hundredths} hundredths of {times:?}");
            }
        }
    }

    #[test]
    fn a_higher_quantile_never_gives_a_shorter_lead() {
        let runs = runs([50, 3, 17, 90, 44, 8, 61, 23]);
        let leads = (0..=1000).map(|thousandths| {
            lead(&runs, &Config { quantile: f64::from(thousandths) / 1000.0, ..Config::DEFAULT })
        });
        assert!(leads.is_sorted());
    }

    #[test]
    fn whatever_the_numbers_are_the_answer_is_within_the_contract() {
        let times = [None, Some(0), Some(1), Some(LONGEST), Some(u64::MAX)];
        let mut asked = 0;
        for schedule in times {
            for start in times {
                for ready in times {
                    let run = Phases { schedule, pull: schedule, start, ready };
                    for count in [0, 1, 2, 3, 32, 1_000] {
                        for configured in [0, 1, LONGEST, LONGEST + 1, u64::MAX] {
                            for quantile in [0.0, f64::from_bits(1), 0.5, 1.0] {
                                for max_seconds in [None, Some(5), Some(86_400)] {
                                    let config = Config {
                                        quantile,
                                        margin_seconds: 86_400,
                                        max_seconds,
                                        include_ready: ready.is_none(),
                                        ..Config::DEFAULT
                                    };
                                    let answer = decide(&vec![run; count], configured, &config);
                                    assert!(
                                        answer.lead <= LONGEST && answer.reason.len() <= 1_024,
                                        "{answer:?}"
                                    );
                                    asked += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(asked, 125 * 6 * 5 * 4 * 3);
    }
}
