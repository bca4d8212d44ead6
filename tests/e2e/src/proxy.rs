//! A relay between an operator and the API server that goes wrong on purpose, by a seed. The operator speaks
//! plain HTTP to it, so that it can see requests, and it speaks to the API server as the operator would.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::SinkExt as _;
use futures::channel::mpsc;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::account::{self, OPERATOR};
use crate::random::Random;
use crate::root;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The answer takes up to two seconds more.
    Slow,
    /// The connection ends before the request reached the API server.
    CutBefore,
    /// The connection ends after the request was carried out, before its answer.
    CutAfter,
    /// A write is refused with 409, although nothing is in its way.
    Conflict,
    /// 429 with Retry-After.
    TooMany,
    /// 500, and nothing was done.
    Broken,
    /// 500, although the request was carried out.
    BrokenAfter,
    /// 504, although the request was carried out.
    Timeout,
    /// A watch ends in the middle.
    WatchCut,
    /// A watch is told 410: its version is too old.
    Gone,
    /// A watch's events come up to a second late.
    Late,
}

impl Fault {
    pub const ALL: [Self; 11] = [
        Self::Slow,
        Self::CutBefore,
        Self::CutAfter,
        Self::Conflict,
        Self::TooMany,
        Self::Broken,
        Self::BrokenAfter,
        Self::Timeout,
        Self::WatchCut,
        Self::Gone,
        Self::Late,
    ];

    /// Whether it can befall a request.
    fn befalls(self, method: &Method, watches: bool) -> bool {
        match self {
            Self::Conflict => method != Method::GET,
            Self::Gone => watches,
            // What has begun to answer cannot be answered otherwise any more.
            Self::CutAfter | Self::BrokenAfter | Self::Timeout => !watches,
            Self::Slow | Self::CutBefore | Self::TooMany | Self::Broken => true,
            Self::WatchCut | Self::Late => false,
        }
    }
}

/// So many of a hundred requests go wrong.
const CHANCE: u64 = 40;

/// The connection is cut: hyper ends it when a request's service fails.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

type Body = UnsyncBoxBody<Bytes, Cut>;

struct Shared {
    upstream: Client,
    random: Mutex<Random>,
    faults: watch::Sender<Vec<Fault>>,
    /// Nothing gets through in either direction.
    dark: watch::Sender<bool>,
    done: Mutex<BTreeMap<Fault, usize>>,
}

