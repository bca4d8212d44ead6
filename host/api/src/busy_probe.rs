//! How Stoker learns that a pod is busy: what it reads off the pod, or what it asks. What a question takes
//! is in `busy_probe/asked.rs`.

mod asked;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use asked::{
    CaSource, CredentialsSecret, ExecProbe, HttpHeader, HttpPort, HttpProbe, HttpScheme, ProbeFailure,
    RedisProbe, RedisWords, SecretKey, TreatAs,
};

/// How Stoker learns that a pod is busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'condition' || !has(self.condition)")
        .message("busyProbe.condition is for mode condition only: set mode: condition or remove it"),
    validation = Rule::new("self.mode == 'http' || !has(self.http)")
        .message("busyProbe.http is for mode http only: set mode: http or remove it"),
    validation = Rule::new("self.mode == 'exec' || !has(self.exec)")
        .message("busyProbe.exec is for mode exec only: set mode: exec or remove it"),
    validation = Rule::new("self.mode == 'redis' || !has(self.redis)")
        .message("busyProbe.redis is for mode redis only: set mode: redis or remove it"),
    validation = Rule::new("self.mode != 'redis' || has(self.redis)")
        .message("mode redis needs to know where: set busyProbe.redis.url"),
    validation = Rule::new("self.mode in ['http', 'exec', 'redis'] || !has(self.probeFailure)")
        .message("busyProbe.probeFailure is for modes http, exec and redis: the others ask nobody, so remove it")
)]
pub struct BusyProbe {
    /// Where the answer comes from.
    #[serde(default)]
    pub mode: BusyProbeMode,
    /// Mode annotation: the pod's annotation that says `true` (in any case) while it is busy.
    #[serde(default = "default_annotation")]
    #[schemars(length(min = 1, max = 317))]
    pub annotation_key: String,
    /// Mode condition: which condition of the pod says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionProbe>,
    /// Mode http: what is requested. Omitted: GET :8080/busy every 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// Mode exec: what is run in the pod. Omitted: `cat /tmp/healthy` every 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    /// Mode redis: the hash in which all pods of the pool tell their state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisProbe>,
    /// Modes http, exec and redis: what becomes of a pod that gives no clear answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_failure: Option<ProbeFailure>,
}

impl Default for BusyProbe {
    fn default() -> Self {
        Self {
            mode: BusyProbeMode::default(),
            annotation_key: default_annotation(),
            condition: None,
            http: None,
            exec: None,
            redis: None,
            probe_failure: None,
        }
    }
}

impl BusyProbe {
    /// From one question to the next, in seconds; none where the watch tells.
    pub fn period_seconds(&self) -> Option<u32> {
        match self.mode {
            BusyProbeMode::Annotation | BusyProbeMode::Condition => None,
            BusyProbeMode::Http => Some(self.http.clone().unwrap_or_default().period_seconds),
            BusyProbeMode::Exec => Some(self.exec.clone().unwrap_or_default().period_seconds),
            // Admission refuses mode redis without its block.
            BusyProbeMode::Redis => Some(self.redis.as_ref().map_or(10, |r| r.period_seconds)),
        }
    }
}

/// Where the answer comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BusyProbeMode {
    /// An annotation of the pod, which the pod or its matchmaker sets.
    #[default]
    Annotation,
    /// A condition in the pod's status, such as Ready, for which the kubelet does the probing.
    Condition,
    /// An HTTP request to the pod.
    Http,
    /// A command that is run in the pod.
    Exec,
    /// A hash in Redis, which the pods or their matchmaker write.
    Redis,
}

/// A condition of the pod that says whether it is busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionProbe {
    /// The condition's type. With `Ready`, a pod counts as starting until it was Ready once.
    #[serde(rename = "type", default = "default_condition")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// The status that means busy; the opposite means idle, `Unknown` means unknown, a missing condition idle.
    #[serde(default)]
    pub busy_status: ConditionStatus,
}

impl Default for ConditionProbe {
    fn default() -> Self {
        Self { type_: default_condition(), busy_status: ConditionStatus::default() }
    }
}

/// A status of a condition that is a clear answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    #[default]
    False,
}

fn default_annotation() -> String {
    crate::keys::DEFAULT_BUSY_ANNOTATION.to_owned()
}

fn default_condition() -> String {
    "Ready".to_owned()
}
