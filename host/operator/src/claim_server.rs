//! The claim server: JSON over HTTP, for matchmakers, notebook servers, CI dispatchers and agent platforms.
//!
//! ```text
//!   POST   /v1/namespaces/NS/pools/NAME/claims            claim a pod
//!   GET    /v1/namespaces/NS/pools/NAME/claims            those that last
//!   GET    /v1/namespaces/NS/pools/NAME/claims/ID
//!   POST   /v1/namespaces/NS/pools/NAME/claims/ID/renew
//!   DELETE /v1/namespaces/NS/pools/NAME/claims/ID         release it
//! ```

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum_server::accept::Accept;
use axum_server::service::SendService;
use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Handle, Server as Listening};
use hyper_util::rt::TokioTimer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use stoker_api::{ClaimList, ClaimRequest, ClaimedPod, GrantedClaim, Problem, RenewRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::certificates::keep_current;
use crate::claim_auth::{Account, Denied, Gate};
use crate::claims::{self, Bound, Refused, Unchanged, Wanted};
use crate::context::{ClaimOptions, Context};
use crate::object::{Key, Kind, Pool};
use crate::startup::StartError;

/// Longest body of a request.
const BODY: usize = 128 << 10;
/// How long a request's head may take, and how long a connection may wait for its next request.
const HEAD: Duration = Duration::from_secs(30);
/// How long requests may go on when the server is told to stop.
const GRACE: Duration = Duration::from_secs(5);

struct Server {
    context: Arc<Context>,
    gate: Gate,
}

/// Serves until told to stop. Nothing is served without options.
pub async fn serve(
    options: Option<ClaimOptions>,
    context: Arc<Context>,
    mut stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let Some(options) = options else { return Ok(tokio::spawn(async {})) };
    let address = options.listen.clone();
    let refused = |error| StartError::ListenClaims { address: address.clone(), error };
    let listener = TcpListener::bind(&options.listen).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let tls = match &options.tls {
        Some((certificate, key)) => {
            Some(RustlsConfig::from_pem_file(certificate, key).await.map_err(|error| {
                StartError::Certificate {
                    certificate: certificate.display().to_string(),
                    key: key.display().to_string(),
                    error,
                }
            })?)
        }
        None if bound.ip().is_loopback() || options.insecure => None,
        None => return Err(StartError::NoCertificate { address: options.listen }),
    };
    let gate = Gate::new(context.client.clone(), options.per_second);
    let router = router(Arc::new(Server { context, gate }));
    tracing::info!(at = %bound, tls = tls.is_some(), "serving claims");
    let handle: Handle<SocketAddr> = Handle::new();
    let stopping = handle.clone();
    tokio::spawn(async move {
        stop.wait_for(|s| *s).await.ok();
        stopping.graceful_shutdown(Some(GRACE));
    });
    Ok(tokio::spawn(async move {
        let served = match tls {
            Some(config) => {
                let renewal =
                    options.tls.map(|files| tokio::spawn(keep_current("claims", config.clone(), files)));
                let served = match axum_server::from_tcp_rustls(listener, config) {
                    Ok(server) => run(server.handle(handle), router, HEAD).await,
                    Err(error) => Err(error),
                };
                renewal.inspect(|task| task.abort());
                served
            }
            None => match axum_server::from_tcp(listener) {
                Ok(server) => run(server.handle(handle), router, HEAD).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = served {
            tracing::error!(%error, "the claim server ended");
        }
    }))
}

/// Serves connections, none of which may be silent for longer than `head` between two requests.
async fn run<A>(server: Listening<SocketAddr, A>, router: Router, head: Duration) -> io::Result<()>
where
    A: Accept<TcpStream, Router> + Clone + Send + Sync + 'static,
    A::Stream: AsyncRead + AsyncWrite + Unpin + Send,
    A::Service: SendService<axum::http::Request<hyper::body::Incoming>> + Send,
    A::Future: Send,
{
    // Else a connection may be silent for ever before it is known which version it speaks.
    let mut server = server.http1_only();
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(head);
    server.serve(router.into_make_service()).await
}

fn router(server: Arc<Server>) -> Router {
    let claims = "/v1/namespaces/{namespace}/pools/{name}/claims";
    Router::new()
        .route(claims, post(claim).get(list))
        .route(&format!("{claims}/{{id}}"), get(show).delete(release))
        .route(&format!("{claims}/{{id}}/renew"), post(renew))
        .fallback(|| async {
            Reply::new(
                StatusCode::NOT_FOUND,
                "NoSuchPath",
                "there is /v1/namespaces/NAMESPACE/pools/NAME/claims, and claims/ID and claims/ID/renew below it",
            )
        })
        .method_not_allowed_fallback(|| async {
            Reply::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "NoSuchMethod",
                "claims are made by POST, listed by GET and released by DELETE",
            )
        })
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(server)
}

/// A request that is refused.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    problem: Problem,
    retry_after: Option<u64>,
}

impl Reply {
    fn new(status: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        let problem = Problem { reason: reason.to_owned(), message: message.into() };
        Self { status, problem, retry_after: None }
    }

    fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.problem)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Denied> for Reply {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unknown(why) => Self::new(
                StatusCode::UNAUTHORIZED,
                "Unauthenticated",
                format!(
                    "the bearer token is refused: {why}; send `Authorization: Bearer` with a service account's token"
                ),
            ),
            Denied::Forbidden(why) => Self::new(StatusCode::FORBIDDEN, "Forbidden", why),
            Denied::TooOften(wait) => {
                let message =
                    "this account asks too often: send fewer requests, or raise --claims-per-second";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
                    .after(wait.as_secs().saturating_add(1))
            }
            Denied::Unanswered(why) => {
                unanswered(&format!("the API server does not say who may claim: {why}"))
            }
        }
    }
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::NoStandby(_) => Self::new(StatusCode::CONFLICT, "NoStandby", message).after(1),
            Refused::Full(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "QueueFull", message).after(5),
            Refused::Deleted(_) => Self::new(StatusCode::CONFLICT, "PoolDeleted", message),
            Refused::Forbidden(_) => Self::new(StatusCode::BAD_GATEWAY, "WriteRefused", message),
            Refused::Unanswered(_) => unanswered(&message),
        }
    }
}

