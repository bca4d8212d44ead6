//! What is asked of pods, or of Redis about them. The defaults are those of the older systems.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An HTTP request to the pod's own address. 2xx and 503 are clear answers; anything else, a redirect too,
/// and no answer in time are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.timeoutSeconds <= self.periodSeconds")
        .message("http.timeoutSeconds must not be greater than http.periodSeconds")
)]
pub struct HttpProbe {
    /// The port's number, or its name in the pod's containers.
    #[serde(default)]
    pub port: HttpPort,
    /// Path and query.
    #[serde(default = "default_path")]
    #[schemars(regex(pattern = "^/[!-~]*$"), length(max = 1024))]
    pub path: String,
    /// HTTPS does not check the pod's certificate, as the kubelet's probes do not.
    #[serde(default)]
    pub scheme: HttpScheme,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HttpHeader>,
    /// How long an answer may take.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "timeout")]
    pub timeout_seconds: u32,
    /// From one request to the next.
    #[serde(default = "default_period")]
    #[schemars(schema_with = "period")]
    pub period_seconds: u32,
    /// True: 2xx = busy, 503 = idle. False: the other way round.
    #[serde(default = "default_true")]
    pub success_is_busy: bool,
}

impl Default for HttpProbe {
    fn default() -> Self {
        Self {
            port: HttpPort::default(),
            path: default_path(),
            scheme: HttpScheme::default(),
            headers: Vec::new(),
            timeout_seconds: default_timeout(),
            period_seconds: default_period(),
            success_is_busy: true,
        }
    }
}

/// A port by its number or its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HttpPort {
    /// 1 to 65535.
    Number(u16),
    /// The name of a port of one of the pod's containers.
    Name(String),
}

impl Default for HttpPort {
    fn default() -> Self {
        Self::Number(8080)
    }
}

impl JsonSchema for HttpPort {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HttpPort".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? (self >= 1 && self <= 65535) : self.matches('^[a-z0-9-]{1,15}$')",
                "message": "must be a number from 1 to 65535, or the name of a port of the pod's containers",
            }],
        })
    }
}

/// How the pod is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpScheme {
    /// In the clear.
    #[default]
    Http,
    /// By TLS.
    Https,
}

/// A header of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!(self.name.lowerAscii() in ['connection', 'content-length', 'transfer-encoding', 'upgrade'])")
        .message("Connection, Content-Length, Transfer-Encoding and Upgrade are not yours to set: remove the header")
)]
pub struct HttpHeader {
    /// Its name.
    #[schemars(regex(pattern = "^[A-Za-z0-9-]+$"), length(max = 128))]
    pub name: String,
    /// Its value.
    #[serde(default)]
    #[schemars(regex(pattern = "^[ -~]*$"), length(max = 1024))]
    pub value: String,
}

/// A command that is run in the pod, as `kubectl exec` runs one. Exit codes 0 and 1 are clear answers; others,
/// a command that cannot be run, and one that does not end in time are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.timeoutSeconds <= self.periodSeconds")
        .message("exec.timeoutSeconds must not be greater than exec.periodSeconds")
)]
pub struct ExecProbe {
    /// The program and its arguments; there is no shell in between.
    #[serde(default = "default_command")]
    #[schemars(length(min = 1, max = 32), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// The container; omitted: the pod's default container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
    /// How long the command may take.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "timeout")]
    pub timeout_seconds: u32,
    /// From one run to the next.
    #[serde(default = "default_period")]
    #[schemars(schema_with = "period")]
    pub period_seconds: u32,
    /// True: exit code 0 = busy, 1 = idle. False: the other way round.
    #[serde(default = "default_true")]
    pub success_is_busy: bool,
}

impl Default for ExecProbe {
    fn default() -> Self {
        Self {
            command: default_command(),
            container: None,
            timeout_seconds: default_timeout(),
            period_seconds: default_period(),
            success_is_busy: true,
        }
    }
}

