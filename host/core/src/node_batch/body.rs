//! What a node's pod looks like, and which nodes are chosen.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoker_api::{NodeBatchJob, NodeBatchJobSpec, keys};

use crate::fan_out::{Rules, tolerate_cordon};
use crate::job_body::{self, list};
use crate::names;

/// Taints that keep no pod from its node, as with a DaemonSet (Kubernetes: DaemonSet, Taints and tolerations). That the
/// node is cordoned does, unless the spec chooses such nodes.
const TOLERATED: [(&str, &str); 5] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
];

/// A pod to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPod {
    /// Its name.
    pub name: String,
    /// The node's name.
    pub node: String,
    /// The node's UID.
    pub node_uid: String,
    /// The execution's id.
    pub execution: String,
    /// The number of the attempt, from 1.
    pub attempt: u16,
}

/// Where a pod reports to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callbacks {
    /// The report service's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where results are posted.
    pub result: String,
    /// Where files are.
    pub file: String,
    /// Where Events are.
    pub event: String,
}

/// The name of a node's pod: `<object>-job-<node>-<execution>` for the first attempt where that is a name, else as much of
/// it as there is room for, a hash of the object, the node and the attempt, and the execution.
pub fn pod_name(
    object: &str,
    uid: &str,
    node: &str,
    node_uid: &str,
    execution: &str,
    attempt: u16,
) -> String {
    let head = format!("{object}-job-{node}");
    let plain = format!("{head}-{execution}");
    let legal = |text: &str| {
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.ends_with('-')
    };
    if attempt == 1 && plain.len() <= names::MAX_NAME && legal(&head) {
        return plain;
    }
    let attempt = attempt.to_string();
    let parts = [uid, node, node_uid, &attempt].map(str::as_bytes);
    names::cut_to_fit(&head, &format!("-{}-{execution}", names::short_hash(&parts, 7)))
}

impl NewPod {
    /// The pod of a node.
    pub(super) fn of(
        object: &NodeBatchJob,
        node: &str,
        node_uid: &str,
        execution: &str,
        attempt: u16,
    ) -> Self {
        let meta = &object.metadata;
        let (name, uid) = (meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default());
        Self {
            name: pod_name(name, uid, node, node_uid, execution, attempt),
            node: node.to_owned(),
            node_uid: node_uid.to_owned(),
            execution: execution.to_owned(),
            attempt,
        }
    }
}

/// A hash of what pods look like.
pub fn template_hash(spec: &NodeBatchJobSpec) -> String {
    // Serialising what was deserialised cannot fail; an empty text would only make templates look alike.
    let text = serde_json::to_vec(&(&spec.pod_template, spec.active_deadline_seconds)).unwrap_or_default();
    names::short_hash(&[&text], 10)
}

/// Lets a pod stay on a node that is in trouble, and start on one that is cordoned if the spec chooses those.
fn tolerate(pod: &mut Map<String, Value>, spec: &NodeBatchJobSpec) {
    let all = list(pod.entry("tolerations").or_insert(Value::Null));
    for (key, effect) in TOLERATED {
        let wanted = json!({"key": key, "operator": "Exists", "effect": effect});
        if !all.contains(&wanted) {
            all.push(wanted);
        }
    }
    if spec.nodes.include_unschedulable {
        tolerate_cordon(pod);
    }
}

/// Which nodes a spec chooses.
pub fn rules(spec: &NodeBatchJobSpec) -> Rules {
    let mut pod = spec.pod_template.spec.clone();
    tolerate(&mut pod, spec);
    let mut rules = Rules::of_pod(&pod);
    rules.labels = spec.nodes.selector.clone();
    rules.affinity = spec.nodes.affinity.clone().map(Value::Object);
    rules.cordoned = spec.nodes.include_unschedulable;
    rules
}

