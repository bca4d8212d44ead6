//! The claim server as a client sees it: where it is, who asks, and what it answers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args as ClapArgs, ValueEnum};
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use serde::Serialize;
use stoker_api::{ClaimRequest, GrantedClaim, Problem, RenewRequest};

/// Where a pod finds its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The bearer token, so that it is on no command line.
const TOKEN: &str = "STOKER_CLAIMS_TOKEN";

/// How long an answer may take beyond the wait that was asked for: reviews of the account, and a pod's write that is
/// tried for 20 s.
const BEYOND: Duration = Duration::from_secs(60);

/// A kind of pool.
#[derive(Clone, Copy, ValueEnum)]
pub enum PoolKind {
    #[value(name = "HotStandbyDeployment", alias = "hsd")]
    Deployment,
    #[value(name = "HotStandbyJob", alias = "hsj")]
    Job,
}

/// How the claim server is reached.
#[derive(ClapArgs)]
pub struct Reach {
    /// The pool's namespace. Omitted: that of the kubeconfig's current context, or of the pod that this runs in.
    #[arg(long, short = 'n')]
    namespace: Option<String>,
    /// The pool's kind. Omitted: a HotStandbyDeployment comes before a HotStandbyJob of the same name.
    #[arg(long, value_enum, ignore_case = true)]
    kind: Option<PoolKind>,
    /// The claim server, such as https://stoker.example:8443.
    #[arg(long, env = "STOKER_CLAIMS_URL", value_name = "URL")]
    server: Option<String>,
    /// Who signed the server's certificate, a PEM file. Omitted: those whom the system trusts.
    #[arg(long, env = "STOKER_CLAIMS_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The bearer token's file, read for each request. Omitted: the environment variable STOKER_CLAIMS_TOKEN, the
    /// service account of the pod that this runs in, or the token of the kubeconfig.
    #[arg(long, value_name = "FILE")]
    bearer_file: Option<PathBuf>,
    /// Send the bearer token over plain http to other than loopback addresses.
    #[arg(long)]
    insecure: bool,
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The server refuses; its own words.
    #[error("{}", problem.message)]
    Refused { status: u16, problem: Problem, retry_after: Option<Duration> },
    /// It does not answer, or somebody else does.
    #[error("{0}")]
    Unanswered(String),
}

impl Failed {
    /// Whether the claim is over.
    pub fn over(&self) -> bool {
        matches!(self, Self::Refused { status: 404, problem, .. } if problem.reason == "NoSuchClaim")
    }

    /// After what time another attempt may do; None = not before somebody has changed something.
    pub fn again(&self) -> Option<Duration> {
        let second = Duration::from_secs(1);
        match self {
            Self::Unanswered(_) => Some(second),
            Self::Refused { retry_after: Some(after), .. } => Some(*after),
            Self::Refused { status: 500.., .. } => Some(second),
            Self::Refused { .. } => None,
        }
    }
}

/// The claims of one pool.
pub struct Server {
    client: Client,
    url: String,
    namespace: String,
    name: String,
    query: &'static str,
    bearer_file: Option<PathBuf>,
}

impl Reach {
    /// The claims of a pool, with all that can be known to be wrong before asking.
    pub async fn connect(self, pool: &str) -> anyhow::Result<Server> {
        let given = self.server.context(
            "no claim server: give --server URL or set STOKER_CLAIMS_URL to where `stoker run --claims` serves",
        )?;
        let url = address(&given, self.insecure)?;
        let namespace = match self.namespace {
            Some(namespace) => namespace,
            None => namespace().await?,
        };
        for (what, name) in [("namespace", namespace.as_str()), ("pool", pool)] {
            part(name).with_context(|| format!("{what} `{name}`"))?;
        }
        let mut config = Config::new(url);
        config.default_retry = false;
        if let Some(ca) = self.ca {
            std::fs::read(&ca).with_context(|| format!("--ca {}", ca.display()))?;
            // None but those of the file.
            config.root_cert = Some(Vec::new());
            config.root_cert_file = Some(ca);
        }
        let mut bearer_file = self.bearer_file;
        if bearer_file.is_none() {
            let (file, info) = bearer().await?;
            (bearer_file, config.auth_info) = (file, info);
        }
        if let Some(file) = &bearer_file {
            read(file)?;
        }
        let client = Client::try_from(config).with_context(|| format!("cannot connect to {given}"))?;
        let query = match self.kind {
            None => "",
            Some(PoolKind::Deployment) => "?kind=HotStandbyDeployment",
            Some(PoolKind::Job) => "?kind=HotStandbyJob",
        };
        Ok(Server { client, url: given, namespace, name: pool.to_owned(), query, bearer_file })
    }
}

