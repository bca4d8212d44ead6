//! Measures 200 flips over 20 pools of 5 idle pods on simulated nodes.

use anyhow::Result;
use stoker_e2e::World;
use stoker_e2e::flips::{fill, flip};

const POOLS: usize = 20;
const ROUNDS: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let world = World::start("flips").await?;
    let names: Vec<String> = (0..POOLS).map(|i| format!("pool-{i}")).collect();
    fill(&world, &names).await?;
    println!("flip → create request, {POOLS} pools, {}", flip(&world, &names, ROUNDS).await?);
    world.finish().await
}
