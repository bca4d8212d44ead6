//! What Prometheus learns of NodeBatchJobs.

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

/// Metrics of NodeBatchJobs.
pub struct NodeBatchMetrics {
    created: ByOutcome,
    nodes: ByOutcome,
    executions: ByOutcome,
    left_out: ByOutcome,
    logs: ByOutcome,
    refill: Histogram,
}

fn add(counter: &ByOutcome, outcome: &'static str, by: u64) {
    if by > 0 {
        counter.get_or_create(&Outcome { outcome }).inc_by(by);
    }
}

impl NodeBatchMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = ByOutcome::default();
            registry.register(name, help, family.clone());
            family
        };
        let created = family("node_batch_pods_created", "Requests to create the pod of a node, by outcome");
        let nodes = family("node_batch_nodes", "Nodes of executions that ended, by outcome");
        let executions = family("node_batch_executions", "Executions that ended, by outcome");
        let left_out = family("node_batch_left_out", "Instants that got no execution, by why");
        let logs = family("node_batch_logs", "Logs of pods that were to be saved, by outcome");
        let refill =
            Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0]);
        registry.register_with_unit(
            "node_batch_refill",
            "From a pod's change being seen until the request to create the next one",
            Unit::Seconds,
            refill.clone(),
        );
        Self { created, nodes, executions, left_out, logs, refill }
    }

    pub fn created(&self, outcome: &'static str) {
        add(&self.created, outcome, 1);
    }

    pub fn nodes_ended(&self, outcome: &'static str, by: u64) {
        add(&self.nodes, outcome, by);
    }

    pub fn execution_ended(&self, outcome: &'static str) {
        add(&self.executions, outcome, 1);
    }

    pub fn left_out(&self, why: &'static str, by: u64) {
        add(&self.left_out, why, by);
    }

    pub fn log(&self, outcome: &'static str) {
        add(&self.logs, outcome, 1);
    }

    pub fn refilled(&self, after: Duration) {
        self.refill.observe(after.as_secs_f64());
    }
}
