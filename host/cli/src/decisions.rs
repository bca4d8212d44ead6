//! What operators tell of late decisions: by an address, or by a port of their pods.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args as ClapArgs;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long an operator may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The port of `stoker run --decisions` in the operator's pods, as the chart has it.
const PORT: u16 = 8082;

/// The label of those pods.
pub const PODS: &str = "app.kubernetes.io/name=stoker";

/// Where operators are found.
#[derive(ClapArgs, Clone)]
pub struct Reach {
    /// The operator's --decisions address, such as 127.0.0.1:8082. Omitted: a port of its pods is forwarded, for which you must be
    /// allowed to forward ports there.
    #[arg(long, env = "STOKER_OPERATOR", value_name = "ADDRESS")]
    operator: Option<String>,
    /// The namespace of the operator's pods.
    #[arg(
        long,
        env = "STOKER_OPERATOR_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "stoker-system"
    )]
    operator_namespace: String,
}

/// A decision of late.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub at: String,
    pub by: String,
    pub raw: u32,
    pub applied: u32,
    pub limited_by: String,
    pub reason: String,
    pub shadow: Option<String>,
}

/// Decisions of late for an object, the newest last.
///
/// # Errors
/// When no operator tells of them, in words.
pub async fn lines(
    client: &Client,
    reach: &Reach,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Vec<Line>> {
    let text = ask(client, reach, &format!("/decisions/{kind}/{namespace}/{name}")).await?;
    serde_json::from_slice(&text).context("the operator's answer is of another version")
}

/// Records of what its policies were asked and answered, as lines of JSON.
///
/// # Errors
/// When no operator tells of them, in words.
pub async fn records(
    client: &Client,
    reach: &Reach,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Bytes> {
    ask(client, reach, &format!("/records/{kind}/{namespace}/{name}")).await
}

/// The fullest answer of the operators: only the one that leads has decided anything.
async fn ask(client: &Client, reach: &Reach, path: &str) -> Result<Bytes> {
    if let Some(address) = &reach.operator {
        let stream = within(async { Ok(TcpStream::connect(address).await?) }).await;
        let stream = stream.with_context(|| format!("no operator tells of its decisions at {address}"))?;
        let answer = within(get(stream, path)).await.with_context(|| format!("the operator at {address}"))?;
        return answer.ok_or_else(|| anyhow!("the operator at {address} does not look after this object"));
    }
    let namespace = &reach.operator_namespace;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods.list(&ListParams::default().labels(PODS)).await;
    let list =
        list.with_context(|| format!("the operator's pods in namespace {namespace} cannot be listed"))?;
    let running = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
    };
    let mut best: Option<Bytes> = None;
    let mut wrong = None;
    for pod in list.items.iter().filter(running) {
        match within(forwarded(&pods, &pod.name_any(), path)).await {
            Ok(Some(answer)) if best.as_ref().is_none_or(|best| answer.len() > best.len()) => {
                best = Some(answer)
            }
            Ok(_) => {}
            Err(error) => wrong = Some(error.context(format!("pod {namespace}/{}", pod.name_any()))),
        }
    }
    match (best, wrong) {
        (Some(answer), _) => Ok(answer),
        (None, Some(error)) => Err(error),
        (None, None) => bail!(
            "no operator runs as a pod of namespace {namespace} and looks after this object; give --operator-namespace, or --operator with the address of `stoker run --decisions`"
        ),
    }
}

async fn forwarded(pods: &Api<Pod>, pod: &str, path: &str) -> Result<Option<Bytes>> {
    let mut forwarder = pods.portforward(pod, &[PORT]).await.context("its port cannot be forwarded")?;
    let stream = forwarder.take_stream(PORT).ok_or_else(|| anyhow!("its port cannot be forwarded"))?;
    get(stream, path)
        .await
        .context("nothing answers at its port 8082; does it run with --decisions 127.0.0.1:8082?")
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.map_err(|_| anyhow!("no answer within {} s", PATIENCE.as_secs()))?
}

/// One request; None = the operator knows no such object.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
) -> Result<Option<Bytes>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection).abort_handle();
    let request = Request::get(path).header("host", "stoker").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    match status {
        StatusCode::OK => Ok(Some(body)),
        StatusCode::NOT_FOUND => Ok(None),
        status => bail!("it answers HTTP {}", status.as_u16()),
    }
}
