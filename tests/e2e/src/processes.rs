//! What the processes of a measurement cost.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{World, root};

/// Processor time that a process has taken.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name: the state, and the times in hundredths of a second at places 11 and 12.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).context("no times")?.parse::<u64>().context("no number");
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// The most bytes of memory that a process has held at a time.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// The parts of the cluster that run, with their processes.
pub fn cluster_parts() -> Result<Vec<(String, u32)>> {
    let state = std::fs::read(root().join("target/cluster/run/state.json")).context("no cluster runs")?;
    let state: Value = serde_json::from_slice(&state)?;
    let parts = state["parts"].as_object().into_iter().flatten();
    Ok(parts
        .filter_map(|(name, part)| Some((name.clone(), part["pid"].as_u64()?.try_into().ok()?)))
        .collect())
}

/// What each process has taken since a beginning: the claimant's or whoever else measures, the operator's, the cluster's.
pub struct Cost(Vec<(String, u32, Duration)>);

impl Cost {
    pub fn begin(world: &World) -> Result<Self> {
        let ours =
            [("measurer".to_owned(), std::process::id()), ("operator".to_owned(), world.operator().pid())];
        let all = ours.into_iter().chain(cluster_parts()?);
        let timed = all.map(|(name, pid)| Ok((name, pid, processor_time(pid)?)));
        timed.collect::<Result<_>>().map(Self)
    }

    /// Milliseconds of processor time for each of so many, the most costly first.
    pub fn each(&self, count: usize) -> Result<String> {
        let mut costs = Vec::new();
        for (name, pid, before) in &self.0 {
            // One that has ended meanwhile tells nothing any more.
            let taken = processor_time(*pid).unwrap_or(*before).saturating_sub(*before);
            costs.push((taken.as_secs_f64() * 1000.0 / count as f64, name));
        }
        costs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let told =
            costs.iter().filter(|(cost, _)| *cost >= 0.05).map(|(cost, name)| format!("{name} {cost:.1}"));
        Ok(told.collect::<Vec<_>>().join(", "))
    }
}
