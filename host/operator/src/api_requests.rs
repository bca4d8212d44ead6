//! What is told to Prometheus of requests to the API server.

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http::{Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tower::{Layer, Service};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: String,
    /// The status, or `none` where there was no answer.
    code: String,
}

type Durations = Family<Answered, Histogram, fn() -> Histogram>;

/// The client is made before anything else, and there is one for the process.
static REQUESTS: LazyLock<Durations> = LazyLock::new(|| {
    let fresh: fn() -> Histogram =
        || Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]);
    Durations::new_with_constructor(fresh)
});

/// Makes them known.
pub fn register(registry: &mut Registry) {
    let help = "From a request to the API server to the head of its answer, by method and status";
    registry.register_with_unit("api_request_duration", help, Unit::Seconds, REQUESTS.clone());
}

/// A layer of the client that observes its requests.
pub struct Observed;

impl<S> Layer<S> for Observed {
    type Service = ObservedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ObservedService(inner)
    }
}

/// A client whose requests are observed.
pub struct ObservedService<S>(S);

impl<S, B, R> Service<Request<B>> for ObservedService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, asked) = (request.method().to_string(), Instant::now());
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code =
                answer.as_ref().map_or_else(|_| "none".to_owned(), |a| a.status().as_u16().to_string());
            REQUESTS.get_or_create(&Answered { method, code }).observe(asked.elapsed().as_secs_f64());
            answer
        })
    }
}
