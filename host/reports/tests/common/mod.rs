//! A cluster of one's own, the service on loopback addresses, and a plain client.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use stoker_reports::{
    BaseUrl, CallbackUrls, CapabilityKey, Cluster, EventRefused, ExecutionView, Gauge, JobKey, JobView, Keys,
    Limits, Listener, MetricsSpec, NodeState, NodeView, NotReady, PodEvent, PodSlot, ReportLimits, Reports,
    Retention, Store, callback_urls, serve,
};
use tokio::net::TcpStream;
use tokio::sync::watch;

pub const EXECUTION: &str = "202608030910";

pub fn key() -> CapabilityKey {
    CapabilityKey::new(&[42; 32]).unwrap()
}

/// A cluster that is what a test makes it.
#[derive(Default)]
pub struct Fake {
    jobs: Mutex<Option<BTreeMap<JobKey, Arc<JobView>>>>,
    changes: watch::Sender<u64>,
    pub blind: Mutex<bool>,
    pub events: Mutex<Vec<(String, PodEvent)>>,
    pub gone: Mutex<BTreeSet<String>>,
    pub api_down: Mutex<bool>,
}

impl Fake {
    /// A cluster with one job that runs on the nodes.
    pub fn with(nodes: &[&str]) -> Arc<Self> {
        let fake = Arc::new(Self::default());
        fake.put(job(nodes));
        fake
    }

