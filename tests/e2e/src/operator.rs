//! An operator process for one namespace.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{DEADLINE, kubeconfig, root};

/// A running operator; it is killed when dropped.
pub struct Operator {
    child: Child,
    log: PathBuf,
    namespace: String,
}

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("STOKER_BIN").map_or_else(|| root().join("target/debug/stoker"), PathBuf::from)
}

impl Operator {
    /// Starts it and waits until it runs.
    pub async fn start(namespace: &str) -> Result<Self> {
        let operator = Self::spawn(namespace)?;
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
    pub fn spawn(namespace: &str) -> Result<Self> {
        let dir = root().join("target/e2e");
        std::fs::create_dir_all(&dir)?;
        let log = dir.join(format!("{namespace}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(binary())
            .args(["run", "--namespace", namespace, "--listen", "off"])
            .env("KUBECONFIG", kubeconfig())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("run `make build`: {} does not start", binary().display()))?;
        Ok(Self { child, log, namespace: namespace.to_owned() })
    }

    /// Kills it at once, as a node's failure would.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Kills it and starts another.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        *self = Self::spawn(&self.namespace)?;
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
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

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}
