//! What Stoker tells Prometheus, in base units.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::claim_metrics::ClaimMetrics;
use crate::flow_metrics::FlowMetrics;
use crate::node_batch_metrics::NodeBatchMetrics;
use crate::policy_metrics::PolicyMetrics;
use crate::probe_metrics::ProbeMetrics;
use crate::run_metrics::RunMetrics;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: String,
}

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    created: Family<Outcome, Counter>,
    removed: Family<Reason, Counter>,
    status_writes: Family<Outcome, Counter>,
    /// Those of policies.
    pub policies: Arc<PolicyMetrics>,
    /// Those of questions to pods.
    pub probes: Arc<ProbeMetrics>,
    /// Those of claims.
    pub claims: ClaimMetrics,
    /// Those of runs.
    pub runs: RunMetrics,
    /// Those of flows and of work on every node.
    pub flows: FlowMetrics,
    /// Those of scheduled work on nodes.
    pub node_batches: NodeBatchMetrics,
    /// Those of signals.
    pub signals: SignalMetrics,
    reaction: Histogram,
    leader: Gauge,
}

/// Metrics of signals.
pub struct SignalMetrics(Family<Outcome, Histogram, fn() -> Histogram>);

impl SignalMetrics {
    fn new(registry: &mut Registry) -> Self {
        let fresh: fn() -> Histogram =
            || Histogram::new([0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0]);
        let fetches = Family::new_with_constructor(fresh);
        let help = "From a request for a signal to its number, or to why there is none, by outcome";
        registry.register_with_unit("signal_fetch_duration", help, Unit::Seconds, fetches.clone());
        Self(fetches)
    }

    pub fn fetched(&self, ok: bool, took: Duration) {
        let outcome = if ok { "ok" } else { "failed" }.to_owned();
        self.0.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("stoker");
        let reconciles = Family::default();
        registry.register("reconciles", "Looks at an object, by outcome", reconciles.clone());
        let created = Family::default();
        registry.register("pod_creations", "Requests to create a pod, by outcome", created.clone());
        let removed = Family::default();
        registry.register("pod_removals", "Pods removed, by reason", removed.clone());
        let status_writes = Family::default();
        registry.register("status_writes", "Writes of a status, by outcome", status_writes.clone());
        let policies = Arc::new(PolicyMetrics::new(&mut registry));
        let probes = Arc::new(ProbeMetrics::new(&mut registry));
        let claims = ClaimMetrics::new(&mut registry);
        let runs = RunMetrics::new(&mut registry);
        let flows = FlowMetrics::new(&mut registry);
        let node_batches = NodeBatchMetrics::new(&mut registry);
        let signals = SignalMetrics::new(&mut registry);
        let reaction = Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]);
        registry.register_with_unit(
            "reaction",
            "From a pod's change arriving to the request that creates its replacement",
            Unit::Seconds,
            reaction.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 if this replica leads, 0 while it stands by", leader.clone());
        Self {
            registry,
            reconciles,
            created,
            removed,
            status_writes,
            policies,
            probes,
            claims,
            runs,
            flows,
            node_batches,
            signals,
            reaction,
            leader,
        }
    }

    pub fn leads(&self) {
        self.leader.set(1);
    }

    pub fn reconciled(&self, outcome: &str) {
        self.reconciles.get_or_create(&Outcome { outcome: outcome.to_owned() }).inc();
    }

    pub fn created(&self, outcome: &str) {
        self.created.get_or_create(&Outcome { outcome: outcome.to_owned() }).inc();
    }

    pub fn removed(&self, reason: &str) {
        self.removed.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    pub fn status_written(&self, outcome: &str) {
        self.status_writes.get_or_create(&Outcome { outcome: outcome.to_owned() }).inc();
    }

    pub fn reacted(&self, after: Duration) {
        self.reaction.observe(after.as_secs_f64());
    }

    /// The OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::warn!(%error, "metrics cannot be written");
        }
        text
    }
}
