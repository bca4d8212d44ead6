//! /healthz, /readyz and /metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::startup::StartError;

/// Serves until told to stop. Nothing is served without an address.
pub async fn serve(
    listen: Option<String>,
    context: Arc<Context>,
    mut stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let Some(address) = listen else { return Ok(tokio::spawn(async {})) };
    let refused = |error| StartError::Listen { address: address.clone(), error };
    let listener = TcpListener::bind(&address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    tracing::info!(address = %bound, "serving /healthz, /readyz, /metrics");
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(context);
    Ok(tokio::spawn(async move {
        let until = async move {
            stop.wait_for(|s| *s).await.ok();
        };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until).await {
            tracing::error!(%error, "the server of /healthz, /readyz and /metrics ended");
        }
    }))
}

async fn ready(State(context): State<Arc<Context>>) -> impl IntoResponse {
    if context.pods.is_ready() && context.jobs.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "pods and Jobs have not been listed yet\n")
    }
}

async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        context.metrics.text(),
    )
}
