//! A Prometheus for one test, on a free port of the loopback device; it ends with the test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;

use crate::reports::Line;

/// Says whether this machine has one, and if not, what to do.
pub fn is_installed() -> bool {
    let there = Command::new("prometheus").arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("skipped: there is no prometheus here; run hack/setup.sh packages as root");
    }
    there
}

/// A running server.
pub struct Prometheus {
    child: Option<Child>,
    pub port: u16,
    folder: PathBuf,
}

impl Prometheus {
    /// Starts one that reads the metrics at an address each second.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(target: &str) -> Self {
        Self::start_jobs(&[("test", target)], &[])
    }

    /// The same for several jobs, each with its address; all get these labels.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_jobs(jobs: &[(&str, &str)], labels: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = port.unwrap_or_else(|error| panic!("no free port: {error}")).port();
        let folder = std::env::temp_dir().join(format!("stoker-prometheus-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
        let mut config = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}: '{value}'")).collect();
        let labels = labels.join(", ");
        for (job, target) in jobs {
            config += &format!(
                "  - job_name: {job}\n    fallback_scrape_protocol: PrometheusText0.0.4\n    static_configs: [{{targets: ['{target}'], labels: {{{labels}}}}}]\n"
            );
        }
        // Releases before 3 know no such field, and need none.
        let old = Command::new("prometheus").arg("--version").output();
        let old = old.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("version 2."));
        let known = |line: &&str| !(old && line.contains("fallback_scrape_protocol"));
        let config: Vec<&str> = config.lines().filter(known).collect();
        std::fs::write(folder.join("prometheus.yml"), config.join("\n"))
            .unwrap_or_else(|error| panic!("{error}"));
        let mut prometheus = Self { child: None, port, folder };
        prometheus.run();
        prometheus
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn run(&mut self) {
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", self.folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", self.folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("prometheus: {error}")));
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "prometheus does not listen on {}", self.port);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it answers to an instant query: the whole document, as errors and warnings are told there.
    pub async fn query(&self, expression: &str) -> Result<Value> {
        let written: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut line = Line::open(address, false).await?;
        let answer = line.send(Method::GET, &format!("/api/v1/query?query={written}"), Bytes::new()).await?;
        serde_json::from_slice(&answer.body).with_context(|| answer.text())
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
