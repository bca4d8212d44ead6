//! `stoker policy new`: the crate of a new policy.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};

/// The contract, as this release speaks it.
const CONTRACT: &str = include_str!("../../../../wit/policy.wit");

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// Rust, built with cargo component.
    Rust,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Decides {
    /// How many replicas a pool has.
    Scaling,
    /// Which of its pods are busy.
    Busyness,
    /// How early a warm-up begins.
    WarmUp,
}

#[derive(ClapArgs)]
pub struct Args {
    /// The policy: small letters, digits and hyphens. Its folder is named so, too.
    name: String,
    /// The language that it is written in.
    #[arg(long, value_enum, default_value = "rust")]
    lang: Lang,
    /// What it decides; for the rest the built-in rules decide.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "scaling")]
    decides: Vec<Decides>,
    /// Where its folder is made.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
}

pub fn new(args: &Args) -> Result<()> {
    let Lang::Rust = args.lang;
    check(&args.name)?;
    let folder = args.dir.join(&args.name);
    if folder.exists() {
        bail!("{} exists already: choose another name, or another --dir", folder.display());
    }
    for (file, text) in files(&args.name, &args.decides) {
        let path = folder.join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    let (name, at) = (&args.name, folder.display());
    say!("{at} is a policy that keeps to the built-in rules until you change src/rule.rs.\n");
    say!("  cd {at}");
    say!("  cargo test                                    # its rules, natively");
    say!("  stoker policy build");
    let wasm = format!("target/wasm32-unknown-unknown/release/{}.wasm", name.replace('-', "_"));
    say!("  stoker policy test {wasm}   # cases.yaml");
    say!("  stoker policy push {wasm} --name {name}");
    Ok(())
}

fn check(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins || !name.chars().all(good) || name.ends_with('-') || name.len() > 63 {
        bail!(
            "{name:?} is no name for a policy: small letters, digits and hyphens, a letter first, at most 63, such as rush-hour"
        );
    }
    Ok(())
}

/// The files of a policy. Their texts have placeholders between @, which nothing else in them looks like.
fn files(name: &str, decides: &[Decides]) -> Vec<(&'static str, String)> {
    let part =
        |which: Decides, text: &str| if decides.contains(&which) { text.to_owned() } else { String::new() };
    let all = |texts: [&str; 3]| {
        let of = [Decides::Scaling, Decides::Busyness, Decides::WarmUp];
        of.into_iter().zip(texts).map(|(which, text)| part(which, text)).collect::<String>()
    };
    let world = match decides {
        [Decides::Scaling] => "scaling-policy",
        [Decides::Busyness] => "busyness-policy",
        [Decides::WarmUp] => "warm-up-policy",
        _ => "own-policy",
    };
    let mut wit = CONTRACT.to_owned();
    if world == "own-policy" {
        wit += "\n/// What this policy decides.\nworld own-policy {\n    import log;\n    export settings;\n";
        wit += &all(["    export scaling;\n", "    export busyness;\n", "    export warm-up;\n"]);
        wit += "}\n";
    }
    let fill = |text: &str| text.replace("@NAME@", name).replace("@WORLD@", world);
    let uses = all(["scaling, ", "busyness, ", "warm_up, "]);
    vec![
        ("Cargo.toml", fill(MANIFEST)),
        (".gitignore", "/target\n/src/bindings.rs\n".to_owned()),
        ("wit/policy.wit", wit),
        (
            "src/lib.rs",
            fill(&(LIB.replace("@USES@", &uses) + &all([LIB_SCALING, LIB_BUSYNESS, LIB_WARM_UP]) + LIB_END)),
        ),
        (
            "src/rule.rs",
            fill(
                &(RULE.to_owned()
                    + &all([RULE_SCALING, RULE_BUSYNESS, RULE_WARM_UP])
                    + RULE_TESTS
                    + &all([TEST_SCALING, TEST_BUSYNESS, TEST_WARM_UP])
                    + "}\n"),
            ),
        ),
        ("cases.yaml", fill(&(CASES.to_owned() + &all([CASES_SCALING, CASES_BUSYNESS, CASES_WARM_UP])))),
    ]
}

const MANIFEST: &str = r#"[package]
name = "@NAME@"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
wit-bindgen-rt = { version = "0.44.0", features = ["bitflags"] }

[package.metadata.component]
package = "example:@NAME@"

[package.metadata.component.target]
path = "wit"
world = "@WORLD@"

# A ConfigMap holds 1 MiB, and small components compile faster.
[profile.release]
opt-level = "s"
lto = true
codegen-units = 1
strip = true
panic = "abort"

# Its own workspace, wherever it lies.
[workspace]
"#;

const LIB: &str = r#"//! The component: it translates between the contract's types and the rule's. The rule is in `rule`, which knows no
//! generated types, so that `cargo test` runs it natively.

#[cfg(target_family = "wasm")]
#[allow(warnings)]
mod bindings;
pub mod rule;

#[cfg(target_family = "wasm")]
mod component {
    use crate::bindings::exports::stoker::policy::{@USES@settings};
    use crate::{bindings, rule};

    struct Policy;

    impl settings::Guest for Policy {
        fn describe() -> settings::Info {
            settings::Info {
                name: env!("CARGO_PKG_NAME").to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                summary: "Keeps to the built-in rules.".to_owned(),
                // A JSON Schema of spec.policy.config, where the policy takes one.
                config_schema: String::new(),
                // Keys of labels and annotations that `evidence` should hold.
                wanted_labels: Vec::new(),
                wanted_annotations: Vec::new(),
            }
        }

        fn validate(config: String) -> Result<(), Vec<String>> {
            rule::validate(&config)
        }
    }
"#;

const LIB_SCALING: &str = r#"
    impl scaling::Guest for Policy {
        fn scale(input: scaling::Input) -> scaling::Decision {
            let in_use = input.counts.busy + input.counts.claimed + input.demand.waiting;
            let (desired, reason) = rule::size(in_use, input.idle_target);
            scaling::Decision {
                // Stoker keeps it within minReplicas and maxReplicas.
                desired,
                reason,
                victims: Vec::new(),
                // Without this, Stoker asks only when something in the pool changes.
                wake_after: None,
                valid_until: None,
                // What is returned here comes back with the next input.
                state: Vec::new(),
                extensions: Vec::new(),
            }
        }
    }
"#;

const LIB_BUSYNESS: &str = r#"
    impl busyness::Guest for Policy {
        fn classify(input: busyness::Input) -> Vec<busyness::Verdict> {
            let verdict = |pod: &busyness::Evidence| {
                let works = pod.probe_says == busyness::VerdictState::Busy;
                let idle = pod.probe_says == busyness::VerdictState::Idle;
                let state = match rule::verdict(pod.ready, works, idle) {
                    rule::Verdict::Busy => busyness::VerdictState::Busy,
                    rule::Verdict::Idle => busyness::VerdictState::Idle,
                    rule::Verdict::Unknown => busyness::VerdictState::Unknown,
                    rule::Verdict::Starting => busyness::VerdictState::Starting,
                };
                let reason = "by the probe".to_owned();
                busyness::Verdict { state, reason, slots: None, spent: false, wake_after: None }
            };
            input.pods.iter().map(verdict).collect()
        }
    }
"#;

const LIB_WARM_UP: &str = r#"
    impl warm_up::Guest for Policy {
        fn lead(input: warm_up::Input) -> warm_up::Decision {
            let (lead, reason) = rule::lead(input.configured);
            warm_up::Decision { lead, reason, state: Vec::new(), extensions: Vec::new() }
        }
    }
"#;

const LIB_END: &str = r#"
    bindings::export!(Policy with_types_in bindings);
}
"#;

const RULE: &str = r#"//! What the policy decides.

/// Checks a configuration; `{}` is that of an object which gives none. Each error says what is wrong and what is right.
pub fn validate(config: &str) -> Result<(), Vec<String>> {
    if config.trim() == "{}" { Ok(()) } else { Err(vec!["config: @NAME@ takes no keys; remove it".to_owned()]) }
}
"#;

const RULE_SCALING: &str = r#"
/// How many replicas, and why.
pub fn size(in_use: u32, idle_target: u32) -> (u32, String) {
    (in_use.saturating_add(idle_target), format!("{in_use} in use + {idle_target} idle"))
}
"#;

const RULE_BUSYNESS: &str = r#"
/// What a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Busy,
    Idle,
    Unknown,
    Starting,
}

