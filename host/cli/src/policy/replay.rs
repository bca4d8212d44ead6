//! `stoker policy replay`: recorded decisions are asked again.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Read};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde_json::{Value, json};
use stoker_policy::{Digest, Exchange, Policy, PolicyHost, RECORD_VERSION, Record, builtin};

use super::call::Call;
use super::component::Component;
use crate::claim::block_on;

/// Decisions of which it is told how they differ.
const TOLD: usize = 10;

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker run --record decisions.jsonl …                       writes what policies are asked and answer
  stoker policy replay decisions.jsonl --policy rush.wasm     asks the same again, of this component

Of the recorded component, found by its digest, every answer is the same, bit for bit: if not, the exit code is 1. Of \
another it is told where it decides otherwise.")]
pub struct Args {
    /// Recorded decisions, one in a line of JSON; - is standard input.
    file: String,
    /// The component to ask: a .wasm file, or builtin:NAME. Omitted: the built-in ones, by the digests in the records.
    #[arg(long, value_name = "COMPONENT")]
    policy: Option<String>,
}

/// What came of all records.
#[derive(Default)]
struct Sum {
    same: usize,
    differs: usize,
    /// Of those, by the very component of the record.
    broken: usize,
    /// Records whose component is not at hand, by digest.
    missing: BTreeMap<String, usize>,
}

pub fn replay(args: &Args) -> Result<ExitCode> {
    let source: Box<dyn Read> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin()),
        file => Box::new(std::fs::File::open(file).with_context(|| format!("cannot read {file}"))?),
    };
    let given = args.policy.as_deref().map(Component::read).transpose()?;
    let sum = block_on(ask_all(&args.file, source, given))?;
    println!("{} the same, bit for bit; {} differ", sum.same, sum.differs);
    for (digest, count) in &sum.missing {
        println!("{count} were decided by {digest}, which is not at hand: give it with --policy");
    }
    if sum.same + sum.differs == 0 && !sum.missing.is_empty() {
        bail!("no decision could be asked again");
    }
    Ok(if sum.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask_all(name: &str, source: Box<dyn Read>, given: Option<Component>) -> Result<Sum> {
    let mut sum = Sum::default();
    let mut given = match &given {
        Some(component) => Some(component.load().await?),
        None => None,
    };
    let mut known: HashMap<String, Option<(PolicyHost, Arc<Policy>)>> = HashMap::new();
    for (i, line) in BufReader::new(source).lines().enumerate() {
        let line = line.with_context(|| name.to_owned())?;
        if line.trim().is_empty() {
            continue;
        }
        let place = || format!("{name}, line {}", i + 1);
        let record = record(&line).with_context(place)?;
        let found = match &mut given {
            Some(found) => Some(&*found),
            None => {
                if !known.contains_key(&record.digest) {
                    let found = built_in(&record.digest);
                    let loaded = match found {
                        Some(component) => Some(component.load().await?),
                        None => None,
                    };
                    known.insert(record.digest.clone(), loaded);
                }
                known.get(&record.digest).and_then(Option::as_ref)
            }
        };
        let Some((host, policy)) = found else {
            *sum.missing.entry(record.digest.clone()).or_default() += 1;
            continue;
        };
        let replayed = record.replay(host, policy).await;
        if replayed.same {
            sum.same += 1;
            continue;
        }
        sum.differs += 1;
        sum.broken += usize::from(replayed.now.digest == record.digest);
        if sum.differs <= TOLD {
            tell(&record, &replayed.now);
        } else if sum.differs == TOLD + 1 {
            println!("… the others are counted");
        }
    }
    Ok(sum)
}

fn record(line: &str) -> Result<Record> {
    let value: Value = serde_json::from_str(line).context("not a line of JSON")?;
    if value["version"] != RECORD_VERSION {
        bail!("a record of version {}; this release reads {RECORD_VERSION}", value["version"]);
    }
    serde_json::from_str(line).context("not a recorded decision")
}

/// The built-in policy of a digest.
fn built_in(digest: &str) -> Option<Component> {
    let of = |name: &&&str| builtin::bytes(name).is_some_and(|bytes| Digest::of(bytes).as_str() == digest);
    let name = builtin::NAMES.iter().find(of)?;
    Component::read(&format!("builtin:{name}")).ok()
}

/// The answer of a record, as people read it.
fn answer(record: &Record) -> Value {
    let (call, answer) = match &record.exchange {
        Exchange::Scale { answer, .. } => (Call::Scale, json!(answer)),
        Exchange::Classify { answer, .. } => (Call::Classify, json!(answer)),
        Exchange::Lead { answer, .. } => (Call::Lead, json!(answer)),
    };
    record.error.as_ref().map_or_else(|| call.answer().show(&answer), |words| json!({"error": words}))
}

fn tell(was: &Record, now: &Record) {
    let (at, object) = was.asked();
    let at = Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string());
    println!("{at} {} of {object}", was.call());
    let (old, new) = (answer(was), answer(now));
    let (Value::Object(before), Value::Object(after)) = (&old, &new) else {
        println!("  {}: {old}\n  {}: {new}", was.policy, now.policy);
        return;
    };
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut told = false;
    for name in names.into_iter().filter(|name| before.get(*name) != after.get(*name)) {
        let of = |values: &serde_json::Map<String, Value>| values.get(name).cloned().unwrap_or(Value::Null);
        println!("  {name}: {} → {}", of(before), of(after));
        told = true;
    }
    if !told {
        println!("  only what it noted in its log");
    }
}
