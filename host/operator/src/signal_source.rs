//! Where a signal comes from: one request, one number, or why there is none. What a server says beside the number is told to
//! nobody, but for Prometheus' own complaint about a query.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;
use stoker_api::Signal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::trust;

/// So much of an answer is read.
const BODY_BYTES: usize = 1 << 20;

/// So much of a server's complaint is told.
const COMPLAINT: usize = 200;

/// Fetches signals.
pub struct Fetcher {
    client: kube::Client,
    /// Hosts that may be asked; empty = all but this machine and its link.
    hosts: Vec<String>,
    /// The authority that is trusted where a signal names none, as PEM.
    roots: Option<Vec<u8>>,
}

/// With what a signal's source is asked, as Secrets and ConfigMaps have it.
pub struct Credentials {
    token: Option<String>,
    /// For https.
    tls: Option<TlsConnector>,
}

/// Why there is no number.
struct Failure {
    words: String,
    /// The server does not take the credentials, or is not trusted by them: others may be there by now.
    of_credentials: bool,
}

impl From<String> for Failure {
    fn from(words: String) -> Self {
        Self { words, of_credentials: false }
    }
}

impl Fetcher {
    pub fn new(client: kube::Client, hosts: Vec<String>, roots: Option<Vec<u8>>) -> Self {
        Self { client, hosts, roots }
    }

    /// The number of a signal of an object in a namespace. What credentials are known is kept between fetches: they are
    /// read once, and again when they turn out not to fit.
    pub async fn fetch(
        &self,
        namespace: &str,
        signal: &Signal,
        known: &mut Option<Credentials>,
    ) -> Result<f64, String> {
        let (uri, read) = target(signal)?;
        let credentials = match known {
            Some(credentials) => credentials,
            None => known.insert(self.credentials(namespace, signal, &uri).await?),
        };
        let fetched = self.get(&uri, credentials).await.and_then(|(status, body)| {
            let of_credentials = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            read.read(status, &body).map_err(|words| Failure { words, of_credentials })
        });
        fetched.map_err(|Failure { words, of_credentials }| {
            if of_credentials {
                *known = None;
            }
            words
        })
    }

    async fn credentials(&self, namespace: &str, signal: &Signal, uri: &Uri) -> Result<Credentials, String> {
        let token = match &signal.token {
            None => None,
            Some(from) => {
                let bytes = trust::secret_key(&self.client, namespace, &from.name, &from.key).await?;
                let token = String::from_utf8_lossy(&bytes).trim().to_owned();
                Some(format!("Bearer {token}"))
            }
        };
        if uri.scheme_str() != Some("https") {
            return Ok(Credentials { token, tls: None });
        }
        let pem = match (&signal.ca, &self.roots) {
            (Some(ca), _) => trust::certificate(&self.client, namespace, ca).await?,
            (None, Some(pem)) => pem.clone(),
            (None, None) => {
                return Err("https needs an authority to trust: set ca, or the operator's --signal-ca-file"
                    .to_owned());
            }
        };
        let tls = Some(TlsConnector::from(Arc::new(trusting(&pem)?)));
        Ok(Credentials { token, tls })
    }

    async fn get(&self, uri: &Uri, credentials: &Credentials) -> Result<(StatusCode, Bytes), Failure> {
        let host = uri.host().ok_or_else(|| "its url has no host".to_owned())?;
        let port = uri.port_u16().unwrap_or(if credentials.tls.is_some() { 443 } else { 80 });
        let to = self.address(host, port).await?;
        let stream = TcpStream::connect(to).await.map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).ok();
        let token = credentials.token.clone();
        let Some(tls) = &credentials.tls else { return Ok(exchange(stream, uri, token).await?) };
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|_| format!("{host} is no name that a certificate can have"))?;
        let untrusted = |error| Failure { words: format!("TLS: {error}"), of_credentials: true };
        let connected = tls.connect(name, stream).await.map_err(untrusted)?;
        Ok(exchange(connected, uri, token).await?)
    }

    /// The address of a host that may be asked.
    async fn address(&self, host: &str, port: u16) -> Result<SocketAddr, String> {
        let host = host.trim_matches(['[', ']']);
        if !self.hosts.is_empty() && !self.hosts.iter().any(|allowed| fits(allowed, host, port)) {
            return Err(format!(
                "{host}:{port} is none of the hosts that the operator's --signal-hosts names"
            ));
        }
        let found = tokio::net::lookup_host((host, port)).await;
        let mut found = found.map_err(|_| format!("there is no host {host}"))?;
        let mut own = false;
        let address = found.find(|address| {
            let allowed = !self.hosts.is_empty() || !is_own(address.ip());
            own |= !allowed;
            allowed
        });
        address.ok_or_else(|| match own {
            true => format!(
                "{host} is the operator's own machine or link, which --signal-hosts must allow by name"
            ),
            false => format!("there is no host {host}"),
        })
    }
}

