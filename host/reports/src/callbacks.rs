//! The three callbacks of a pod: `POST …/result`, `…/file`, `…/event`, each answered with an empty 200 once it is durable.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::capability::PREFIX;
use crate::cluster::{self, Standing};
use crate::event::PodEvent;
use crate::execution::Execution;
use crate::gate::{Pass, UNIT};
use crate::intake::{self, Target};
use crate::metrics::Answer;
use crate::names;
use crate::refusal::Refusal;
use crate::result;
use crate::service::Reports;
use crate::slot::{JobKey, PodSlot};
use crate::store;
use crate::upload::Incoming;

/// What pods may reach. It reads nothing back.
pub fn router(reports: Arc<Reports>) -> Router {
    let stem = format!("{PREFIX}/{{namespace}}/{{job}}/{{uid}}/{{execution}}/{{node}}/{{pod}}/{{proof}}");
    Router::new()
        .route(&format!("{stem}/result"), post(post_result))
        .route(&format!("{stem}/file"), post(post_file))
        .route(&format!("{stem}/event"), post(post_event))
        .fallback(|| async { (StatusCode::NOT_FOUND, "use CALLBACK_SERVICE_…_URL as it is\n") })
        .method_not_allowed_fallback(|| async {
            (StatusCode::METHOD_NOT_ALLOWED, "reports are sent by POST\n")
        })
        // Bodies are bounded by what the NodeBatchJob allows.
        .layer(DefaultBodyLimit::disable())
        .with_state(reports)
}

type Parts = (String, String, String, String, String, String, String);

/// The pod that the URL was made for.
fn proven(reports: &Reports, parts: Parts) -> Result<PodSlot, Refusal> {
    let (namespace, name, uid, execution, node, pod, proof) = parts;
    let execution = execution.parse().map_err(|_| Refusal::Forged)?;
    let slot = PodSlot { job: JobKey { namespace, name }, uid, execution, node, pod };
    if reports.proves(&slot, &proof) { Ok(slot) } else { Err(Refusal::Forged) }
}

/// What is known of the pod. Its watch may be late; a pod that Stoker has made is not turned away for that.
async fn known(reports: &Reports, slot: &PodSlot) -> Result<Standing, Refusal> {
    if let Ok(standing) = cluster::look(&*reports.cluster, slot) {
        return Ok(standing);
    }
    let _pass = reports.gate.stranger(slot)?;
    Ok(cluster::standing(&*reports.cluster, slot, reports.limits.patience).await?)
}

/// Counts an answer, and reads on a little where a sender might not hear it.
async fn answer(
    reports: &Reports,
    kind: &'static str,
    done: Result<(), Refusal>,
    incoming: Option<&mut Incoming>,
) -> Response {
    let response = match done {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => {
            // Strangers get no more of the service's time.
            if let (Some(incoming), false) = (incoming, matches!(refusal, Refusal::Forged | Refusal::Slow)) {
                incoming.drain().await;
            }
            tracing::debug!(kind, %refusal, "a callback is refused");
            let words = refusal.to_string();
            let response = refusal.into_response();
            if response.status().is_server_error() {
                // What the sender cannot mend, whoever runs the service is to know.
                tracing::warn!(kind, words, "a callback could not be taken");
            }
            response
        }
    };
    let code = response.status().as_u16();
    reports.counters.answers.get_or_create(&Answer { kind, code }).inc();
    response
}

/// One more under way, until it is dropped.
struct UnderWay<'a>(&'a Reports);

