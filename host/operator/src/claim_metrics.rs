//! What Prometheus learns of claims.

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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Metrics of claims.
pub struct ClaimMetrics {
    claims: Family<Outcome, Counter>,
    conflicts: Counter,
    ended: Family<Reason, Counter>,
    wait: Histogram,
}

impl ClaimMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        let claims = Family::default();
        registry.register("claims", "Claims that were asked for, by outcome", claims.clone());
        let conflicts = Counter::default();
        registry.register("claim_conflicts", "Pods that were offered and had changed", conflicts.clone());
        let ended = Family::default();
        registry.register("claim_ends", "Claims that ended, by reason", ended.clone());
        let wait =
            Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0]);
        registry.register_with_unit(
            "claim_wait",
            "From a claim's arrival to its pod",
            Unit::Seconds,
            wait.clone(),
        );
        Self { claims, conflicts, ended, wait }
    }

    /// A claim has its pod, or is refused for this reason.
    pub fn answered(&self, outcome: &'static str, after: Duration) {
        self.claims.get_or_create(&Outcome { outcome }).inc();
        if outcome == "bound" {
            self.wait.observe(after.as_secs_f64());
        }
    }

    pub fn conflict(&self) {
        self.conflicts.inc();
    }

    pub fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&Reason { reason }).inc();
    }
}
