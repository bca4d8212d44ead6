//! `stoker policy bench`: what a decision costs.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use stoker_policy::{Asked, Limits, Meter, Policy, PolicyHost};

use super::call::read;
use super::component::Component;
use super::fields::{CLASSIFY, LEAD, SCALE};
use crate::claim::block_on;

#[derive(ClapArgs)]
#[command(after_help = "\
Time is that of this machine, a fresh instance for each decision as in the operator, without the wait for a thread. \
Instructions and memory are the same on every machine: compare those from one version to the next. The operator allows \
100 ms of processor time and 32 MiB unless an object's spec.policy.limits say otherwise.")]
pub struct Args {
    /// The component: a .wasm file, or builtin:NAME.
    component: String,
    /// The config that the policy is asked with: a file with JSON or YAML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How often each decision is made.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
}

pub fn bench(args: &Args) -> Result<()> {
    let component = Component::read(&args.component)?;
    let config = match &args.config {
        None => json!({}),
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            serde_yaml::from_str(&text).with_context(|| file.display().to_string())?
        }
    };
    block_on(async {
        let began = Instant::now();
        let (host, policy) = component.load().await?;
        let loaded = began.elapsed();
        if let Err(refusal) = host.validate(&policy, &config.to_string(), Limits::default()).await {
            bail!("{refusal}; give one that it takes with --config");
        }
        let meter = Meter::new(&component.bytes)?;
        let info = policy.info();
        say!(
            "{} {}: {:.1} KiB, ready after {loaded:.0?}\n",
            info.name,
            info.version,
            component.bytes.len() as f64 / 1024.0
        );
        say!("{:<22}{:>10}{:>10}{:>15}{:>12}", "decision", "p50", "p99", "instructions", "memory");
        for (name, asked) in questions(&policy, &config)? {
            let mut times = Vec::new();
            for _ in 0..args.rounds {
                times.push(time(&host, &policy, &asked).await.with_context(|| name.clone())?);
            }
            times.sort();
            let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
            let cost = meter.cost(&asked).with_context(|| name.clone())?;
            say!(
                "{name:<22}{:>10}{:>10}{:>15}{:>12}",
                format!("{:.1?}", at(0.5)),
                format!("{:.1?}", at(0.99)),
                cost.instructions,
                format!("{} KiB", cost.memory_bytes >> 10)
            );
        }
        Ok(())
    })
}

/// How long one decision takes.
async fn time(host: &PolicyHost, policy: &std::sync::Arc<Policy>, asked: &Asked) -> Result<Duration> {
    let limits = Limits::default();
    let timing = match asked {
        Asked::Scale(input) => host.scale(policy, limits, input.clone()).await?.timing,
        Asked::Classify(input) => host.classify(policy, limits, input.clone()).await?.timing,
        Asked::Lead(input) => host.lead(policy, limits, input.clone()).await?.timing,
    };
    Ok(timing.total())
}

/// What is asked: pools of 1, 100 and 1,000 pods, half of them busy; 32 earlier runs.
fn questions(policy: &Policy, config: &Value) -> Result<Vec<(String, Asked)>> {
    let (exports, mut all) = (policy.exports(), Vec::new());
    for pods in [1_u32, 100, 1000] {
        let name = |call: &str| format!("{call}, {pods} pod{}", if pods == 1 { "" } else { "s" });
        let state = |pod: u32| if pod.is_multiple_of(2) { "busy" } else { "idle" };
        if exports.scaling {
            let list: Vec<Value> =
                (0..pods).map(|pod| json!({"state": state(pod), "node": pod % 20})).collect();
            let counts = json!({"current": pods, "ready": pods, "busy": pods.div_ceil(2), "idle": pods / 2});
            let history: Vec<Value> = (0..64_i64)
                .map(|i| json!({"at": 1_767_268_800_000 + i * 60_000, "busy": pods / 2, "total": pods}))
                .collect();
            let input = json!({
                "config": config, "maximum": 2000, "idleTarget": 10, "pods": list, "counts": counts, "history": history,
            });
            all.push((name("scale"), Asked::Scale(read(SCALE, &input, "scale")?)));
        }
        if exports.busyness {
            let pod = |pod: u32| {
                json!({
                    "name": format!("web-{pod}"), "probe": {"http": {"body": r#"{"state": "busy"}"#}},
                    "probeSays": state(pod), "last": {"state": state(pod)}, "annotations": {"example.com/a": "b"},
                })
            };
            let list: Vec<Value> = (0..pods).map(pod).collect();
            let input =
                json!({"config": config, "asks": {"kind": "http", "subject": "/state"}, "pods": list});
            all.push((name("classify"), Asked::Classify(read(CLASSIFY, &input, "classify")?)));
        }
    }
    if exports.warm_up {
        let run = json!({"schedule": "1s", "pull": "20s", "start": "2s", "ready": "15s"});
        let input = json!({"config": config, "runs": vec![run; 32]});
        all.push(("lead, 32 runs".to_owned(), Asked::Lead(read(LEAD, &input, "lead")?)));
    }
    Ok(all)
}