/// The pod of a node: the template bound to the node, with what says whose it is and where it reports to.
pub fn body(object: &NodeBatchJob, new: &NewPod, callbacks: Option<&Callbacks>) -> Value {
    let (meta, spec) = (&object.metadata, &object.spec);
    let (name, uid) = (meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let said = [("NAMESPACE", namespace), ("NODE_NAME", &new.node), ("EXECUTION_ID", &new.execution)];

    let mut pod = spec.pod_template.spec.clone();
    pod.values_mut().for_each(|value| fill(value, &said));
    pod.insert("restartPolicy".to_owned(), json!("Never"));
    if let Some(seconds) = spec.active_deadline_seconds {
        let own = pod.get("activeDeadlineSeconds").and_then(Value::as_u64);
        let seconds = own.map_or(u64::from(seconds), |own| own.min(seconds.into()));
        pod.insert("activeDeadlineSeconds".to_owned(), json!(seconds));
    }
    let mut env: Vec<(&str, String)> = said.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    if let Some(to) = callbacks {
        env.extend([
            ("CALLBACK_SERVICE_NAME", to.host.clone()),
            ("CALLBACK_SERVICE_PORT", to.port.to_string()),
            ("CALLBACK_SERVICE_RESULT_URL", to.result.clone()),
            ("CALLBACK_SERVICE_FILE_URL", to.file.clone()),
            ("CALLBACK_SERVICE_EVENT_URL", to.event.clone()),
        ]);
    }
    // Kubernetes reads `$(NAME)` as a reference, and `$$` as a dollar.
    let env: Vec<Value> =
        env.iter().map(|(key, value)| json!({"name": key, "value": value.replace('$', "$$")})).collect();
    job_body::each_container(&mut pod, |container| job_body::put_before(container, "env", "name", &env));
    job_body::pin(&mut pod, &new.node);
    tolerate(&mut pod, spec);

    let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
    if let Some(template) = &spec.pod_template.metadata {
        labels.extend(template.labels.clone().unwrap_or_default());
        annotations.extend(template.annotations.clone().unwrap_or_default());
        labels.values_mut().chain(annotations.values_mut()).for_each(|text| *text = filled(text, &said));
    }
    labels.insert(keys::OWNER_UID.to_owned(), uid.to_owned());
    labels.insert(keys::NODE_BATCH_JOB.to_owned(), names::label_value(name));
    labels.insert(keys::EXECUTION.to_owned(), new.execution.clone());
    labels.insert(keys::TEMPLATE_HASH.to_owned(), template_hash(spec));
    annotations.insert(keys::NODE.to_owned(), new.node.clone());
    annotations.insert(keys::NODE_UID.to_owned(), new.node_uid.clone());
    annotations.insert(keys::ATTEMPT.to_owned(), new.attempt.to_string());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": new.name,
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations,
            "finalizers": [keys::OUTCOME],
            "ownerReferences": [{
                "apiVersion": format!("{}/v1alpha1", stoker_api::GROUP),
                "kind": "NodeBatchJob",
                "name": name,
                "uid": uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": pod,
    })
}

/// Fills in what is known in all texts of a value; keys stay as they are.
fn fill(value: &mut Value, said: &[(&str, &str)]) {
    match value {
        Value::String(text) if text.contains("${") => *text = filled(text, said),
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, said)),
        Value::Object(map) => map.values_mut().for_each(|item| fill(item, said)),
        _ => {}
    }
}

/// A text in which `${NAME}` stands for what is known under that name, and `$${NAME}` for `${NAME}`. What is not known
/// stays as it is.
fn filled(text: &str, said: &[(&str, &str)]) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let known = said
            .iter()
            .find(|(name, _)| from[2..].strip_prefix(name).is_some_and(|tail| tail.starts_with('}')));
        let Some((name, value)) = known else {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        };
        let whole = name.len() + 3;
        match before.strip_suffix('$') {
            Some(before) => {
                out.push_str(before);
                out.push_str(&from[..whole]);
            }
            None => {
                out.push_str(before);
                out.push_str(value);
            }
        }
        rest = &from[whole..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_filled_in_and_others_stay() {
        let said = [("NAMESPACE", "ops"), ("NODE_NAME", "n-1")];
        let cases = [
            ("${NODE_NAME}", "n-1"),
            ("a ${NODE_NAME}/${NAMESPACE} b", "a n-1/ops b"),
            ("$${NODE_NAME}", "${NODE_NAME}"),
            ("${HOME} ${NODE_NAME", "${HOME} ${NODE_NAME"),
            ("${NODE_NAMES} $$ ${", "${NODE_NAMES} $$ ${"),
            ("${${NODE_NAME}}", "${n-1}"),
            ("plain", "plain"),
        ];
        for (text, wanted) in cases {
            assert_eq!(filled(text, &said), wanted, "{text}");
        }
    }

    #[test]
    fn names_are_distinct_and_legal_whatever_the_nodes_are_called() {
        let long = format!("node-{}.eu-west-1.compute.internal", "x".repeat(60));
        let nodes = ["a", "ip-10-0-0-1.ec2.internal", "ip-10-0-0-1.other.internal", &long];
        let mut seen = std::collections::BTreeSet::new();
        for node in nodes {
            for execution in ["202608030910", "202608030910-2"] {
                for attempt in [1, 2] {
                    let name = pod_name("disks", "6f1c", node, "77", execution, attempt);
                    assert!(name.len() <= names::MAX_NAME && !name.contains('.'), "{name}");
                    assert!(name.ends_with(execution), "{name}");
                    assert!(seen.insert(name));
                }
            }
        }
        assert_eq!(pod_name("disks", "6f1c", "a", "77", "202608030910", 1), "disks-job-a-202608030910");
    }
}
