//! `stoker simulate` as people run it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const STOKER: &str = env!("CARGO_BIN_EXE_stoker");

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/simulate")
}

fn simulate(args: &[&str]) -> Output {
    Command::new(STOKER)
        .args(["simulate", "-f", "web.yaml"])
        .args(args)
        .current_dir(examples())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_results_that_are_written_are_those_of_this_release() {
    let script = examples().join("results.sh");
    let output = Command::new("sh").arg(script).env("STOKER_BIN", STOKER).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let kept = std::fs::read_to_string(examples().join("RESULTS.md")).unwrap();
    assert_eq!(text(&output.stdout), kept, "run make simulate-results, look at what changed, and commit it");
}

#[test]
fn the_same_seed_gives_the_same_output_byte_for_byte_and_another_another() {
    let of = |seed: &str| {
        let args =
            ["--generate", "bursts", "--hours", "12", "--policy", "builtin:predictive", "--seed", seed];
        let output = simulate(&[&args[..], &["-o", "json"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(of("7"), of("7"));
    assert_ne!(of("7"), of("8"));
}

#[test]
fn a_picture_and_a_table_are_drawn_for_each_policy() {
    let args = ["--generate", "flash-crowd", "--hours", "13", "--peak", "20", "--policy", "formula"];
    let output = simulate(&[&args[..], &["--policy", "builtin:percent-buffer={\"percent\": 50}"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let drawn = text(&output.stdout);
    for words in [
        "formula on flash-crowd\n",
        "percent-buffer (percent 50) on flash-crowd\n",
        "█ busy on average, ▓ at most  × waits",
        "pod-hours  above best",
        "times as fast.\n",
    ] {
        assert!(drawn.contains(words), "{words}: {drawn}");
    }
    let output = simulate(&[&args[..], &["-o", "svg"]].concat());
    assert!(
        text(&output.stdout).starts_with("<svg") && text(&output.stdout).contains("formula on flash-crowd")
    );
}

#[test]
fn what_cannot_be_simulated_is_told() {
    for (args, words) in [
        (vec![], "there is no load: give one with --load FILE or --generate SHAPE"),
        (vec!["--generate", "wave"], "there are diurnal, bursts, ramps, flash-crowd"),
        (vec!["--load", "README.md"], "README.md: line 3: the columns are at,duration"),
        (vec!["--load", "nothing.csv"], "cannot read nothing.csv"),
        (vec!["--generate", "ramps", "--policy", "builtin:learned-lead"], "does not decide sizes"),
        (
            vec!["--generate", "ramps", "--policy", "builtin:percent-buffer={\"percent\": -1}"],
            "give the config behind an equals sign",
        ),
        (vec!["--generate", "ramps", "--startup", "60s,20s"], "the second is shorter than the first"),
    ] {
        let output = simulate(&args);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(words), "{words}: {}", text(&output.stderr));
    }
}
