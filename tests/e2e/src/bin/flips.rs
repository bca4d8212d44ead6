//! Measures from the flip of a pod's annotation to the request that creates its replacement, as the API server's
//! audit log dates both: 200 flips over 20 pools of 5 idle pods on simulated nodes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::ResourceExt;
use serde_json::{Value, json};
use stoker_api::keys;
use stoker_e2e::{World, root};

const POOLS: usize = 20;
const FLIPS: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let world = World::start("flips").await?;
    let names: Vec<String> = (0..POOLS).map(|i| format!("pool-{i}")).collect();
    for name in &names {
        world
            .apply_pool(name, json!({"idleTarget": 5, "maxReplicas": 40, "scaleDownDelaySeconds": 600}))
            .await?;
    }
    for name in &names {
        world.counts(name, 0, 5, 5).await?;
    }
    for flip in 0..FLIPS {
        for name in &names {
            let idle = world
                .alive(name)
                .await?
                .into_iter()
                .find(|p| !p.annotations().contains_key(keys::DEFAULT_BUSY_ANNOTATION));
            let pod = idle.with_context(|| format!("{name} has no idle pod at flip {flip}"))?;
            world.set_busy(&[pod], true).await?;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    for name in &names {
        world.counts(name, FLIPS as u32, 5, FLIPS as u32 + 5).await?;
    }

    let mut waits = waits(&world.namespace)?;
    waits.sort_by(f64::total_cmp);
    let at = |q: f64| waits[((waits.len() as f64 - 1.0) * q).round() as usize];
    println!(
        "{} flips, {POOLS} pools: flip → create request p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        waits.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    world.finish().await
}

/// For each flip, milliseconds from the answer to the patch to the arrival of the pool's next create request.
fn waits(namespace: &str) -> Result<Vec<f64>> {
    let file = std::fs::File::open(root().join("target/cluster/logs/audit.log"))?;
    let (mut flips, mut creates) = (HashMap::<String, Vec<f64>>::new(), HashMap::<String, Vec<f64>>::new());
    for line in BufReader::new(file).lines() {
        let line = line?;
        if !line.contains(namespace) {
            continue;
        }
        let event: Value = serde_json::from_str(&line)?;
        let about = &event["objectRef"];
        let code = event["responseStatus"]["code"].as_u64().unwrap_or(0);
        if about["namespace"] != namespace || about["resource"] != "pods" || !(200..300).contains(&code) {
            continue;
        }
        let owner =
            event["responseObject"]["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default();
        let time = |field: &str| -> Result<f64> {
            let at: jiff::Timestamp = event[field].as_str().unwrap_or_default().parse()?;
            Ok(at.as_microsecond() as f64 / 1000.0)
        };
        let dry = event["requestURI"].as_str().is_some_and(|u| u.contains("dryRun"));
        match event["verb"].as_str() {
            Some("patch") if event["requestObject"]["metadata"]["annotations"].is_object() => {
                flips.entry(owner.to_owned()).or_default().push(time("stageTimestamp")?);
            }
            Some("create") if about["subresource"].is_null() && !dry => {
                creates.entry(owner.to_owned()).or_default().push(time("requestReceivedTimestamp")?);
            }
            _ => {}
        }
    }
    let mut waits = Vec::new();
    for (owner, mut flips) in flips {
        let mut creates = creates.remove(&owner).unwrap_or_default();
        flips.sort_by(f64::total_cmp);
        creates.sort_by(f64::total_cmp);
        // The pool's last creations answer its flips one by one: both are in order, and flips of one pool are far apart.
        let answers = &creates[creates.len() - flips.len()..];
        waits.extend(flips.iter().zip(answers).map(|(flip, create)| create - flip));
    }
    Ok(waits)
}
