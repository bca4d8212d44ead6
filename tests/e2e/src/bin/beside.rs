//! Measures what bad policies cost good pools: flips of 200 good pools alone, then beside 200 pools whose
//! policies loop, trap, grow, recurse, lie or do not compile, then alone again.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use stoker_e2e::flips::{fill, flip};
use stoker_e2e::guests::{bad_policies, padded};
use stoker_e2e::{World, condition};

const POOLS: usize = 200;
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let world = World::start("beside").await?;
    let operator = world.operator();
    let good: Vec<String> = (0..POOLS).map(|i| format!("good-{i}")).collect();
    fill(&world, &good).await?;
    let memory = |what: &str| -> Result<()> {
        println!("memory of the operator {what}: {} MiB", operator.memory()? >> 20);
        Ok(())
    };
    memory("with 200 good pools")?;
    let alone = flip(&world, &good, ROUNDS).await?;
    println!("{POOLS} good pools alone, {alone}");

    let began = Instant::now();
    let bad = bad_policies();
    for number in 0..POOLS {
        let name = format!("bad-{number}");
        let (_, bytes) = &bad[number % bad.len()];
        world.put_policy(&name, &padded(bytes, number as u8)).await?;
        world.apply_pool(&name, json!({"idleTarget": 1, "policy": {"configMap": {"name": name}}})).await?;
    }
    let first = flip(&world, &good, ROUNDS).await?;
    println!("while {POOLS} bad policies are loaded, {first}");
    for number in 0..POOLS {
        world
            .status(&format!("bad-{number}"), "told to be bad", |pool| {
                condition(pool, "PolicyHealthy")
                    .is_some_and(|(s, reason, _)| s == "False" && reason != "Loading")
            })
            .await?;
    }
    println!("all of them told after {:.1?}", began.elapsed());
    memory("with 200 bad pools beside")?;
    let beside = flip(&world, &good, ROUNDS).await?;
    println!("{POOLS} good pools beside {POOLS} bad ones, {beside}");
    memory("after the flips")?;
    for number in 0..POOLS {
        world.pools().delete(&format!("bad-{number}"), &Default::default()).await?;
    }
    let again = flip(&world, &good, ROUNDS).await?;
    println!("alone again, {again}");
    let base = (alone.at(0.99) + again.at(0.99)) / 2.0;
    println!("p99 beside / p99 alone (mean of both): {:.2}", beside.at(0.99) / base);
    println!("restarts of the operator: {}", operator.log().matches(" running ").count() - 1);
    world.finish().await
}
