//! An API server for tests: it answers as it is told, and remembers what was asked.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use kube::Client;
use serde_json::{Value, json};

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method and path.
    pub what: String,
    /// The type of its body.
    pub kind: String,
    pub body: Value,
}

/// The server.
pub struct Fake {
    pub client: Client,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Serves with answers of a code and a body.
pub fn serve(answer: impl Fn(&Asked) -> (u16, Value) + Clone + Send + Sync + 'static) -> Fake {
    let asked = Arc::<Mutex<Vec<Asked>>>::default();
    let noted = asked.clone();
    let router = Router::new().fallback(move |request: Request| {
        let (answer, noted) = (answer.clone(), noted.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let kind = head.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
            let asked = Asked {
                what: format!("{} {}", head.method, head.uri.path()),
                kind: kind.unwrap_or_default(),
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            };
            let (code, body) = answer(&asked);
            noted.lock().unwrap().push(asked);
            (StatusCode::from_u16(code).unwrap(), Json(body))
        }
    });
    Fake { client: Client::new(router, "default"), asked }
}

/// The answer that something is wrong.
pub fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    (code, status)
}

/// Metadata alone.
pub fn partial(metadata: Value) -> (u16, Value) {
    let object =
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
    (200, object)
}

impl Fake {
    /// What was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The methods and paths of what was asked.
    pub fn calls(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.what).collect()
    }
}
