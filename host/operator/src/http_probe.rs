//! One HTTP request to a pod. Between two requests only the bare socket is kept: hyper's connection with its
//! buffers would cost thrice the memory for thousands of pods.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, Version, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use stoker_api::{HttpProbe, HttpScheme};
use stoker_core::asked::Answer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pod_tls;
use crate::question::{EVIDENCE_BYTES, Evidence, Finding, Target, too_late};

/// The headers of an answer must fit into this; hyper's own least is half of it.
const HEAD_BYTES: usize = 16 * 1024;

/// What is requested.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpQuestion {
    pub probe: HttpProbe,
}

impl HttpQuestion {
    pub fn new(probe: HttpProbe) -> Self {
        Self { probe }
    }

    fn request(&self, to: SocketAddr) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::get(&self.probe.path)
            .header(header::USER_AGENT, concat!("stoker/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*");
        let given = |name: &str| self.probe.headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
        if !given("host") {
            request = request.header(header::HOST, to.to_string());
        }
        for header in &self.probe.headers {
            request = request.header(&header.name, &header.value);
        }
        request.body(Empty::new()).map_err(|error| format!("the request cannot be made: {error}"))
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a pod that may serve again.
pub struct Kept {
    to: SocketAddr,
    io: Box<dyn Io>,
}

/// Asks pods by HTTP.
pub struct HttpAsker {
    tls: Arc<ClientConfig>,
}

/// Why an exchange failed.
enum Failure {
    /// The server may have closed a kept connection before it saw the request.
    Broken(String),
    Final(String),
}

impl HttpAsker {
    pub fn new() -> Self {
        Self { tls: Arc::new(pod_tls::unchecked()) }
    }

    /// Asks a pod, by a kept connection if there is one; gives back what may be kept.
    pub async fn ask(
        &self,
        question: &HttpQuestion,
        target: &Target,
        kept: Option<Kept>,
    ) -> (Finding, Option<Kept>) {
        let Some(ip) = target.ip else { return (Finding::none("it has no address yet"), None) };
        let Some(port) = target.port else {
            let words = format!("none of its containers has a port named {}", port_name(&question.probe));
            return (Finding::none(words), None);
        };
        let timeout = std::time::Duration::from_secs(u64::from(question.probe.timeout_seconds));
        let asked = tokio::time::timeout(timeout, self.try_both(question, SocketAddr::new(ip, port), kept));
        match asked.await {
            Ok(Ok((finding, kept))) => (finding, kept),
            Ok(Err(words)) => (Finding::none(words), None),
            Err(_) => (Finding::none(too_late(timeout)), None),
        }
    }

    async fn try_both(
        &self,
        question: &HttpQuestion,
        to: SocketAddr,
        kept: Option<Kept>,
    ) -> Result<(Finding, Option<Kept>), String> {
        if let Some(kept) = kept.filter(|k| k.to == to) {
            match exchange(question, kept).await {
                Ok(done) => return Ok(done),
                Err(Failure::Broken(_)) => {}
                Err(Failure::Final(words)) => return Err(words),
            }
        }
        let fresh = self.connect(question, to).await?;
        exchange(question, fresh).await.map_err(|failure| match failure {
            Failure::Broken(words) | Failure::Final(words) => words,
        })
    }

    async fn connect(&self, question: &HttpQuestion, to: SocketAddr) -> Result<Kept, String> {
        let stream = TcpStream::connect(to).await.map_err(|error| in_words(&error))?;
        stream.set_nodelay(true).ok();
        let io: Box<dyn Io> = match question.probe.scheme {
            HttpScheme::Http => Box::new(stream),
            HttpScheme::Https => {
                let ip: IpAddr = to.ip();
                let connected =
                    TlsConnector::from(self.tls.clone()).connect(ServerName::IpAddress(ip.into()), stream);
                Box::new(connected.await.map_err(|error| format!("TLS: {error}"))?)
            }
        };
        Ok(Kept { to, io })
    }
}

fn port_name(probe: &HttpProbe) -> String {
    match &probe.port {
        stoker_api::HttpPort::Name(name) => name.clone(),
        stoker_api::HttpPort::Number(number) => number.to_string(),
    }
}

/// One request and its answer.
async fn exchange(question: &HttpQuestion, over: Kept) -> Result<(Finding, Option<Kept>), Failure> {
    let Kept { to, io } = over;
    let request = question.request(to).map_err(Failure::Final)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| Failure::Broken(hyper_words(&error)))?;
    let driver = pin!(connection.without_shutdown());
    let asking = pin!(async move {
        let response =
            sender.send_request(request).await.map_err(|error| Failure::Broken(hyper_words(&error)))?;
        read(response).await
    });
    // The connection does the work for the request, and ends by itself once the request is done with it.
    let (read, parts) = match select(asking, driver).await {
        Either::Left((read, driver)) => {
            let read = read?;
            let parts = if read.reusable { driver.await.ok() } else { None };
            (read, parts)
        }
        Either::Right((parts, asking)) => (asking.await?, parts.ok()),
    };
    let kept = parts
        .filter(|parts| read.reusable && parts.read_buf.is_empty())
        .map(|parts| Kept { to, io: parts.io.into_inner() });
    let answer = Answer::http(read.status, question.probe.success_is_busy);
    let evidence = Evidence::Http { status: read.status, body: read.body.into() };
    Ok((Finding { answer, evidence }, kept))
}

/// An answer as far as it was read.
struct Read {
    status: u16,
    body: Vec<u8>,
    /// All of it was read, and the server leaves the connection open.
    reusable: bool,
}

async fn read(response: Response<Incoming>) -> Result<Read, Failure> {
    let status = response.status().as_u16();
    let closes = response.headers().get_all(header::CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|v| v.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
    });
    let stays = response.version() == Version::HTTP_11 && !closes && status >= 200;
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    let whole = loop {
        match incoming.frame().await {
            None => break true,
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                body.extend_from_slice(&data[..data.len().min(EVIDENCE_BYTES - body.len())]);
                if body.len() == EVIDENCE_BYTES {
                    break false;
                }
            }
            // The status is not taken for an answer that was cut short.
            Some(Err(error)) => return Err(Failure::Final(hyper_words(&error))),
        }
    };
    Ok(Read { status, body, reusable: whole && stays })
}

fn hyper_words(error: &hyper::Error) -> String {
    if error.is_parse() {
        return "its answer is not HTTP; if the port speaks TLS, set scheme: HTTPS".to_owned();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "it closed the connection before its answer was complete".to_owned();
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
            "no route to its address".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[path = "http_probe_tests.rs"]
mod tests;