/// Where a signal is asked for, and how its number is found in the answer.
fn target(signal: &Signal) -> Result<(Uri, Reader<'_>), String> {
    let (url, read): (String, Reader<'_>) = match (&signal.prometheus, &signal.http) {
        (Some(source), _) => {
            let query: String = form_urlencoded::byte_serialize(source.query.as_bytes()).collect();
            let url = format!("{}/api/v1/query?query={query}", source.url.trim_end_matches('/'));
            (url, Reader::Prometheus)
        }
        (None, Some(source)) => (source.url.clone(), Reader::Json(&source.pointer)),
        // Admission lets no such signal through.
        (None, None) => return Err("it names no source".to_owned()),
    };
    Ok((url.parse().map_err(|error| format!("its url cannot be used: {error}"))?, read))
}

/// Whether a host and port are what is allowed: `HOST`, `HOST:PORT`, `*.SUFFIX` or `*`.
fn fits(allowed: &str, host: &str, port: u16) -> bool {
    let (name, only) = match allowed.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            (name, digits.parse::<u16>().ok())
        }
        _ => (allowed, None),
    };
    let name = name.trim_matches(['[', ']']).to_lowercase();
    let host = host.trim_end_matches('.').to_lowercase();
    let same = match name.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
        None => host == name,
    };
    same && only.is_none_or(|only| only == port)
}

/// Whether an address is this machine's, or reaches no further than its link: there, services of clouds and nodes answer that
/// are not meant for whoever may write a pool.
fn is_own(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()
        }
    }
}

fn trusting(pem: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let unusable = |error: String| format!("the authority's certificate cannot be used: {error}");
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err("the authority's file holds no certificate".to_owned());
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

async fn exchange<S>(stream: S, uri: &Uri, token: Option<String>) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| format!("the request failed: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = tokio::spawn(connection);
    let ends = driver.abort_handle();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path)
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::USER_AGENT, concat!("stoker/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token);
    }
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|_| "its token is no HTTP header".to_owned())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES).collect().await;
        let body = body.map_err(|error| format!("its answer cannot be read: {error}"))?;
        Ok((status, body.to_bytes()))
    }
    .await;
    ends.abort();
    answer
}

/// How a number is found in an answer.
enum Reader<'a> {
    Prometheus,
    Json(&'a str),
}

