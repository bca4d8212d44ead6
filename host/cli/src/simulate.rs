//! `stoker simulate`: policies are tried on a load before they touch a cluster.

mod picture;
mod table;

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize as _;
use serde_json::Value;
use stoker_api::{HotStandbyDeployment, HotStandbyJob};
use stoker_operator::rehearsal::Pool;
use stoker_policy::{HostOptions, Limits, PolicyHost};
use stoker_simulate::{Decider, Load, Outcome, Setup, Shape, Startup, generate, run};

use crate::claim::block_on;
use crate::out;
use crate::policy::Component;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table, and a picture of each simulation.
    Terminal,
    /// The table alone, as Markdown.
    Markdown,
    /// The pictures, as one SVG document.
    Svg,
    /// All figures.
    Json,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker simulate -f web.yaml --load evening.csv
  stoker simulate -f web.yaml --load evening.csv --policy formula --policy builtin:percent-buffer='{\"percent\": 25}'
  stoker simulate -f web.yaml --generate diurnal --peak 60 --lasts 20m --hours 168 --policy rush_hour.wasm
  stoker simulate -f web.yaml --load evening.csv -o svg > evening.svg

A load is CSV, with the columns at,duration (a line for each request: when it comes, how long it keeps a pod busy) or \
time,busy (how many are busy from then on); or the JSON answer to a Prometheus range query. Times are RFC 3339 or seconds \
from the beginning. The pool has an hour to fill before the load begins.

The best possible is that of hindsight: the fewest pod-hours with which every request is served at once. Between two \
uses a pod is kept, or lets another start in time, whichever costs less; see README.")]
pub struct Args {
    /// The object: a file with a HotStandbyDeployment or HotStandbyJob, whose bounds, delays and policy hold.
    #[arg(long, short = 'f', value_name = "FILE")]
    file: PathBuf,
    /// A recorded load; may be given more than once.
    #[arg(long, value_name = "FILE")]
    load: Vec<PathBuf>,
    /// A load that is made up: diurnal, bursts, ramps, flash-crowd; may be given more than once.
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    generate: Vec<Shape>,
    /// How many are busy at the peak of a load that is made up.
    #[arg(long, default_value_t = 40.0, value_name = "NUMBER")]
    peak: f64,
    /// How long a request of such a load lasts on average.
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = span)]
    lasts: SignedDuration,
    /// How many hours such a load lasts.
    #[arg(long, default_value_t = 48.0)]
    hours: f64,
    /// Write the loads as CSV into this folder, too.
    #[arg(long, value_name = "FOLDER")]
    save_loads: Option<PathBuf>,
    /// Who decides: formula, builtin:NAME or a .wasm file, each with =CONFIG if it takes any; may be given more than once.
    /// Omitted: what the object names.
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// How long pods take to start: half of them, and 99 of a hundred, at most.
    #[arg(long, default_value = "20s,60s", value_name = "P50,P99", value_parser = startup)]
    startup: Startup,
    /// Requests are claims: the operator knows of those that wait.
    #[arg(long)]
    claims: bool,
    /// The seed of what happens by chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What is printed.
    #[arg(long, short = 'o', value_enum, default_value = "terminal")]
    output: Output,
}

fn shape(text: &str) -> Result<Shape, String> {
    let names = || Shape::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = Shape::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, shape)| *shape).ok_or_else(|| format!("there is no such shape; there are {}", names()))
}

fn span(text: &str) -> Result<SignedDuration, String> {
    let span = text.parse::<SignedDuration>().ok().filter(SignedDuration::is_positive);
    span.ok_or_else(|| "write a duration such as 30s or 5m".to_owned())
}

fn startup(text: &str) -> Result<Startup, String> {
    let (p50, p99) = text.split_once(',').ok_or("write two durations such as 20s,60s")?;
    let (p50, p99) = (span(p50)?, span(p99)?);
    if p99 < p50 { Err("the second is shorter than the first".to_owned()) } else { Ok(Startup { p50, p99 }) }
}

pub fn simulate(args: &Args) -> Result<ExitCode> {
    let object = object(&args.file)?;
    let loads = loads(args)?;
    ensure!(!loads.is_empty(), "there is no load: give one with --load FILE or --generate SHAPE");
    if let Some(folder) = &args.save_loads {
        save(folder, &loads)?;
    }
    let began = Instant::now();
    let outcomes = block_on(all(args, object, &loads))?;
    let text = match args.output {
        Output::Terminal => {
            let width = width();
            let pictures =
                outcomes.iter().map(|outcome| picture::terminal(outcome, width)).collect::<Vec<_>>();
            format!(
                "{}\n{}\n{}",
                pictures.join("\n"),
                table::text(&outcomes),
                speed(&outcomes, began.elapsed())
            )
        }
        Output::Markdown => table::markdown(&outcomes),
        Output::Svg => picture::svg(&outcomes)?,
        Output::Json => serde_json::to_string_pretty(&outcomes)? + "\n",
    };
    out::print(format_args!("{text}"));
    for outcome in outcomes.iter().filter(|outcome| outcome.failures > 0) {
        let error = outcome.error.as_deref().unwrap_or_default();
        eprintln!(
            "stoker: {} on {} failed {} times: {error}",
            outcome.policy, outcome.load, outcome.failures
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    size.filter(|columns| *columns >= 40).unwrap_or(80).min(160)
}

/// How fast simulated time passed.
fn speed(outcomes: &[Outcome], took: Duration) -> String {
    let hours: f64 = outcomes.iter().map(|outcome| outcome.simulated.as_secs_f64() / 3600.0).sum();
    let seconds = took.as_secs_f64().max(0.001);
    format!(
        "{hours:.0} hours were simulated in {seconds:.1} s: {:.0} times as fast.\n",
        hours * 3600.0 / seconds
    )
}

fn object(file: &Path) -> Result<Pool> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = Value::deserialize(document).with_context(|| name.to_string())?;
        match value["kind"].as_str() {
            Some("HotStandbyDeployment") => {
                let read = serde_json::from_value::<HotStandbyDeployment>(value);
                let mut object = read.with_context(|| format!("{name}: not a HotStandbyDeployment"))?;
                identify(&mut object.metadata);
                return Ok(Pool::Pods(Arc::new(object)));
            }
            Some("HotStandbyJob") => {
                let read = serde_json::from_value::<HotStandbyJob>(value);
                let mut object = read.with_context(|| format!("{name}: not a HotStandbyJob"))?;
                identify(&mut object.metadata);
                return Ok(Pool::Jobs(Arc::new(object)));
            }
            _ => {}
        }
    }
    bail!("{name} holds no HotStandbyDeployment and no HotStandbyJob")
}

