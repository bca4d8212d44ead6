//! `stoker policy test`: a component is asked the cases of a file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::call::{Answered, Call};
use super::cases::{self, Case, Expected, Snapshot};
use super::component::Component;
use crate::claim::block_on;

#[derive(ClapArgs)]
#[command(after_help = "\
A file of cases is a list such as

  - name: two of five are busy
    scale: {idleTarget: 3, counts: {busy: 2, idle: 3}}
    expect: {desired: 5, reason: {contains: 2 busy}}
  - name: a share below zero
    validate: {percent: -5}
    expect: [{contains: below 0}]
  - name: the answer of last time             # no expect: compared with the snapshot, which --update writes
    lead: {configured: 2m}

What is asked is scale, classify, lead or validate. Fields have the names of the contract in camelCase; those left out \
have a default, and pods and counts follow from each other. Times are written 2026-06-01T09:00:00Z, spans 5m. What is \
expected are some of the answer's fields, or expectError: with a part of the error's words.")]
pub struct Args {
    /// The component: a .wasm file, or builtin:NAME.
    component: String,
    /// The cases. Their snapshot is kept beside them.
    #[arg(long, value_name = "FILE", default_value = "cases.yaml")]
    cases: PathBuf,
    /// Write the answers to cases that expect nothing into the snapshot: look at what changed before you commit it.
    #[arg(long)]
    update: bool,
}

pub fn test(args: &Args) -> Result<ExitCode> {
    let list = cases::read(&args.cases)?;
    let component = Component::read(&args.component)?;
    let file = cases::snapshot_file(&args.cases);
    let known = cases::read_snapshot(&file)?;
    let mut seen = Snapshot::new();
    let failed = block_on(async {
        let (host, policy) = component.load().await?;
        let mut failed = 0;
        for case in &list {
            let context = || format!("{}: {}", args.cases.display(), case.name);
            let answered = case.call.ask(&host, &policy, &case.given).await.with_context(context)?;
            let lines = match &case.expected {
                Expected::Snapshot => {
                    let is = said(&answered);
                    let was = known.get(&case.name);
                    seen.insert(case.name.clone(), is.clone());
                    changes(was, &is, args.update)
                }
                _ => judge(case, &answered).with_context(context)?,
            };
            failed += usize::from(!lines.is_empty());
            report(case, &lines, &answered);
        }
        anyhow::Ok(failed)
    })?;
    let orphans: Vec<&String> = known.keys().filter(|name| !seen.contains_key(*name)).collect();
    if args.update && seen != known {
        std::fs::write(&file, serde_yaml::to_string(&seen)?).with_context(|| file.display().to_string())?;
        say!("{} written: {} answers", file.display(), seen.len());
    } else if !orphans.is_empty() && !args.update {
        say!("{} holds answers of cases that are gone: --update takes them out", file.display());
    }
    say!("{} cases, {failed} failed", list.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is kept of an answer.
fn said(answered: &Answered) -> Value {
    match &answered.value {
        Ok(value) => value.clone(),
        Err(words) => json!({"error": words}),
    }
}

fn changes(was: Option<&Value>, is: &Value, update: bool) -> Vec<String> {
    match was {
        _ if update => Vec::new(),
        None => {
            vec!["the snapshot has no answer yet: look at it, and run with --update to keep it".to_owned()]
        }
        Some(was) if was == is => Vec::new(),
        Some(was) => vec![format!("it was {was}"), format!("it is  {is}")],
    }
}

fn judge(case: &Case, answered: &Answered) -> Result<Vec<String>> {
    Ok(match (&case.expected, &answered.value) {
        (Expected::Error(words), Err(error)) if error.contains(words.as_str()) => Vec::new(),
        (Expected::Error(words), Err(error)) => {
            vec![format!("expected an error with {words:?}, got {error}")]
        }
        (Expected::Error(words), Ok(value)) => vec![format!("expected an error with {words:?}, got {value}")],
        (Expected::Answer(_), Err(error)) => vec![format!("it failed: {error}")],
        (Expected::Answer(expected), Ok(value)) => cases::differences(case.call, expected, value)?,
        (Expected::Snapshot, _) => Vec::new(),
    })
}

fn report(case: &Case, lines: &[String], answered: &Answered) {
    let sign = if lines.is_empty() { "ok  " } else { "FAIL" };
    let why = match (&answered.value, case.call) {
        (Ok(value), Call::Scale | Call::Lead) => value["reason"].as_str().unwrap_or_default(),
        _ => "",
    };
    let why = if why.is_empty() { String::new() } else { format!("  ({why})") };
    say!("{sign}  {}{why}", case.name);
    for line in lines {
        say!("      {line}");
    }
    for line in answered.log.iter().filter(|_| !lines.is_empty()) {
        say!("      log {:?}: {}", line.level, line.message);
    }
}
