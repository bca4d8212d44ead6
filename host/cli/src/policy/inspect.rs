//! `stoker policy inspect`: what a component is.

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};
use stoker_policy::{CONTRACT, Digest, Policy, Surface};

use super::component::Component;
use crate::claim::block_on;
use crate::out::print;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(ClapArgs)]
pub struct Args {
    /// The component: a .wasm file, or builtin:NAME.
    component: String,
    /// How it is told.
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    output: Output,
}

pub fn inspect(args: &Args) -> Result<()> {
    let component = Component::read(&args.component)?;
    // What it needs is told even if it cannot be used, so that one sees why.
    let surface = Surface::of(&component.bytes);
    let loaded = block_on(async { anyhow::Ok(component.load().await.map(|(_, policy)| policy)) })?;
    if let (Err(_), Ok(surface), Output::Text) = (&loaded, &surface, args.output) {
        print(format_args!("{}", lists(surface)));
    }
    let policy = loaded?;
    let told = told(&component, &policy, &surface?);
    match args.output {
        Output::Json => say!("{told:#}"),
        Output::Text => print(format_args!("{}", text(&told))),
    }
    Ok(())
}

fn told(component: &Component, policy: &Policy, surface: &Surface) -> Value {
    let (info, exports) = (policy.info(), policy.exports());
    let decides =
        [("scaling", exports.scaling), ("busyness", exports.busyness), ("warm-up", exports.warm_up)];
    let decides: Vec<&str> = decides.into_iter().filter(|(_, does)| *does).map(|(name, _)| name).collect();
    let schema: Value = serde_json::from_str(&info.config_schema).unwrap_or(Value::Null);
    json!({
        "name": info.name,
        "version": info.version,
        "summary": info.summary,
        "decides": decides,
        "contract": CONTRACT,
        "bytes": component.bytes.len(),
        "digest": Digest::of(&component.bytes).to_string(),
        "wantedLabels": info.wanted_labels,
        "wantedAnnotations": info.wanted_annotations,
        "configSchema": schema,
        "exports": surface.exports,
        "imports": surface.imports,
    })
}

fn lists(surface: &Surface) -> String {
    let list = |name: &str, all: &[String]| {
        let all = if all.is_empty() { vec!["nothing".to_owned()] } else { all.to_vec() };
        format!("{name:<12}{}\n", all.join(&format!("\n{:12}", "")))
    };
    list("exports", &surface.exports) + &list("imports", &surface.imports)
}

fn text(told: &Value) -> String {
    let words = |key: &str| {
        let all = told[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    };
    let lines = |key: &str| words(key).replace(", ", &format!("\n{:12}", ""));
    let of = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    let kib = told["bytes"].as_u64().unwrap_or(0) as f64 / 1024.0;
    let schema = match &told["configSchema"] {
        Value::Null => "none: it takes no config".to_owned(),
        schema => format!("{schema:#}").replace('\n', &format!("\n{:12}", "")),
    };
    let mut out = format!("{} {}\n{}\n\n", of("name"), of("version"), of("summary"));
    for (name, value) in [
        ("decides", words("decides")),
        ("contract", of("contract")),
        ("size", format!("{kib:.1} KiB")),
        ("digest", of("digest")),
        ("labels", words("wantedLabels")),
        ("annotations", words("wantedAnnotations")),
        ("config", schema),
        ("exports", lines("exports")),
        ("imports", lines("imports")),
    ] {
        out += &format!("{name:<12}{value}\n");
    }
    out
}
