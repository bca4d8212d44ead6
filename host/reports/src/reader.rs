//! Reading, for people and programs. It changes nothing.
//!
//! ```text
//!   GET /reports/                            jobs
//!   GET /reports/NS/JOB/                     executions
//!   GET /reports/NS/JOB/EXECUTION/           nodes, results, files, logs; `latest` is the newest
//!   GET /reports/NS/JOB/EXECUTION/FILE       NODE.json, NODE-NAME, NODE-container-C.log
//!   GET /metrics, /healthz, /readyz
//! ```
//! Browsers get pages, whoever does not ask for `text/html` gets JSON; `?format=` decides where that is not wanted.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use crate::catalogue;
use crate::content;
use crate::names::MANIFEST;
use crate::pages;
use crate::service::Reports;
use crate::slot::JobKey;
use crate::store::{self, StoreError};

/// What a page may load: its style.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What readers may reach. It takes no report.
pub fn router(reports: Arc<Reports>) -> Router {
    let (job, execution) = ("/reports/{namespace}/{job}", "/reports/{namespace}/{job}/{execution}");
    Router::new()
        .route("/", get(|| async { Redirect::temporary("reports/") }))
        .route("/reports", get(slash))
        .route("/reports/", get(jobs))
        .route(job, get(slash))
        .route(&format!("{job}/"), get(executions))
        .route(execution, get(slash))
        .route(&format!("{execution}/"), get(detail))
        .route(&format!("{execution}/{{file}}"), get(file))
        .route("/style.css", get(style))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { NotFound })
        .method_not_allowed_fallback(|| async {
            (StatusCode::METHOD_NOT_ALLOWED, "reports are only read here\n")
        })
        .with_state(reports)
}

struct NotFound;

impl IntoResponse for NotFound {
    fn into_response(self) -> Response {
        (StatusCode::NOT_FOUND, "there is no such report; begin at /reports/\n").into_response()
    }
}

/// What goes wrong in reading.
enum Unread {
    NotFound,
    Store(StoreError),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Unread {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => NotFound.into_response(),
            Self::Store(error) => {
                tracing::warn!(%error, "reports cannot be read");
                (StatusCode::INTERNAL_SERVER_ERROR, "the store does not work\n").into_response()
            }
        }
    }
}

/// Links in pages are relative: a folder's path ends with a slash.
async fn slash(uri: Uri) -> Response {
    // Relative to what was asked for, so that it works behind a proxy that takes a prefix away.
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    Redirect::permanent(&format!("./{last}/")).into_response()
}

#[derive(Deserialize)]
struct Asked {
    format: Option<String>,
}

type Format = Result<Query<Asked>, QueryRejection>;

/// A page or JSON, as asked for.
fn shown(
    value: &impl Serialize,
    page: impl FnOnce() -> String,
    headers: &HeaderMap,
    format: Format,
) -> Response {
    let asked = format.ok().and_then(|Query(asked)| asked.format);
    let mut accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let html = match asked.as_deref() {
        Some("json") => false,
        Some("html") => true,
        _ => accepts.any(|accept| accept.contains("text/html")),
    };
    let mut response = if html {
        let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
        ([kind, (header::CONTENT_SECURITY_POLICY, POLICY)], page()).into_response()
    } else {
        axum::Json(value).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn jobs(
    State(reports): State<Arc<Reports>>,
    headers: HeaderMap,
    format: Format,
) -> Result<Response, Unread> {
    let jobs = catalogue::jobs(&reports).await?;
    Ok(shown(&jobs, || pages::jobs(&jobs), &headers, format))
}

async fn executions(
    State(reports): State<Arc<Reports>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    format: Format,
) -> Result<Response, Unread> {
    let key = JobKey { namespace, name };
    let entries = catalogue::executions(&reports, &key).await?.ok_or(Unread::NotFound)?;
    Ok(shown(&entries, || pages::executions(&key, &entries), &headers, format))
}

async fn detail(
    State(reports): State<Arc<Reports>>,
    Path((namespace, name, execution)): Path<(String, String, String)>,
    headers: HeaderMap,
    format: Format,
) -> Result<Response, Unread> {
    let key = JobKey { namespace, name };
    let id = catalogue::resolve(&reports, &key, &execution).await?.ok_or(Unread::NotFound)?;
    let detail = catalogue::detail(&reports, &key, &id).await?.ok_or(Unread::NotFound)?;
    Ok(shown(&detail, || pages::detail(&key, &detail), &headers, format))
}

async fn file(
    State(reports): State<Arc<Reports>>,
    Path((namespace, name, execution, file)): Path<(String, String, String, String)>,
) -> Result<Response, Unread> {
    let key = JobKey { namespace, name };
    let id = catalogue::resolve(&reports, &key, &execution).await?.ok_or(Unread::NotFound)?;
    let folder = store::execution_folder(&key, &id).ok_or(Unread::NotFound)?;
    let path = store::file(&folder, &file).filter(|_| file != MANIFEST).ok_or(Unread::NotFound)?;
    let found = reports.store.get(&path).await?.ok_or(Unread::NotFound)?;
    let size = found.meta.size;
    let mut response = Body::from_stream(found.into_stream().map_err(std::io::Error::other)).into_response();
    for (header, value) in content::headers(&file) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header, value);
        }
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

async fn style() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")],
        pages::STYLE,
    )
}

async fn metrics(State(reports): State<Arc<Reports>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        reports.metrics(),
    )
}

async fn ready(State(reports): State<Arc<Reports>>) -> impl IntoResponse {
    if reports.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "NodeBatchJobs have not been listed, or results not been read back yet\n",
        )
    }
}
