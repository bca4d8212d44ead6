//! Measures what bad policies cost good pools: flips of 200 good pools by turns alone and beside 200 pools whose policies
//! loop, trap, grow, recurse, lie or do not compile. By turns, because a shared machine and the API server drift within
//! the minutes that this takes.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use stoker_e2e::flips::{Waits, fill, flip};
use stoker_e2e::guests::{bad_policies, padded};
use stoker_e2e::load::Members;
use stoker_e2e::{World, condition};

const POOLS: usize = 200;
const ROUNDS: usize = 5;
const TURNS: usize = 2;

#[tokio::main]
async fn main() -> Result<()> {
    let world = World::start_process("beside").await?;
    let operator = world.operator();
    let good: Vec<String> = (0..POOLS).map(|i| format!("good-{i}")).collect();
    fill(&world, Members::Pods, &good).await?;
    let memory = |what: &str| -> Result<()> {
        println!("memory of the operator {what}: {} MiB", operator.memory()? >> 20);
        Ok(())
    };
    memory("with 200 good pools")?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        alone.push(flip(&world, Members::Pods, &good, ROUNDS).await?);
        println!("{POOLS} good pools alone, {}", alone[turn]);
        if turn == TURNS {
            break;
        }
        add_bad(&world, turn).await?;
        memory("with 200 bad pools beside")?;
        beside.push(flip(&world, Members::Pods, &good, ROUNDS).await?);
        println!("{POOLS} good pools beside {POOLS} bad ones, {}", beside[turn]);
        for number in 0..POOLS {
            world.pools().delete(&format!("bad-{number}"), &Default::default()).await?;
        }
    }
    memory("at the end")?;
    let (alone, beside) = (Waits::together(alone), Waits::together(beside));
    println!("all turns alone: {alone}\nall turns beside: {beside}");
    println!("p99 beside / p99 alone: {:.2}", beside.at(0.99) / alone.at(0.99));
    println!("restarts of the operator: {}", operator.log().matches(" running ").count() - 1);
    world.finish().await
}

/// Applies the bad pools, each turn with components that are not known yet, and waits until all are told to be bad.
async fn add_bad(world: &World, turn: usize) -> Result<()> {
    let began = Instant::now();
    let bad = bad_policies();
    for number in 0..POOLS {
        let name = format!("bad-{number}");
        let (_, bytes) = &bad[number % bad.len()];
        let bytes = padded(&padded(bytes, number as u8), turn as u8);
        world.put_policy(&name, &bytes).await?;
        world.apply_pool(&name, json!({"idleTarget": 1, "policy": {"configMap": {"name": name}}})).await?;
    }
    for number in 0..POOLS {
        world
            .status(&format!("bad-{number}"), "told to be bad", |pool| {
                condition(pool, "PolicyHealthy")
                    .is_some_and(|(s, reason, _)| s == "False" && reason != "Loading")
            })
            .await?;
    }
    println!("all bad ones told after {:.1?}", began.elapsed());
    Ok(())
}
