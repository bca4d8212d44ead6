//! What Prometheus learns: of every job what it reported and how its nodes fared, and of the service itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::cluster::{Cluster, JobView, MetricsSpec, NodeState};
use crate::fared::{self, Fared};
use crate::result::Sample;
use crate::series::{JobSeries, Series};
use crate::slot::{ExecutionId, LATEST};

/// Tells jobs apart whose metrics have the same name: `<namespace>/<name>`.
const JOB: &str = "node_batch_job";
const NODE: &str = "node";
const EXECUTION: &str = "executionID";
/// Metrics of the service begin so; no job's may.
const OWN: &str = "stoker_reports_";
/// Gauges that every job has.
const RESERVED: [&str; 4] = ["current_execution_id", "pods", "processing", "duration"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Answer {
    /// result, file or event
    pub kind: &'static str,
    pub code: u16,
}

/// Metrics of the service.
pub struct Counters {
    pub answers: Family<Answer, Counter>,
    pub bytes: Counter,
    pub under_way: Gauge,
    pub pruned: Counter,
}

impl Counters {
    pub fn new(registry: &mut Registry) -> Self {
        let (answers, bytes, under_way, pruned) =
            (Family::default(), Counter::default(), Gauge::default(), Counter::default());
        registry.register(format!("{OWN}callbacks"), "Callbacks, by kind and code", answers.clone());
        registry.register(format!("{OWN}received_bytes"), "Bytes of reports kept", bytes.clone());
        registry.register(format!("{OWN}under_way"), "Callbacks under way", under_way.clone());
        registry.register(
            format!("{OWN}pruned_executions"),
            "Executions removed by history or age",
            pruned.clone(),
        );
        Self { answers, bytes, under_way, pruned }
    }
}

type Labels = Vec<(String, String)>;

/// Metrics of one name: those of several jobs stand together.
#[derive(Default)]
struct Group {
    help: String,
    values: Vec<(Labels, f64)>,
}

type Groups = BTreeMap<String, Group>;

/// The metrics of jobs, made when they are asked for.
pub struct Exposed {
    pub series: Arc<Series>,
    pub cluster: Arc<dyn Cluster>,
}

impl fmt::Debug for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposed")
    }
}

impl Collector for Exposed {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut groups = Groups::new();
        let mut dropped = Vec::new();
        for job in self.cluster.jobs().unwrap_or_default() {
            let Some(spec) = &job.metrics else { continue };
            let lost = self.series.with(&job, |series| {
                let mut telling = Telling { groups: &mut groups, job: &job, spec, series };
                let hidden = telling.states();
                telling.results();
                series.left_out(hidden)
            });
            dropped.extend(lost.map(|lost| (job.key.to_string(), lost)));
        }
        for (name, group) in groups.iter().filter(|(name, _)| is_metric(name) && !name.starts_with(OWN)) {
            let mut metric = encoder.encode_descriptor(name, &group.help, None, MetricType::Gauge)?;
            for (labels, value) in &group.values {
                metric.encode_family(labels)?.encode_gauge(value)?;
            }
        }
        tell_dropped(&mut encoder, &dropped)
    }
}