impl Reader<'_> {
    fn read(&self, status: StatusCode, body: &[u8]) -> Result<f64, String> {
        let refused = || {
            format!(
                "HTTP {}{}",
                status.as_u16(),
                if status.is_redirection() { ": redirects are not followed" } else { "" }
            )
        };
        match self {
            Self::Prometheus => prometheus(status.is_success(), body).unwrap_or_else(|| Err(refused())),
            Self::Json(_) if !status.is_success() => Err(refused()),
            Self::Json(pointer) => json(body, pointer),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Value,
    #[serde(default)]
    error: String,
}

/// The number of an instant query; None = this is not Prometheus' answer.
fn prometheus(success: bool, body: &[u8]) -> Option<Result<f64, String>> {
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    if !success {
        let error = answer.map(|answer| answer.error).filter(|error| !error.is_empty())?;
        return Some(Err(format!("Prometheus refuses the query: {}", cut(&error))));
    }
    let Some(answer) = answer else { return Some(Err("its answer is not Prometheus'".to_owned())) };
    let result = &answer.data["result"];
    let sample = match answer.data["resultType"].as_str() {
        Some("scalar") => result,
        Some("vector") => match result.as_array().map_or(&[][..], Vec::as_slice) {
            [one] => &one["value"],
            [] => return Some(Err("the query has no result".to_owned())),
            more => {
                let words = format!("the query has {} results: make them one, as with sum()", more.len());
                return Some(Err(words));
            }
        },
        Some(kind) => return Some(Err(format!("the query gives a {kind}: ask for one number"))),
        None => return Some(Err("its answer is not Prometheus'".to_owned())),
    };
    Some(sample[1].as_str().map_or_else(|| Err("its answer is not Prometheus'".to_owned()), number))
}

fn json(body: &[u8], pointer: &str) -> Result<f64, String> {
    let document: Value = serde_json::from_slice(body).map_err(|_| "its answer is not JSON".to_owned())?;
    let place = if pointer.is_empty() { "the whole".to_owned() } else { pointer.to_owned() };
    match document.pointer(pointer) {
        None => Err(format!("its answer has nothing at {place}")),
        Some(Value::Number(found)) => number(&found.to_string()),
        Some(Value::String(text)) => {
            number(text).map_err(|_| format!("at {place} is a text that is no number"))
        }
        Some(Value::Null) => Err(format!("at {place} is null")),
        Some(Value::Bool(_)) => Err(format!("at {place} is a truth value, not a number")),
        Some(Value::Array(_) | Value::Object(_)) => {
            Err(format!("at {place} is a list or an object, not a number"))
        }
    }
}

fn number(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(number) => Err(format!("the number is {number}")),
        Err(_) => Err("it is no number".to_owned()),
    }
}

