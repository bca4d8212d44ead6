//! Manifests of the systems that Stoker replaces in, Stoker's manifests out: what each field became is told beside
//! the object, and nothing is dropped without a word.
//!
//! ```text
//!   YAML ──documents──▶ objects ──a module for each kind──▶ Stoker's object + changes + warnings ──render──▶ YAML
//!                          │                                        │
//!                          └─ none of its business: passed over     └─ what the CRD would refuse: a problem
//! ```
//!
//! No I/O, no clock, no client: texts in, data out. `stoker migrate` reads the files or asks the cluster.
#![deny(missing_docs)]

mod busy_probe;
mod daemon_job;
mod documents;
mod fields;
mod flow;
mod global_params;
mod go_template;
mod handler;
mod hot_standby;
mod job_spec;
mod job_template;
mod metadata;
mod node_batch;
mod notes;
mod pod;
mod pre_scaled;
mod render;
mod report_config;
mod schedule;
mod schema;
mod values;
mod yaml;

use std::fmt;

use serde_yaml::Value;

use crate::fields::Fields;
use crate::notes::Notes;

/// A kind of an older system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OlderKind {
    /// Its API group; empty for the ConfigMaps of the batch-job-controller.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// What it is called in paths and on the command line of kubectl.
    pub plural: &'static str,
    /// Stoker's kind that does its work.
    pub becomes: &'static str,
}

/// Everything that is migrated.
pub const OLDER_KINDS: [OlderKind; 7] = [
    older("apps.paia.tech", "HotStandbyDeployment", "hotstandbydeployments", "HotStandbyDeployment"),
    older("apps.paia.tech", "HotStandbyJob", "hotstandbyjobs", "HotStandbyJob"),
    older("psc.cronprimer.local", "PreScaledCronJob", "prescaledcronjobs", "PreScaledCronJob"),
    older("api.practice.com", "JobTemplate", "jobtemplates", "JobTemplate"),
    older("api.practice.com", "JobFlow", "jobflows", "JobFlow"),
    older("api.practice.com", "DaemonJob", "daemonjobs", "DaemonJob"),
    OlderKind { group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", becomes: "NodeBatchJob" },
];

const fn older(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    becomes: &'static str,
) -> OlderKind {
    OlderKind { group, version: "v1alpha1", kind, plural, becomes }
}

/// What manifests do not say, since the older systems took it from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where Redis is, for `busyProbe.mode: redis`: `redis://HOST[:PORT][/DATABASE]`.
    pub redis_url: Option<String>,
    /// The image in which the scripts of `ErrorHandler` run.
    pub script_image: Option<String>,
}

/// Where an object was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A file's name, or what else people know it by.
    pub source: String,
    /// Which document of it, from 1; None where there is no counting.
    pub document: Option<usize>,
    /// The line on which the document begins, from 1.
    pub line: Option<usize>,
    /// Which item of a List, from 1.
    pub item: Option<usize>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        if let Some(item) = self.item {
            write!(f, ", item {item}")?;
        }
        Ok(())
    }
}

/// What became of the documents.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Stoker's objects, in the order in which the older ones were found.
    pub objects: Vec<Migrated>,
    /// What is none of its business.
    pub passed_over: Vec<PassedOver>,
    /// What could not be migrated.
    pub problems: Vec<Problem>,
}

/// An object of Stoker's.
#[derive(Clone, Debug)]
pub struct Migrated {
    /// Where the older one was found.
    pub origin: Origin,
    /// The older one: its kind and name.
    pub was: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace, if it is told.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The object itself.
    pub object: Value,
    /// What is written otherwise than it was, and means the same or better.
    pub changes: Vec<String>,
    /// What is not carried over or needs somebody's hand, and what to do.
    pub warnings: Vec<String>,
}

/// A document that is none of its business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Where it is.
    pub origin: Origin,
    /// Its kind and name.
    pub what: String,
    /// Why it is passed over.
    pub why: String,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is passed over: {}", self.origin, self.what, self.why)
    }
}

/// Why a document could not be migrated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {what}{words}")]
pub struct Problem {
    /// Where it is.
    pub origin: Origin,
    /// Kind and name with a colon behind, or nothing where they are not known.
    pub what: String,
    /// The field, what is wrong with it, and what to do.
    pub words: String,
}

