//! The local cluster's parts: they are killed, and its supervisor starts them again.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{DEADLINE, client, root};

/// A part's process as the supervisor recorded it.
fn recorded(part: &str) -> Result<(u64, u64)> {
    let file = root().join("target/cluster/run/state.json");
    let text = std::fs::read(&file)
        .with_context(|| format!("no cluster: run `make cluster-up` ({} is missing)", file.display()))?;
    let state: Value = serde_json::from_slice(&text)?;
    let process = &state["parts"][part];
    let number = |field: &str| process[field].as_u64().with_context(|| format!("{part} has no {field}"));
    Ok((number("pid")?, number("start")?))
}

/// When a process began, in ticks since the boot; None when there is none.
fn began(pid: u64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may hold spaces: fields are counted after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// Kills a part at once, as a crash would.
pub fn kill(part: &str) -> Result<()> {
    let (pid, start) = recorded(part)?;
    ensure!(began(pid) == Some(start), "{part} does not run");
    let done = Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    ensure!(done.success(), "{part} cannot be killed");
    let killed = Instant::now();
    // The number stays in use until the supervisor has taken notice; only then is another one recorded.
    while recorded(part)? == (pid, start) {
        if killed.elapsed() > DEADLINE {
            bail!("{part} is not started again after {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until the API server is ready, its store included.
pub async fn ready() -> Result<()> {
    let client = client().await?;
    let began = Instant::now();
    loop {
        let asked = hyper::Request::get("/readyz").body(Vec::new())?;
        match tokio::time::timeout(Duration::from_secs(10), client.request_text(asked)).await {
            Ok(Ok(_)) => return Ok(()),
            _ if began.elapsed() > DEADLINE => bail!("the API server is not ready after {DEADLINE:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
