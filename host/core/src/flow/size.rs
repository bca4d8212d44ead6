//! How large a flow's object may become. Spec and status are one object, and a flow that runs until its status no longer
//! fits cannot be helped then: what is started could not be written.

use std::io;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use stoker_api::{JobFlowStatus, StepState, StepStatus};

use super::observe::OUTPUTS;
use super::prepared::{Flow, Part};

/// Bytes that Kubernetes stores of an object at most: etcd takes requests of up to 1.5 MiB.
const LIMIT: usize = 1_536 << 10;

/// From so many bytes on it is told of: metadata, conditions and failed steps' reasons come to what is estimated.
const NEAR: usize = 1_200_000;

/// Bytes that the API server notes of who wrote which field of a step in the spec, about (managedFields).
const NOTED: usize = 160;

/// The longest termination message that Kubernetes passes on, in bytes.
const OUTPUT: usize = 4 << 10;

/// How large a flow's object may become, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Its spec, with what the API server notes of it.
    pub spec: usize,
    /// Its status when every step has ended at its first attempt, outputs apart.
    pub status: usize,
    /// The most that outputs come to at a time.
    pub outputs: usize,
}

impl Size {
    /// That of a flow, estimated.
    pub(super) fn of(flow: &Flow) -> Self {
        let read = flow.parts.iter().filter(|part| !part.readers.is_empty()).count();
        let list = flow.parts.iter().map(|part| ended(flow, part)).collect();
        let status = JobFlowStatus { job_status_list: list, ..JobFlowStatus::default() };
        Self {
            spec: length(&*flow.spec) + flow.steps() * NOTED,
            status: length(&status),
            outputs: (read * OUTPUT).min(OUTPUTS),
        }
    }

    /// That it may come near the limit, in words; None = it stays well below.
    pub fn near_limit(&self) -> Option<String> {
        let all = self.spec + self.status + self.outputs;
        let mb = |bytes: usize| format!("{}.{:02} MB", bytes / 1_000_000, bytes % 1_000_000 / 10_000);
        (all >= NEAR).then(|| {
            format!(
                "the object may come to {} (spec {}, status {}, outputs {}), and Kubernetes stores no more than {}: name a JobTemplate where steps are alike, write less to termination messages, or make several flows of it",
                mb(all),
                mb(self.spec),
                mb(self.status),
                mb(self.outputs),
                mb(LIMIT),
            )
        })
    }
}

/// What the status says of a step that has succeeded.
fn ended(flow: &Flow, part: &Part) -> (String, StepStatus) {
    let start = Timestamp::UNIX_EPOCH;
    let entry = StepStatus {
        step: part.name.clone(),
        state: StepState::Succeeded,
        start_time: Some(start),
        completion_time: Some(start + SignedDuration::from_hours(1)),
        hash: part.hash.clone(),
        ..StepStatus::default()
    };
    (format!("{}/{}", flow.job_name(&part.name, 1, 1), flow.namespace), entry)
}

/// The length of something as JSON.
fn length(what: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Serialising what was deserialised cannot fail; at worst it is not warned.
    serde_json::to_writer(&mut count, what).ok();
    count.0
}
