//! A flow's spec, read once for each generation and state of its templates: a plan then costs only what has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use stoker_api::{Handler, HttpCheck, JobFlowSpec, Step, StepCondition, TcpCheck, WaitFor};

use super::graph;
use super::size::Size;
use crate::names::{part_job, short_hash};

/// The name of the handler of a failure among the steps. No step can have it: it is no DNS label.
pub const ON_FAILURE: &str = "onFailure";

/// The name of the handler of the end.
pub const ON_EXIT: &str = "onExit";

/// Length of a step's hash.
const HASH: usize = 7;

/// The JobTemplates that there are, by name: their specs.
pub type Templates = BTreeMap<String, Arc<Map<String, Value>>>;

/// What is asked of a step's pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// An HTTP GET; 2xx is yes.
    Http(HttpCheck),
    /// A connection.
    Tcp(TcpCheck),
}

/// How far a step must be for another to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// It has come to something.
    Condition(StepCondition),
    /// A pod of it answers.
    Probe(Probe),
}

/// What a step waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The other step, by its index.
    pub on: usize,
    /// How far it must be.
    pub until: Until,
}

/// A step, or a handler.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name, or [`ON_FAILURE`] or [`ON_EXIT`].
    pub name: String,
    /// What its Job is made from; None while its JobTemplate is missing.
    pub template: Option<Arc<Map<String, Value>>>,
    /// The JobTemplate that it refers to.
    pub reference: Option<String>,
    /// Hash of everything that makes its Job what it is, outputs apart; None while its JobTemplate is missing.
    pub hash: Option<String>,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// The steps that wait for it, unless for its failure: they get its output.
    pub readers: Vec<usize>,
}

/// A flow, read.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The object's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Its spec.
    pub spec: Arc<JobFlowSpec>,
    /// Its steps as the spec has them, and then its handlers.
    pub parts: Vec<Part>,
    /// The steps, by index, each after those that it waits for; or why there is no such order.
    pub order: Result<Vec<usize>, String>,
    /// How large the object may become.
    pub size: Size,
    index: HashMap<String, usize>,
}

impl Flow {
    /// The names of the JobTemplates that a spec refers to.
    pub fn references(spec: &JobFlowSpec) -> BTreeSet<&str> {
        let handlers = [&spec.on_failure, &spec.on_exit].into_iter().flatten();
        let of_handlers = handlers.filter_map(|handler| handler.job_template_ref.as_deref());
        spec.flows.iter().filter_map(|step| step.job_template_ref.as_deref()).chain(of_handlers).collect()
    }

    /// Reads a spec.
    pub fn new(
        name: &str,
        namespace: &str,
        uid: &str,
        spec: Arc<JobFlowSpec>,
        templates: &Templates,
    ) -> Self {
        let order = graph::order(&spec.flows);
        let mut index: HashMap<String, usize> = HashMap::with_capacity(spec.flows.len() + 2);
        for (at, step) in spec.flows.iter().enumerate() {
            index.entry(step.name.clone()).or_insert(at);
        }
        let mut parts: Vec<Part> =
            spec.flows.iter().map(|step| of_step(step, &spec, templates, &index)).collect();
        for at in 0..spec.flows.len() {
            for wait in parts[at].waits.clone() {
                if wait.until != Until::Condition(StepCondition::Failed) {
                    parts[wait.on].readers.push(at);
                }
            }
        }
        for (name, handler) in [(ON_FAILURE, &spec.on_failure), (ON_EXIT, &spec.on_exit)] {
            if let Some(handler) = handler {
                index.insert(name.to_owned(), parts.len());
                parts.push(of_handler(name, handler, &spec, templates));
            }
        }
        let (name, namespace, uid) = (name.to_owned(), namespace.to_owned(), uid.to_owned());
        let size = Size::default();
        let flow = Self { name, namespace, uid, spec, parts, order, size, index };
        Self { size: Size::of(&flow), ..flow }
    }