impl<'a> UnderWay<'a> {
    fn new(reports: &'a Reports) -> Self {
        reports.counters.under_way.inc();
        Self(reports)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.counters.under_way.dec();
    }
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

async fn post_file(
    State(reports): State<Arc<Reports>>,
    Path(parts): Path<Parts>,
    query: Result<Query<Named>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let _under_way = UnderWay::new(&reports);
    let name = query.ok().and_then(|Query(named)| named.name);
    let limits = &reports.limits;
    let mut incoming = Incoming::new(body, &headers, 0, limits);
    let done = take_file(&reports, parts, &headers, name.as_deref(), &mut incoming).await;
    answer(&reports, "file", done, Some(&mut incoming)).await
}

async fn take_file(
    reports: &Reports,
    parts: Parts,
    headers: &HeaderMap,
    name: Option<&str>,
    incoming: &mut Incoming,
) -> Result<(), Refusal> {
    let slot = proven(reports, parts)?;
    let known = known(reports, &slot).await?;
    let _pass = reports.gate.upload(&slot)?;
    incoming.limit(known.job.limits.bytes_per_upload);
    incoming.check_declared()?;
    let execution = opened(reports, &slot, &known).await?;
    let limit = known.job.limits.bytes_per_execution;
    let target = Target { store: &reports.store, execution: &execution, node: &slot.node, limit };
    let bytes = intake::keep(&target, headers, name, incoming).await?;
    reports.counters.bytes.inc_by(bytes);
    Ok(())
}

async fn opened(reports: &Reports, slot: &PodSlot, known: &Standing) -> Result<Arc<Execution>, Refusal> {
    let missing = || Refusal::Unknown(cluster::Unknown::Execution(slot.execution.clone()));
    let view = known.job.executions.get(&slot.execution).ok_or_else(missing)?;
    reports.executions.open(slot, view).await
}

/// A message's body, with the room that it takes in memory.
struct Message {
    body: Bytes,
    _room: Vec<OwnedSemaphorePermit>,
    _pass: Pass,
}

async fn read_message(
    reports: &Reports,
    slot: &PodSlot,
    incoming: &mut Incoming,
) -> Result<Message, Refusal> {
    let pass = reports.gate.message(slot)?;
    incoming.check_declared()?;
    let declared = usize::try_from(incoming.declared().unwrap_or(0)).unwrap_or(usize::MAX);
    let mut room = vec![reports.gate.memory(declared.max(1))?];
    let mut body = Vec::with_capacity(declared);
    let mut held = declared;
    while let Some(piece) = incoming.next().await? {
        if body.len() + piece.len() > held {
            // As a vector grows: many small pieces take no more than one large one.
            let more = piece.len().max(body.len()).max(UNIT);
            room.push(reports.gate.memory(more)?);
            held += more;
        }
        body.extend_from_slice(&piece);
    }
    Ok(Message { body: body.into(), _room: room, _pass: pass })
}

async fn post_result(
    State(reports): State<Arc<Reports>>,
    Path(parts): Path<Parts>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let _under_way = UnderWay::new(&reports);
    let mut incoming = Incoming::new(body, &headers, reports.limits.result_bytes as u64, &reports.limits);
    let done = take_result(&reports, parts, &mut incoming).await;
    answer(&reports, "result", done, Some(&mut incoming)).await
}

async fn take_result(reports: &Arc<Reports>, parts: Parts, incoming: &mut Incoming) -> Result<(), Refusal> {
    let slot = proven(reports, parts)?;
    let known = known(reports, &slot).await?;
    incoming.limit(known.job.limits.bytes_per_upload.min(reports.limits.result_bytes as u64));
    let message = read_message(reports, &slot, incoming).await?;
    let samples = result::samples(&result::parse(&message.body)?, known.job.metrics.as_ref());
    let execution = opened(reports, &slot, &known).await?;
    let name = if known.current {
        names::result_file(&slot.node)
    } else {
        names::late_file(&slot.node, &slot.pod, &execution.nodes())
    };
    let path = store::file(&execution.folder, &name).ok_or(Refusal::Forged)?;
    let mut room = execution.room(known.job.limits.bytes_per_execution);
    let size = message.body.len() as u64;
    room.cover(size)?;
    let reports = reports.clone();
    intake::whole(async move {
        reports.store.put(&path, message.body.clone()).await?;
        room.keep(&name, size);
        reports.counters.bytes.inc_by(size);
        if known.current {
            reports.series.record(&known.job, &slot.execution, &slot.node, samples);
        }
        Ok(())
    })
    .await
}

async fn post_event(
    State(reports): State<Arc<Reports>>,
    Path(parts): Path<Parts>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let _under_way = UnderWay::new(&reports);
    let mut incoming = Incoming::new(body, &headers, reports.limits.event_bytes as u64, &reports.limits);
    let done = take_event(&reports, parts, &mut incoming).await;
    answer(&reports, "event", done, Some(&mut incoming)).await
}

async fn take_event(reports: &Reports, parts: Parts, incoming: &mut Incoming) -> Result<(), Refusal> {
    let slot = proven(reports, parts)?;
    known(reports, &slot).await?;
    let message = read_message(reports, &slot, incoming).await?;
    let event = PodEvent::parse(&message.body)?;
    reports.gate.event(&slot)?;
    reports.cluster.send_event(&slot, &event).await?;
    Ok(())
}