/// One hash in Redis for the whole pool: the field is a pod's name, the value
/// `{"status": "starting|idle|busy|error", "updated_at": epoch seconds}` or the plain word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.timeoutSeconds <= self.periodSeconds")
        .message("redis.timeoutSeconds must not be greater than redis.periodSeconds"),
    validation = Rule::new("self.url.matches('^rediss?://([A-Za-z0-9._-]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?(/[0-9]{1,5})?$')")
        .message("redis.url must be redis://HOST[:PORT][/DATABASE], or rediss:// for TLS; user and password go into a Secret, see redis.credentials"),
    validation = Rule::new("!has(self.ca) || self.url.startsWith('rediss://')")
        .message("redis.ca is for TLS only: write rediss:// in redis.url or remove it")
)]
pub struct RedisProbe {
    /// `redis://HOST[:PORT][/DATABASE]`, or `rediss://` for TLS.
    #[schemars(length(min = 1, max = 512))]
    pub url: String,
    /// The hash's key.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 512))]
    pub key: String,
    /// A Secret in the object's namespace with user and password. Omitted: Redis asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsSecret>,
    /// The authority that signed the server's certificate, in PEM. Omitted: those that the operator's system
    /// trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSource>,
    /// How long Redis may take.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "timeout")]
    pub timeout_seconds: u32,
    /// From one reading to the next.
    #[serde(default = "default_period")]
    #[schemars(schema_with = "period")]
    pub period_seconds: u32,
    /// Words for the states; any other word is no clear answer.
    #[serde(default)]
    pub values: RedisWords,
}

/// A Secret with user and password.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSecret {
    /// Name of the Secret, in the object's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key that holds the user; a Secret without it means the default user.
    #[serde(default = "default_user_key")]
    #[schemars(length(min = 1, max = 253))]
    pub user_key: String,
    /// The key that holds the password.
    #[serde(default = "default_password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

/// Where an authority's certificate lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMap) != has(self.secret)")
        .message("ca needs exactly one source: either configMap {name, key} or secret {name, key}")
)]
pub struct CaSource {
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<SecretKey>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKey>,
}

/// A key of a Secret or ConfigMap in the object's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
pub struct SecretKey {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key that holds the certificate.
    #[serde(default = "default_ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Words for the states, in any case of letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.busy.all(w, !(w in self.idle) && !(w in self.starting)) && self.idle.all(w, !(w in self.starting))")
        .message("redis.values: a word can mean only one state")
)]
pub struct RedisWords {
    /// At work.
    #[serde(default = "default_busy")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub busy: Vec<String>,
    /// Free.
    #[serde(default = "default_idle")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub idle: Vec<String>,
    /// Not yet able to work.
    #[serde(default = "default_starting")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub starting: Vec<String>,
}

impl Default for RedisWords {
    fn default() -> Self {
        Self { busy: default_busy(), idle: default_idle(), starting: default_starting() }
    }
}

/// What becomes of a pod that gives no clear answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeFailure {
    /// Unclear answers in a row until the last clear one no longer stands: 1 to 3, since an answer holds for
    /// three periods at most.
    #[serde(default = "default_threshold")]
    #[schemars(schema_with = "threshold")]
    pub threshold: u32,
    /// What the pod counts as from then on.
    #[serde(default)]
    pub treat_as: TreatAs,
}

impl Default for ProbeFailure {
    fn default() -> Self {
        Self { threshold: default_threshold(), treat_as: TreatAs::default() }
    }
}

/// What a pod counts as that gives no clear answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TreatAs {
    /// Unknown: it is not removed, and counts for the size as it was last seen.
    #[default]
    Unknown,
    /// Busy: it is not removed, and another is started in its place. An outage of the probe lets the pool grow
    /// to its maximum.
    Busy,
}

fn timeout(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 60})
}

fn period(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 3600})
}

fn threshold(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 3})
}

fn default_path() -> String {
    "/busy".to_owned()
}

fn default_command() -> Vec<String> {
    vec!["cat".to_owned(), "/tmp/healthy".to_owned()]
}

fn default_key() -> String {
    "mlgame-daemon-pod".to_owned()
}

fn default_user_key() -> String {
    "user".to_owned()
}

fn default_password_key() -> String {
    "password".to_owned()
}

fn default_ca_key() -> String {
    "ca.crt".to_owned()
}

fn default_busy() -> Vec<String> {
    vec!["busy".to_owned()]
}

fn default_idle() -> Vec<String> {
    vec!["idle".to_owned()]
}

fn default_starting() -> Vec<String> {
    vec!["starting".to_owned()]
}

fn default_threshold() -> u32 {
    3
}

fn default_timeout() -> u32 {
    1
}

fn default_period() -> u32 {
    10
}

fn default_true() -> bool {
    true
}
