//! Signals: numbers from outside, such as a queue's length, that policies are given.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::CaSource;

/// A number from outside the cluster's objects. The operator fetches it beside its looks and gives it to the policy with
/// its age; where there is none, the policy is told why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.prometheus) != has(self.http)")
        .message("a signal needs exactly one source: either prometheus {url, query} or http {url, pointer}"),
    validation = Rule::new("self.timeoutSeconds <= self.periodSeconds")
        .message("a signal's timeoutSeconds must not be greater than its periodSeconds"),
    validation = Rule::new("!has(self.maxAgeSeconds) || self.maxAgeSeconds >= self.periodSeconds")
        .message("a signal's maxAgeSeconds must not be smaller than its periodSeconds")
)]
pub struct Signal {
    /// What the policy calls it, unique among the object's signals.
    #[schemars(schema_with = "crate::schema::label_name")]
    pub name: String,
    /// An instant query; its result must be one number: a scalar, or a vector with one element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSource>,
    /// A JSON document that holds the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// A token that is sent as `Authorization: Bearer …`. Omitted: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenSecret>,
    /// The authority that signed the server's certificate, in PEM; https needs one. Omitted: the one of the operator's
    /// --signal-ca-file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// From one fetch to the next: 1 s to an hour.
    #[serde(default = "default_period")]
    #[schemars(schema_with = "period")]
    pub period_seconds: u32,
    /// How long an answer may take: 1 to 60 s.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "timeout")]
    pub timeout_seconds: u32,
    /// How long a number is given to the policy although no newer one could be had; after that the policy is told why there
    /// is none. Omitted: three periods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_seconds")]
    pub max_age_seconds: Option<u32>,
}

impl Signal {
    /// How long a number counts, in seconds.
    pub fn max_age(&self) -> u32 {
        self.max_age_seconds.unwrap_or_else(|| self.period_seconds.saturating_mul(3))
    }
}

/// An instant query of Prometheus, or of what speaks its API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.url.matches('^https?://[^/?#@[:space:]]+(/[^?#[:space:]]*)?$')")
        .message("prometheus.url must be http://HOST[:PORT][/PATH] or https://…, without a query or credentials")
)]
pub struct PrometheusSource {
    /// Where Prometheus is, such as `http://prometheus.monitoring.svc:9090`; `/api/v1/query` is added.
    #[schemars(length(min = 1, max = 1024))]
    pub url: String,
    /// The query, in PromQL.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
}

/// A JSON document that is fetched by GET. Redirects are not followed, and at most 1 MiB is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.url.matches('^https?://[^/?#@[:space:]]+([/?][^#[:space:]]*)?$')")
        .message("http.url must be http://HOST[:PORT][/PATH][?QUERY] or https://…, without credentials"),
    validation = Rule::new("self.pointer == '' || self.pointer.startsWith('/')")
        .message("http.pointer must be a JSON pointer such as /queue/length, or empty for the whole document")
)]
pub struct HttpSource {
    /// Where the document is.
    #[schemars(length(min = 1, max = 1024))]
    pub url: String,
    /// Where in it the number is, as a JSON pointer (RFC 6901): `/queues/0/length`. Empty: the document is the number.
    /// Digits in a string are a number, too.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub pointer: String,
}

/// A Secret with a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct TokenSecret {
    /// Name of the Secret, in the object's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key that holds the token.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Signals, each name once.
pub(crate) fn signals(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": generator.subschema_for::<Signal>(),
    })
}

fn period(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 3600})
}

fn timeout(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 60})
}

fn default_period() -> u32 {
    15
}

fn default_timeout() -> u32 {
    5
}

fn default_key() -> String {
    "token".to_owned()
}