/// The relay; it ends when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts it. Nothing goes wrong before [`Proxy::spoil`].
    pub async fn start(namespace: &str, random: Random) -> Result<Self> {
        let mut config = crate::config_by(&account::kubeconfig(namespace, OPERATOR)).await?;
        // What the API server answers is the operator's to deal with.
        config.default_retry = false;
        let upstream = Client::try_from(config)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let kubeconfig = root().join(format!("target/e2e/{namespace}.kubeconfig"));
        std::fs::create_dir_all(root().join("target/e2e"))?;
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "spoilt", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "spoilt", "user": {}}],
            "contexts": [{"name": "spoilt", "context": {"cluster": "spoilt", "user": "spoilt"}}],
            "current-context": "spoilt",
        });
        std::fs::write(&kubeconfig, content.to_string())
            .with_context(|| format!("{} cannot be written", kubeconfig.display()))?;
        let shared = Arc::new(Shared {
            upstream,
            random: Mutex::new(random),
            faults: watch::channel(Vec::new()).0,
            dark: watch::channel(false).0,
            done: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, kubeconfig, task })
    }

    /// The kubeconfig for whoever is to go through it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// From now on these go wrong, in watches that last already, too. None: all is well.
    pub fn spoil(&self, faults: &[Fault]) {
        self.shared.faults.send_replace(faults.to_vec());
    }

    /// From now on nothing gets through in either direction, and nobody is told so.
    pub fn cut_off(&self) {
        self.shared.dark.send_replace(true);
    }

    /// How often each fault happened.
    pub fn done(&self) -> BTreeMap<Fault, usize> {
        lock(&self.shared.done).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A number below the limit.
    fn below(&self, limit: u64) -> u64 {
        lock(&self.random).below(limit)
    }

    fn millis(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least))
    }

    fn count(&self, fault: Fault) {
        *lock(&self.done).entry(fault).or_default() += 1;
    }

    /// Waits until something gets through.
    async fn light(&self) {
        // The sender lives as long as this.
        self.dark.subscribe().wait_for(|dark| !*dark).await.ok();
    }

    fn on(&self, fault: Fault) -> bool {
        self.faults.borrow().contains(&fault)
    }

    /// What befalls a request.
    fn draw(&self, method: &Method, watches: bool) -> Option<Fault> {
        let faults: Vec<Fault> =
            self.faults.borrow().iter().copied().filter(|f| f.befalls(method, watches)).collect();
        if faults.is_empty() || !lock(&self.random).percent(CHANCE) {
            return None;
        }
        let fault = faults[self.below(faults.len() as u64) as usize];
        self.count(fault);
        Some(fault)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // An error is most often a cut on purpose, or the operator's own.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    shared.light().await;
    let method = request.method().clone();
    let watches = request.uri().query().is_some_and(|q| q.split('&').any(|p| p.starts_with("watch=")));
    let fault = shared.draw(&method, watches);
    match fault {
        Some(Fault::CutBefore) => return Err(Cut),
        Some(Fault::Conflict) => {
            let reason = if method == Method::POST { "AlreadyExists" } else { "Conflict" };
            return Ok(status(StatusCode::CONFLICT, reason, "in the way of nothing"));
        }
        Some(Fault::TooMany) => {
            let mut answer = status(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "come later");
            answer.headers_mut().insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("1"));
            return Ok(answer);
        }
        Some(Fault::Broken) => {
            return Ok(status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "broken"));
        }
        Some(Fault::Gone) => return Ok(status(StatusCode::GONE, "Expired", "too old resource version")),
        Some(Fault::Slow) => sleep(shared.millis(100, 2000)).await,
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let request = Request::from_parts(parts, kube::client::Body::from(body));
    let Ok(response) = shared.upstream.send(request).await else { return Err(Cut) };
    let (parts, body) = response.into_parts();
    if watches {
        let (events, out) = mpsc::channel(0);
        tokio::spawn(relay(shared, body, events));
        return Ok(Response::from_parts(parts, StreamBody::new(out).boxed_unsync()));
    }
    let whole = body.collect().await.map_err(|_| Cut)?.to_bytes();
    shared.light().await;
    match fault {
        Some(Fault::CutAfter) => Err(Cut),
        Some(Fault::BrokenAfter) => {
            Ok(status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "broken, after all was done"))
        }
        Some(Fault::Timeout) => {
            Ok(status(StatusCode::GATEWAY_TIMEOUT, "Timeout", "it took too long, after all was done"))
        }
        _ => Ok(Response::from_parts(parts, full(whole))),
    }
}

/// Hands a watch's events on until it ends, or is ended.
async fn relay(
    shared: Arc<Shared>,
    mut body: kube::client::Body,
    mut out: mpsc::Sender<Result<Frame<Bytes>, Cut>>,
) {
    let mut faults = shared.faults.subscribe();
    let mut end = shared.end();
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    shared.light().await;
                    if shared.on(Fault::Late) && lock(&shared.random).percent(CHANCE) {
                        shared.count(Fault::Late);
                        sleep(shared.millis(50, 1000)).await;
                    }
                    if out.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
                Some(Err(_)) => {
                    out.send(Err(Cut)).await.ok();
                    return;
                }
                None => return,
            },
            () = sleep_until(end.map_or_else(Instant::now, |(at, _)| at)), if end.is_some() => {
                if let Some((_, fault)) = end {
                    shared.count(fault);
                    let expired = json!({"type": "ERROR", "object": failure(StatusCode::GONE, "Expired", "too old resource version")});
                    let last = if fault == Fault::Gone {
                        Ok(Frame::data(Bytes::from(format!("{expired}\n"))))
                    } else {
                        Err(Cut)
                    };
                    out.send(last).await.ok();
                }
                return;
            }
            changed = faults.changed() => {
                if changed.is_err() {
                    return;
                }
                end = shared.end();
            }
        }
    }
}

impl Shared {
    /// When a watch is ended, and how.
    fn end(&self) -> Option<(Instant, Fault)> {
        let ends: Vec<Fault> =
            [Fault::WatchCut, Fault::Gone].into_iter().filter(|fault| self.on(*fault)).collect();
        if ends.is_empty() {
            return None;
        }
        let fault = ends[self.below(ends.len() as u64) as usize];
        Some((Instant::now() + self.millis(50, 1500), fault))
    }
}

fn failure(code: StatusCode, reason: &str, words: &str) -> serde_json::Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": words,
        "reason": reason,
        "code": code.as_u16(),
    })
}

fn status(code: StatusCode, reason: &str, words: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(failure(code, reason, words).to_string())));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}
