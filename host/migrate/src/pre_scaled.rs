//! PreScaledCronJob of psc.cronprimer.local.

use serde_yaml::{Mapping, Value};

use crate::fields::Fields;
use crate::hot_standby::spec;
use crate::job_spec::{self, Suspended};
use crate::metadata;
use crate::notes::Notes;
use crate::schedule;
use crate::values::put;

/// Minutes of the longest warm-up.
const DAY: u64 = 1440;

/// A PreScaledCronJob.
pub(crate) fn cron_job(mut object: Fields, notes: &mut Notes) -> Option<Value> {
    let meta = metadata::head(&mut object, notes)?;
    let mut old = spec(&mut object, notes)?;
    let mut spec = Mapping::new();
    warm_up(&mut old, &mut spec, notes);
    let Some(cron) = old.fields("cronJob", notes) else {
        notes.problem(&old.at("cronJob"), "is missing: give the CronJob with its spec");
        return None;
    };
    put(&mut spec, "cronJob", whole(cron, notes)?);
    old.rest(notes);
    notes.change("no child CronJob: Stoker makes the Jobs itself, a warm-up before each instant, and no work begins before it");
    metadata::status(&mut object, notes);
    object.rest(notes);
    Some(metadata::object("PreScaledCronJob", meta, spec))
}

/// Exactly one of warmUpTimeMins and primerSchedule.
fn warm_up(old: &mut Fields, spec: &mut Mapping, notes: &mut Notes) {
    let primer = old.text("primerSchedule", notes).filter(|primer| !primer.trim().is_empty());
    if let Some(primer) = primer {
        let path = old.at("primerSchedule");
        let read = schedule::read(&primer, &path, notes);
        if let Some(zone) = read.zone {
            notes.warn(format!("{path}: it is read in cronJob.spec.timeZone, and not in {zone}"));
        }
        put(spec, "primerSchedule", read.schedule);
        old.without("warmUpTimeMins", "primerSchedule wins", notes);
        return;
    }
    let minutes = old.count("warmUpTimeMins", notes);
    match minutes {
        Some(minutes) if minutes > DAY => {
            notes.problem(
                &old.at("warmUpTimeMins"),
                format!("is {minutes}: give {DAY} or less, which is a day"),
            );
        }
        Some(minutes) => put(spec, "warmUpTimeMins", minutes),
        None => {
            notes.change(format!("{} is 0: nothing said how long the warm-up is", old.at("warmUpTimeMins")));
            put(spec, "warmUpTimeMins", 0);
        }
    }
}

/// The CronJob.
fn whole(mut cron: Fields, notes: &mut Notes) -> Option<Mapping> {
    let mut out = Mapping::new();
    for key in ["apiVersion", "kind", "status"] {
        cron.without(key, "there is no CronJob", notes);
    }
    if let Some(meta) = cron.fields("metadata", notes) {
        let meta = crate::pod::metadata(meta, "the Jobs", notes);
        if !meta.is_empty() {
            notes.change(format!(
                "{}: its labels and annotations are for the Jobs, there is no CronJob to bear them",
                cron.at("metadata")
            ));
            put(&mut out, "metadata", meta);
        }
    }
    let Some(old) = cron.fields("spec", notes) else {
        notes.problem(&cron.at("spec"), "is missing: give the spec of the CronJob");
        return None;
    };
    put(&mut out, "spec", cron_spec(old, notes)?);
    cron.rest(notes);
    Some(out)
}

fn cron_spec(mut old: Fields, notes: &mut Notes) -> Option<Mapping> {
    let mut spec = Mapping::new();
    let path = old.at("schedule");
    let Some(text) = old.text("schedule", notes).filter(|text| !text.trim().is_empty()) else {
        notes.problem(&path, "is missing: give a cron expression such as 30 8 * * 1-5");
        return None;
    };
    let read = schedule::read(&text, &path, notes);
    put(&mut spec, "schedule", read.schedule);
    match (old.text("timeZone", notes), read.zone) {
        (Some(zone), None) => put(&mut spec, "timeZone", zone),
        (None, Some(zone)) => put(&mut spec, "timeZone", zone),
        (Some(zone), Some(other)) => {
            notes.warn(format!(
                "{} ({zone}) and the schedule ({other}) differ: {zone} holds",
                old.at("timeZone")
            ));
            put(&mut spec, "timeZone", zone);
        }
        (None, None) => {}
    }
    let mut suspend = old.flag("suspend", notes);
    if suspend == Some(true) {
        notes.warn(format!(
            "{} is true here, too: take it out when the older object is gone",
            old.at("suspend")
        ));
    }
    let policy = old.text("concurrencyPolicy", notes).filter(|policy| !policy.is_empty());
    let numbers = ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"]
        .map(|key| (key, old.count(key, notes)));
    let template = old.fields("jobTemplate", notes).and_then(|template| job_template(template, notes));
    if template.as_ref().is_some_and(|(_, held)| *held == Suspended::Yes) {
        let words = "became cronJob.spec.suspend: the Jobs that it made started no pods. Take that out to let them run";
        notes.warn(format!("{}.spec.suspend {words}", old.at("jobTemplate")));
        suspend = Some(true);
    }
    if let Some(suspend) = suspend {
        put(&mut spec, "suspend", suspend);
    }
    if let Some(policy) = policy {
        put(&mut spec, "concurrencyPolicy", policy);
    }
    for (key, number) in numbers {
        if let Some(number) = number {
            put(&mut spec, key, number);
        }
    }
    let Some((template, _)) = template else {
        if notes.problems.is_empty() {
            notes.problem(&old.at("jobTemplate"), "is missing: give the template of the Jobs");
        }
        return None;
    };
    put(&mut spec, "jobTemplate", template);
    old.rest(notes);
    Some(spec)
}

fn job_template(mut template: Fields, notes: &mut Notes) -> Option<(Mapping, Suspended)> {
    let mut out = Mapping::new();
    if let Some(meta) = template.fields("metadata", notes) {
        let meta = crate::pod::metadata(meta, "the Jobs", notes);
        if !meta.is_empty() {
            put(&mut out, "metadata", meta);
        }
    }
    let Some(spec) = template.fields("spec", notes) else {
        notes.problem(&template.at("spec"), "is missing: give a batch/v1 JobSpec");
        return None;
    };
    let path = spec.path().to_owned();
    let mut spec = job_spec::whole(spec, "job", notes)?;
    let held = spec.suspended(&path, notes);
    put(&mut out, "spec", spec.into_map());
    template.rest(notes);
    Some((out, held))
}
