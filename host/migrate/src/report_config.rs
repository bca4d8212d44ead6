//! `config.yaml` of the batch-job-controller.

use serde_yaml::{Mapping, Value};

use crate::fields::Fields;
use crate::notes::Notes;
use crate::schedule;
use crate::values::{go_duration, put, shown};

/// The key of the config in its ConfigMap.
pub(crate) const KEY: &str = "config.yaml";

/// The delay that the older system takes where nothing is said.
const DELAY: u64 = 10;

/// Executions that are kept at most.
const HISTORY: u64 = 100;

/// What is called otherwise.
const RENAMED: [(&str, &str); 6] = [
    ("cronExpression", "schedule"),
    ("jobNodeSelector", "nodes.selector"),
    ("runOnUnscheduledNodes", "nodes.includeUnschedulable"),
    ("podPoolSize", "parallelism"),
    ("reportHistory", "reports.history"),
    ("latestMetricsLabel", "metrics.latestLabel"),
];

/// Names of metrics that every NodeBatchJob has.
const OWN: [&str; 4] = ["current_execution_id", "pods", "processing", "duration"];

/// What the config says.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// The controller's name, with which pods' names begin.
    pub name: Option<String>,
    /// The account of the pods.
    pub account: Option<String>,
    /// Names of Secrets for their images.
    pub pull_secrets: Vec<Value>,
    /// What goes before podTemplate in the spec.
    pub before: Mapping,
    /// What goes behind it.
    pub behind: Mapping,
}

impl Config {
    /// Reads the config; whatever the older system knows, and Stoker does not, is told.
    pub fn read(mut old: Fields, map_name: &str, notes: &mut Notes) -> Self {
        let mut config = Self {
            name: old.text("name", notes).filter(|name| !name.is_empty()),
            account: old.text("jobServiceAccount", notes).filter(|name| !name.is_empty()),
            ..Self::default()
        };
        for key in ["jobImagePullSecrets", "imagePullSecrets"] {
            let secrets = old.list(key, notes).unwrap_or_default();
            let new: Vec<Value> = secrets.into_iter().filter(|s| !config.pull_secrets.contains(s)).collect();
            config.pull_secrets.extend(new);
        }
        let renamed: Vec<String> = RENAMED
            .iter()
            .filter(|(key, _)| old.has(key))
            .map(|(key, new)| format!("{} (spec.{new})", old.at(key)))
            .collect();
        config.when(&mut old, notes);
        config.nodes(&mut old, notes);
        config.reports(&mut old, notes);
        config.metrics(&mut old, map_name, notes);
        let address = "pods report to where `stoker run --reports-url` says, the report service of Stoker";
        old.without("callbackServiceName", address, notes);
        old.without("callbackServicePort", address, notes);
        let why = "the report service of Stoker keeps all reports under its --dir; move the old ones by hand if you need them";
        old.without("reportDirectory", why, notes);
        old.without(
            "leaderElectionResourceLock",
            "how replicas take turns is the operator's business",
            notes,
        );
        old.without("healthProbePort", "the operator and the report service have their own ports", notes);
        old.lost(
            "custom",
            "it was for programs built upon the older controller; give pods what they need in the template",
            notes,
        );
        old.rest(notes);
        if !renamed.is_empty() {
            notes.change(format!("under another name: {}", renamed.join(", ")));
        }
        config
    }

    fn when(&mut self, old: &mut Fields, notes: &mut Notes) {
        let path = old.at("cronExpression");
        match old.text("cronExpression", notes).filter(|text| !text.trim().is_empty()) {
            Some(text) => {
                let read = schedule::read(&text, &path, notes);
                put(&mut self.before, "schedule", read.schedule);
                match read.zone {
                    Some(zone) => put(&mut self.before, "timeZone", zone),
                    None => notes.change(
                        "spec.schedule is in UTC: if the controller's container had another time zone (TZ), give \
                         spec.timeZone",
                    ),
                }
            }
            None => notes.warn(format!("{path} says nothing: executions begin only by `stoker run-now`")),
        }
        let on_startup = old.flag("runOnStartup", notes);
        let delay = delay(old, notes);
        if let Some(on_startup) = on_startup {
            put(&mut self.before, "runOnStartup", on_startup);
        }
        if on_startup == Some(true) {
            notes.change(format!(
                "{}: an execution begins when this object is created, once in its life, and not at each start of the \
                 operator",
                old.at("runOnStartup")
            ));
        }
        match delay {
            Some(delay) if delay > 0 => put(&mut self.before, "startupDelay", written(delay)),
            _ if on_startup == Some(true) => {
                notes.change(format!("{} is {DELAY}s, as the older system took it", old.at("startupDelay")));
                put(&mut self.before, "startupDelay", written(DELAY));
            }
            _ => {}
        }
        notes.change("an execution is skipped while an earlier one is under way (concurrencyPolicy: Forbid)");
    }

    fn nodes(&mut self, old: &mut Fields, notes: &mut Notes) {
        let mut nodes = Mapping::new();
        let selector = old.fields("jobNodeSelector", notes).map(Fields::into_map).unwrap_or_default();
        if !selector.is_empty() {
            put(&mut nodes, "selector", selector);
        }
        if let Some(cordoned) = old.flag("runOnUnscheduledNodes", notes) {
            put(&mut nodes, "includeUnschedulable", cordoned);
        }
        if !nodes.is_empty() {
            put(&mut self.before, "nodes", nodes);
        }
        let path = old.at("podPoolSize");
        match old.count("podPoolSize", notes) {
            Some(0) => {
                notes.warn(format!("{path} (0) is not carried over: nothing would ever run. It is 10 here"))
            }
            Some(pods) => put(&mut self.before, "parallelism", pods),
            None => notes.warn(format!("{path} says nothing, with which nothing ever ran. It is 10 here")),
        }
    }