impl From<Unchanged> for Reply {
    fn from(unchanged: Unchanged) -> Self {
        let message = unchanged.to_string();
        match unchanged {
            Unchanged::NotFound => Self::new(StatusCode::NOT_FOUND, "NoSuchClaim", message),
            Unchanged::Conflict => Self::new(StatusCode::CONFLICT, "Conflict", message).after(1),
            Unchanged::Unanswered(_) => unanswered(&message),
        }
    }
}

fn unanswered(message: &str) -> Reply {
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, "Unanswered", message).after(1)
}

#[derive(Deserialize)]
struct Which {
    /// The pool's kind; where it is left out, a HotStandbyDeployment comes before a HotStandbyJob.
    kind: Option<String>,
}

/// The pool that a request is about, and who asks, if it may.
async fn admitted(
    server: &Server,
    headers: &HeaderMap,
    (namespace, name): (&str, &str),
    which: Which,
    verb: &'static str,
) -> Result<(Pool, Account), Reply> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        given.and_then(|value| value.split_once(' ')).filter(|(s, _)| s.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else {
        return Err(Denied::Unknown("there is none".to_owned()).into());
    };
    let account = server.gate.account(token.trim()).await?;
    if !server.context.leads() {
        let words = "this replica of the operator stands by and hands out nothing: ask the one that leads";
        return Err(Reply::new(StatusCode::SERVICE_UNAVAILABLE, "NotLeading", words).after(1));
    }
    // Right after a start nobody knows which pools there are, nor which claims.
    server.context.listed().await;
    let key = |kind| Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    let kinds = match which.kind.as_deref() {
        None => vec![Kind::HotStandbyDeployment, Kind::HotStandbyJob],
        Some(named) => vec![Kind::named(named).filter(|kind| kind.is_pool()).ok_or_else(|| {
            let message = format!("kind `{named}` is no kind of pool: HotStandbyDeployment or HotStandbyJob");
            Reply::new(StatusCode::BAD_REQUEST, "NoSuchKind", message)
        })?],
    };
    let found = kinds.iter().find_map(|kind| server.context.latest(&key(*kind)));
    // Asked first: whoever may not claim does not learn which pools there are.
    let asked = found.as_ref().map_or_else(|| key(kinds[0]), Pool::key);
    server.gate.permits(&account, verb, &asked).await?;
    let pool = found.ok_or_else(|| {
        let message =
            format!("there is no pool {name} in namespace {namespace}, or this operator does not watch it");
        Reply::new(StatusCode::NOT_FOUND, "NoSuchPool", message)
    })?;
    Ok((pool, account))
}

/// The body of a request; an empty one is an empty object.
fn body<T: DeserializeOwned>(bytes: Result<Bytes, BytesRejection>) -> Result<T, Reply> {
    let bytes = bytes.map_err(|rejection| {
        let message = format!("the body, of {BODY} bytes at most, cannot be read: {}", rejection.body_text());
        Reply::new(rejection.status(), "BadRequest", message)
    })?;
    let refused = |why: String| Reply::new(StatusCode::BAD_REQUEST, "BadRequest", format!("the body: {why}"));
    let text: &[u8] = match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => b"{}",
        Some(b'{') => &bytes,
        Some(_) => return Err(refused("it must be a JSON object".to_owned())),
    };
    serde_json::from_slice(text).map_err(|error| refused(error.to_string()))
}

