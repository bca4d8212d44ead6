//! Pods as they are read from the watch: only the fields that core reads are kept.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::Deserialize;
use stoker_api::keys;
use stoker_core::pod::{PodCondition, PodEnd};
use stoker_core::{Phase, PodView};

use crate::slim_meta::slim;

/// Label that Kubernetes gives the pods of a Job: the Job's name.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// Longest termination message that is kept.
const MESSAGE: usize = 4096;

/// Longest account of why a pod failed, in characters: it goes into statuses, of many pods at a time.
const WHY: usize = 256;

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
    reason: String,
    message: String,
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

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimTerminated {
    started_at: Option<Time>,
    finished_at: Option<Time>,
    exit_code: i32,
    reason: String,
    message: Option<String>,
}

impl SlimState {
    /// When the container started, if it runs or has ended.
    fn started(&self) -> Option<Timestamp> {
        let running = self.running.as_ref().and_then(|running| running.started_at.as_ref());
        running.or_else(|| self.terminated.as_ref()?.started_at.as_ref()).map(|time| time.0)
    }
}

impl SlimStatus {
    fn containers(&self) -> impl Iterator<Item = &SlimContainer> {
        // Where one of these failed, those that prepare for them did not.
        self.container_statuses.iter().chain(&self.init_container_statuses)
    }

    /// How the pod ended, if it has.
    fn ended(&self) -> Option<PodEnd> {
        let failed = match self.phase.as_deref()? {
            "Failed" => true,
            "Succeeded" => false,
            _ => return None,
        };
        let at = |c: &SlimContainer| Some(c.state.terminated.as_ref()?.finished_at.as_ref()?.0);
        Some(PodEnd {
            started: self.containers().filter_map(|c| c.state.started()).min(),
            at: self.containers().filter_map(at).max(),
            why: if failed { self.why() } else { None },
        })
    }

    /// Why it failed: what is said of the whole pod, else of the first container that ended badly.
    fn why(&self) -> Option<String> {
        let whole = joined(&self.reason, &self.message);
        let words = whole.or_else(|| self.containers().find_map(SlimContainer::failure))?;
        Some(words.chars().take(WHY).collect())
    }
}

impl SlimContainer {
    /// How it ended, if badly.
    fn failure(&self) -> Option<String> {
        let SlimTerminated { exit_code, reason, message, .. } = self.state.terminated.as_ref()?;
        if *exit_code == 0 {
            return None;
        }
        let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let end = format!("container {}: exit code {exit_code}{reason}", self.name);
        joined(&end, message.as_deref().unwrap_or_default().trim())
    }
}

/// A reason and more words, as far as there are any.
fn joined(reason: &str, message: &str) -> Option<String> {
    match (reason, message) {
        ("", "") => None,
        (one, "") | ("", one) => Some(one.to_owned()),
        (reason, message) => Some(format!("{reason}: {message}")),
    }
}

