//! JobTemplate of api.practice.com.

use serde_yaml::Value;

use crate::fields::Fields;
use crate::hot_standby::spec;
use crate::job_spec::{self, Suspended};
use crate::metadata;
use crate::notes::Notes;

/// A JobTemplate: the JobSpec that stood under `spec.jobTemplate` is the spec itself.
pub(crate) fn template(mut object: Fields, notes: &mut Notes) -> Option<Value> {
    let meta = metadata::head(&mut object, notes)?;
    let mut old = spec(&mut object, notes)?;
    let job = match old.fields("jobTemplate", notes) {
        Some(job) => {
            notes.change("spec.jobTemplate is the spec itself");
            old.rest(notes);
            job
        }
        // The form that Stoker has.
        None => old,
    };
    let path = job.path().to_owned();
    let mut job = job_spec::whole(job, "job", notes)?;
    job.fails_at_once(&path, "retry in the steps that refer to it", notes);
    if job.suspended(&path, notes) == Suspended::Yes {
        notes.warn(format!(
            "{path}.suspend is not carried over: a suspended Job starts no pods, and its flow would wait for ever. Hold \
             the flow with its own suspend"
        ));
    }
    metadata::status(&mut object, notes);
    object.rest(notes);
    Some(metadata::object("JobTemplate", meta, job.into_map()))
}