async fn claim(
    State(server): State<Arc<Server>>,
    Path((namespace, name)): Path<(String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Reply> {
    let (pool, account) = admitted(&server, &headers, (&namespace, &name), which, "create").await?;
    let request: ClaimRequest = body(bytes)?;
    if let Some(problem) = request.problem() {
        return Err(Reply::new(StatusCode::BAD_REQUEST, "BadRequest", problem));
    }
    let wanted = Wanted {
        token: request.token.map(|token| known_by(&account, &token)),
        by: account.name,
        pool,
        selector: request.selector,
        ttl: request.ttl_seconds.map(|s| Duration::from_secs(u64::from(s))),
        wait: Duration::from_secs(u64::from(request.wait_seconds)),
        metadata: request.metadata,
    };
    let bound = claims::claim(&server.context, wanted).await?;
    Ok((StatusCode::CREATED, axum::Json(granted(&bound))).into_response())
}

async fn list(
    State(server): State<Arc<Server>>,
    Path((namespace, name)): Path<(String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<axum::Json<ClaimList>, Reply> {
    let (pool, _) = admitted(&server, &headers, (&namespace, &name), which, "get").await?;
    let claims = claims::list(&server.context, &pool).iter().map(granted).collect();
    Ok(axum::Json(ClaimList { claims, waiting: server.context.desk.waiting_in(pool.uid()) }))
}

async fn show(
    State(server): State<Arc<Server>>,
    Path((namespace, name, id)): Path<(String, String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<axum::Json<GrantedClaim>, Reply> {
    let (pool, _) = admitted(&server, &headers, (&namespace, &name), which, "get").await?;
    Ok(axum::Json(granted(&claims::find(&server.context, &pool, &id).await?)))
}

async fn renew(
    State(server): State<Arc<Server>>,
    Path((namespace, name, id)): Path<(String, String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<axum::Json<GrantedClaim>, Reply> {
    let (pool, _) = admitted(&server, &headers, (&namespace, &name), which, "create").await?;
    let RenewRequest { ttl_seconds } = body(bytes)?;
    let asked = ClaimRequest { ttl_seconds: Some(ttl_seconds), ..ClaimRequest::default() };
    if let Some(problem) = asked.problem() {
        return Err(Reply::new(StatusCode::BAD_REQUEST, "BadRequest", problem));
    }
    let ttl = Duration::from_secs(u64::from(ttl_seconds));
    Ok(axum::Json(granted(&claims::renew(&server.context, &pool, &id, Some(ttl)).await?)))
}

async fn release(
    State(server): State<Arc<Server>>,
    Path((namespace, name, id)): Path<(String, String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<axum::Json<GrantedClaim>, Reply> {
    let (pool, _) = admitted(&server, &headers, (&namespace, &name), which, "delete").await?;
    let bound = claims::release_claim(&server.context, &pool, &id).await?;
    tracing::info!(object = %pool.key(), claim = id, "released");
    server.context.metrics.claims.ended("released");
    Ok(axum::Json(granted(&bound)))
}

/// How a token is known: another account's is another token.
fn known_by(account: &Account, token: &str) -> String {
    let digest = Sha256::digest(format!("{}\n{token}", account.name));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn granted(bound: &Bound) -> GrantedClaim {
    let (claim, pod) = (&bound.claim, &bound.pod);
    GrantedClaim {
        id: claim.id.clone(),
        pod: ClaimedPod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            ip: pod.ip.map(|ip| ip.to_string()),
            ports: pod.ports.iter().cloned().collect(),
            node: pod.node.clone(),
        },
        claimed_by: claim.by.clone(),
        claimed_at: claim.claimed_at,
        expires_at: claim.expires_at,
        metadata: claim.metadata.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(20);

    /// What a connection that says this is answered until it is closed, and how long that took.
    async fn answered(address: SocketAddr, says: &str) -> (String, Duration) {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(says.as_bytes()).await.unwrap();
        let (since, mut answer) = (Instant::now(), Vec::new());
        let closed = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut answer)).await;
        // A reset closes it as well.
        closed.unwrap_or_else(|_| panic!("it stays open after {says:?}")).ok();
        (String::from_utf8_lossy(&answer).into_owned(), since.elapsed())
    }

    #[tokio::test]
    async fn connections_that_are_silent_or_say_half_of_something_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "there" }));
        let served = tokio::spawn(run(axum_server::from_tcp(listener).unwrap(), router, SHORT));
        for says in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let (_, took) = answered(address, says).await;
            assert!(took >= SHORT / 2, "{says:?} has its time, and {took:?} it was");
        }
        let (answer, took) = answered(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("there"), "{answer}");
        assert!(took >= SHORT / 2, "one may come after another");
        served.abort();
    }
}
