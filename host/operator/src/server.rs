//! /healthz, /readyz and /metrics.

use std::net::SocketAddr;
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
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let Some(address) = listen else { return Ok(tokio::spawn(async {})) };
    let (listener, bound) = listen_at(&address).await?;
    tracing::info!(address = %bound, "serving /healthz, /readyz, /metrics");
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(context);
    Ok(answer(listener, router, "/healthz, /readyz and /metrics", stop))
}

/// Listens at an address, and tells which it is: with port 0 it is any that is free.
pub async fn listen_at(address: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |error| StartError::Listen { address: address.to_owned(), error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Answers requests until told to stop.
pub fn answer(
    listener: TcpListener,
    router: Router,
    paths: &'static str,
    mut stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let until = async move {
            stop.wait_for(|s| *s).await.ok();
        };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until).await {
            tracing::error!(%error, "the server of {paths} ended");
        }
    })
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
