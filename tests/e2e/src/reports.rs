//! A report service process for one namespace, and plain HTTP to it in the name of pods and of readers.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::account::{self, REPORTS};
use crate::operator::{Operator, binary, resident};
use crate::{DEADLINE, World, netns, root};

/// What one request may take. The service itself waits up to 10 s for a pod to be shown.
const ANSWERED: Duration = Duration::from_secs(60);

/// A running report service; it is killed when dropped. Its folder, its key and its addresses outlive a kill.
pub struct ReportService {
    child: Child,
    namespace: String,
    folder: PathBuf,
    callbacks: SocketAddr,
    readers: SocketAddr,
    /// It runs inside the cluster's network, where pods of the real node reach it.
    inside: bool,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that serves one request after the other.
pub struct Line {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Line {
    /// Connects.
    pub async fn open(to: SocketAddr, inside: bool) -> Result<Self> {
        let stream = if inside {
            let stream = netns::inside(|| std::net::TcpStream::connect(to))??;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)?
        } else {
            TcpStream::connect(to).await?
        };
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // An error there is one of the request, too.
        tokio::spawn(connection);
        Ok(Self { sender, host: to.to_string() })
    }

    /// Sends a request, and waits for the whole answer.
    pub async fn send(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "application/octet-stream")
            .body(Full::new(body.into()))?;
        let whole = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status().as_u16();
            Ok(Answer { status, body: answer.into_body().collect().await?.to_bytes() })
        };
        tokio::time::timeout(ANSWERED, whole).await.context("no answer")?
    }
}

/// The path of an address that a pod was given.
pub fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}

