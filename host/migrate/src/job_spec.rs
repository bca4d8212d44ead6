//! Templates of Jobs: a batch/v1 JobSpec, or the short form in which image and command stand beside the Job's fields.

use serde_yaml::{Mapping, Value};

use crate::fields::Fields;
use crate::notes::Notes;
use crate::values::{has, keys, put, shown, take};

/// Fields of a batch/v1 JobSpec.
const OF_JOB: [&str; 16] = [
    "activeDeadlineSeconds",
    "backoffLimit",
    "backoffLimitPerIndex",
    "completionMode",
    "completions",
    "managedBy",
    "manualSelector",
    "maxFailedIndexes",
    "parallelism",
    "podFailurePolicy",
    "podReplacementPolicy",
    "selector",
    "successPolicy",
    "suspend",
    "template",
    "ttlSecondsAfterFinished",
];

/// Fields of a core/v1 Container.
const OF_CONTAINER: [&str; 22] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "securityContext",
    "startupProbe",
    "stdin",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

/// A Job's template with everything in its place.
#[derive(Debug)]
pub(crate) struct JobSpec(Mapping);

/// Whether a template's Jobs were held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspended {
    /// They start no pods.
    Yes,
    /// They do.
    No,
}

/// Brings a template into the form of a JobSpec. None = it has no containers, and the notes tell so. `container` is the
/// name of the container that a short form describes.
pub(crate) fn whole(template: Fields, container: &str, notes: &mut Notes) -> Option<JobSpec> {
    let path = template.path().to_owned();
    let mut all = template.into_map();
    if !has(&all, "template") && all.get("spec").is_some_and(|spec| spec.get("template").is_some()) {
        notes.change(format!("{path} is what stood under {path}.spec: a JobSpec"));
        let mut wrapped = Fields::new(path.as_str(), std::mem::take(&mut all));
        let spec = wrapped.raw("spec");
        wrapped.lost(
            "metadata",
            "Jobs are named and labelled by Stoker; labels for pods go into the template",
            notes,
        );
        wrapped.rest(notes);
        if let Some(Value::Mapping(spec)) = spec {
            all = spec;
        }
    }
    if !has(&all, "template") {
        all = from_short(all, &path, container, notes)?;
    }
    for key in keys(&all).filter(|key| !OF_JOB.contains(&key.as_str())).collect::<Vec<_>>() {
        let was = take(&mut all, &key).map(|value| shown(&value)).unwrap_or_default();
        notes.warn(format!("{path}.{key} ({was}) is not carried over: a batch/v1 JobSpec has no such field"));
    }
    let pods = all.get("template").and_then(|pod| pod.get("spec")).and_then(|spec| spec.get("containers"));
    if pods.and_then(Value::as_sequence).is_none_or(Vec::is_empty) {
        notes.problem(&format!("{path}.template.spec.containers"), "is missing: give at least one container");
        return None;
    }
    Some(JobSpec(all))
}

/// image, command and others beside the Job's fields.
fn from_short(mut short: Mapping, path: &str, container: &str, notes: &mut Notes) -> Option<Mapping> {
    if !has(&short, "image") && !has(&short, "containers") {
        notes.problem(&format!("{path}.template"), "is missing: give a batch/v1 JobSpec with a pod template");
        return None;
    }
    let (mut job, mut pod, mut one) = (Mapping::new(), Mapping::new(), Mapping::new());
    put(&mut one, "name", container);
    let mut meta = Mapping::new();
    let all: Vec<String> = keys(&short).collect();
    for key in &all {
        let Some(value) = take(&mut short, key) else { continue };
        let to = match key.as_str() {
            key if OF_JOB.contains(&key) => &mut job,
            key if OF_CONTAINER.contains(&key) => &mut one,
            "labels" | "annotations" => &mut meta,
            _ => &mut pod,
        };
        put(to, key, value);
    }
    let moved: Vec<String> =
        all.iter().filter(|key| !OF_JOB.contains(&key.as_str())).map(|key| format!("{path}.{key}")).collect();
    notes.change(format!(
        "in the short form of a Job, now in its template, a batch/v1 JobSpec: {}",
        moved.join(", ")
    ));
    if !has(&pod, "containers") {
        put(&mut pod, "containers", vec![Value::Mapping(one)]);
    }
    let mut template = Mapping::new();
    if !meta.is_empty() {
        put(&mut template, "metadata", meta);
    }
    put(&mut template, "spec", pod);
    put(&mut job, "template", template);
    Some(job)
}