impl Server {
    /// The pool, for messages.
    pub fn pool(&self) -> String {
        format!("pool {} in namespace {}", self.name, self.namespace)
    }

    /// The command that releases a claim, for messages.
    pub fn release_command(&self, id: &str) -> String {
        format!("stoker release -n {} {} {id}", self.namespace, self.name)
    }

    /// Claims a pod.
    pub async fn claim(&self, request: &ClaimRequest) -> Result<GrantedClaim, Failed> {
        let most = BEYOND + Duration::from_secs(u64::from(request.wait_seconds));
        let granted = self.send(Method::POST, "", Some(request), most).await;
        granted.map_err(|failed| match (failed, &request.token) {
            (Failed::Unanswered(why), Some(token)) => {
                Failed::Unanswered(format!("{why}; if it was granted, --token {token} gets the same pod"))
            }
            (failed, _) => failed,
        })
    }

    /// Lets a claim last for so long from now.
    pub async fn renew(&self, id: &str, ttl_seconds: u32) -> Result<GrantedClaim, Failed> {
        self.send(Method::POST, &format!("/{id}/renew"), Some(&RenewRequest { ttl_seconds }), BEYOND).await
    }

    /// Ends a claim.
    pub async fn release(&self, id: &str) -> Result<GrantedClaim, Failed> {
        part(id).map_err(|error| Failed::Unanswered(format!("no claim has this name: {error}")))?;
        self.send(Method::DELETE, &format!("/{id}"), None::<&()>, BEYOND).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        most: Duration,
    ) -> Result<GrantedClaim, Failed> {
        let answered = tokio::time::timeout(most, self.exchange(method, path, body)).await;
        let answered =
            answered.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", most.as_secs())));
        let (status, retry_after, bytes) = answered.map_err(|error| {
            Failed::Unanswered(format!(
                "the claim server at {} does not answer: {error:#}; check the address, and that the operator runs with --claims",
                self.url
            ))
        })?;
        if (200..300).contains(&status)
            && let Ok(granted) = serde_json::from_slice(&bytes)
        {
            return Ok(granted);
        }
        if let Ok(problem) = serde_json::from_slice(&bytes) {
            return Err(Failed::Refused { status, problem, retry_after });
        }
        let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        let url = &self.url;
        Err(Failed::Unanswered(format!(
            "at {url} no claim server answers, but somebody with {status} {text:?}"
        )))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<(u16, Option<Duration>, Vec<u8>)> {
        let Self { namespace, name, query, .. } = self;
        let uri = format!("/v1/namespaces/{namespace}/pools/{name}/claims{path}{query}");
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(file) = &self.bearer_file {
            request = request.header(AUTHORIZATION, read(file)?);
        }
        let body = match body {
            None => Vec::new(),
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                serde_json::to_vec(body)?
            }
        };
        let response = self.client.send(request.body(Body::from(body))?).await?;
        let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((status, after.map(Duration::from_secs), bytes.to_vec()))
    }
}

