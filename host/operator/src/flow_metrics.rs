//! What Prometheus learns of flows and of work on every node.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

type ByOutcome = Family<Outcome, Counter>;

/// Metrics of JobFlows and DaemonJobs.
pub struct FlowMetrics {
    steps_created: ByOutcome,
    steps: ByOutcome,
    flows: ByOutcome,
    step: Histogram,
    nodes_created: ByOutcome,
    nodes: ByOutcome,
    daemon_jobs: ByOutcome,
}

fn count(counter: &ByOutcome, outcome: &'static str, by: u64) {
    if by > 0 {
        counter.get_or_create(&Outcome { outcome }).inc_by(by);
    }
}

impl FlowMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = ByOutcome::default();
            registry.register(name, help, family.clone());
            family
        };
        let steps_created = family("flow_steps_created", "Requests to create the Job of a step, by outcome");
        let steps = family("flow_steps", "Steps of flows that ended, by outcome");
        let flows = family("flows", "Runs of flows that ended, by outcome");
        let nodes_created =
            family("daemon_job_nodes_created", "Requests to create the Job of a node, by outcome");
        let nodes = family("daemon_job_nodes", "Nodes of DaemonJobs that ended, by outcome");
        let daemon_jobs = family("daemon_jobs", "Runs of DaemonJobs that ended, by outcome");
        let step = Histogram::new([
            0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0,
        ]);
        registry.register_with_unit(
            "flow_step",
            "From a step's end being seen until the request to create the Job of one that waited for it",
            Unit::Seconds,
            step.clone(),
        );
        Self { steps_created, steps, flows, step, nodes_created, nodes, daemon_jobs }
    }

    pub fn step_created(&self, outcome: &'static str) {
        count(&self.steps_created, outcome, 1);
    }

    /// So long after what it waited for was seen, a step's Job was asked for.
    pub fn step_followed(&self, after: Duration) {
        self.step.observe(after.as_secs_f64());
    }

    pub fn steps_ended(&self, outcome: &'static str, count: u64) {
        self::count(&self.steps, outcome, count);
    }

    pub fn flow_ended(&self, outcome: &'static str) {
        count(&self.flows, outcome, 1);
    }

    pub fn node_created(&self, outcome: &'static str) {
        count(&self.nodes_created, outcome, 1);
    }

    pub fn nodes_ended(&self, outcome: &'static str, count: u64) {
        self::count(&self.nodes, outcome, count);
    }

    pub fn daemon_job_ended(&self, outcome: &'static str) {
        count(&self.daemon_jobs, outcome, 1);
    }
}
