//! Logs of pods that have ended, brought to the report service: it keeps them like files that the pod itself had sent, and
//! needs no right to read logs.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures::stream::{self, BoxStream};
use futures::{AsyncReadExt as _, StreamExt as _, TryStreamExt as _};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use crate::again::ERRORS;
use crate::context::Context;
use crate::object::Key;

/// Logs that are saved at a time.
const AT_A_TIME: usize = 8;

/// Saving the log of one container takes no longer.
const LONGEST: Duration = Duration::from_secs(120);

/// Bytes that are read at a time.
const PIECE: usize = 16 << 10;

/// Pods that are remembered before those of which nobody has asked for long are forgotten.
const FORGET: Duration = Duration::from_secs(3600);

type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

/// A pod whose log is to be saved.
pub struct LogOf {
    pub owner: Key,
    pub pod: String,
    pub uid: String,
    pub containers: Vec<String>,
    /// Where the pod sends files.
    pub file_url: String,
    /// Bytes of a container's log that are kept.
    pub most: u64,
}

/// How far a pod's log is.
#[derive(Clone, Copy)]
enum State {
    UnderWay,
    Saved,
    /// It failed so often, and is tried again then.
    Failed(u32, Instant),
}

/// Logs that are saved, and those that have been.
pub struct PodLogs {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    states: Mutex<HashMap<String, (Instant, State)>>,
    permits: Semaphore,
}

/// Why a log was not saved.
#[derive(Debug, thiserror::Error)]
enum NotSaved {
    #[error("it cannot be read: {0}")]
    Unread(#[from] kube::Error),
    #[error("the report service does not answer: {0}")]
    Unreachable(String),
    #[error("the report service answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error("it took longer than {} s", LONGEST.as_secs())]
    TooLong,
}

/// The certificates that are trusted, from a PEM file; without one none is, and only plain HTTP works.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn trusted(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else { return Ok(roots) };
    let read = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    for certificate in read {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

impl PodLogs {
    pub fn new(roots: RootCertStore) -> Self {
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            states: Mutex::default(),
            permits: Semaphore::new(AT_A_TIME),
        }
    }

    /// Whether nothing more is to be done about a pod's log.
    pub fn saved(&self, uid: &str) -> bool {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((asked, state)) = states.get_mut(uid) else { return false };
        *asked = Instant::now();
        matches!(state, State::Saved)
    }

    fn put(&self, uid: &str, state: State) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.insert(uid.to_owned(), (Instant::now(), state));
        states.retain(|_, (asked, _)| asked.elapsed() < FORGET);
    }

    /// Takes up a pod; how often it has failed so far. None = that is not due.
    fn take(&self, uid: &str) -> Option<u32> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = match states.get(uid) {
            Some((_, State::UnderWay | State::Saved)) => return None,
            Some((_, State::Failed(_, again))) if *again > Instant::now() => return None,
            Some((_, State::Failed(failures, _))) => *failures,
            None => 0,
        };
        states.insert(uid.to_owned(), (Instant::now(), State::UnderWay));
        Some(failures)
    }

    /// Has a pod's log saved, unless that is done or under way; its owner is looked at afterwards.
    pub fn save(&self, context: &Arc<Context>, log: LogOf) {
        let Some(failures) = self.take(&log.uid) else { return };
        let context = context.clone();
        tokio::spawn(async move {
            let logs = &context.pod_logs;
            let saved = logs.all(&context, &log).await;
            let (key, pod) = (&log.owner, &log.pod);
            match saved {
                Ok(()) => {
                    context.metrics.node_batches.log("saved");
                    logs.put(&log.uid, State::Saved);
                    context.trigger(key);
                }
                Err(error) => {
                    context.metrics.node_batches.log("failed");
                    tracing::warn!(object = %key, pod, %error, "a pod's log was not saved, trying again");
                    let wait = ERRORS.after(failures + 1);
                    logs.put(&log.uid, State::Failed(failures + 1, Instant::now() + wait));
                    tokio::time::sleep(wait).await;
                    context.trigger(key);
                }
            }
        });
    }

    async fn all(&self, context: &Context, log: &LogOf) -> Result<(), NotSaved> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        for container in &log.containers {
            let saved = tokio::time::timeout(LONGEST, self.one(context, log, container)).await;
            saved.unwrap_or(Err(NotSaved::TooLong))?;
        }
        Ok(())
    }

    async fn one(&self, context: &Context, log: &LogOf, container: &str) -> Result<(), NotSaved> {
        let pods: Api<Pod> = Api::namespaced(context.client.clone(), &log.owner.namespace);
        let params = LogParams {
            container: Some(container.to_owned()),
            limit_bytes: i64::try_from(log.most).ok(),
            ..LogParams::default()
        };
        let read = match pods.log_stream(&log.pod, &params).await {
            Ok(read) => Box::pin(read),
            // The container never ran, or its log is gone: there is nothing to keep.
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // What the kubelet sends may be a little more than it was asked for.
        let pieces = stream::try_unfold((read, log.most), |(mut read, left)| async move {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            let size = read.read(&mut piece).await?;
            piece.truncate(size);
            let left = left - size as u64;
            Ok::<_, io::Error>((size > 0).then(|| (Frame::data(Bytes::from(piece)), (read, left))))
        });
        let request = Request::post(format!("{}?name=container-{container}.log", log.file_url))
            .header(header::CONTENT_TYPE, "text/plain")
            .body(StreamBody::new(pieces.map_err(io::Error::other).boxed()))
            .map_err(|error| NotSaved::Unreachable(error.to_string()))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| NotSaved::Unreachable(in_full(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let words = http_body_util::BodyExt::collect(http_body_util::Limited::new(answer.into_body(), 1024));
        let words = words.await.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        Err(NotSaved::Refused(status, words.unwrap_or_default()))
    }
}

/// An error with what caused it.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_taken_up_once_and_again_after_a_failure_when_its_time_has_come() {
        let logs = PodLogs::new(RootCertStore::empty());
        assert_eq!(logs.take("a"), Some(0));
        assert_eq!(logs.take("a"), None, "it is under way");
        logs.put("a", State::Failed(2, Instant::now() + FORGET));
        assert_eq!(logs.take("a"), None, "it waits");
        logs.put("a", State::Failed(2, Instant::now()));
        assert_eq!(logs.take("a"), Some(2));
        assert!(!logs.saved("a"));
        logs.put("a", State::Saved);
        assert!(logs.saved("a") && logs.take("a").is_none() && !logs.saved("b"));
    }
}
