//! From the flip of a pod's annotation to the request that creates its replacement, as the API server's audit
//! log dates both.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;
use stoker_api::{HotStandbyDeployment, HotStandbyJob, keys};

use crate::World;
use crate::audit::log;
use crate::jobs::JobPool;
use crate::load::Members;

/// Milliseconds of each flip, sorted.
pub struct Waits(Vec<f64>);

impl Waits {
    /// Of these milliseconds.
    pub fn new(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        Self(milliseconds)
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The flips of several runs.
    pub fn together(runs: Vec<Self>) -> Self {
        let mut all: Vec<f64> = runs.into_iter().flat_map(|run| run.0).collect();
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// The usual quantiles, in words.
    pub fn told(&self) -> String {
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|q| self.at(q));
        format!("p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")
    }

    /// The quantile, in milliseconds.
    pub fn at(&self, quantile: f64) -> f64 {
        self.0[((self.0.len() as f64 - 1.0) * quantile).round() as usize]
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} flips: {}", self.count(), self.told())
    }
}

/// Applies pools of 5 idle pods or Jobs that never shrink meanwhile, and waits until they are filled.
pub async fn fill(world: &World, members: Members, names: &[String]) -> Result<()> {
    for name in names {
        let spec = json!({"idleTarget": 5, "maxReplicas": 40, "scaleDownDelaySeconds": 600});
        match members {
            Members::Pods => drop(world.apply_pool(name, spec).await?),
            Members::Jobs => drop(JobPool { world, name }.apply(spec).await?),
        }
    }
    filled(world, members, names).await
}

async fn filled(world: &World, members: Members, names: &[String]) -> Result<()> {
    for name in names {
        match members {
            Members::Pods => {
                let full = |p: &HotStandbyDeployment| p.status.as_ref().is_some_and(|s| s.idle_count == 5);
                world.status(name, "filled", full).await?;
            }
            Members::Jobs => {
                let full = |p: &HotStandbyJob| p.status.as_ref().is_some_and(|s| s.idle_count == 5);
                JobPool { world, name }.status("filled", full).await?;
            }
        }
    }
    Ok(())
}

/// Turns one idle pod of each pool busy, pool by pool, so many times, one flip every 25 ms; waits until each
/// pool is refilled, and tells how long each replacement took.
pub async fn flip(world: &World, members: Members, names: &[String], rounds: usize) -> Result<Waits> {
    let since = Timestamp::now();
    for round in 0..rounds {
        for name in names {
            let alive = match members {
                Members::Pods => world.alive(name).await?,
                Members::Jobs => JobPool { world, name }.pods().await?,
            };
            let idle =
                alive.into_iter().find(|p| !p.annotations().contains_key(keys::DEFAULT_BUSY_ANNOTATION));
            let pod = idle.with_context(|| format!("{name} has no idle pod in round {round}"))?;
            world.set_busy(&[pod], true).await?;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    filled(world, members, names).await?;
    waits(&world.namespace, members, since)
}

/// For each flip since then, from the answer to the patch to the arrival of the pool's next create request.
pub(crate) fn waits(namespace: &str, members: Members, since: Timestamp) -> Result<Waits> {
    let (made, label) = match members {
        Members::Pods => ("pods", keys::HSD_NAME),
        Members::Jobs => ("jobs", keys::HSJ_NAME),
    };
    let (mut flips, mut creates) = (HashMap::<String, Vec<f64>>::new(), HashMap::<String, Vec<f64>>::new());
    for event in log(namespace, since)? {
        let about = &event["objectRef"];
        let code = event["responseStatus"]["code"].as_u64().unwrap_or(0);
        let of = |resource: &str| about["resource"] == resource;
        if about["namespace"] != namespace || !(of("pods") || of(made)) || !(200..300).contains(&code) {
            continue;
        }
        // Of a Job the log holds no more than its name.
        let name = about["name"].as_str().unwrap_or_default();
        let named = name.rsplit_once("-w-").map(|(pool, _)| pool).filter(|_| of("jobs"));
        let label = event["responseObject"]["metadata"]["labels"][label].as_str();
        let owner = named.or(label).unwrap_or_default();
        let time =
            |field: &str| -> Result<Timestamp> { Ok(event[field].as_str().unwrap_or_default().parse()?) };
        if time("requestReceivedTimestamp")? < since {
            continue;
        }
        let millis = |at: Timestamp| at.as_microsecond() as f64 / 1000.0;
        let dry = event["requestURI"].as_str().is_some_and(|u| u.contains("dryRun"));
        match event["verb"].as_str() {
            Some("patch") if of("pods") && event["requestObject"]["metadata"]["annotations"].is_object() => {
                flips.entry(owner.to_owned()).or_default().push(millis(time("stageTimestamp")?));
            }
            Some("create") if of(made) && about["subresource"].is_null() && !dry => {
                creates.entry(owner.to_owned()).or_default().push(millis(time("requestReceivedTimestamp")?));
            }
            _ => {}
        }
    }
    let mut waits = Vec::new();
    for (owner, mut flips) in flips {
        let mut creates = creates.remove(&owner).unwrap_or_default();
        flips.sort_by(f64::total_cmp);
        creates.sort_by(f64::total_cmp);
        // Creations answer flips one by one: both are in order, and flips of one pool are far apart.
        waits.extend(flips.iter().zip(&creates).map(|(flip, create)| create - flip));
    }
    waits.sort_by(f64::total_cmp);
    anyhow::ensure!(!waits.is_empty(), "the audit log holds no flip");
    Ok(Waits(waits))
}