    /// How many of the parts are steps.
    pub fn steps(&self) -> usize {
        self.spec.flows.len()
    }

    /// The index of a step or handler.
    pub fn part(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// The spec of a step; None = it is a handler.
    pub fn step(&self, part: usize) -> Option<&Step> {
        self.spec.flows.get(part)
    }

    /// The name of the Job of an attempt of a run: `<flow>-<step>` for the first of the first.
    pub fn job_name(&self, part: &str, run: u32, attempt: u32) -> String {
        let (run, attempt) = (run.to_string(), attempt.to_string());
        match part {
            ON_FAILURE => part_job(&self.name, &self.uid, "on-failure", &[ON_FAILURE, &run, &attempt]),
            ON_EXIT => part_job(&self.name, &self.uid, "on-exit", &[ON_EXIT, &run, &attempt]),
            _ if run == "1" && attempt == "1" => part_job(&self.name, &self.uid, part, &[]),
            _ => part_job(&self.name, &self.uid, part, &[&run, &attempt]),
        }
    }
}

fn resolve(
    inline: Option<&Map<String, Value>>,
    reference: Option<&String>,
    templates: &Templates,
) -> Option<Arc<Map<String, Value>>> {
    match reference {
        Some(name) => templates.get(name).cloned(),
        None => inline.map(|inline| Arc::new(inline.clone())),
    }
}

fn hash(what: &impl Serialize) -> String {
    // Serialising what was deserialised cannot fail; an empty text would only make templates look alike.
    short_hash(&[&serde_json::to_vec(what).unwrap_or_default()], HASH)
}

fn of_step(step: &Step, spec: &JobFlowSpec, templates: &Templates, index: &HashMap<String, usize>) -> Part {
    let template = resolve(step.job_template.as_ref(), step.job_template_ref.as_ref(), templates);
    let mounts = &step.share_volume_mounts;
    let volumes: &[Map<String, Value>] = if mounts.is_empty() { &[] } else { &spec.share_volumes };
    let hash = template.as_ref().map(|template| {
        hash(&(&**template, &step.overrides, mounts, volumes, &spec.global_params, step.timeout_seconds))
    });
    let on = |name: &String| index.get(name).copied();
    let succeeded = Until::Condition(StepCondition::Succeeded);
    let short = step.dependencies.iter().filter_map(on).map(|on| Wait { on, until: succeeded.clone() });
    let long = step.wait_for.iter().filter_map(|wait| Some(Wait { on: on(&wait.name)?, until: until(wait) }));
    Part {
        name: step.name.clone(),
        template,
        reference: step.job_template_ref.clone(),
        hash,
        waits: short.chain(long).collect(),
        readers: Vec::new(),
    }
}

fn until(wait: &WaitFor) -> Until {
    match (&wait.http, &wait.tcp) {
        (Some(http), _) => Until::Probe(Probe::Http(http.clone())),
        (None, Some(tcp)) => Until::Probe(Probe::Tcp(tcp.clone())),
        (None, None) => Until::Condition(wait.condition.unwrap_or_default()),
    }
}

fn of_handler(name: &str, handler: &Handler, spec: &JobFlowSpec, templates: &Templates) -> Part {
    let script = handler.script.as_ref().map(|script| {
        let command = ["/bin/sh".to_owned(), "-ec".to_owned(), script.command.join("\n")];
        let pod = json!({"containers": [{"name": "script", "image": script.image, "command": command}]});
        Map::from_iter([("template".to_owned(), json!({"spec": pod}))])
    });
    let inline = handler.job_template.as_ref().or(script.as_ref());
    let template = resolve(inline, handler.job_template_ref.as_ref(), templates);
    let hash = template.as_ref().map(|template| hash(&(&**template, &spec.global_params)));
    Part {
        name: name.to_owned(),
        template,
        reference: handler.job_template_ref.clone(),
        hash,
        waits: Vec::new(),
        readers: Vec::new(),
    }
}
