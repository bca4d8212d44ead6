//! Measures flips over pools of 5 idle pods on simulated nodes, one after the other, and the operator's memory:
//! `flips [POOLS [ROUNDS [jobs]]]`, 20 pools and 10 rounds unless told, of HotStandbyJobs with `jobs`. 500 pools need
//! `make cluster-up SIM_NODES=20`.

use anyhow::{Context as _, Result};
use stoker_e2e::World;
use stoker_e2e::flips::{fill, flip};
use stoker_e2e::load::Members;

#[tokio::main]
async fn main() -> Result<()> {
    let number = |place: usize, default: usize| match std::env::args().nth(place) {
        Some(text) => text.parse().with_context(|| format!("{text} is not a number")),
        None => Ok(default),
    };
    let (pools, rounds) = (number(1, 20)?, number(2, 10)?);
    let members = match std::env::args().nth(3).as_deref() {
        None | Some("pods") => Members::Pods,
        Some("jobs") => Members::Jobs,
        Some(other) => anyhow::bail!("{other}: pods or jobs?"),
    };
    let world = World::start_process("flips").await?;
    let names: Vec<String> = (0..pools).map(|i| format!("pool-{i}")).collect();
    fill(&world, members, &names).await?;
    let waits = flip(&world, members, &names, rounds).await?;
    println!("flip → create request, {pools} pools of {members:?}, {waits}");
    println!("memory of the operator: {} MiB", world.operator().memory()? >> 20);
    world.finish().await
}