/// Turns all documents of a text into Stoker's objects. `source` is what the text is called in messages.
pub fn migrate(source: &str, text: &str, options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    for (origin, document) in documents::split(source, text) {
        match document {
            Ok(value) => outcome.take(origin, value, options),
            Err(words) => outcome.problems.push(Problem { origin, what: String::new(), words }),
        }
    }
    outcome
}

/// Turns one object into Stoker's, such as one that a cluster has.
pub fn migrate_object(origin: Origin, object: Value, options: &Options) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.take(origin, object, options);
    outcome
}

impl Outcome {
    /// Adds what became of other documents.
    pub fn extend(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.passed_over.extend(other.passed_over);
        self.problems.extend(other.problems);
    }

    /// How many warnings the objects have in all.
    pub fn warnings(&self) -> usize {
        self.objects.iter().map(|object| object.warnings.len()).sum()
    }

    fn take(&mut self, origin: Origin, value: Value, options: &Options) {
        for (origin, object) in documents::items(origin, value) {
            self.take_one(origin, object, options);
        }
    }

    fn take_one(&mut self, origin: Origin, object: Value, options: &Options) {
        let Value::Mapping(map) = object else {
            let words = "is no object: give a manifest with apiVersion and kind".to_owned();
            self.problems.push(Problem { origin, what: "the document ".to_owned(), words });
            return;
        };
        let api = values::text(&map, "apiVersion").unwrap_or_default();
        let kind = values::text(&map, "kind").unwrap_or_default();
        let (group, version) = api.split_once('/').unwrap_or(("", &api));
        let name = values::text(values::map(&map, "metadata").unwrap_or(&Default::default()), "name");
        let what = match (&name, kind.is_empty()) {
            (_, true) => "an object without a kind".to_owned(),
            (Some(name), false) => format!("{kind} {name}"),
            (None, false) => format!("{kind} without a name"),
        };
        let known = OLDER_KINDS.iter().find(|older| older.group == group && older.kind == kind);
        let deleted = values::map(&map, "metadata").is_some_and(|m| values::has(m, "deletionTimestamp"));
        let pass = match known {
            None if group == stoker_api::GROUP => Some("it is Stoker's already"),
            None => Some("it is of no kind of the older systems"),
            Some(older) if older.group.is_empty() && !node_batch::is_config(&map) => {
                Some("it is no batch-job-controller's: these have the keys config.yaml and pod-template.yaml")
            }
            Some(_) if deleted => Some("it is being deleted"),
            Some(_) => None,
        };
        let (Some(older), None) = (known, pass) else {
            let why = pass.unwrap_or_default().to_owned();
            self.passed_over.push(PassedOver { origin, what, why });
            return;
        };
        let mut notes = Notes::default();
        if version != older.version {
            notes.warn(format!("apiVersion {api} is read as {}/{}: check the object", group, older.version));
        }
        let made = make(older, Fields::top(map), options, &mut notes);
        let words = if made.is_some() { String::new() } else { notes.told() };
        let Some(object) = made else {
            self.problems.push(Problem { origin, what: format!("{what}: "), words });
            return;
        };
        for (field, words) in schema::refusals(older.becomes, &object) {
            notes.problem_once(&field, &words);
        }
        if !notes.problems.is_empty() {
            self.problems.push(Problem { origin, what: format!("{what}: "), words: notes.told() });
            return;
        }
        let meta = object.as_mapping().and_then(|map| values::map(map, "metadata")).cloned();
        let meta = meta.unwrap_or_default();
        self.objects.push(Migrated {
            origin,
            was: what,
            kind: older.becomes,
            namespace: values::text(&meta, "namespace"),
            name: values::text(&meta, "name").unwrap_or_default(),
            object,
            changes: notes.changes,
            warnings: notes.warnings,
        });
    }
}

/// Stoker's object; None = it cannot be made, and the notes tell why.
fn make(older: &OlderKind, object: Fields, options: &Options, notes: &mut Notes) -> Option<Value> {
    match older.becomes {
        "HotStandbyDeployment" => hot_standby::deployment(object, options, notes),
        "HotStandbyJob" => hot_standby::job(object, options, notes),
        "PreScaledCronJob" => pre_scaled::cron_job(object, notes),
        "JobTemplate" => job_template::template(object, notes),
        "JobFlow" => flow::flow(object, options, notes),
        "DaemonJob" => daemon_job::daemon_job(object, notes),
        _ => node_batch::job(object, notes),
    }
}
