//! What the operator says when the cluster's CRDs do not fit, against an API server of two answers.

#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use kube::{Client, Config};
use serde_json::{Value, json};
use stoker_operator::{Options, StartError};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Starts the operator against an API server that answers every request with this.
async fn start_with(code: StatusCode, body: Value) -> StartError {
    rustls::crypto::ring::default_provider().install_default().ok();
    let answer = move || async move {
        (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let error = stoker_operator::run(client, Options::default(), stopped).await.unwrap_err();
    server.abort();
    error
}

#[tokio::test]
async fn missing_crds_are_told_with_the_command_that_installs_them() {
    let not_found = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": "customresourcedefinitions \"hotstandbydeployments.stoker.dev\" not found",
    });
    let error = start_with(StatusCode::NOT_FOUND, not_found).await;
    assert!(matches!(error, StartError::CrdMissing(_)), "{error}");
    assert!(error.to_string().contains("stoker crds | kubectl apply"), "{error}");
}

#[tokio::test]
async fn older_crds_are_told_with_both_revisions() {
    let old = json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "hotstandbydeployments.stoker.dev", "annotations": {"stoker.dev/crd-revision": "0"}},
    });
    let error = start_with(StatusCode::OK, old).await;
    assert!(matches!(error, StartError::CrdOlder { found: 0, .. }), "{error}");
    assert!(error.to_string().contains("update it with `stoker crds"), "{error}");
}
