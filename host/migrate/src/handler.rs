//! `ErrorHandler` of a JobFlow, which the older system declared and never ran, as `onFailure`.

use serde_yaml::{Mapping, Value};

use crate::Options;
use crate::fields::Fields;
use crate::job_spec::{self, Suspended};
use crate::notes::Notes;
use crate::values::{hollow, put};

/// The image of a script if nobody says one.
const SOME_IMAGE: &str = "busybox:stable";

/// Takes the handler out of a flow's spec. None = there is none, or it is empty, as the older system's client writes it.
pub(crate) fn take(spec: &mut Fields, options: &Options, notes: &mut Notes) -> Option<Mapping> {
    // The older system's library reads keys in any case of letters.
    let key = ["ErrorHandler", "errorHandler", "errorhandler"].into_iter().find(|key| spec.has(key))?;
    let old = spec.fields(key, notes)?;
    let path = old.path().to_owned();
    let mut old = Fields::new(path.as_str(), old.into_map());
    drop_hollow(&mut old);
    if old.is_empty() {
        notes.change(format!("{path} is left out: it is empty"));
        return None;
    }
    let mut out = Mapping::new();
    let reference = ["jobTemplateRef", "templateRef"].into_iter().find_map(|key| old.text(key, notes));
    if let Some(name) = reference.filter(|name| !name.is_empty()) {
        put(&mut out, "jobTemplateRef", name);
    } else if let Some(template) = template(&mut old, notes) {
        put(&mut out, "jobTemplate", template);
    } else if let Some(script) = script(&mut old, options, notes) {
        put(&mut out, "script", script);
    } else {
        let words = "names nothing to run: give jobTemplate, jobTemplateRef or script, or leave it out";
        notes.problem(&path, words);
        return None;
    }
    notes.warn(format!(
        "{path} is onFailure now. The older operator never ran it; Stoker does when the flow has failed: look at it once"
    ));
    for key in ["jobTemplate", "template", "script"] {
        old.lost(key, "a handler has one of jobTemplateRef, jobTemplate and script", notes);
    }
    old.rest(notes);
    Some(out)
}

/// Zero values of the older system's types are no templates.
fn drop_hollow(old: &mut Fields) {
    for key in ["jobTemplate", "template"] {
        if let Some(template) = old.raw(key).filter(|template| !hollow(template)) {
            old.put_back(key, template);
        }
    }
    for key in ["script", "jobTemplateRef", "templateRef"] {
        if let Some(text) = old.raw(key).filter(|text| text.as_str() != Some("")) {
            old.put_back(key, text);
        }
    }
}

/// A JobSpec, a pod template, a pod's spec, or the fields of a pod's spec beside the others.
fn template(old: &mut Fields, notes: &mut Notes) -> Option<Mapping> {
    let (path, map) = match ["jobTemplate", "template"].into_iter().find(|key| old.has(key)) {
        Some(key) => {
            let template = old.fields(key, notes)?;
            (template.path().to_owned(), template.into_map())
        }
        None if old.has("containers") && !old.has("script") => {
            let path = old.path().to_owned();
            (path.clone(), std::mem::replace(old, Fields::new(path, Mapping::new())).into_map())
        }
        None => return None,
    };
    let has = |key| crate::values::has(&map, key);
    let map = match (has("template"), has("spec"), has("containers")) {
        (false, true, _) if map.get("spec").is_some_and(|spec| spec.get("template").is_none()) => {
            under("template", map)
        }
        (false, false, true) => {
            notes.change(format!("{path} is a batch/v1 JobSpec now: {path}.containers are in its template"));
            under("template", under("spec", map))
        }
        _ => map,
    };
    let mut job = job_spec::whole(Fields::new(path.as_str(), map), "handler", notes)?;
    job.fails_at_once(&path, "a handler that can", notes);
    if job.suspended(&path, notes) == Suspended::Yes {
        notes.warn(format!("{path}.suspend is not carried over: a suspended Job starts no pods"));
    }
    Some(job.into_map())
}

fn under(key: &str, map: Mapping) -> Mapping {
    Mapping::from_iter([(Value::from(key), Value::from(map))])
}

/// Lines for a shell; the older system did not say in which image.
fn script(old: &mut Fields, options: &Options, notes: &mut Notes) -> Option<Mapping> {
    let path = old.at("script");
    let (text, mut image) = match old.raw("script")? {
        Value::String(text) => (text.trim_end().lines().map(Value::from).collect(), None),
        Value::Sequence(lines) => (lines, None),
        Value::Mapping(map) => {
            let mut script = Fields::new(path.as_str(), map);
            let image = script.text("image", notes);
            let lines = script.list("command", notes).unwrap_or_default();
            script.rest(notes);
            (lines, image)
        }
        other => {
            notes.problem(
                &path,
                format!("must be lines for a shell, and is {}", crate::values::shown(&other)),
            );
            return None;
        }
    };
    if image.is_none()
        && let Some(Value::Sequence(containers)) = old.raw("containers")
    {
        image = containers.first().and_then(|first| first["image"].as_str()).map(str::to_owned);
        let at = old.at("containers");
        notes.warn(format!(
            "{at} are not carried over but for the first one's image, in which the script runs"
        ));
    }
    let image = image.or_else(|| options.script_image.clone()).unwrap_or_else(|| {
        notes.warn(format!(
            "{path} runs in {SOME_IMAGE}, which is a guess: write the image that has what it needs into \
             onFailure.script.image, or migrate again with --script-image IMAGE"
        ));
        SOME_IMAGE.to_owned()
    });
    let mut out = Mapping::new();
    put(&mut out, "image", image);
    put(&mut out, "command", text);
    Some(out)
}
