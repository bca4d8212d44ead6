//! The list of a flow's steps: whole in memory, short where it is stored. Each write carries all of them, up to 1,000. What
//! most of them have in common is stored once, and a step that succeeded takes about 90 bytes:
//!
//! ```text
//!   jobPrefix: release-
//!   commonHash: bcdfghj
//!   jobStatusList:
//!     release-build/default: {state: Succeeded, startTime: "2026-06-01T10:00:00Z", seconds: 10}
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::StepStatus;

/// What became of the steps that were started or left out, by `<job>/<namespace>` of each one's last Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct StepList(BTreeMap<String, StepStatus>);

/// The list as it is stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct Stored {
    /// What the names of Jobs begin with of whose steps jobStatusList has no name: what follows, up to the slash, is the step.
    #[serde(skip_serializing_if = "String::is_empty")]
    job_prefix: String,
    /// The hash of what the Jobs were made from for which jobStatusList has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    common_hash: String,
    /// What became of the steps that were started or left out, by `<job>/<namespace>` of each one's last Job.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    // Else the API server notes of each field of each step who wrote it, at a hundred bytes a step.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    job_status_list: BTreeMap<String, StoredStep>,
}

/// A step as it is stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct StoredStep {
    /// How long its Job ran: it ended so long after its startTime.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "seconds")]
    seconds: Option<u32>,
    #[serde(flatten)]
    told: StepStatus,
}

fn seconds(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "integer", "format": "int32", "nullable": true, "minimum": 0, "maximum": i32::MAX,
    })
}

impl StoredStep {
    fn short(mut told: StepStatus) -> Self {
        let seconds = ran(&told);
        if seconds.is_some() {
            told.completion_time = None;
        }
        Self { seconds, told }
    }

    fn whole(self) -> StepStatus {
        let Self { seconds, mut told } = self;
        if let (Some(seconds), Some(start)) = (seconds, told.start_time) {
            told.completion_time = after(start, seconds);
        }
        told
    }
}

/// How long a step's Job ran, in whole seconds; None = that would not tell when it ended.
fn ran(told: &StepStatus) -> Option<u32> {
    let (start, end) = (told.start_time?, told.completion_time?);
    let seconds = u32::try_from(end.duration_since(start).as_secs()).ok()?;
    (seconds <= i32::MAX as u32 && after(start, seconds) == Some(end)).then_some(seconds)
}

fn after(start: Timestamp, seconds: u32) -> Option<Timestamp> {
    start.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

/// What a Job's name begins with, if it ends with a dash and the step's name.
fn prefix<'a>(key: &'a str, step: &str) -> Option<&'a str> {
    let job = key.split('/').next().filter(|_| !step.is_empty())?;
    job.strip_suffix(step).filter(|prefix| prefix.ends_with('-'))
}

/// That of them which is there most often.
fn most_common<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(one, _)| one.to_owned()).unwrap_or_default()
}

/// Steps that were never started have no hash, and none is supplied.
fn started(told: &StepStatus) -> bool {
    told.start_time.is_some()
}

impl From<StepList> for Stored {
    fn from(StepList(list): StepList) -> Self {
        let job_prefix = most_common(list.iter().filter_map(|(key, told)| prefix(key, &told.step)));
        let hashes = list.values().filter(|told| started(told)).filter_map(|told| told.hash.as_deref());
        let common_hash = most_common(hashes);
        let short = |(key, mut told): (String, StepStatus)| {
            if prefix(&key, &told.step) == Some(&job_prefix) {
                told.step.clear();
            }
            if started(&told) && !common_hash.is_empty() {
                // An empty one stands for none.
                let hash = told.hash.unwrap_or_default();
                told.hash = Some(hash).filter(|hash| *hash != common_hash);
            }
            (key, StoredStep::short(told))
        };
        let job_status_list = list.into_iter().map(short).collect();
        Self { job_prefix, common_hash, job_status_list }
    }
}

impl From<Stored> for StepList {
    fn from(Stored { job_prefix, common_hash, job_status_list }: Stored) -> Self {
        let whole = |(key, stored): (String, StoredStep)| {
            let mut told = stored.whole();
            let job = key.split('/').next().unwrap_or_default();
            if told.step.is_empty() {
                told.step = job.strip_prefix(&job_prefix).unwrap_or_default().to_owned();
            }
            if started(&told) && !common_hash.is_empty() {
                let hash = told.hash.unwrap_or_else(|| common_hash.clone());
                told.hash = Some(hash).filter(|hash| !hash.is_empty());
            }
            (key, told)
        };
        Self(job_status_list.into_iter().map(whole).collect())
    }
}

impl JsonSchema for StepList {
    fn schema_name() -> Cow<'static, str> {
        Stored::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Stored::json_schema(generator)
    }
}

