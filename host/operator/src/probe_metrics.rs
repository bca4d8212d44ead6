//! What Prometheus learns of the questions to pods.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use stoker_core::asked::Outcome;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    mode: &'static str,
    answer: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LeftOut {
    mode: &'static str,
    why: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Mode {
    mode: &'static str,
}

type Durations = Family<Mode, Histogram, fn() -> Histogram>;

/// Metrics of the prober.
pub struct ProbeMetrics {
    answers: Family<Answered, Counter>,
    left_out: Family<LeftOut, Counter>,
    lateness: Histogram,
    duration: Durations,
}

impl ProbeMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        let answers = Family::default();
        registry.register("probe_answers", "Answers about pods, by mode and what they mean", answers.clone());
        let left_out = Family::default();
        registry.register(
            "probes_left_out",
            "Questions that were due and not asked, by mode and reason",
            left_out.clone(),
        );
        let lateness = Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]);
        registry.register_with_unit(
            "probe_lateness",
            "From the moment at which a question was due to the moment at which it was asked",
            Unit::Seconds,
            lateness.clone(),
        );
        let fresh: fn() -> Histogram =
            || Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0]);
        let duration = Durations::new_with_constructor(fresh);
        registry.register_with_unit(
            "probe_duration",
            "From a question to its answer or its time limit, by mode",
            Unit::Seconds,
            duration.clone(),
        );
        Self { answers, left_out, lateness, duration }
    }

    pub fn asked_after(&self, lateness: Duration) {
        self.lateness.observe(lateness.as_secs_f64());
    }

    pub fn took(&self, mode: &'static str, duration: Duration) {
        self.duration.get_or_create(&Mode { mode }).observe(duration.as_secs_f64());
    }

    pub fn answered(&self, mode: &'static str, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Busy => "busy",
            Outcome::Idle => "idle",
            Outcome::Starting => "starting",
            Outcome::Unclear => "unclear",
        };
        self.answers.get_or_create(&Answered { mode, answer }).inc();
    }

    pub fn left_out(&self, mode: &'static str, why: &'static str) {
        self.left_out.get_or_create(&LeftOut { mode, why }).inc();
    }

    #[cfg(test)]
    pub fn left_out_so_far(&self, mode: &'static str, why: &'static str) -> u64 {
        self.left_out.get_or_create(&LeftOut { mode, why }).get()
    }
}
