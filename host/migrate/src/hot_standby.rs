//! Pools: HotStandbyDeployment and HotStandbyJob of apps.paia.tech.

use serde_yaml::{Mapping, Value};

use crate::Options;
use crate::busy_probe;
use crate::fields::Fields;
use crate::job_spec::{self, Suspended};
use crate::metadata;
use crate::notes::Notes;
use crate::pod;
use crate::values::{put, text};

/// A HotStandbyDeployment.
pub(crate) fn deployment(mut object: Fields, options: &Options, notes: &mut Notes) -> Option<Value> {
    let meta = metadata::head(&mut object, notes)?;
    let mut old = spec(&mut object, notes)?;
    let mut spec = Mapping::new();
    let bounds = Bounds::take(&mut old, notes);
    if bounds.idle.is_none() {
        notes.change(format!("{} is 0, as the older operator took it", old.at("idleTarget")));
    }
    put(&mut spec, "idleTarget", bounds.idle.unwrap_or(0));
    match (bounds.least, bounds.most) {
        (Some(least), most) if least > most.unwrap_or(1000) => {
            let most = most.unwrap_or(1000);
            notes.change(format!("{} is {most}, not {least}: the maximum wins", old.at("minReplicas")));
            put(&mut spec, "minReplicas", most);
        }
        (Some(least), _) => put(&mut spec, "minReplicas", least),
        (None, _) => {}
    }
    if let Some(most) = bounds.most {
        put(&mut spec, "maxReplicas", most);
    }
    if let Some(delay) = bounds.delay {
        put(&mut spec, "scaleDownDelaySeconds", delay);
    }
    let selector = pod::selector(&mut old, notes);
    let probe = busy_probe::take(&mut old, options, notes);
    let template = match old.fields("podTemplate", notes) {
        Some(template) => pod::template(template, notes),
        None => {
            notes.problem(&old.at("podTemplate"), "is missing: give the template of the pods");
            None
        }
    };
    let mut template = template?;
    let selector = selector.unwrap_or_else(|| {
        let labels = pod::labels(&template).cloned();
        let from = if labels.is_some() { "the template's labels" } else { "the object's name" };
        notes.warn(format!(
            "{} was empty, which selected every pod of the namespace. It is {from} now: check that these select the \
             pool's pods only",
            old.at("selector.matchLabels")
        ));
        labels.unwrap_or_else(|| {
            let name = text(&meta, "name").unwrap_or_default();
            Mapping::from_iter([("app".into(), name.chars().take(63).collect::<String>().into())])
        })
    });
    pod::agree(&selector, &mut template, &old.at("podTemplate"), notes);
    put(&mut spec, "selector", Mapping::from_iter([("matchLabels".into(), selector.into())]));
    if let Some(probe) = probe {
        put(&mut spec, "busyProbe", probe);
    }
    put(&mut spec, "podTemplate", template);
    old.rest(notes);
    notes.change("no child Deployment: Stoker makes the pods itself, and neither a rollout nor a scale-down takes a busy one");
    metadata::status(&mut object, notes);
    object.rest(notes);
    Some(metadata::object("HotStandbyDeployment", meta, spec))
}

/// A HotStandbyJob.
pub(crate) fn job(mut object: Fields, options: &Options, notes: &mut Notes) -> Option<Value> {
    let meta = metadata::head(&mut object, notes)?;
    let mut old = spec(&mut object, notes)?;
    let mut spec = Mapping::new();
    let bounds = Bounds::take(&mut old, notes);
    let numbers = [
        ("idleTarget", bounds.idle),
        ("minReplicas", bounds.least),
        ("maxReplicas", bounds.most),
        ("scaleDownDelaySeconds", bounds.delay),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            put(&mut spec, key, number);
        }
    }
    let had_selector = old.has("selector");
    let selector = pod::selector(&mut old, notes);
    if had_selector && selector.is_none() {
        notes.change(format!("{} is left out: it named no labels", old.at("selector")));
    }
    if let Some(selector) = &selector {
        put(&mut spec, "selector", Mapping::from_iter([("matchLabels".into(), selector.clone().into())]));
    }
    if let Some(probe) = busy_probe::take(&mut old, options, notes) {
        put(&mut spec, "busyProbe", probe);
    }
    let Some(template) = old.fields("jobTemplate", notes) else {
        notes
            .problem(&old.at("jobTemplate"), "is missing: give the template of the Jobs, a batch/v1 JobSpec");
        return None;
    };
    let mut template = job_spec::whole(template, "worker", notes)?;
    let path = old.at("jobTemplate");
    template.one_pod(&path, notes);
    template.never_restarts(&path, notes);
    template.lost_when_other("podReplacementPolicy", "Failed", &path, notes);
    if template.suspended(&path, notes) == Suspended::Yes {
        notes.warn(format!("{path}.suspend became spec.paused: take that out and the pool fills"));
        put(&mut spec, "paused", true);
    }
    let mut template = template.into_map();
    if let (Some(selector), Some(Value::Mapping(pod))) = (&selector, template.get_mut("template")) {
        pod::agree(selector, pod, &format!("{path}.template"), notes);
    }
    put(&mut spec, "jobTemplate", template);
    old.rest(notes);
    metadata::status(&mut object, notes);
    object.rest(notes);
    Some(metadata::object("HotStandbyJob", meta, spec))
}

/// The spec of an object.
pub(crate) fn spec(object: &mut Fields, notes: &mut Notes) -> Option<Fields> {
    let spec = object.fields("spec", notes);
    if spec.is_none() && notes.problems.is_empty() {
        notes.problem("spec", "is missing");
    }
    spec
}

struct Bounds {
    idle: Option<u64>,
    least: Option<u64>,
    most: Option<u64>,
    delay: Option<u64>,
}

impl Bounds {
    fn take(old: &mut Fields, notes: &mut Notes) -> Self {
        Self {
            idle: old.count("idleTarget", notes),
            least: old.count("minReplicas", notes),
            most: old.count("maxReplicas", notes),
            delay: old.count("scaleDownDelaySeconds", notes),
        }
    }
}