impl Deref for StepList {
    type Target = BTreeMap<String, StepStatus>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for StepList {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl FromIterator<(String, StepStatus)> for StepList {
    fn from_iter<T: IntoIterator<Item = (String, StepStatus)>>(steps: T) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a StepList {
    type Item = (&'a String, &'a StepStatus);
    type IntoIter = std::collections::btree_map::Iter<'a, String, StepStatus>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::{JobFlow, JobFlowStatus, StepState};

    fn time(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    fn succeeded(step: &str) -> StepStatus {
        StepStatus {
            step: step.to_owned(),
            state: StepState::Succeeded,
            start_time: time("2026-06-01T10:00:00Z"),
            completion_time: time("2026-06-01T10:01:40Z"),
            hash: Some("bcdfghj".to_owned()),
            ..StepStatus::default()
        }
    }

    fn status(steps: Vec<(&str, StepStatus)>) -> JobFlowStatus {
        let list = steps.into_iter().map(|(job, told)| (format!("{job}/ns"), told)).collect();
        JobFlowStatus { run: 1, job_status_list: list, ..JobFlowStatus::default() }
    }

    fn stored(status: &JobFlowStatus) -> Value {
        serde_json::to_value(status).unwrap()
    }

    #[test]
    fn what_most_steps_have_in_common_is_stored_once() {
        let status = status(vec![("flow-a", succeeded("a")), ("flow-b-c", succeeded("b-c"))]);
        let entry = json!({"state": "Succeeded", "startTime": "2026-06-01T10:00:00Z", "seconds": 100});
        assert_eq!(
            stored(&status),
            json!({
                "run": 1,
                "jobPrefix": "flow-",
                "commonHash": "bcdfghj",
                "jobStatusList": {"flow-a/ns": entry, "flow-b-c/ns": entry},
            })
        );
    }

    #[test]
    fn what_is_stored_is_read_as_it_was_whatever_is_unusual_about_it() {
        let other = |change: fn(&mut StepStatus)| {
            let mut told = succeeded("x");
            change(&mut told);
            told
        };
        let unusual = vec![
            ("flow-a", succeeded("a")),
            ("flow-b", succeeded("b")),
            // Its name is what another attempt's would be, or one that is cut.
            ("flow-x-2456789", other(|told| told.attempt = Some(2))),
            ("flow-x", other(|told| told.hash = Some("another".to_owned()))),
            ("flow-y", other(|told| told.hash = None)),
            ("flow-on-exit-hjklmnp", other(|told| told.step = "onExit".to_owned())),
            ("flow-early", other(|told| told.completion_time = time("2026-06-01T09:59:59Z"))),
            ("flow-late", other(|told| told.completion_time = time("2026-06-01T10:00:00.5Z"))),
            ("flow-old", other(|told| told.completion_time = time("2126-06-01T10:00:00Z"))),
            ("flow-running", other(|told| (told.state, told.completion_time) = (StepState::Running, None))),
            (
                "flow-z",
                StepStatus {
                    step: "z".to_owned(),
                    state: StepState::Skipped,
                    reason: Some("step x failed".to_owned()),
                    ..StepStatus::default()
                },
            ),
        ];
        for steps in [unusual.clone(), unusual[4..].to_vec(), unusual[10..].to_vec(), Vec::new()] {
            let status = status(steps);
            let read: JobFlowStatus = serde_json::from_value(stored(&status)).unwrap();
            assert_eq!(read, status, "{:#}", stored(&status));
        }
    }

    #[test]
    fn a_list_that_was_stored_whole_is_read() {
        let old = json!({"run": 1, "jobStatusList": {"flow-a/ns": {
            "step": "a", "state": "Succeeded", "hash": "bcdfghj",
            "startTime": "2026-06-01T10:00:00Z", "completionTime": "2026-06-01T10:01:40Z",
        }, "flow-b/ns": {"step": "b", "state": "Skipped", "reason": "step x failed"}}});
        let read: JobFlowStatus = serde_json::from_value(old).unwrap();
        let skipped = StepStatus {
            step: "b".to_owned(),
            state: StepState::Skipped,
            reason: Some("step x failed".to_owned()),
            ..StepStatus::default()
        };
        assert_eq!(read, status(vec![("flow-a", succeeded("a")), ("flow-b", skipped)]));
    }

    #[test]
    fn a_thousand_steps_that_succeeded_take_a_hundred_bytes_each() {
        let name = |n: usize| format!("step-{}-{}", n / 100, n % 100);
        let all: Vec<(String, StepStatus)> =
            (0..1000).map(|n| (format!("flow-{}", name(n)), succeeded(&name(n)))).collect();
        let status = status(all.iter().map(|(job, told)| (job.as_str(), told.clone())).collect());
        let size = serde_json::to_string(&status).unwrap().len();
        assert!(size < 100_000, "{size}");
    }

    #[test]
    fn the_list_is_one_field_to_the_api_server_and_nothing_is_filled_in() {
        let crd = serde_json::to_value(JobFlow::crd()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        let list = &schema["properties"]["jobStatusList"];
        assert_eq!(list["x-kubernetes-map-type"], "atomic", "{schema:#}");
        let step = &list["additionalProperties"]["properties"];
        assert_eq!(step["seconds"]["type"], "integer");
        assert_eq!(step["step"]["type"], "string");
        assert!(step["step"]["default"].is_null() && step["hash"]["default"].is_null(), "{step:#}");
        for once in ["jobPrefix", "commonHash"] {
            assert_eq!(schema["properties"][once]["type"], "string");
            assert!(schema["properties"][once]["default"].is_null(), "{schema:#}");
        }
    }
}