/// Checks that a server's address is one, and that it keeps tokens to itself.
fn address(text: &str, insecure: bool) -> anyhow::Result<Uri> {
    let uri: Uri = text.parse().with_context(|| format!("--server {text}"))?;
    let host = uri.host().filter(|host| !host.is_empty());
    let (Some("http" | "https"), Some(host)) = (uri.scheme_str(), host) else {
        bail!("--server {text}: write for example https://stoker.example:8443");
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if uri.scheme_str() == Some("http") && !loopback && !insecure {
        bail!(
            "--server {text}: over http the bearer token would travel in clear; use https, or --insecure where the network is trusted"
        );
    }
    Ok(uri)
}

/// Checks a part of a path: names of Kubernetes' objects have letters, digits, dots and hyphens.
fn part(name: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if name.is_empty() || name.chars().all(|c| c == '.') || !name.chars().all(plain) {
        bail!("`{name}` must be letters, digits, dots and hyphens");
    }
    Ok(())
}

/// The header for the token of a file.
fn read(file: &Path) -> anyhow::Result<HeaderValue> {
    let token = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the bearer token in {}", file.display()))?;
    let header = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok();
    let mut header = header
        .filter(|_| !token.trim().is_empty())
        .with_context(|| format!("{} holds no token", file.display()))?;
    header.set_sensitive(true);
    Ok(header)
}

async fn namespace() -> anyhow::Result<String> {
    if let Ok(config) = Config::from_kubeconfig(&Default::default()).await {
        return Ok(config.default_namespace);
    }
    let own = std::fs::read_to_string(Path::new(ACCOUNT).join("namespace"));
    let own = own.ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    own.context("no namespace: give --namespace, there is neither a kubeconfig nor a pod's own")
}

/// The bearer token: its file, or what a kubeconfig tells.
async fn bearer() -> anyhow::Result<(Option<PathBuf>, AuthInfo)> {
    if let Ok(token) = std::env::var(TOKEN)
        && !token.is_empty()
    {
        return Ok((None, AuthInfo { token: Some(token.into()), ..AuthInfo::default() }));
    }
    let own = Path::new(ACCOUNT).join("token");
    if own.exists() {
        return Ok((Some(own), AuthInfo::default()));
    }
    let nobody = || {
        format!(
            "no bearer token: give --bearer-file, set {TOKEN}, for example by `export {TOKEN}=$(kubectl create token ACCOUNT)`, or use a kubeconfig with a token"
        )
    };
    let user = Config::from_kubeconfig(&Default::default()).await.with_context(nobody)?.auth_info;
    // Certificates are of no use to the claim server, which asks for a token.
    let user =
        AuthInfo { token: user.token, token_file: user.token_file, exec: user.exec, ..AuthInfo::default() };
    if user.token.is_none() && user.exec.is_none() {
        let file = user.token_file.with_context(nobody)?;
        return Ok((Some(file.into()), AuthInfo::default()));
    }
    Ok((None, user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_do_not_travel_in_clear_unless_that_is_asked_for() {
        for good in
            ["http://127.0.0.1:8443", "http://localhost:1", "http://[::1]:1", "https://stoker.example"]
        {
            assert!(address(good, false).is_ok(), "{good}");
        }
        let error = address("http://stoker.example:8443", false).unwrap_err().to_string();
        assert!(error.contains("would travel in clear; use https, or --insecure"), "{error}");
        assert!(address("http://stoker.example:8443", true).is_ok());
        for bad in ["stoker.example:8443", "ftp://stoker.example", "/claims", ""] {
            assert!(address(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_of_a_path_leads_nowhere_else() {
        assert!(part("game-7.0123abcd").is_ok());
        for bad in ["", "..", ".", "a/b", "a?b", "a b", "ä", "a%2fb"] {
            assert!(part(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_may_be_tried_again_is_told_from_what_may_not() {
        let refused = |status, reason: &str, after: Option<u64>| Failed::Refused {
            status,
            problem: Problem { reason: reason.to_owned(), message: String::new() },
            retry_after: after.map(Duration::from_secs),
        };
        assert!(refused(404, "NoSuchClaim", None).over());
        assert!(!refused(404, "NoSuchPool", None).over());
        assert_eq!(refused(429, "TooManyRequests", Some(5)).again(), Some(Duration::from_secs(5)));
        assert_eq!(refused(503, "Unanswered", None).again(), Some(Duration::from_secs(1)));
        assert_eq!(refused(403, "Forbidden", None).again(), None);
        assert!(Failed::Unanswered(String::new()).again().is_some());
    }
}
