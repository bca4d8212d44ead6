//! `stoker policy replay`: recorded decisions are asked again.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde_json::{Value, json};
use stoker_policy::{Comparison, Exchange, Policy, PolicyHost, RECORD_VERSION, Record};

use super::call::Call;
use super::component::{Component, Known};
use crate::claim::block_on;
use crate::decisions::{self, Reach};
use crate::explain;

/// Decisions of which it is told how they differ.
const TOLD: usize = 10;

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker run --record decisions.jsonl …                       writes what policies are asked and answer
  stoker policy replay decisions.jsonl --policy rush.wasm     asks the same again, of this component
  stoker policy replay hsd/web -n shop --policy rush.wasm     what the operator has of late
  stoker policy replay decisions.jsonl --object hsd/web -n shop --policy-dir /var/cache/stoker

Of the recorded component, found by its digest, every answer is the same, bit for bit: if not, the exit code is 1. Of \
another it is told where it decides otherwise.")]
pub struct Args {
    /// Recorded decisions: a file with one in a line of JSON, - for standard input, or KIND/NAME for what the operator has of late
    /// of that object.
    #[arg(value_name = "FILE|OBJECT")]
    file: String,
    /// The component to ask: a .wasm file, or builtin:NAME. Omitted: those that decided, by the digests in the records.
    #[arg(long, value_name = "COMPONENT")]
    policy: Option<String>,
    /// Where components that decided are looked for beside the built-in ones: the operator's --policy-cache, or any folder
    /// with .wasm files.
    #[arg(long, value_name = "FOLDER", conflicts_with = "policy")]
    policy_dir: Option<PathBuf>,
    /// Only decisions for this object: KIND/NAME.
    #[arg(long, value_name = "KIND/NAME")]
    object: Option<String>,
    /// Only decisions for objects of this namespace. Omitted: of all.
    #[arg(long, short = 'n')]
    namespace: Option<String>,
    #[command(flatten)]
    reach: Reach,
}

/// Which decisions are asked again.
#[derive(Default)]
struct Only {
    /// Kind and name.
    object: Option<(String, String)>,
    namespace: Option<String>,
}

impl Only {
    fn of(args: &Args) -> Result<Self> {
        let object = args.object.as_deref().map(|object| {
            let (kind, name) = object
                .split_once('/')
                .ok_or_else(|| anyhow!("{object:?}: name the object as KIND/NAME, such as hsd/web"))?;
            anyhow::Ok((explain::resource(kind)?.kind, name.to_owned()))
        });
        Ok(Self { object: object.transpose()?, namespace: args.namespace.clone() })
    }

    fn has(&self, record: &Record) -> bool {
        let (_, pool) = record.asked();
        let this = |(kind, name): &(String, String)| *kind == pool.kind && *name == pool.name;
        self.object.as_ref().is_none_or(this)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == pool.namespace)
    }
}

/// What came of all records.
#[derive(Default)]
struct Sum {
    same: usize,
    differs: usize,
    /// Of those, by the very component of the record.
    broken: usize,
    /// Without an answer then or now, for a reason of the machine's.
    machine: usize,
    /// For other objects than the wanted one.
    others: usize,
    /// Records whose component is not at hand, by digest.
    missing: BTreeMap<String, usize>,
}

