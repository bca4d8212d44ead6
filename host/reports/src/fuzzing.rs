//! The way of a body into a store, for tests and fuzzers: no sockets, no disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use object_store::memory::InMemory;

use crate::cluster::{ExecutionView, Gauge, MetricsSpec};
use crate::execution::Executions;
use crate::gate::Limits;
use crate::intake::{self, Target};
use crate::names::MANIFEST;
use crate::refusal::Refusal;
use crate::result;
use crate::slot::{ExecutionId, JobKey, PodSlot};
use crate::store::{self, Store};
use crate::upload::Incoming;

pub use crate::names::{owner, uploaded_file};

/// Most bytes of a body, and of what it may leave.
const MOST: u64 = 1 << 20;
/// Most samples of a result.
pub const MOST_SAMPLES: usize = 5;

/// What was kept, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a file callback consists of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upload<'a> {
    /// `?name=`
    pub name: Option<&'a str>,
    /// Headers.
    pub content_type: &'a [u8],
    pub disposition: &'a [u8],
    pub body: &'a [u8],
    /// It comes in pieces of those lengths over and over.
    pub pieces: &'a [usize],
}

/// Takes a file callback as the node `n` sends it. Returns what was answered and what is kept; `None` where nobody can send
/// that.
pub fn upload(upload: Upload<'_>) -> Option<(Result<u64, String>, Files)> {
    let mut headers = HeaderMap::new();
    for (name, value) in
        [(header::CONTENT_TYPE, upload.content_type), (header::CONTENT_DISPOSITION, upload.disposition)]
    {
        if !value.is_empty() {
            headers.insert(name, HeaderValue::from_bytes(value).ok()?);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
    let (answer, files) = runtime.block_on(take(&headers, upload)).ok()?;
    Some((answer.map_err(|refusal| refusal.to_string()), files))
}

/// What of a result's body becomes series of the gauge `g` with the labels `a` and `b`.
pub fn values(body: &[u8]) -> Result<Vec<f64>, String> {
    let read = result::parse(body).map_err(|error| error.to_string())?;
    let gauge = Gauge { help: String::new(), labels: vec!["a".into(), "b".into()] };
    let gauges = [("g".to_owned(), gauge)].into();
    let spec = MetricsSpec { gauges, max_series: MOST_SAMPLES, ..MetricsSpec::default() };
    Ok(result::samples(&read, Some(&spec)).0.into_iter().map(|sample| sample.value).collect())
}

async fn take(headers: &HeaderMap, upload: Upload<'_>) -> Result<(Result<u64, Refusal>, Files), Refusal> {
    let store = Store::over(Arc::new(InMemory::new()));
    let view = ExecutionView {
        started: jiff::Timestamp::UNIX_EPOCH,
        ended: None,
        nodes: BTreeMap::new(),
        complete: true,
    };
    let execution: ExecutionId = "1".parse().map_err(|_| Refusal::Forged)?;
    let job = JobKey { namespace: "ns".into(), name: "job".into() };
    let slot = PodSlot { job, uid: "u".into(), execution, node: "n".into(), pod: "p".into() };
    let execution = Executions::new(store.clone()).open(&slot, &view).await?;
    let target = Target { store: &store, execution: &execution, node: "n", limit: MOST };
    let mut incoming = Incoming::new(split(upload.body, upload.pieces), headers, MOST, &Limits::default());
    let answer = intake::keep(&target, headers, upload.name, &mut incoming).await;
    let mut files = Files::new();
    for file in store.files(&execution.folder).await? {
        let Some(path) = store::file(&execution.folder, &file.name) else { continue };
        let content = store.read(&path, MOST).await?.unwrap_or_default();
        files.insert(file.name, content.to_vec());
    }
    files.remove(MANIFEST);
    Ok((answer, files))
}

fn split(body: &[u8], pieces: &[usize]) -> Body {
    let mut rest = Bytes::copy_from_slice(body);
    let mut split = Vec::new();
    for length in pieces.iter().chain([&1]).cycle() {
        if rest.is_empty() {
            break;
        }
        split.push(Ok::<_, std::io::Error>(rest.split_to((*length).min(rest.len()))));
    }
    Body::from_stream(futures::stream::iter(split))
}