    fn reports(&mut self, old: &mut Fields, notes: &mut Notes) {
        let logs = old.flag("savePodLog", notes);
        if logs == Some(true) {
            notes.change(format!(
                "{} needs the role stoker-pod-logs of deploy/rbac.yaml in this namespace",
                old.at("savePodLog")
            ));
        }
        if let Some(logs) = logs {
            put(&mut self.behind, "savePodLog", logs);
        }
        let path = old.at("reportHistory");
        if let Some(history) = old.count("reportHistory", notes) {
            let kept = history.clamp(1, HISTORY);
            if kept != history {
                notes.warn(format!("{path} ({history}) is {kept} here: 1 to {HISTORY} executions are kept"));
            }
            put(&mut self.behind, "reports", Mapping::from_iter([("history".into(), kept.into())]));
        }
    }

    fn metrics(&mut self, old: &mut Fields, map_name: &str, notes: &mut Notes) {
        let path = old.at("metrics");
        let mut given = old.fields("metrics", notes).unwrap_or_else(|| Fields::new(path, Mapping::new()));
        let mut metrics = Mapping::new();
        put(&mut metrics, "prefix", self.prefix(&mut given, map_name, notes));
        let gauges = gauges(&mut given, notes);
        if !gauges.is_empty() {
            put(&mut metrics, "gauges", gauges);
        }
        given.without("port", "metrics are on the readers' port of `stoker reports`", notes);
        given.rest(notes);
        if let Some(latest) = old.flag("latestMetricsLabel", notes) {
            put(&mut metrics, "latestLabel", latest);
        }
        put(&mut self.behind, "metrics", metrics);
    }

    /// What the metrics' names begin with: as it was, or of the controller's name.
    fn prefix(&self, metrics: &mut Fields, map_name: &str, notes: &mut Notes) -> String {
        let given = metrics.text("prefix", notes).unwrap_or_default();
        let from = if given.is_empty() { self.name.as_deref().unwrap_or(map_name) } else { &given };
        let mut prefix: String =
            from.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if prefix.starts_with(|c: char| c.is_ascii_digit()) {
            prefix.insert(0, '_');
        }
        if prefix != given {
            let was = if given.is_empty() { "was empty".to_owned() } else { format!("was {given}") };
            notes.warn(format!(
                "{} {was} and is {prefix}: a metric's name is made of letters, digits and _. Dashboards have to follow",
                metrics.at("prefix")
            ));
        }
        prefix
    }
}

/// The gauges that Stoker can have under the same names.
fn gauges(metrics: &mut Fields, notes: &mut Notes) -> Mapping {
    let mut all = Mapping::new();
    let Some(old) = metrics.fields("gauges", notes) else { return all };
    let path = old.path().to_owned();
    for (name, gauge) in old.into_map() {
        let name = shown(&name);
        let at = format!("{path}.{name}");
        if OWN.contains(&name.as_str()) || !is_name(&name) {
            notes.warn(format!(
                "{at} is not carried over: a gauge's name is made of letters, digits and _, and is none of {}. Take \
                 another name here and in what the pods report",
                OWN.join(", ")
            ));
            continue;
        }
        let Value::Mapping(gauge) = gauge else {
            notes.problem(&at, format!("must be a map with help and labels, and is {}", shown(&gauge)));
            continue;
        };
        let mut gauge = Fields::new(at.as_str(), gauge);
        let mut out = Mapping::new();
        if let Some(help) = gauge.text("help", notes) {
            put(&mut out, "help", help);
        }
        let mut labels: Vec<Value> = Vec::new();
        for label in gauge.list("labels", notes).unwrap_or_default() {
            if matches!(label.as_str(), Some("node" | "executionID")) || labels.contains(&label) {
                notes.change(format!(
                    "{at}.labels: {} is left out, it is there by itself or twice",
                    shown(&label)
                ));
            } else {
                labels.push(label);
            }
        }
        if !labels.is_empty() {
            put(&mut out, "labels", labels);
        }
        gauge.rest(notes);
        put(&mut all, &name, out);
    }
    all
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// startupDelay in seconds: a duration, or nanoseconds, which is what the older library makes of a number.
fn delay(old: &mut Fields, notes: &mut Notes) -> Option<u64> {
    let path = old.at("startupDelay");
    let value = old.raw("startupDelay")?;
    let seconds = match &value {
        Value::Number(number) => {
            let seconds = number.as_u64().map(|nanoseconds| nanoseconds.div_ceil(1_000_000_000));
            notes.change(format!("{path} ({number}) is taken for nanoseconds, as the older system does"));
            seconds
        }
        Value::String(text) => go_duration(text),
        _ => None,
    };
    if seconds.is_none() {
        notes.problem(&path, format!("must be a duration such as 10s, and is {}", shown(&value)));
    }
    seconds
}

/// A duration as Stoker takes it.
fn written(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let part = |number: u64, unit: &str| if number > 0 { format!("{number}{unit}") } else { String::new() };
    format!("{}{}{}", part(hours, "h"), part(minutes, "m"), part(rest, "s"))
}
