//! JobFlow of api.practice.com.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::{Mapping, Value};

use crate::Options;
use crate::fields::Fields;
use crate::global_params;
use crate::handler;
use crate::hot_standby::spec;
use crate::job_spec::{self, Suspended};
use crate::metadata;
use crate::notes::Notes;
use crate::values::{put, shown};

/// Longest name of a step (a DNS label).
const LONGEST: usize = 63;

/// A JobFlow.
pub(crate) fn flow(mut object: Fields, options: &Options, notes: &mut Notes) -> Option<Value> {
    let meta = metadata::head(&mut object, notes)?;
    let mut old = spec(&mut object, notes)?;
    let mut spec = Mapping::new();
    let global = global_params::take_from(&mut old, notes).unwrap_or_default();
    if !global.is_empty() {
        put(&mut spec, "globalParams", global.clone());
    }
    if crate::values::has(&global, "nodeName") {
        notes.change(
            "spec.globalParams.nodeName holds by node affinity: the scheduler places the pods, so that they wait while \
             that node is full, and must tolerate its taints",
        );
    }
    let path = old.at("flows");
    let steps = old.list("flows", notes).unwrap_or_default();
    if steps.is_empty() {
        notes.problem(&path, "is missing: give at least one step");
        return None;
    }
    let names = names(&steps, &path, notes);
    let mut held = false;
    let mut made: Vec<(String, Vec<String>, Mapping)> = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        let Value::Mapping(map) = step else {
            notes.problem(&format!("{path}[{index}]"), format!("must be a map, and is {}", shown(&step)));
            continue;
        };
        let known = crate::values::text(&map, "name").unwrap_or_else(|| index.to_string());
        let step = Fields::new(format!("{path}[{known}]"), map);
        made.extend(Step { names: &names, global: &global, held: &mut held }.make(step, notes));
    }
    in_a_circle(&made, &path, notes);
    put(&mut spec, "flows", made.into_iter().map(|(_, _, step)| Value::Mapping(step)).collect::<Vec<_>>());
    if let Some(volumes) = old.list("shareVolumes", notes).filter(|volumes| !volumes.is_empty()) {
        put(&mut spec, "shareVolumes", volumes);
    }
    if let Some(handler) = handler::take(&mut old, options, notes) {
        put(&mut spec, "onFailure", handler);
    }
    old.rest(notes);
    let begun = metadata::status(&mut object, notes).and_then(|status| begun(&status));
    if begun.is_some() || held {
        let rest = std::mem::replace(&mut spec, Mapping::from_iter([("suspend".into(), true.into())]));
        spec.extend(rest);
    }
    if let Some(state) = begun {
        notes.warn(format!(
            "spec.suspend is true, since the older one is {state}: without it every step would run once more. To run it \
             again, delete the older one with its Jobs, whose names are needed, and take suspend out"
        ));
    } else if held {
        notes.warn("spec.suspend is true, since a step's Job was suspended: take it out to let the flow run");
    }
    object.rest(notes);
    Some(metadata::object("JobFlow", meta, spec))
}

/// The state in which an older status has begun, if it has.
pub(crate) fn begun(status: &Value) -> Option<String> {
    let state = status.get("state").and_then(Value::as_str).filter(|state| !state.is_empty());
    let jobs = status.get("jobStatusList").and_then(Value::as_mapping).is_some_and(|jobs| !jobs.is_empty());
    state.map(str::to_owned).or_else(|| jobs.then(|| "under way".to_owned()))
}

/// The names of all steps, each with the one that it gets: a DNS label.
fn names(steps: &[Value], path: &str, notes: &mut Notes) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for step in steps {
        let Some(name) = step.get("name").and_then(Value::as_str) else { continue };
        let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let label: String = name.chars().map(legal).take(LONGEST).collect();
        let label = label.trim_matches('-').to_owned();
        if label != name {
            notes.warn(format!(
                "{path}[{name}].name is {label} now, a DNS label: its Job is called otherwise, too"
            ));
        }
        names.insert(name.to_owned(), label);
    }
    names
}

