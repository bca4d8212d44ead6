//! What the Job of a step looks like.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use stoker_api::{Step, keys};

use super::merge::merge_pod_template;
use super::plan::NewJob;
use super::prepared::Flow;
use crate::job_body::{self, Additions, Head, each_container, list, object, put_before};

/// Why a step has no body, in words.
pub type Refused = String;

/// The Job of a step or handler. `owner` is the controller owner reference to the flow.
pub fn body(flow: &Flow, job: &NewJob, owner: &Value) -> Result<Value, Refused> {
    let part = &flow.parts[job.part];
    let Some(template) = &part.template else {
        let name = part.reference.as_deref().unwrap_or_default();
        return Err(format!("step {}: there is no JobTemplate {name}", part.name));
    };
    let mut template = Map::clone(template);
    let step = flow.step(job.part);
    if let Some(step) = step {
        change(&mut template, step, &flow.spec.share_volumes)
            .map_err(|words| format!("step {}: {words}", step.name))?;
    }
    let global = flow.spec.global_params.as_ref();
    let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let (run, attempt) = (job.run.to_string(), job.attempt.to_string());
    let pod_labels = of(&[(keys::OWNER_UID, &flow.uid)]);
    let pod_annotations = of(&[(keys::STEP, &part.name)]);
    let additions = Additions {
        global,
        labels: Some(&pod_labels),
        annotations: Some(&pod_annotations),
        env: &job.env,
        deadline_seconds: step.and_then(|step| step.timeout_seconds).map(u64::from),
    };
    let spec = job_body::spec(&template, &additions);
    let labels = of(&[(keys::OWNER_UID, &flow.uid), (keys::TEMPLATE_HASH, &job.hash)]);
    let mut annotations = of(&[(keys::STEP, &part.name), (keys::RUN, &run), (keys::ATTEMPT, &attempt)]);
    if let Some(name) = &part.reference {
        annotations.insert(keys::BY_TEMPLATE.to_owned(), format!("{}.{name}", flow.namespace));
    }
    let head = Head {
        name: &job.name,
        namespace: &flow.namespace,
        owner,
        global,
        labels: &labels,
        annotations: &annotations,
    };
    Ok(job_body::job(&head, spec))
}

/// Puts a step's changes into its template: what it overrides, and the volumes that it shares.
fn change(
    template: &mut Map<String, Value>,
    step: &Step,
    volumes: &[Map<String, Value>],
) -> Result<(), Refused> {
    if let Some(changes) = &step.overrides {
        let pod = template.entry("template").or_insert(Value::Null);
        *pod = merge_pod_template(pod, changes)?;
    }
    let mounts = &step.share_volume_mounts;
    if mounts.is_empty() {
        return Ok(());
    }
    let pod = object(template.entry("template").or_insert(Value::Null));
    let pod = object(pod.entry("spec").or_insert(Value::Null));
    let objects = |list: &[Map<String, Value>]| list.iter().cloned().map(Value::Object).collect::<Vec<_>>();
    let used = |volume: &&Value| mounts.iter().any(|mount| mount.get("name") == volume.get("name"));
    let volumes: Vec<Value> = objects(volumes).iter().filter(used).cloned().collect();
    put_before(pod, "volumes", "name", &volumes);
    for mount in mounts {
        let name = mount.get("name");
        if !list(pod.entry("volumes").or_insert(Value::Null)).iter().any(|volume| volume.get("name") == name)
        {
            let name = name.and_then(Value::as_str).unwrap_or_default();
            return Err(format!(
                "shareVolumeMounts names the volume {name}, which is not in shareVolumes: add it there"
            ));
        }
    }
    let mounts = objects(mounts);
    each_container(pod, |container| put_before(container, "volumeMounts", "mountPath", &mounts));
    Ok(())
}