fn tell_dropped(encoder: &mut DescriptorEncoder, dropped: &[(String, u64)]) -> Result<(), fmt::Error> {
    use prometheus_client::encoding::EncodeMetric as _;
    let name = format!("{OWN}series_dropped");
    let help = "Series of a job left out because it has metrics.maxSeries";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for (job, lost) in dropped {
        let labels = [(JOB, job.as_str())];
        ConstCounter::new(*lost).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn is_metric(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

fn is_label(name: &str) -> bool {
    is_metric(name) && !name.contains(':') && !name.starts_with("__")
}

/// Whether a node counts as failed: its pod failed, whatever came later, or nothing was reported.
fn failed(state: Option<NodeState>, reported: bool) -> bool {
    state == Some(NodeState::Failed) || !reported
}

/// The metrics of one job on their way out.
struct Telling<'a, 'g> {
    groups: &'g mut Groups,
    job: &'a JobView,
    spec: &'a MetricsSpec,
    series: &'a JobSeries,
}

impl<'a> Telling<'a, '_> {
    fn add(&mut self, name: &str, help: &str, labels: Labels, value: f64) {
        let group = self.groups.entry(format!("{}_{name}", self.spec.prefix)).or_default();
        if group.help.is_empty() {
            // A line break would end the line that it stands in.
            group.help = help.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        }
        group.values.push((labels, value));
    }

    fn own(&self) -> Labels {
        vec![(JOB.to_owned(), self.job.key.to_string())]
    }

    fn of_node(&self, node: &str, execution: &str) -> Labels {
        let mut labels = self.own();
        labels.extend([(NODE.to_owned(), node.to_owned()), (EXECUTION.to_owned(), execution.to_owned())]);
        labels
    }

    fn reported(&self, id: &ExecutionId, node: &str) -> bool {
        self.series.runs.get(id).is_some_and(|run| run.contains_key(node))
    }

    /// How the nodes fared, the newest executions first. Returns how many series found no room.
    fn states(&mut self) -> u64 {
        let all = fared::all(self.job, self.series);
        let Some((newest, fared)) = all.last_key_value() else { return 0 };
        let current = newest.as_str().split('-').next().and_then(|minute| minute.parse().ok());
        if let Some(current) = current {
            self.add("current_execution_id", "Id of the newest execution", self.own(), current);
        }
        let made = |node: &fared::Node<'_>| node.state.is_some_and(|state| state != NodeState::Waiting);
        let pods = fared.nodes().filter(made).count();
        self.add("pods", "Pods made for the newest execution", self.own(), pods as f64);
        let mut told = Told { left: self.spec.max_series, hidden: 0, latest: BTreeSet::new() };
        for (id, fared) in all.into_iter().rev() {
            self.execution(&mut told, id, fared);
        }
        told.hidden
    }

    fn execution(&mut self, told: &mut Told<'a>, id: &ExecutionId, fared: Fared<'a>) {
        for node in fared.nodes().filter(|node| node.state != Some(NodeState::Gone)) {
            let newest = self.spec.latest_label && told.latest.insert(node.name);
            let values = 1 + usize::from(node.duration.is_some());
            let need = values * if newest { 2 } else { 1 };
            if told.left < need {
                told.hidden += need as u64;
                continue;
            }
            told.left -= need;
            let value = f64::from(u8::from(failed(node.state, self.reported(id, node.name))));
            for execution in std::iter::once(id.as_str()).chain(newest.then_some(LATEST)) {
                let help = "1 = the pod failed or has reported no result, 0 = it reported";
                self.add("processing", help, self.of_node(node.name, execution), value);
                if let Some(duration) = node.duration {
                    let milliseconds = duration.as_secs_f64() * 1000.0;
                    let help = "How long the pod ran, in milliseconds";
                    self.add("duration", help, self.of_node(node.name, execution), milliseconds);
                }
            }
        }
    }

    /// What was reported. The series are bounded where they are kept.
    fn results(&mut self) {
        let failed = self.last_failures();
        let mut latest = BTreeSet::new();
        for (id, run) in self.series.runs.iter().rev() {
            for (node, samples) in run {
                // What a node reported before it failed is not its latest.
                let newest = self.spec.latest_label
                    && failed.get(node.as_str()).is_none_or(|failed| *failed <= id)
                    && latest.insert(node);
                for sample in samples {
                    for execution in std::iter::once(id.as_str()).chain(newest.then_some(LATEST)) {
                        self.sample(sample, node, execution);
                    }
                }
            }
        }
    }

    fn sample(&mut self, sample: &Sample, node: &str, execution: &str) {
        let gauge = self.spec.gauges.get(&*sample.gauge);
        let Some(gauge) = gauge.filter(|_| !RESERVED.contains(&&*sample.gauge)) else { return };
        let mut labels = self.of_node(node, execution);
        for (label, value) in gauge.labels.iter().zip(&sample.labels) {
            if is_label(label) && labels.iter().all(|(known, _)| known != label) {
                labels.push((label.clone(), value.to_string()));
            }
        }
        self.add(&sample.gauge, &gauge.help, labels, sample.value);
    }

    /// The newest execution in which a node failed or ended without a report, by node.
    fn last_failures(&self) -> BTreeMap<&'a str, &'a ExecutionId> {
        let mut failures = BTreeMap::new();
        for (id, fared) in fared::all(self.job, self.series) {
            for node in fared.nodes() {
                let ended = matches!(node.state, Some(NodeState::Failed | NodeState::Succeeded));
                if ended && failed(node.state, self.reported(id, node.name)) {
                    failures.insert(node.name, id);
                }
            }
        }
        failures
    }
}

/// How much has been told of nodes.
struct Told<'a> {
    left: usize,
    hidden: u64,
    /// Nodes whose newest series stand already.
    latest: BTreeSet<&'a str>,
}