struct Step<'a> {
    names: &'a BTreeMap<String, String>,
    global: &'a Mapping,
    held: &'a mut bool,
}

impl Step<'_> {
    /// The step, with its name and what it waits for.
    fn make(self, mut old: Fields, notes: &mut Notes) -> Option<(String, Vec<String>, Mapping)> {
        let mut out = Mapping::new();
        let Some(name) = old.text("name", notes).filter(|name| !name.is_empty()) else {
            notes.problem(&old.at("name"), "is missing: give each step a name");
            return None;
        };
        let name = self.names.get(&name).cloned().unwrap_or(name);
        put(&mut out, "name", name.as_str());
        let waits = self.dependencies(&mut old, &name, notes);
        if !waits.is_empty() {
            put(
                &mut out,
                "dependencies",
                waits.iter().map(|name| Value::from(name.as_str())).collect::<Vec<_>>(),
            );
        }
        let reference = old.text("jobTemplateRef", notes).filter(|name| !name.is_empty());
        let template = old.raw("jobTemplate").filter(|template| !crate::values::hollow(template));
        if let Some(template) = template {
            old.put_back("jobTemplate", template);
        }
        match reference {
            Some(reference) => {
                put(&mut out, "jobTemplateRef", reference);
                old.without("jobTemplate", "jobTemplateRef wins", notes);
            }
            None => {
                let at = old.at("jobTemplate");
                let Some(template) = old.fields("jobTemplate", notes) else {
                    notes.problem(&at, "is missing: give a batch/v1 JobSpec, or jobTemplateRef");
                    return None;
                };
                let mut job = job_spec::whole(template, &name, notes)?;
                job.fails_at_once(&at, "the step retry", notes);
                *self.held |= job.suspended(&at, notes) == Suspended::Yes;
                global_params::meet(self.global, &mut job, &at, notes);
                put(&mut out, "jobTemplate", job.into_map());
            }
        }
        if let Some(mounts) = old.list("shareVolumeMounts", notes).filter(|mounts| !mounts.is_empty()) {
            put(&mut out, "shareVolumeMounts", mounts);
        }
        old.rest(notes);
        Some((name, waits, out))
    }

    fn dependencies(&self, old: &mut Fields, own: &str, notes: &mut Notes) -> Vec<String> {
        let path = old.at("dependencies");
        let mut all: Vec<String> = Vec::new();
        for name in old.list("dependencies", notes).unwrap_or_default() {
            let name = shown(&name);
            let Some(label) = self.names.get(&name) else {
                notes.problem(
                    &path,
                    format!("names {name}, which is no step of the flow: add it, or take it out"),
                );
                continue;
            };
            if label == own {
                notes.problem(&path, "names the step itself, which would wait for ever: take it out");
            } else if all.contains(label) {
                notes.change(format!("{path} names {name} once"));
            } else {
                if *label != name {
                    notes.change(format!("{path} names {label} for {name}"));
                }
                all.push(label.clone());
            }
        }
        all
    }
}

/// Refuses steps that wait for each other: none of them would ever start.
fn in_a_circle(steps: &[(String, Vec<String>, Mapping)], path: &str, notes: &mut Notes) {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = done.len();
        for (name, waits, _) in steps {
            if waits.iter().all(|other| done.contains(other.as_str())) {
                done.insert(name);
            }
        }
        if done.len() == before {
            break;
        }
    }
    let rest: Vec<&str> =
        steps.iter().map(|(name, ..)| name.as_str()).filter(|name| !done.contains(name)).collect();
    if !rest.is_empty() && notes.problems.is_empty() {
        let words = format!("{} wait for each other in a circle: take a dependency out", rest.join(", "));
        notes.problem(path, words);
    }
}
