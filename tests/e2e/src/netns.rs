//! The cluster's own network: pods have addresses there and nowhere else. A socket belongs to the network of the
//! thread that made it, so that a test makes it inside and uses it like any other.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::root;

/// The real node's address, which is the cluster's own machine: pods reach there what is served inside.
pub const NODE: &str = "10.123.0.1";

/// The addresses of simulated pods.
const SIMULATED_PODS: &str = "10.124.0.0/16";

/// The file that stands for the network; none where the cluster came up without one of its own.
pub fn file() -> Option<PathBuf> {
    if std::env::var_os("KUBECONFIG").is_some() {
        return None;
    }
    let state = std::fs::read(root().join("target/cluster/run/state.json")).ok()?;
    let state: Value = serde_json::from_slice(&state).ok()?;
    let inside = state["inNetns"].as_bool().unwrap_or(false);
    let pid = state["parts"]["kube-apiserver"]["pid"].as_u64()?;
    inside.then(|| PathBuf::from(format!("/proc/{pid}/ns/net")))
}

/// Whether tests can reach pods; says so if not.
pub fn is_there() -> bool {
    let there = file().is_some();
    if !there {
        println!(
            "skipped: this cluster has no network of its own (that takes root), so pods cannot be reached"
        );
    }
    there
}

/// The command that runs another one inside.
pub fn command() -> Vec<String> {
    let program = root().join("target/cluster/bin/stoker-cluster");
    vec![program.display().to_string(), "exec".to_owned(), "--".to_owned()]
}

/// Does something on a thread that is inside.
///
/// # Errors
/// When there is no inside.
pub fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let path = file().context("the cluster has no network of its own")?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<T> {
            let network = File::open(&path).with_context(|| format!("{}", path.display()))?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering the cluster's network: are you root?")?;
            Ok(work())
        });
        thread.join().map_err(|_| anyhow!("the thread inside panicked"))?
    })
}

/// Makes the addresses of simulated pods those of the cluster's own machine, so that one server there answers
/// for all of them.
///
/// # Errors
/// When `ip` fails.
pub fn answer_for_simulated_pods() -> Result<()> {
    let line = command();
    let status = std::process::Command::new(&line[0])
        .args(&line[1..])
        .args(["ip", "route", "replace", "local", SIMULATED_PODS, "dev", "lo"])
        .status()?;
    anyhow::ensure!(status.success(), "ip route: {status}");
    Ok(())
}