pub fn replay(args: &Args) -> Result<ExitCode> {
    let source: Box<dyn Read> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin()),
        object if !Path::new(object).exists() && of_object(object).is_some() => {
            Box::new(std::io::Cursor::new(block_on(of_late(args, object))?))
        }
        file => Box::new(std::fs::File::open(file).with_context(|| format!("cannot read {file}"))?),
    };
    let given = args.policy.as_deref().map(Component::read).transpose()?;
    let (only, known) = (Only::of(args)?, Known::of(args.policy_dir.as_deref())?);
    let sum = block_on(ask_all(&args.file, source, given, &only, &known))?;
    let asked = sum.same + sum.differs + sum.machine;
    if asked == 0 && sum.missing.is_empty() && sum.others > 0 {
        bail!("{}: none of its {} decisions is for that object", args.file, sum.others);
    }
    say!("{} the same, bit for bit; {} differ", sum.same, sum.differs);
    if sum.machine > 0 {
        say!("{} had no answer, then or now, as the machine was too busy or too slow", sum.machine);
    }
    for (digest, count) in &sum.missing {
        say!(
            "{count} were decided by {digest}, which is not at hand: give it with --policy, or its folder with --policy-dir"
        );
    }
    if asked == 0 && !sum.missing.is_empty() {
        bail!("no decision could be asked again");
    }
    Ok(if sum.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Kind and name, if it is an object's.
fn of_object(object: &str) -> Option<(String, String)> {
    let (kind, name) = object.split_once('/')?;
    Some((explain::resource(kind).ok()?.kind, name.to_owned()))
}

/// What the operator has of late of an object.
async fn of_late(args: &Args, object: &str) -> Result<Vec<u8>> {
    let (kind, name) = of_object(object).ok_or_else(|| anyhow!("{object} names no object"))?;
    let client = stoker_operator::connect().await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let records = decisions::records(&client, &args.reach, &kind, &namespace, &name).await?;
    if records.is_empty() {
        bail!(
            "the operator has no record of {object} in namespace {namespace}: no policy was asked for it of late"
        );
    }
    Ok(records.to_vec())
}

async fn ask_all(
    name: &str,
    source: Box<dyn Read>,
    given: Option<Component>,
    only: &Only,
    known: &Known,
) -> Result<Sum> {
    let mut sum = Sum::default();
    let given = match &given {
        Some(component) => Some(component.load().await?),
        None => None,
    };
    let mut loaded: HashMap<String, Option<(PolicyHost, Arc<Policy>)>> = HashMap::new();
    for (i, line) in BufReader::new(source).lines().enumerate() {
        let line = line.with_context(|| name.to_owned())?;
        if line.trim().is_empty() {
            continue;
        }
        let place = || format!("{name}, line {}", i + 1);
        let record = record(&line).with_context(place)?;
        if !only.has(&record) {
            sum.others += 1;
            continue;
        }
        let found = match &given {
            Some(found) => Some(found),
            None => {
                if !loaded.contains_key(&record.digest) {
                    let found = match known.component(&record.digest)? {
                        Some(component) => Some(component.load().await?),
                        None => None,
                    };
                    loaded.insert(record.digest.clone(), found);
                }
                loaded.get(&record.digest).and_then(Option::as_ref)
            }
        };
        let Some((host, policy)) = found else {
            *sum.missing.entry(record.digest.clone()).or_default() += 1;
            continue;
        };
        let replayed = record.replay(host, policy).await;
        match replayed.comparison {
            Comparison::Same => sum.same += 1,
            Comparison::Machine => sum.machine += 1,
            Comparison::Differs => sum.differs += 1,
        }
        if replayed.comparison != Comparison::Differs {
            continue;
        }
        sum.broken += usize::from(replayed.now.digest == record.digest);
        if sum.differs <= TOLD {
            tell(&record, &replayed.now);
        } else if sum.differs == TOLD + 1 {
            say!("… the others are counted");
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

/// The answer of a record, as people read it.
fn answer(record: &Record) -> Value {
    let (call, answer) = match &record.exchange {
        Exchange::Scale { answer, .. } => (Call::Scale, json!(answer)),
        Exchange::Classify { answer, .. } => (Call::Classify, json!(answer)),
        Exchange::Lead { answer, .. } => (Call::Lead, json!(answer)),
    };
    let error = record.outcome.error.as_ref();
    error.map_or_else(|| call.answer().show(&answer), |error| json!({"error": error.words}))
}

fn tell(was: &Record, now: &Record) {
    let (at, pool) = was.asked();
    let at = Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string());
    say!("{at} {} of {} {}/{}", was.call(), pool.kind, pool.namespace, pool.name);
    let (old, new) = (answer(was), answer(now));
    let (Value::Object(before), Value::Object(after)) = (&old, &new) else {
        say!("  {}: {old}\n  {}: {new}", was.policy, now.policy);
        return;
    };
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut told = false;
    for name in names.into_iter().filter(|name| before.get(*name) != after.get(*name)) {
        let of = |values: &serde_json::Map<String, Value>| values.get(name).cloned().unwrap_or(Value::Null);
        say!("  {name}: {} → {}", of(before), of(after));
        told = true;
    }
    if !told {
        say!("  only what it noted in its log");
    }
}
