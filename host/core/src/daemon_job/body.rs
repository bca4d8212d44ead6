//! What a node's Job looks like, and what a spec cannot mean.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoker_api::{DaemonJob, DaemonJobSpec, GlobalParams, keys};

use crate::fan_out::Rules;
use crate::fan_out::tolerate_cordon;
use crate::job_body::{self, Additions, Head};
use crate::names;

/// A Job to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub name: String,
    /// The node's name.
    pub node: String,
    /// The node's UID.
    pub node_uid: String,
    /// The number of the run, from 1.
    pub run: u32,
    /// The number of the attempt, from 1.
    pub attempt: u16,
}

impl NewJob {
    /// The Job of a node: `<object>-<node>` for the first attempt of the first run, where that is a name.
    pub(super) fn of(owner: &str, uid: &str, node: &str, node_uid: &str, run: u32, attempt: u16) -> Self {
        let name = if (run, attempt) == (1, 1) {
            names::part_job(owner, uid, node, &[])
        } else {
            names::part_job(owner, uid, node, &[node_uid, &run.to_string(), &attempt.to_string()])
        };
        Self { name, node: node.to_owned(), node_uid: node_uid.to_owned(), run, attempt }
    }
}

/// The JobSpec that a spec has inline. `parallelism` there is how many nodes are at work at a time: a node's Job runs one
/// pod at a time. None = the spec names a JobTemplate instead.
pub fn inline_template(spec: &DaemonJobSpec) -> Option<&Map<String, Value>> {
    spec.job_template_ref.is_none().then_some(&spec.job)
}

/// A hash of what Jobs look like: the template, and what all Jobs have in common.
pub fn template_hash(spec: &DaemonJobSpec, template: &Map<String, Value>) -> String {
    // Serialising what was deserialised cannot fail; an empty text would only make templates look alike.
    let text = serde_json::to_vec(&(&spec.global_params, template)).unwrap_or_default();
    names::short_hash(&[&text], 10)
}

/// Fields of a JobSpec that the spec has beside jobTemplateRef, or what else it cannot mean, in words; None = nothing.
/// The rules of the CRD say the same, where they can.
pub fn refusal(spec: &DaemonJobSpec, template: &Map<String, Value>) -> Option<String> {
    if spec.job_template_ref.is_some()
        && let Some(field) = spec.job.keys().next()
    {
        let or = if field == "template" { ", or its changes into override" } else { "" };
        return Some(format!(
            "spec.{field} has no effect beside jobTemplateRef: write it into the JobTemplate{or}"
        ));
    }
    if let Some(parallelism) = &spec.parallelism
        && parallelism.of(1).is_none()
    {
        return Some(
            "spec.parallelism is neither a number from 1 nor a percentage from \"1%\" to \"100%\"".to_owned(),
        );
    }
    let object = |value: Option<&Value>| value.is_some_and(Value::is_object);
    if !object(template.get("template").map(|pod| &pod["spec"])) {
        return Some("the template has no template.spec: it is a batch/v1 JobSpec".to_owned());
    }
    let on = |field: &str| template.get(field).and_then(Value::as_bool) == Some(true);
    if on("suspend") {
        return Some("the template's suspend must not be true: its Jobs would never end".to_owned());
    }
    on("manualSelector").then(|| {
        "the template's manualSelector must not be true: nodes would take each other's pods".to_owned()
    })
}

/// Which nodes a spec and its template choose.
pub(super) fn rules(spec: &DaemonJobSpec, template: &Map<String, Value>) -> Rules {
    let empty = Map::new();
    let pod = template.get("template").and_then(|pod| pod["spec"].as_object()).unwrap_or(&empty);
    let list = spec.exclude_node_list.as_deref().unwrap_or_default();
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut rules = Rules::of_pod(pod);
    rules.excluded = names.map(str::to_owned).collect();
    rules.only = spec.global_params.as_ref().and_then(|global| global.node_name.clone());
    rules.labels = spec.node_selector.clone();
    rules.cordoned = spec.include_unschedulable;
    rules
}

/// The Job of a node: the template pinned to the node, with what says which node, run and attempt it is for.
pub fn body(object: &DaemonJob, template: &Map<String, Value>, new: &NewJob) -> Value {
    let (meta, spec) = (&object.metadata, &object.spec);
    let uid = meta.uid.as_deref().unwrap_or_default();
    let owner = json!({
        "apiVersion": format!("{}/v1alpha1", stoker_api::GROUP),
        "kind": "DaemonJob",
        "name": meta.name,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": true,
    });
    let mut labels = BTreeMap::from([(keys::OWNER_UID.to_owned(), uid.to_owned())]);
    // The node that all Jobs have in common is among the rules that choose.
    let global = spec.global_params.clone().map(|global| GlobalParams { node_name: None, ..global });
    let additions = Additions { global: global.as_ref(), labels: Some(&labels), ..Additions::default() };
    let mut job = job_body::spec(template, &additions);
    let pod = job.get_mut("template").and_then(|pod| pod.get_mut("spec")).and_then(Value::as_object_mut);
    if let Some(pod) = pod {
        job_body::pin(pod, &new.node);
        if spec.include_unschedulable {
            tolerate_cordon(pod);
        }
    }
    labels.insert(keys::TEMPLATE_HASH.to_owned(), template_hash(spec, template));
    let annotations = BTreeMap::from([
        (keys::NODE.to_owned(), new.node.clone()),
        (keys::NODE_UID.to_owned(), new.node_uid.clone()),
        (keys::RUN.to_owned(), new.run.to_string()),
        (keys::ATTEMPT.to_owned(), new.attempt.to_string()),
    ]);
    let head = Head {
        name: &new.name,
        namespace: meta.namespace.as_deref().unwrap_or_default(),
        owner: &owner,
        global: global.as_ref(),
        labels: &labels,
        annotations: &annotations,
    };
    job_body::job(&head, job)
}
