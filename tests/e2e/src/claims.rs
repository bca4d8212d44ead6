//! Those who claim: accounts with tokens, and the requests that they send to the operator's claim server.

use anyhow::{Context as _, Result, bail};
use futures::future::join_all;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, PostParams};
use kube::client::Body;
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::World;
use crate::operator::Operator;

/// The resources whose subresource `claim` a claimant may use.
pub const CLAIMS: [&str; 2] = ["hotstandbydeployments/claim", "hotstandbyjobs/claim"];

/// An answer of the claim server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub retry_after: Option<u64>,
}

impl Answer {
    /// The reason or message of a refusal, or any other text of the body.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// The claim's id, if it was granted.
    pub fn id(&self) -> Result<String> {
        if self.status != 201 {
            bail!("not granted: {self:?}");
        }
        Ok(self.text("id").to_owned())
    }

    /// The name of the pod that was granted.
    pub fn pod(&self) -> Result<String> {
        self.id()?;
        Ok(self.body["pod"]["name"].as_str().context("no pod")?.to_owned())
    }
}

/// An account that asks a claim server.
#[derive(Clone)]
pub struct Claimant {
    client: Client,
    pool: String,
}

/// A token of a service account that is made for it, with these resources to claim from.
pub async fn account(world: &World, name: &str, resources: &[&str]) -> Result<String> {
    let (client, namespace) = (world.client.clone(), world.namespace.as_str());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    if !resources.is_empty() {
        let role: Role = serde_json::from_value(json!({
            "metadata": {"name": name},
            "rules": [{"apiGroups": ["stoker.dev"], "resources": resources, "verbs": ["create", "get", "delete"]}],
        }))?;
        Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &role).await?;
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }))?;
        Api::namespaced(client, namespace).create(&PostParams::default(), &binding).await?;
    }
    let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let token = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    token.status.and_then(|status| status.token).context("no token")
}

/// Where an operator serves claims.
pub fn address(operator: &Operator) -> Result<String> {
    let log = operator.log();
    let (_, served) = log.rsplit_once("serving claims at=").context("no claims are served")?;
    Ok(served.split_whitespace().next().context("no address")?.to_owned())
}

impl Claimant {
    /// One who shows this token to an operator, for a pool.
    pub fn new(world: &World, operator: &Operator, token: Option<&str>, pool: &str) -> Result<Self> {
        let config = Config::new(format!("http://{}", address(operator)?).parse()?);
        Self::with(config, world, token, pool)
    }

    /// One who reaches the server by this configuration.
    pub fn with(mut config: Config, world: &World, token: Option<&str>, pool: &str) -> Result<Self> {
        config.default_retry = false;
        config.auth_info.token = token.map(|token| token.to_owned().into());
        let pool = format!("/v1/namespaces/{}/pools/{pool}/claims", world.namespace);
        Ok(Self { client: Client::try_from(config)?, pool })
    }

    /// Sends a request about the pool's claims.
    pub async fn send(&self, method: Method, path: &str, body: Value) -> Result<Answer> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
        self.send_raw(method, path, body).await
    }

    /// Sends a body as it is.
    pub async fn send_raw(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.pool));
        let response = self.client.send(request.body(Body::from(body))?).await?;
        let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .with_context(|| format!("{status}: {}", String::from_utf8_lossy(&bytes)))?;
        Ok(Answer { status, body, retry_after })
    }

    /// Claims.
    pub async fn claim(&self, body: Value) -> Result<Answer> {
        self.send(Method::POST, "", body).await
    }

    /// So many claims at once.
    pub async fn claims(&self, count: usize, body: &Value) -> Result<Vec<Answer>> {
        join_all((0..count).map(|_| self.claim(body.clone()))).await.into_iter().collect()
    }

    /// Releases a claim.
    pub async fn release(&self, id: &str) -> Result<Answer> {
        self.send(Method::DELETE, &format!("/{id}"), Value::Null).await
    }

    /// Reads the list of claims, or one of them.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, Value::Null).await
    }
}

impl World {
    /// A namespace with an operator that serves claims, and a claimant's token for all its pools.
    pub async fn with_claims(name: &str) -> Result<(Self, String)> {
        let flags = ["--claims", "127.0.0.1:0", "--claims-per-second", "10000"];
        let world = Self::start_with(name, &flags).await?;
        let token = account(&world, "claimant", &CLAIMS).await?;
        Ok((world, token))
    }

    /// A claimant with a token.
    pub fn claimant(&self, token: &str, pool: &str) -> Result<Claimant> {
        Claimant::new(self, self.operator(), Some(token), pool)
    }

    /// Waits until a pool counts so many claimed, busy and idle pods.
    pub async fn claimed(&self, name: &str, claimed: u32, busy: u32, idle: u32) -> Result<()> {
        let what = format!("claimed {claimed}, busy {busy}, idle {idle}");
        self.status(name, &what, |pool| {
            let counts = pool
                .status
                .as_ref()
                .map(|s| (s.claimed_count, s.busy_count, s.idle_count, s.terminating_count));
            counts == Some((claimed, busy, idle, 0))
        })
        .await?;
        Ok(())
    }
}