impl JobSpec {
    /// One Job is one pod, as the older operator made it.
    pub fn one_pod(&mut self, path: &str, notes: &mut Notes) {
        for key in ["parallelism", "completions"] {
            if self.0.get(key).is_some_and(|value| value.as_u64() != Some(1)) {
                self.without(
                    key,
                    path,
                    "the older operator set it to 1, which is the default. One Job is one unit",
                    notes,
                );
            }
        }
    }

    /// Its pods are never restarted.
    pub fn never_restarts(&mut self, path: &str, notes: &mut Notes) {
        let pod =
            self.0.get_mut("template").and_then(|pod| pod.get_mut("spec")).and_then(Value::as_mapping_mut);
        let Some(pod) = pod else { return };
        if pod.get("restartPolicy").is_some_and(|policy| policy.as_str() != Some("Never")) {
            let was = take(pod, "restartPolicy").map(|policy| shown(&policy)).unwrap_or_default();
            notes.change(format!(
                "{path}.template.spec.restartPolicy ({was}) is left out: the older operator set it to Never, which it is"
            ));
        }
    }

    /// A failed pod fails its Job, as the older operator had it; `again` is what to give for another try.
    pub fn fails_at_once(&mut self, path: &str, again: &str, notes: &mut Notes) {
        if self.0.get("backoffLimit").is_some_and(|limit| limit.as_u64() != Some(0)) {
            let why = format!("the older operator set it to 0, and so it is. To try again give {again}");
            self.without("backoffLimit", path, &why, notes);
        }
        // Beside these Stoker takes the template's own limit, and Kubernetes' default is 6.
        if has(&self.0, "podFailurePolicy") || has(&self.0, "backoffLimitPerIndex") {
            put(&mut self.0, "backoffLimit", 0);
        }
        self.never_restarts(path, notes);
    }

    /// Takes out suspend and what else makes a Job that nobody runs.
    pub fn suspended(&mut self, path: &str, notes: &mut Notes) -> Suspended {
        if self.0.get("manualSelector").and_then(Value::as_bool) == Some(true) {
            self.without("manualSelector", path, "Jobs would take each other's pods", notes);
        }
        self.without("selector", path, "Kubernetes chooses it for each Job", notes);
        if self.0.get("suspend").and_then(Value::as_bool) == Some(true) {
            self.0.shift_remove("suspend");
            return Suspended::Yes;
        }
        Suspended::No
    }

    /// Leaves a field out that must have a certain value or none.
    pub fn lost_when_other(&mut self, key: &str, only: &str, path: &str, notes: &mut Notes) {
        if self.0.get(key).is_some_and(|value| value.as_str() != Some(only)) {
            let was = take(&mut self.0, key).map(|value| shown(&value)).unwrap_or_default();
            notes.warn(format!("{path}.{key} ({was}) is not carried over: it is {only} here, always"));
        }
    }

    /// Leaves a field out that had no effect.
    pub fn without(&mut self, key: &str, path: &str, why: &str, notes: &mut Notes) {
        if let Some(value) = take(&mut self.0, key) {
            let was = if value.is_mapping() { String::new() } else { format!(" ({})", shown(&value)) };
            notes.change(format!("{path}.{key}{was} is left out: {why}"));
        }
    }

    /// The template's pod.
    pub fn pod_mut(&mut self) -> Option<&mut Mapping> {
        self.0.get_mut("template").and_then(Value::as_mapping_mut)
    }

    /// The spec itself.
    pub fn map_mut(&mut self) -> &mut Mapping {
        &mut self.0
    }

    /// The JobSpec as it is.
    pub fn into_map(self) -> Mapping {
        self.0
    }
}