impl SlimPod {
    /// What core reads of it.
    pub fn into_view(self) -> PodView {
        let meta = self.metadata;
        let labels = meta.labels.unwrap_or_default();
        let annotations = meta.annotations.unwrap_or_default();
        let ended = self.status.ended();
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
            deleted_at: meta.deletion_timestamp.map(|t| t.0),
            grace: meta.deletion_grace_period_seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(0),
            // Every pod of a Job has one of Kubernetes', which nobody here asks for.
            finalizers: meta
                .finalizers
                .filter(|all| all.iter().any(|f| f == keys::OUTCOME))
                .unwrap_or_default(),
            ended,
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
    Some(joined(reason, message)?.chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BEGAN: &str = "2026-08-03T09:10:00Z";
    const ENDED: &str = "2026-08-03T09:12:00Z";

    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    fn read(meta: Value, status: Value) -> PodView {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": status});
        serde_json::from_value::<SlimPod>(pod).unwrap().into_view()
    }

    fn of(status: Value) -> PodView {
        read(json!({"name": "a"}), status)
    }

    fn exit(name: &str, code: i32, reason: &str, message: &str) -> Value {
        let ended = json!({
            "exitCode": code, "reason": reason, "message": message, "startedAt": BEGAN, "finishedAt": ENDED,
        });
        json!({"name": name, "restartCount": 0, "state": {"terminated": ended}})
    }

    fn why(status: Value) -> Option<String> {
        of(status).ended.unwrap().why
    }

    #[test]
    fn a_pod_that_has_not_ended_has_no_end_although_a_container_has() {
        let statuses = json!([exit("c", 3, "Error", "")]);
        assert_eq!(of(json!({"phase": "Running", "containerStatuses": statuses})).ended, None);
        assert_eq!(of(json!({})).ended, None);
    }

    #[test]
    fn the_end_spans_all_containers_and_what_went_well_needs_no_why() {
        let mut late = exit("b", 0, "Completed", "");
        late["state"]["terminated"]["finishedAt"] = json!("2026-08-03T09:13:00Z");
        let mut early = exit("init", 0, "Completed", "");
        early["state"]["terminated"]["startedAt"] = json!("2026-08-03T09:09:00Z");
        let pod = of(json!({
            "phase": "Succeeded",
            "containerStatuses": [exit("a", 0, "Completed", "42"), late],
            "initContainerStatuses": [early],
        }));
        let ended = PodEnd { started: at("2026-08-03T09:09:00Z"), at: at("2026-08-03T09:13:00Z"), why: None };
        assert_eq!(pod.ended, Some(ended));
        assert_eq!(pod.message, None, "only a flow's steps tell anything");
    }

    #[test]
    fn why_a_pod_failed_is_told_of_the_whole_pod_before_its_containers() {
        let statuses = json!([exit("c", 137, "Error", "")]);
        let deadline = "Pod was active on the node longer than the specified deadline";
        assert_eq!(
            why(json!({
                "phase": "Failed", "reason": "DeadlineExceeded", "message": deadline, "containerStatuses": statuses,
            })),
            Some(format!("DeadlineExceeded: {deadline}"))
        );
        assert_eq!(why(json!({"phase": "Failed", "reason": "Evicted"})), Some("Evicted".to_owned()));
        assert_eq!(why(json!({"phase": "Failed"})), None);
    }

    #[test]
    fn why_a_pod_failed_is_told_by_the_first_container_that_ended_badly() {
        let sidecar = exit("proxy", 143, "Error", "");
        let of = |statuses: Value| {
            why(json!({"phase": "Failed", "containerStatuses": statuses, "initContainerStatuses": [sidecar]}))
        };
        let well = exit("a", 0, "Completed", "fine");
        assert_eq!(
            of(json!([well, exit("c", 3, "Error", ""), exit("d", 4, "Error", "")])),
            Some("container c: exit code 3 (Error)".to_owned())
        );
        assert_eq!(
            of(json!([exit("c", 1, "OOMKilled", "out of it\n")])),
            Some("container c: exit code 1 (OOMKilled): out of it".to_owned())
        );
        let waits = json!({"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}});
        assert_eq!(of(json!([waits])), Some("container proxy: exit code 143 (Error)".to_owned()));
        let long = of(json!([exit("c", 3, "Error", &"ä".repeat(4000))]));
        assert_eq!(long.map(|words| words.chars().count()), Some(WHY));
    }

    #[test]
    fn a_pod_that_never_started_has_ended_at_no_known_time() {
        let lost = json!({"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": null, "finishedAt": null});
        let statuses = json!([{"name": "c", "state": {"terminated": lost}}]);
        let ended = of(json!({"phase": "Failed", "containerStatuses": statuses})).ended.unwrap();
        assert_eq!((ended.started, ended.at), (None, None));
        assert_eq!(ended.why, Some("container c: exit code 137 (ContainerStatusUnknown)".to_owned()));
    }

    #[test]
    fn finalizers_are_read_of_a_pod_that_is_kept_only() {
        let of =
            |finalizers: &[&str]| read(json!({"name": "a", "finalizers": finalizers}), json!({})).finalizers;
        assert!(of(&[]).is_empty());
        assert!(of(&["batch.kubernetes.io/job-tracking"]).is_empty());
        assert_eq!(of(&["example.com/a", keys::OUTCOME]), ["example.com/a", keys::OUTCOME]);
    }

    #[test]
    fn a_deletion_began_its_grace_period_before_the_time_that_kubernetes_notes() {
        let meta = json!({"name": "a", "deletionTimestamp": ENDED, "deletionGracePeriodSeconds": 120});
        let pod = read(meta, json!({}));
        assert!(pod.terminating);
        assert_eq!((pod.deleted_at, pod.deletion_began()), (at(ENDED), at(BEGAN)));
        assert_eq!(of(json!({})).deletion_began(), None);
    }
}
