//! What is told to Prometheus of policies: fetching, compiling, instantiating and calling them, by digest
//! and outcome. A policy's series go with it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use stoker_policy::{CompileCost, Digest, Observer, Timing};

/// Digests of refused components whose series are kept: nobody holds them, so nothing else ends them.
const REFUSED_KEPT: usize = 64;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Fetched {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Compiled {
    digest: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Instantiated {
    digest: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Called {
    digest: String,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Tried {
    call: &'static str,
    outcome: &'static str,
}

type Buckets = fn() -> Histogram;

/// The metrics of policies.
pub struct PolicyMetrics {
    fetches: Family<Fetched, Histogram, Buckets>,
    compiles: Family<Compiled, Histogram, Buckets>,
    compile_memory: Family<Compiled, Gauge>,
    instantiations: Family<Instantiated, Histogram, Buckets>,
    calls: Family<Called, Histogram, Buckets>,
    dropped: Family<Dropped, Counter>,
    tried: Family<Tried, Counter>,
    known: Mutex<Known>,
}

/// The series that exist, to be able to remove them.
#[derive(Default)]
struct Known {
    of: HashMap<String, Series>,
    refused: VecDeque<String>,
}

/// The series of one digest.
#[derive(Default)]
struct Series {
    /// Outcomes of compiling.
    compiled: HashSet<&'static str>,
    /// Calls and their outcomes.
    called: HashSet<(&'static str, &'static str)>,
}

impl PolicyMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        let fetches = Family::new_with_constructor(seconds as Buckets);
        let compiles = Family::new_with_constructor(seconds as Buckets);
        let compile_memory = Family::default();
        let instantiations = Family::new_with_constructor(micros as Buckets);
        let calls = Family::new_with_constructor(micros as Buckets);
        let dropped = Family::default();
        let help = "Time to read the ConfigMap of a policy, by outcome";
        registry.register_with_unit("policy_fetch_duration", help, Unit::Seconds, fetches.clone());
        let help = "Time to compile a component in its child process, by digest and outcome";
        registry.register_with_unit("policy_compile_duration", help, Unit::Seconds, compiles.clone());
        let help = "Most memory of the process that compiled a component, by digest";
        registry.register_with_unit("policy_compile_memory", help, Unit::Bytes, compile_memory.clone());
        let help = "Time to make the instance that serves a call, by digest";
        registry.register_with_unit(
            "policy_instantiate_duration",
            help,
            Unit::Seconds,
            instantiations.clone(),
        );
        let help = "Time of a call of a policy without instantiation, by digest, call and outcome";
        registry.register_with_unit("policy_call_duration", help, Unit::Seconds, calls.clone());
        let help = "Decisions that were not applied, because what they were made for changed meanwhile";
        registry.register("decisions_dropped", help, dropped.clone());
        let tried = Family::default();
        let help = "Answers of policies on trial, by call and how they compare with what was applied: same, differs, failed";
        registry.register("policy_shadow_decisions", help, tried.clone());
        Self {
            fetches,
            compiles,
            compile_memory,
            instantiations,
            calls,
            dropped,
            tried,
            known: Mutex::default(),
        }
    }

    pub fn fetched(&self, outcome: &'static str, took: Duration) {
        self.fetches.get_or_create(&Fetched { outcome }).observe(took.as_secs_f64());
    }

    pub fn dropped(&self, reason: &'static str) {
        self.dropped.get_or_create(&Dropped { reason }).inc();
    }

    pub fn tried(&self, call: &'static str, outcome: &'static str) {
        self.tried.get_or_create(&Tried { call, outcome }).inc();
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, digest: &str, known: &mut Known) {
        let Some(series) = known.of.remove(digest) else { return };
        let digest = || digest.to_owned();
        for outcome in series.compiled {
            let labels = Compiled { digest: digest(), outcome };
            self.compiles.remove(&labels);
            self.compile_memory.remove(&labels);
        }
        for (call, outcome) in series.called {
            self.calls.remove(&Called { digest: digest(), call, outcome });
        }
        self.instantiations.remove(&Instantiated { digest: digest() });
    }
}

impl Observer for PolicyMetrics {
    fn compiled(&self, digest: &Digest, outcome: &'static str, cost: CompileCost) {
        let labels = Compiled { digest: digest.short().to_owned(), outcome };
        self.compiles.get_or_create(&labels).observe(cost.took.as_secs_f64());
        if cost.peak_bytes > 0 {
            self.compile_memory
                .get_or_create(&labels)
                .set(i64::try_from(cost.peak_bytes).unwrap_or(i64::MAX));
        }
        let mut known = self.known();
        known.of.entry(labels.digest.clone()).or_default().compiled.insert(outcome);
        if outcome == "ok" {
            known.refused.retain(|refused| *refused != labels.digest);
            return;
        }
        known.refused.push_back(labels.digest);
        if known.refused.len() > REFUSED_KEPT
            && let Some(oldest) = known.refused.pop_front()
            && !known.refused.contains(&oldest)
        {
            self.remove(&oldest, &mut known);
        }
    }

    fn called(&self, digest: &Digest, call: &'static str, outcome: &'static str, timing: Timing) {
        let labels = Called { digest: digest.short().to_owned(), call, outcome };
        let instantiated = Instantiated { digest: labels.digest.clone() };
        self.instantiations.get_or_create(&instantiated).observe(timing.instantiate.as_secs_f64());
        if let Some(calls) = self.calls.get(&labels) {
            calls.observe(timing.call.as_secs_f64());
            return;
        }
        self.calls.get_or_create(&labels).observe(timing.call.as_secs_f64());
        self.known().of.entry(labels.digest).or_default().called.insert((call, outcome));
    }

    fn forgotten(&self, digest: &Digest) {
        let mut known = self.known();
        self.remove(digest.short(), &mut known);
    }
}

fn micros() -> Histogram {
    Histogram::new([5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 2e-2, 0.1, 1.0])
}

fn seconds() -> Histogram {
    Histogram::new([1e-3, 5e-3, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 5.0, 20.0, 60.0])
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap_or_default();
        text
    }

    #[test]
    fn a_policys_series_go_with_it() {
        let mut registry = Registry::default();
        let metrics = PolicyMetrics::new(&mut registry);
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        for digest in [&one, &other] {
            metrics.compiled(digest, "ok", CompileCost { peak_bytes: 7, ..CompileCost::default() });
            metrics.called(digest, "scale", "ok", Timing::default());
            metrics.called(digest, "scale", "trap", Timing::default());
        }
        assert!(text(&registry).contains(one.short()));
        metrics.forgotten(&one);
        let left = text(&registry);
        assert!(!left.contains(one.short()), "{left}");
        for outcome in ["ok", "trap"] {
            let line = format!(
                "policy_call_duration_seconds_count{{digest=\"{}\",call=\"scale\",outcome=\"{outcome}\"}} 1",
                other.short()
            );
            assert!(left.contains(&line), "{left}");
        }
    }

    #[test]
    fn refused_components_leave_a_bounded_number_of_series() {
        let mut registry = Registry::default();
        let metrics = PolicyMetrics::new(&mut registry);
        for number in 0..1_000_u32 {
            metrics.compiled(&Digest::of(&number.to_le_bytes()), "compile", CompileCost::default());
        }
        let count = text(&registry).matches("policy_compile_duration_seconds_count").count();
        assert_eq!(count, REFUSED_KEPT);
    }
}
