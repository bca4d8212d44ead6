//! What Prometheus learns of runs.

use jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use stoker_api::EndedRun;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Where a run's first pod was.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Place {
    /// The node pool; empty = none known.
    node_pool: String,
}

type ByPlace = Family<Place, Histogram>;

/// Metrics of PreScaledCronJobs' runs.
pub struct RunMetrics {
    created: Family<Outcome, Counter>,
    ended: Family<Outcome, Counter>,
    instants: Family<Outcome, Counter>,
    schedule: ByPlace,
    pull: ByPlace,
    held: ByPlace,
    start: ByPlace,
    skew: ByPlace,
}

/// Seconds, of what takes whole ones.
fn long() -> Histogram {
    Histogram::new([0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0])
}

/// Seconds, from a thousandth on.
fn short() -> Histogram {
    Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0, 300.0])
}

impl RunMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        let (created, ended, instants) = (Family::default(), Family::default(), Family::default());
        registry.register(
            "runs_created",
            "Requests to create the Job of an instant, by outcome",
            created.clone(),
        );
        registry.register("runs_ended", "Runs that ended, by outcome", ended.clone());
        registry.register("instants", "Instants that passed: started, missed or skipped", instants.clone());
        let whole_seconds = || ByPlace::new_with_constructor(long);
        let (schedule, pull, held, start) =
            (whole_seconds(), whole_seconds(), whole_seconds(), whole_seconds());
        let skew = ByPlace::new_with_constructor(short);
        let mut add = |name: &str, help: &str, histogram: &ByPlace| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        add("run_schedule", "From a run's creation until its pod had a node", &schedule);
        add("run_pull", "From then until its images were there", &pull);
        add("run_held", "For how long the gate held a run: from then until its instant", &held);
        add(
            "run_start",
            "From its instant, or its images if they came later, until its containers ran",
            &start,
        );
        add(
            "run_skew",
            "From a held run's instant until the operator saw it at work (gate: InitContainer)",
            &skew,
        );
        Self { created, ended, instants, schedule, pull, held, start, skew }
    }

    pub fn created(&self, outcome: &'static str) {
        self.created.get_or_create(&Outcome { outcome }).inc();
    }

    pub fn instants(&self, outcome: &'static str, count: u64) {
        self.instants.get_or_create(&Outcome { outcome }).inc_by(count);
    }

    /// A run that was held was seen at work so long after its instant.
    pub fn started(&self, late: SignedDuration, node_pool: String) {
        self.skew.get_or_create(&Place { node_pool }).observe(late.as_secs_f64());
    }

    pub fn ended(&self, outcome: &'static str, run: &EndedRun, node_pool: String) {
        self.ended.get_or_create(&Outcome { outcome }).inc();
        let phases = [
            (&self.schedule, run.schedule_milliseconds),
            (&self.pull, run.pull_milliseconds),
            (&self.held, run.held_milliseconds),
            (&self.start, run.start_milliseconds),
        ];
        let place = Place { node_pool };
        for (histogram, milliseconds) in phases {
            if let Some(milliseconds) = milliseconds {
                histogram.get_or_create(&place).observe(milliseconds as f64 / 1000.0);
            }
        }
    }
}
