//! Which policy decides for an object, and within which limits.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A policy: a WebAssembly component that makes decisions for the object. Where it exports no decision of a
/// kind, and when it fails, the documented formula decides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMap) != has(self.builtin)")
        .message("policy needs exactly one source: either configMap {name, key} or builtin")
)]
pub struct PolicyRef {
    /// The component is the value of a key of a ConfigMap in the object's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
    /// The component is one that the operator carries: buffer, percent-buffer, scheduled-buffer, predictive,
    /// queue-depth, expression, probe-verdict, hysteresis, json-status, fixed-lead or learned-lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub builtin: Option<String>,
    /// Accept only a component with this digest, `sha256:` and 64 hexadecimal digits; other bytes are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"), length(max = 71))]
    pub digest: Option<String>,
    /// Configuration for the policy, any JSON object; the policy itself validates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_raw_object")]
    pub config: Option<Value>,
    /// Bounds of each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,
    /// A policy on trial: it is asked the same beside the one that decides, and what it answers is compared and never
    /// applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowPolicy>,
}

/// A policy on trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMap) != has(self.builtin)")
        .message("policy.shadow needs exactly one source: either configMap {name, key} or builtin")
)]
pub struct ShadowPolicy {
    /// The component is the value of a key of a ConfigMap in the object's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
    /// The component is one that the operator carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub builtin: Option<String>,
    /// Accept only a component with this digest, `sha256:` and 64 hexadecimal digits; other bytes are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"), length(max = 71))]
    pub digest: Option<String>,
    /// Configuration for the policy, any JSON object; the policy itself validates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_raw_object")]
    pub config: Option<Value>,
    /// Bounds of each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,
    /// True: the two change places. This policy decides, with all that it has learnt, and the other one is on trial; false
    /// turns them back.
    #[serde(default)]
    pub promote: bool,
}

/// A policy as it is wanted, wherever in the spec it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WantedPolicy {
    /// Where in the spec it stands, such as `spec.policy`.
    pub field: &'static str,
    /// A key of a ConfigMap.
    pub config_map: Option<ConfigMapKey>,
    /// Or a built-in one.
    pub builtin: Option<String>,
    /// The only digest that is accepted.
    pub digest: Option<String>,
    /// Its configuration, as JSON.
    pub config: String,
    /// Bounds of each call.
    pub limits: PolicyLimits,
}

impl PolicyRef {
    /// The policy that decides, and the one on trial.
    pub fn roles(&self) -> (WantedPolicy, Option<WantedPolicy>) {
        let config =
            |config: &Option<Value>| config.as_ref().map_or_else(|| "{}".to_owned(), Value::to_string);
        let main = WantedPolicy {
            field: "spec.policy",
            config_map: self.config_map.clone(),
            builtin: self.builtin.clone(),
            digest: self.digest.clone(),
            config: config(&self.config),
            limits: self.limits.clone().unwrap_or_default(),
        };
        let Some(shadow) = &self.shadow else { return (main, None) };
        let other = WantedPolicy {
            field: "spec.policy.shadow",
            config_map: shadow.config_map.clone(),
            builtin: shadow.builtin.clone(),
            digest: shadow.digest.clone(),
            config: config(&shadow.config),
            limits: shadow.limits.clone().unwrap_or_default(),
        };
        if shadow.promote { (other, Some(main)) } else { (main, Some(other)) }
    }

    /// Whether the two have changed places.
    pub fn promoted(&self) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.promote)
    }
}

/// A key of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap, in the object's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in binaryData that holds the component.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Bounds of each call of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyLimits {
    /// Time for one call, instantiation included: 1 to 10000 milliseconds.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "timeout_schema")]
    pub timeout_milliseconds: u32,
    /// Memory of one instance: 1 to 64 MiB.
    #[serde(default = "default_memory", rename = "memoryMiB")]
    #[schemars(schema_with = "memory_schema")]
    pub memory_mib: u32,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self { timeout_milliseconds: default_timeout(), memory_mib: default_memory() }
    }
}

fn default_key() -> String {
    "policy.wasm".to_owned()
}

fn default_timeout() -> u32 {
    100
}

fn default_memory() -> u32 {
    32
}

fn timeout_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 10_000})
}

fn memory_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 64})
}