/// What a cluster would give an object.
fn identify(meta: &mut ObjectMeta) {
    meta.uid.get_or_insert_with(|| "00000000-0000-4000-8000-000000000000".to_owned());
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.generation.get_or_insert(1);
}

fn loads(args: &Args) -> Result<Vec<Load>> {
    let mut loads = Vec::new();
    for file in &args.load {
        let name = file.display();
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        loads.push(Load::read(&stem, &text).with_context(|| name.to_string())?);
    }
    ensure!(args.peak > 0.0 && args.peak <= 10_000.0, "--peak {}: from 1 to 10000", args.peak);
    ensure!(args.hours > 0.0 && args.hours <= 8_784.0, "--hours {}: up to 8784, which is a year", args.hours);
    loads.extend(args.generate.iter().map(|of| generate(*of, args.peak, args.lasts, args.hours, args.seed)));
    Ok(loads)
}

fn save(folder: &Path, loads: &[Load]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for load in loads {
        let file = folder.join(format!("{}.csv", load.name));
        let begins =
            load.requests.first().map(|request| request.at.as_second() / 86_400 * 86_400).unwrap_or(0);
        let mut text = String::from("at,duration\n");
        for request in &load.requests {
            let at = request.at.as_millisecond() as f64 / 1000.0 - begins as f64;
            text += &format!("{at:.1},{:.0}\n", request.lasts.as_secs_f64().max(1.0));
        }
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Who decides, with the name that it is told under.
async fn decider(host: &PolicyHost, text: &str) -> Result<(String, Decider)> {
    if text == "formula" {
        return Ok((text.to_owned(), Decider::Formula));
    }
    let (name, config) = text.split_once('=').unwrap_or((text, "{}"));
    let component = Component::read(name)?;
    let policy = host.load(component.bytes.clone()).await.with_context(|| name.to_owned())?;
    ensure!(policy.exports().scaling, "{name} does not decide sizes");
    let given: Value =
        serde_yaml::from_str(config).with_context(|| format!("{text}: the config is not JSON"))?;
    let config = given.to_string();
    host.validate(&policy, &config, Limits::default()).await.map_err(|refusal| {
        anyhow!("{text}: {refusal}; give the config behind an equals sign, such as {name}='{{…}}'")
    })?;
    let shown = Path::new(name.trim_start_matches("builtin:")).file_stem();
    let shown = shown.map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default() + &in_brief(&given);
    Ok((shown, Decider::Policy(policy, config)))
}

/// A config beside a policy's name, if it is short.
fn in_brief(config: &Value) -> String {
    let pairs = config.as_object().into_iter().flatten();
    let pair = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key} {text}"),
        other => format!("{key} {other}"),
    };
    let text = pairs.map(pair).collect::<Vec<_>>().join(", ");
    if text.is_empty() || text.len() > 30 { String::new() } else { format!(" ({text})") }
}

/// The policy that the object itself names.
fn own(pool: &Pool) -> Result<String> {
    let Some(policy) = &pool.spec().policy else { return Ok("formula".to_owned()) };
    let Some(name) = &policy.builtin else {
        bail!("the object's policy is in a ConfigMap: give its component with --policy FILE")
    };
    let config = policy.config.as_ref().map_or_else(|| "{}".to_owned(), ToString::to_string);
    Ok(format!("builtin:{name}={config}"))
}

async fn all(args: &Args, pool: Pool, loads: &[Load]) -> Result<Vec<Outcome>> {
    let host = PolicyHost::new(HostOptions::default())?;
    let names = if args.policy.is_empty() { vec![own(&pool)?] } else { args.policy.clone() };
    let mut deciders = Vec::new();
    for name in &names {
        deciders.push(decider(&host, name).await?);
    }
    let setup = Setup { pool, host, startup: args.startup, claims: args.claims, seed: args.seed };
    let runs = (loads.len() * deciders.len()) as u64;
    let bar = ProgressBar::new(100 * runs);
    let hidden = !std::io::stderr().is_terminal();
    bar.set_draw_target(if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
    bar.set_style(ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}")?);
    let mut outcomes = Vec::new();
    for load in loads {
        for (name, decider) in &deciders {
            let done = 100 * outcomes.len() as u64;
            bar.set_message(format!("{name} on {}", load.name));
            let told = |share: f64| bar.set_position(done + (100.0 * share) as u64);
            outcomes.push(run(&setup, load, name, decider, told).await);
        }
    }
    bar.finish_and_clear();
    Ok(outcomes)
}
