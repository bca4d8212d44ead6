//! An operator for one namespace: a process of the test, or a Deployment of the cluster.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use kube::Client;

use crate::account::{self, OPERATOR};
use crate::deployed::Deployed;
use crate::{DEADLINE, netns, root};

/// A running operator; it ends when dropped.
pub struct Operator {
    home: Home,
    log: PathBuf,
    namespace: String,
    kubeconfig: PathBuf,
    flags: Vec<String>,
    /// It runs inside the cluster's network, where pods can be reached.
    inside: bool,
}

/// Where it runs.
enum Home {
    Process(Child),
    Cluster(Deployed),
}

impl Home {
    /// The process, for what is done with nothing else.
    fn process(&mut self) -> &mut Child {
        match self {
            Self::Process(child) => child,
            Self::Cluster(_) => panic!("this test wants an operator of its own: World::start_process"),
        }
    }
}

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("STOKER_BIN").map_or_else(|| root().join("target/debug/stoker"), PathBuf::from)
}

/// Bytes of memory that a process holds now.
pub fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

impl Operator {
    /// Starts it with flags of its own under the account that the namespace has for it, and waits until it runs.
    pub async fn start(namespace: &str, flags: &[&str]) -> Result<Self> {
        Self::start_through(namespace, account::kubeconfig(namespace, OPERATOR), flags).await
    }

    /// The same, but for all namespaces.
    pub async fn start_everywhere(namespace: &str, flags: &[&str]) -> Result<Self> {
        let flags = flags.iter().map(|f| (*f).to_owned()).collect();
        let kubeconfig = account::kubeconfig(namespace, OPERATOR);
        Self::spawn(namespace, kubeconfig, flags, false)?.runs().await
    }

    /// Starts it with a kubeconfig of its own, and waits until it runs.
    pub async fn start_through(namespace: &str, kubeconfig: PathBuf, flags: &[&str]) -> Result<Self> {
        Self::spawn(namespace, kubeconfig, for_one(namespace, flags), false)?.runs().await
    }

    /// Starts it inside the cluster's network, and waits until it runs.
    pub async fn start_inside(namespace: &str, flags: &[&str]) -> Result<Self> {
        let kubeconfig = account::kubeconfig(namespace, OPERATOR);
        Self::spawn(namespace, kubeconfig, for_one(namespace, flags), true)?.runs().await
    }

    /// Has the cluster run it, and waits until it runs.
    pub async fn deploy(client: &Client, namespace: &str, flags: &[&str]) -> Result<Self> {
        let log = log_file(namespace)?;
        let home = Home::Cluster(Deployed::start(client, namespace, flags, &log).await?);
        let kubeconfig = account::kubeconfig(namespace, OPERATOR);
        let flags = flags.iter().map(|f| (*f).to_owned()).collect();
        Self { home, log, namespace: namespace.to_owned(), kubeconfig, flags, inside: true }.runs().await
    }

    async fn runs(self) -> Result<Self> {
        let operator = self;
        let began = Instant::now();
        while !operator.log().contains(" running ") {
            if began.elapsed() > DEADLINE {
                bail!("the operator does not start:\n{}", operator.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(operator)
    }

    /// Starts it without waiting. The log of earlier runs is kept.
    fn spawn(namespace: &str, kubeconfig: PathBuf, flags: Vec<String>, inside: bool) -> Result<Self> {
        let log = log_file(namespace)?;
        let file = File::options().create(true).append(true).open(&log)?;
        let mut line = if inside { netns::command() } else { Vec::new() };
        line.push(binary().display().to_string());
        let child = Command::new(&line[0])
            .args(&line[1..])
            .args(["run", "--listen", "127.0.0.1:0"])
            .args(&flags)
            .env("KUBECONFIG", &kubeconfig)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("run `make build`: {} does not start", binary().display()))?;
        let home = Home::Process(child);
        Ok(Self { home, log, namespace: namespace.to_owned(), kubeconfig, flags, inside })
    }

    /// Kills it at once, as a node's failure would.
    pub fn kill(&mut self) {
        let process = self.home.process();
        // An error means that it has ended already.
        process.kill().ok();
        process.wait().ok();
    }

    /// Asks it to stop, as the kubelet does.
    pub fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw) {
            // An error means that it has ended already.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
    }

    /// Waits until it has ended; true = well.
    pub async fn ended(&mut self) -> Result<bool> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.home.process().try_wait()? {
                return Ok(status.success());
            }
            if began.elapsed() > DEADLINE {
                bail!("the operator does not end:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it and starts another.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let kubeconfig = std::mem::take(&mut self.kubeconfig);
        let flags = std::mem::take(&mut self.flags);
        *self = Self::spawn(&self.namespace, kubeconfig, flags, self.inside)?;
        Ok(())
    }

    /// What it tells Prometheus.
    pub fn metrics(&self) -> Result<String> {
        let addresses = self.addresses();
        let answer = self.get(addresses.last().context("nothing is served")?, "/metrics")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok(body.to_owned())
    }

    /// Where the operators of this namespace have served health and metrics, the last one last.
    pub fn addresses(&self) -> Vec<String> {
        if let Home::Cluster(deployed) = &self.home {
            return vec![deployed.address.clone()];
        }
        let log = self.log();
        let told = log.split(" address=").skip(1);
        told.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
    }

    /// Asks one of these addresses for something. The answer begins with its head.
    pub fn get(&self, address: &str, path: &str) -> Result<String> {
        let mut stream = if self.inside {
            netns::inside(|| TcpStream::connect(address))??
        } else {
            TcpStream::connect(address)?
        };
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The sum of a metric's samples whose labels hold a text.
    pub fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let mut sum = 0.0;
        for line in self.metrics()?.lines().filter(|line| line.contains(labels)) {
            let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' '])) else {
                continue;
            };
            sum += rest.rsplit_once(' ').context("no value")?.1.parse::<f64>()?;
        }
        Ok(sum)
    }

    /// Bytes of memory that it holds now.
    pub fn memory(&self) -> Result<u64> {
        resident(self.pid())
    }

    pub fn pid(&self) -> u32 {
        match &self.home {
            Home::Process(child) => child.id(),
            Home::Cluster(_) => panic!("this test wants an operator of its own: World::start_process"),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// How long the Lease of tests' replicas lasts: so many seconds.
const LEASE_SECONDS: &str = "6";
pub const LEASE: Duration = Duration::from_secs(6);

/// The flags of a replica of a name, one of several of which one leads.
pub fn replica_flags<'a>(namespace: &'a str, name: &'a str) -> [&'a str; 8] {
    [
        "--lease",
        "stoker",
        "--lease-namespace",
        namespace,
        "--lease-seconds",
        LEASE_SECONDS,
        "--lease-identity",
        name,
    ]
}

/// Where it logs to; later operators of the namespace log there, too.
fn log_file(namespace: &str) -> Result<PathBuf> {
    let dir = root().join("target/e2e");
    std::fs::create_dir_all(&dir)?;
    Ok(dir.join(format!("{namespace}.log")))
}

/// The flags of an operator that looks after one namespace.
fn for_one(namespace: &str, flags: &[&str]) -> Vec<String> {
    ["--namespace", namespace].iter().chain(flags).map(|flag| (*flag).to_owned()).collect()
}

impl Drop for Operator {
    fn drop(&mut self) {
        if matches!(self.home, Home::Process(_)) {
            self.kill();
        }
    }
}
