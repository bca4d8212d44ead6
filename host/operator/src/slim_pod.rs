//! Pods as they are read from the watch: only the fields that core reads are kept.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::Deserialize;
use stoker_api::keys;
use stoker_core::pod::PodCondition;
use stoker_core::{Phase, PodView};

use crate::slim_meta::slim;

/// Label that Kubernetes gives the pods of a Job: the Job's name.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// Longest termination message that is kept.
const MESSAGE: usize = 4096;

/// A pod with the fields that are read; the rest is never deserialised.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Pod)]
pub struct SlimPod {
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimSpec {
    node_name: Option<String>,
    #[serde(default)]
    containers: Vec<SlimPorts>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SlimPorts {
    #[serde(default)]
    ports: Vec<SlimPort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimPort {
    name: Option<String>,
    container_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Vec<SlimCondition>,
    container_statuses: Vec<SlimContainer>,
    init_container_statuses: Vec<SlimContainer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: Option<String>,
    last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimContainer {
    name: String,
    restart_count: u32,
    state: SlimState,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SlimState {
    running: Option<SlimRunning>,
    terminated: Option<SlimTerminated>,
    waiting: Option<SlimWaiting>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimWaiting {
    reason: String,
    message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimRunning {
    started_at: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimTerminated {
    started_at: Option<Time>,
    message: Option<String>,
}

impl SlimState {
    /// When the container started, if it runs or has ended.
    fn started(&self) -> Option<Timestamp> {
        let running = self.running.as_ref().and_then(|running| running.started_at.as_ref());
        running.or_else(|| self.terminated.as_ref()?.started_at.as_ref()).map(|time| time.0)
    }
}

impl SlimPod {
    /// What core reads of it.
    pub fn into_view(self) -> PodView {
        let meta = self.metadata;
        let labels = meta.labels.unwrap_or_default();
        let annotations = meta.annotations.unwrap_or_default();
        let of_step = labels.contains_key(JOB_NAME) && annotations.contains_key(keys::STEP);
        let succeeded = self.status.phase.as_deref() == Some("Succeeded");
        PodView {
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            slot: labels.get(keys::SLOT).and_then(|s| s.parse().ok()),
            created: meta.creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            phase: match self.status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Pending,
            },
            terminating: meta.deletion_timestamp.is_some(),
            node: self.spec.node_name,
            ip: self.status.pod_ip.and_then(|ip| ip.parse().ok()),
            ports: self
                .spec
                .containers
                .into_iter()
                .flat_map(|c| c.ports)
                .filter_map(|p| Some((p.name?, p.container_port)))
                .collect(),
            restarts: self.status.container_statuses.iter().map(|c| c.restart_count).sum(),
            message: self.status.container_statuses.iter().filter(|_| of_step && succeeded).find_map(message),
            containers_started: self.status.container_statuses.iter().filter_map(|c| c.state.started()).max(),
            gate_started: self
                .status
                .init_container_statuses
                .iter()
                .filter(|c| c.name == keys::GATE_CONTAINER)
                .find_map(|c| c.state.started()),
            displaced: false,
            waiting: self
                .status
                .container_statuses
                .iter()
                .find_map(|c| c.state.waiting.as_ref().and_then(in_words)),
            conditions: self
                .status
                .conditions
                .into_iter()
                .map(|c| PodCondition {
                    type_: c.type_,
                    status: c.status,
                    reason: c.reason,
                    since: c.last_transition_time.map(|t| t.0),
                })
                .collect(),
            template_hash: labels.get(keys::TEMPLATE_HASH).cloned(),
            labels,
            annotations,
        }
    }
}

/// What a container that has ended left as its termination message: Kubernetes takes no more than 4 KiB of it.
fn message(container: &SlimContainer) -> Option<String> {
    let message = container.state.terminated.as_ref()?.message.as_deref().filter(|text| !text.is_empty())?;
    Some(message[..message.floor_char_boundary(MESSAGE)].to_owned())
}

/// Why a container does not start, if something is wrong.
fn in_words(waiting: &SlimWaiting) -> Option<String> {
    let SlimWaiting { reason, message } = waiting;
    if reason.is_empty() || matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let words = if message.is_empty() { reason.clone() } else { format!("{reason}: {message}") };
    Some(words.chars().take(300).collect())
}