fn cut(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(COMPLAINT).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use axum::Router;
    use axum::http::HeaderMap;
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde_json::json;

    use super::*;
    use crate::kept::fake::{refusal, serve};

    #[test]
    fn one_number_of_prometheus_is_a_number_and_all_else_says_why_not() {
        let of = |body: &str| prometheus(true, body.as_bytes());
        let vector = |samples: &str| {
            of(&format!(
                r#"{{"status": "success", "data": {{"resultType": "vector", "result": [{samples}]}}}}"#
            ))
        };
        let sample = |value: &str| format!(r#"{{"metric": {{}}, "value": [1.5, "{value}"]}}"#);
        assert_eq!(vector(&sample("42.5")), Some(Ok(42.5)));
        assert_eq!(of(r#"{"data": {"resultType": "scalar", "result": [1, "3"]}}"#), Some(Ok(3.0)));
        assert_eq!(vector(""), Some(Err("the query has no result".to_owned())));
        let two = vector(&format!("{}, {}", sample("1"), sample("2")));
        assert_eq!(two, Some(Err("the query has 2 results: make them one, as with sum()".to_owned())));
        assert_eq!(vector(&sample("NaN")), Some(Err("the number is NaN".to_owned())));
        assert_eq!(vector(&sample("+Inf")), Some(Err("the number is inf".to_owned())));
        let matrix = of(r#"{"data": {"resultType": "matrix", "result": []}}"#);
        assert_eq!(matrix, Some(Err("the query gives a matrix: ask for one number".to_owned())));
        for other in ["<html>", "{}", "[]", r#"{"data": {"resultType": "scalar", "result": 3}}"#] {
            assert_eq!(of(other), Some(Err("its answer is not Prometheus'".to_owned())), "{other}");
        }
        let refused = prometheus(false, br#"{"status": "error", "error": "parse error: unexpected end"}"#);
        let words = "Prometheus refuses the query: parse error: unexpected end";
        assert_eq!(refused, Some(Err(words.to_owned())));
        assert_eq!(Reader::Prometheus.read(StatusCode::BAD_GATEWAY, b"<html>"), Err("HTTP 502".to_owned()));
    }

    #[test]
    fn a_number_is_found_by_its_pointer_and_what_is_none_is_never_taken_for_zero() {
        let document = br#"{"queues": [{"length": 12, "text": "7", "word": "many", "none": null, "yes": true}], "a/b": 1}"#;
        let at = |pointer: &str| json(document, pointer);
        assert_eq!(at("/queues/0/length"), Ok(12.0));
        assert_eq!(at("/queues/0/text"), Ok(7.0));
        assert_eq!(at("/a~1b"), Ok(1.0));
        assert_eq!(json(b" 3e2 ", ""), Ok(300.0));
        for (pointer, words) in [
            ("/queues/1/length", "its answer has nothing at /queues/1/length"),
            ("/queues/0/word", "at /queues/0/word is a text that is no number"),
            ("/queues/0/none", "at /queues/0/none is null"),
            ("/queues/0/yes", "at /queues/0/yes is a truth value, not a number"),
            ("/queues", "at /queues is a list or an object, not a number"),
            ("", "at the whole is a list or an object, not a number"),
        ] {
            assert_eq!(at(pointer), Err(words.to_owned()));
        }
        assert_eq!(json(b"", ""), Err("its answer is not JSON".to_owned()));
        let moved = Reader::Json("").read(StatusCode::FOUND, b"1");
        assert_eq!(moved, Err("HTTP 302: redirects are not followed".to_owned()));
    }

    #[tokio::test]
    async fn i10_a_token_is_read_once_and_again_when_the_server_takes_it_no_more() {
        let secrets = serve(|asked| match asked.what.as_str() {
            "GET /api/v1/namespaces/shop/secrets/queue" => {
                let data = json!({"token": BASE64_STANDARD.encode(b"good\n")});
                (
                    200,
                    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "queue"}, "data": data}),
                )
            }
            _ => refusal(404, "NotFound"),
        });
        let code = Arc::new(AtomicU16::new(200));
        let answers = code.clone();
        let router = Router::new().fallback(move |headers: HeaderMap| {
            let good = headers.get(header::AUTHORIZATION).is_some_and(|token| token == "Bearer good");
            let code = if good { answers.load(Ordering::Relaxed) } else { 401 };
            async move { (StatusCode::from_u16(code).unwrap(), "5") }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let signal: Signal = serde_json::from_value(json!({
            "name": "queue",
            "http": {"url": format!("http://{address}/"), "pointer": ""},
            "token": {"name": "queue", "key": "token"},
        }))
        .unwrap();

        let fetcher = Fetcher::new(secrets.client.clone(), vec!["127.0.0.1".to_owned()], None);
        let mut known = None;
        let mut fetched = async |answer: u16| {
            code.store(answer, Ordering::Relaxed);
            let fetched = fetcher.fetch("shop", &signal, &mut known).await;
            (fetched, secrets.calls().len())
        };
        assert_eq!(fetched(200).await, (Ok(5.0), 1));
        assert_eq!(fetched(200).await, (Ok(5.0), 1));
        assert_eq!(fetched(503).await, (Err("HTTP 503".to_owned()), 1), "another token would not help");
        assert_eq!(fetched(401).await, (Err("HTTP 401".to_owned()), 1));
        assert_eq!(fetched(200).await, (Ok(5.0), 2));
        server.abort();
    }

    #[test]
    fn hosts_are_allowed_by_name_port_and_suffix() {
        let cases = [
            ("prometheus.monitoring.svc", "prometheus.monitoring.svc", 9090, true),
            ("prometheus.monitoring.svc:9090", "Prometheus.monitoring.svc.", 9090, true),
            ("prometheus.monitoring.svc:9090", "prometheus.monitoring.svc", 80, false),
            ("*.monitoring.svc", "a.monitoring.svc", 80, true),
            ("*.monitoring.svc", ".monitoring.svc", 80, false),
            ("*.monitoring.svc", "amonitoring.svc", 80, false),
            ("*", "anything", 1, true),
            ("[::1]:9090", "::1", 9090, true),
            ("::1", "::1", 9090, true),
            ("10.0.0.1", "10.0.0.12", 80, false),
        ];
        for (allowed, host, port, want) in cases {
            assert_eq!(fits(allowed, host, port), want, "{allowed} {host} {port}");
        }
    }

    #[test]
    fn addresses_of_the_machine_and_its_link_are_known_in_each_form() {
        for own in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "::ffff:169.254.169.254",
            "224.0.0.1",
        ] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "fd00::1", "8.8.8.8"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }
}