/// What a pod does, by its readiness and what the busy probe says of it. Only idle pods are ever removed.
pub fn verdict(ready: bool, works: bool, idle: bool) -> Verdict {
    match (ready, works, idle) {
        (_, true, _) => Verdict::Busy,
        (false, ..) => Verdict::Starting,
        (true, false, true) => Verdict::Idle,
        _ => Verdict::Unknown,
    }
}
"#;

const RULE_WARM_UP: &str = r#"
/// How long before the instant the warm-up begins, in milliseconds, and why.
pub fn lead(configured: u64) -> (u64, String) {
    (configured, "as the object asks".to_owned())
}
"#;

const RULE_TESTS: &str = r##"
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_refused_in_words() {
        assert_eq!(validate("{}"), Ok(()));
        assert_eq!(validate(r#"{"a": 1}"#).unwrap_err()[0], "config: @NAME@ takes no keys; remove it");
    }
"##;

const TEST_SCALING: &str = r#"
    #[test]
    fn idle_pods_stand_beside_those_in_use() {
        assert_eq!(size(2, 3), (5, "2 in use + 3 idle".to_owned()));
        assert_eq!(size(u32::MAX, 3).0, u32::MAX);
    }
"#;

const TEST_BUSYNESS: &str = r#"
    #[test]
    fn a_pod_that_works_is_busy_whatever_else_it_says() {
        assert_eq!(verdict(false, true, true), Verdict::Busy);
        assert_eq!(verdict(true, false, true), Verdict::Idle);
        assert_eq!(verdict(true, false, false), Verdict::Unknown);
        assert_eq!(verdict(false, false, true), Verdict::Starting);
    }
"#;

const TEST_WARM_UP: &str = r#"
    #[test]
    fn a_warm_up_begins_when_the_object_asks_for_it() {
        assert_eq!(lead(60_000).0, 60_000);
    }
"#;

const CASES: &str = r#"# What the policy is asked, and what is expected of its answer: `stoker policy test --help` tells how to write them.
- name: it takes no config
  validate: {percent: 5}
  expect: ["config: @NAME@ takes no keys; remove it"]
"#;

const CASES_SCALING: &str = r#"
- name: two are busy
  scale: {idleTarget: 3, counts: {busy: 2, idle: 3}}
  expect: {desired: 5, reason: {contains: 2 in use}}
- name: a claim waits
  scale: {idleTarget: 1, counts: {claimed: 1}, demand: {waiting: 1, oldestWait: 2s}}
  expect: {desired: 3}
"#;

const CASES_BUSYNESS: &str = r#"
- name: the probe is believed
  classify:
    pods:
      - {name: a, probe: {http: {status: 200}}, probeSays: busy}
      - {name: b, probe: {http: {status: 503}}, probeSays: idle}
      - {name: c, probe: {error: no answer}}
  expect: [{state: busy}, {state: idle}, {state: unknown}]
"#;

const CASES_WARM_UP: &str = r#"
- name: as the object asks
  lead: {configured: 2m}
  expect: {lead: 2m}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_crates_or_objects_are_refused() {
        for good in ["a", "rush-hour", "a1"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "Rush", "1a", "-a", "a-", "a_b", "a/b", "ä", &"a".repeat(64)] {
            assert!(check(bad).unwrap_err().to_string().contains("is no name for a policy"), "{bad}");
        }
    }

    #[test]
    fn each_choice_has_its_world_and_only_what_it_decides() {
        let of = |decides: &[Decides], file: &str| {
            files("a", decides).into_iter().find(|(name, _)| *name == file).unwrap().1
        };
        assert!(of(&[Decides::Scaling], "Cargo.toml").contains("world = \"scaling-policy\""));
        let two = [Decides::WarmUp, Decides::Scaling];
        assert!(of(&two, "Cargo.toml").contains("world = \"own-policy\""));
        let wit = of(&two, "wit/policy.wit");
        let own = &wit[wit.find("world own-policy").unwrap()..];
        assert!(own.contains("scaling") && own.contains("warm-up") && !own.contains("busyness"), "{own}");
        let lib = of(&two, "src/lib.rs");
        assert!(lib.contains("{scaling, warm_up, settings}") && !lib.contains("busyness"), "{lib}");
    }

    #[test]
    fn placeholders_are_filled_and_nothing_else_is() {
        let all = [Decides::Scaling, Decides::Busyness, Decides::WarmUp];
        for decides in [&all[..1], &all[1..2], &all[2..], &all[1..], &all] {
            for (file, text) in files("rush-hour", decides) {
                assert!(!text.replace(CONTRACT, "").contains('@'), "{file}: {text}");
                if file == "src/lib.rs" {
                    assert!(text.contains("env!(\"CARGO_PKG_NAME\")"), "{text}");
                }
            }
        }
    }
}
