//! DaemonJob of api.practice.com.

use serde_yaml::{Mapping, Value};

use crate::fields::Fields;
use crate::flow::begun;
use crate::global_params;
use crate::hot_standby::spec;
use crate::job_spec::{self, Suspended};
use crate::metadata;
use crate::notes::Notes;
use crate::pod;
use crate::values::{put, shown, take};

/// A DaemonJob.
pub(crate) fn daemon_job(mut object: Fields, notes: &mut Notes) -> Option<Value> {
    let meta = metadata::head(&mut object, notes)?;
    let mut old = spec(&mut object, notes)?;
    let mut spec = Mapping::new();
    let mut global = global_params::take_from(&mut old, notes).unwrap_or_default();
    if let Some(node) = take(&mut global, "nodeName") {
        notes.warn(format!(
            "spec.globalParams.nodeName ({}) is not carried over: the older operator took no notice of it and ran on all \
             nodes, here it would leave that one. Put it back if it is meant",
            shown(&node)
        ));
    }
    if !global.is_empty() {
        put(&mut spec, "globalParams", global.clone());
    }
    excluded(&mut old, &mut spec, notes);
    put(&mut spec, "includeUnschedulable", true);
    notes.change(
        "spec.includeUnschedulable is true, since the older operator ran on cordoned nodes, too. Nodes that are not Ready \
         get their Job when they are",
    );
    let mut job = job_spec::whole(old, "job", notes)?;
    let path = "spec";
    job.fails_at_once(path, "spec.retry", notes);
    let held = job.suspended(path, notes) == Suspended::Yes;
    let pods = job.map_mut().shift_remove("parallelism").filter(|pods| !pods.is_null());
    if let Some(pods) = pods {
        let words = "spec.parallelism means something else here, how many nodes are at work at a time";
        match pods.as_u64() {
            Some(1) => notes.change(format!("{words}: the older one (1) is left out")),
            _ => notes.warn(format!(
                "{words}: the older one ({}) is not carried over. A node's Job runs its pods one after the other",
                shown(&pods)
            )),
        }
    }
    global_params::meet(&global, &mut job, path, notes);
    if let Some(pod) = job.pod_mut().and_then(|pod| pod.get_mut("spec")).and_then(Value::as_mapping_mut) {
        if let Some(node) = take(pod, "nodeName") {
            notes.change(format!(
                "spec.template.spec.nodeName ({}) is left out: the older operator wrote each node's name over it",
                shown(&node)
            ));
        }
        pod::on_every_node(pod, notes);
    }
    for (key, value) in job.into_map() {
        spec.insert(key, value);
    }
    let begun = metadata::status(&mut object, notes).and_then(|status| begun(&status));
    if begun.is_some() || held {
        let rest = std::mem::replace(&mut spec, Mapping::from_iter([("paused".into(), true.into())]));
        spec.extend(rest);
    }
    if let Some(state) = begun {
        notes.warn(format!(
            "spec.paused is true, since the older one is {state}: without it every node would get its Job once more. To \
             run it again, delete the older one with its Jobs, whose names are needed, and take paused out"
        ));
    } else if held {
        notes.warn("spec.suspend became spec.paused: take that out to let it run");
    }
    object.rest(notes);
    Some(metadata::object("DaemonJob", meta, spec))
}

/// Names with commas between them; a list of them is a mistake that is plain to mend.
fn excluded(old: &mut Fields, spec: &mut Mapping, notes: &mut Notes) {
    let path = old.at("excludeNodeList");
    match old.raw("excludeNodeList") {
        Some(Value::Sequence(names)) => {
            notes.change(format!("{path} is a text now, names with commas between them"));
            put(spec, "excludeNodeList", names.iter().map(shown).collect::<Vec<_>>().join(","));
        }
        Some(Value::String(names)) if names.is_empty() => {}
        Some(names) => put(spec, "excludeNodeList", shown(&names)),
        None => {}
    }
}