    pub fn put(&self, job: JobView) {
        self.jobs.lock().unwrap().get_or_insert_default().insert(job.key.clone(), Arc::new(job));
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub fn delete(&self, key: &JobKey) {
        self.jobs.lock().unwrap().get_or_insert_default().remove(key);
    }

    pub fn change(&self, change: impl FnOnce(&mut JobView)) {
        let mut jobs = self.jobs.lock().unwrap();
        let job = jobs.as_mut().unwrap().get_mut(&job_key()).unwrap();
        change(Arc::make_mut(job));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Ends an execution; each of its nodes is in that state.
    pub fn end(&self, execution: &str, state: NodeState) {
        let id = execution.parse().unwrap();
        self.change(|job| {
            let execution = job.executions.get_mut(&id).unwrap();
            execution.ended = Some(Timestamp::now());
            for node in execution.nodes.values_mut() {
                node.state = state;
                node.duration = Some(Duration::from_millis(1500));
            }
        });
    }

    pub fn state(&self, execution: &str, node: &str, state: NodeState) {
        let id = execution.parse().unwrap();
        self.change(|job| job.executions.get_mut(&id).unwrap().nodes.get_mut(node).unwrap().state = state);
    }
}

impl Cluster for Fake {
    fn job(&self, key: &JobKey) -> Result<Option<Arc<JobView>>, NotReady> {
        Ok(self.jobs.lock().unwrap().as_ref().ok_or(NotReady)?.get(key).cloned())
    }

    fn jobs(&self) -> Result<Vec<Arc<JobView>>, NotReady> {
        Ok(self.jobs.lock().unwrap().as_ref().ok_or(NotReady)?.values().cloned().collect())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn is_current(&self) -> bool {
        !*self.blind.lock().unwrap()
    }

    fn send_event<'a>(
        &'a self,
        slot: &'a PodSlot,
        event: &'a PodEvent,
    ) -> BoxFuture<'a, Result<(), EventRefused>> {
        Box::pin(async move {
            if *self.api_down.lock().unwrap() {
                return Err(EventRefused::Unavailable("connection refused".into()));
            }
            if self.gone.lock().unwrap().contains(&slot.pod) {
                return Err(EventRefused::PodGone);
            }
            self.events.lock().unwrap().push((slot.pod.clone(), event.clone()));
            Ok(())
        })
    }
}

pub fn job_key() -> JobKey {
    JobKey { namespace: "ops".into(), name: "disks".into() }
}

pub fn job(nodes: &[&str]) -> JobView {
    let gauge = |labels: &[&str]| Gauge {
        help: "help".into(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    JobView {
        key: job_key(),
        uid: "uid-1".into(),
        limits: ReportLimits { bytes_per_upload: 16 << 20, bytes_per_execution: 4 << 30 },
        retention: Retention { history: 30, ttl: None },
        metrics: Some(MetricsSpec {
            prefix: "foo".into(),
            gauges: [
                ("my_metric".to_owned(), gauge(&["label_a", "label_b"])),
                ("plain".to_owned(), gauge(&[])),
            ]
            .into(),
            latest_label: true,
            max_series: 1000,
        }),
        executions: [(EXECUTION.parse().unwrap(), execution(EXECUTION, nodes))].into(),
    }
}

pub fn execution(id: &str, nodes: &[&str]) -> ExecutionView {
    let node = |node: &str| NodeView {
        pod: pod(id, node),
        earlier: vec![format!("{}-early", pod(id, node))],
        state: NodeState::Running,
        duration: None,
    };
    ExecutionView {
        started: Timestamp::UNIX_EPOCH,
        ended: None,
        complete: true,
        nodes: nodes.iter().map(|name| ((*name).to_owned(), node(name))).collect(),
    }
}

pub fn pod(execution: &str, node: &str) -> String {
    format!("disks-job-{node}-{execution}")
}

pub fn slot(execution: &str, node: &str) -> PodSlot {
    PodSlot {
        job: job_key(),
        uid: "uid-1".into(),
        execution: execution.parse().unwrap(),
        node: node.into(),
        pod: pod(execution, node),
    }
}

/// The paths of a pod's URLs.
pub fn urls(slot: &PodSlot) -> CallbackUrls {
    callback_urls(&BaseUrl::parse("http://x").unwrap(), &key(), slot)
}

/// Limits with which nobody waits long for a pod that is not there.
pub fn limits() -> Limits {
    Limits { patience: Duration::from_millis(100), ..Limits::default() }
}

/// A running service.
pub struct Service {
    pub callbacks: SocketAddr,
    pub readers: SocketAddr,
    pub reports: Arc<Reports>,
    pub served: tokio::task::JoinHandle<std::io::Result<()>>,
    pub stop: watch::Sender<bool>,
}

impl Service {
    pub async fn start(root: &Path, cluster: Arc<Fake>) -> Self {
        Self::start_with(Store::local(root).unwrap(), cluster, limits(), None).await
    }

    pub async fn start_with(
        store: Store,
        cluster: Arc<Fake>,
        limits: Limits,
        tls: Option<RustlsConfig>,
    ) -> Self {
        let reports = Reports::new(store, Keys::new(key(), None), cluster, limits);
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (callbacks, readers) = (bind(), bind());
        let (stop, stopped) = watch::channel(false);
        let addresses = (callbacks.local_addr().unwrap(), readers.local_addr().unwrap());
        let (callbacks, readers) =
            (Listener { socket: callbacks, tls }, Listener { socket: readers, tls: None });
        let served = tokio::spawn(serve(reports.clone(), callbacks, readers, stopped));
        Self { callbacks: addresses.0, readers: addresses.1, reports, served, stop }
    }

    pub async fn post(&self, url: &str, body: impl Into<Bytes>) -> Answer {
        self.post_with(url, &[], body).await
    }

    pub async fn post_with(&self, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        request(self.callbacks, "POST", path(url), headers, body.into()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.readers, "GET", path, headers, Bytes::new()).await
    }

    pub async fn metrics(&self) -> String {
        self.reports.upkeep().await.unwrap();
        self.get("/metrics").await.text()
    }
}

/// A URL without scheme and host.
pub fn path(url: &str) -> &str {
    url.strip_prefix("http://x").unwrap_or(url)
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn code(&self) -> u16 {
        self.status.as_u16()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub async fn request(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Answer {
    try_request(at, method, path, headers, body).await.unwrap()
}

/// `None` if the server is not there, or goes away before it has answered.
pub async fn try_request(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Option<Answer> {
    let stream = TcpStream::connect(at).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "reports");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Full::new(body)).unwrap()).await.ok()?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Answer { status: head.status, headers: head.headers, body })
}

/// All files beneath a directory, by their path in it.
pub fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// What an execution's folder holds beside its description.
pub fn kept(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let prefix = format!("ops/disks/{EXECUTION}/");
    let files = tree(root).into_iter();
    let files = files.map(|(name, body)| (name.strip_prefix(&prefix).unwrap_or(&name).to_owned(), body));
    files.filter(|(name, _)| name != ".execution.json").collect()
}