impl ReportService {
    /// Starts it with an empty folder and a key of its own, and waits until it is ready.
    pub async fn start(namespace: &str, inside: bool) -> Result<Self> {
        let folder = root().join("target/e2e").join(format!("{namespace}.reports"));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("key"), key()?)?;
        let any = if inside { netns::NODE } else { "127.0.0.1" };
        let any: SocketAddr = format!("{any}:0").parse()?;
        let child = spawn(namespace, &folder, (any, any), inside)?;
        let mut service =
            Self { child, namespace: namespace.to_owned(), folder, callbacks: any, readers: any, inside };
        (service.callbacks, service.readers) = service.listens().await?;
        service.ready().await?;
        Ok(service)
    }

    /// Where it listens, as it tells itself.
    async fn listens(&self) -> Result<(SocketAddr, SocketAddr)> {
        let began = Instant::now();
        loop {
            let log = self.log();
            let at = |what: &str| {
                let (_, rest) = log.rsplit_once(&format!(" {what}=http://"))?;
                rest.split_whitespace().next()?.parse().ok()
            };
            if let Some(both) = at("callbacks").zip(at("readers")) {
                return Ok(both);
            }
            if began.elapsed() > DEADLINE {
                bail!("the report service does not start:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.get("/readyz").await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                _ if began.elapsed() > DEADLINE => {
                    bail!("the report service is not ready:\n{}", self.log_tail())
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The flags of an operator whose pods report to it.
    pub fn flags(&self) -> [String; 4] {
        let key = self.folder.join("key").display().to_string();
        ["--reports-url".into(), self.url(), "--reports-key-file".into(), key]
    }

    /// Where pods reach it.
    pub fn url(&self) -> String {
        format!("http://{}", self.callbacks)
    }

    /// Kills it at once, as a node's failure would.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Kills it and starts another with the same folder at the same addresses.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.child = spawn(&self.namespace, &self.folder, (self.callbacks, self.readers), self.inside)?;
        Ok(())
    }

    /// Ends it, and removes what it kept.
    pub fn remove(mut self) -> Result<()> {
        self.kill();
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }

    /// Where pods connect to.
    pub fn callbacks(&self) -> SocketAddr {
        self.callbacks
    }

    /// Posts what a pod reports to one of its addresses, or one with a query behind it.
    pub async fn post(&self, url: &str, body: impl Into<Bytes>) -> Result<Answer> {
        Line::open(self.callbacks, self.inside).await?.send(Method::POST, path(url), body).await
    }

    /// What a reader gets.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        Line::open(self.readers, self.inside).await?.send(Method::GET, path, Bytes::new()).await
    }

    /// A listing as programs get it, below `/reports/NAMESPACE/`.
    pub async fn listing(&self, path: &str) -> Result<Value> {
        let answer = self.kept(path).await?;
        serde_json::from_slice(&answer.body).with_context(|| format!("{path}: {}", answer.text()))
    }

    /// What is served below `/reports/NAMESPACE/`.
    pub async fn kept(&self, path: &str) -> Result<Answer> {
        self.get(&format!("/reports/{}/{path}", self.namespace)).await
    }

    /// The value of a metric whose labels hold all of these texts; None = there is no such sample.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<Option<f64>> {
        let metrics = self.get("/metrics").await?.text();
        let mut samples = metrics
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with('{') && labels.iter().all(|label| rest.contains(label)));
        let Some(sample) = samples.next() else { return Ok(None) };
        Ok(Some(sample.rsplit_once(' ').context("no value")?.1.parse()?))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it holds now.
    pub fn memory(&self) -> Result<u64> {
        resident(self.pid())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(log(&self.namespace)).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for ReportService {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log(namespace: &str) -> PathBuf {
    root().join("target/e2e").join(format!("{namespace}.reports.log"))
}

/// 32 bytes by chance, as text: white space around a key does not count.
fn key() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Starts it without waiting. The log of earlier runs is kept.
fn spawn(
    namespace: &str,
    folder: &std::path::Path,
    (callbacks, readers): (SocketAddr, SocketAddr),
    inside: bool,
) -> Result<Child> {
    let file = File::options().create(true).append(true).open(log(namespace))?;
    let mut line = if inside { netns::command() } else { Vec::new() };
    line.push(binary().display().to_string());
    Command::new(&line[0])
        .args(&line[1..])
        .args(["reports", "--namespace", namespace])
        .arg("--dir")
        .arg(folder.join("kept"))
        .arg("--key-file")
        .arg(folder.join("key"))
        .args(["--listen-callbacks", &callbacks.to_string(), "--listen-readers", &readers.to_string()])
        .env("KUBECONFIG", account::kubeconfig(namespace, REPORTS))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("run `make build`: {} does not start", binary().display()))
}

impl World {
    /// A namespace with a report service, and an operator that tells pods of it.
    pub async fn with_reports(name: &str) -> Result<Self> {
        Self::without_operator(name).await?.reporting(false).await
    }

    /// The same inside the cluster's network, where pods of the real node reach it.
    pub async fn with_reports_inside(name: &str) -> Result<Self> {
        Self::without_operator(name).await?.reporting(true).await
    }

    /// Starts a report service, and an operator that tells pods of it.
    pub async fn reporting(mut self, inside: bool) -> Result<Self> {
        let service = ReportService::start(&self.namespace, inside).await?;
        let flags = service.flags();
        self.reports = Some(service);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.operator = Some(if inside {
            Operator::start_inside(&self.namespace, &flags).await?
        } else {
            Operator::start(&self.namespace, &flags).await?
        });
        Ok(self)
    }

    /// Another operator for the namespace, beside the one that runs.
    pub async fn second_operator(&self) -> Result<Operator> {
        let flags = self.reports().flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Operator::start(&self.namespace, &flags).await
    }

    /// The report service that runs.
    pub fn reports(&self) -> &ReportService {
        self.reports.as_ref().unwrap_or_else(|| panic!("this test has no report service"))
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn the_path_of_an_address_begins_after_the_host() {
        assert_eq!(path("http://127.0.0.1:8090/callback/v1/a?name=b"), "/callback/v1/a?name=b");
        assert_eq!(path("http://reports"), "/");
    }
}
