//! `stoker policy` as people run it, on the policies that the binary carries.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stoker_policy::contract::scaling;
use stoker_policy::{Exchange, Fault, HostOptions, Limits, PolicyHost, Record, builtin, parts};

const STOKER: &str = env!("CARGO_BIN_EXE_stoker");

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        std::fs::write(self.0.join(name), text).unwrap();
        self
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn stoker(&self, args: &[&str]) -> Said {
        let output = Command::new(STOKER).arg("policy").args(args).current_dir(&self.0).output().unwrap();
        Said::from(output)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) }
    }
}

const CASES: &str = "
- name: two busy
  scale: {idleTarget: 3, counts: {busy: 2, idle: 3}}
  expect: {desired: 5, reason: {contains: 2 busy}}
- name: no config
  validate: {a: 1}
  expect: [{contains: a}]
";

#[test]
fn cases_are_asked_and_what_differs_is_told() {
    let folder = Folder::new("cases");
    let said = folder.write("cases.yaml", CASES).stoker(&["test", "builtin:buffer"]);
    assert_eq!((said.code, said.error.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.out.contains("ok    two busy") && said.out.ends_with("2 cases, 0 failed\n"), "{}", said.out);

    folder.write("cases.yaml", &CASES.replace("desired: 5", "desired: 6"));
    let said = folder.stoker(&["test", "builtin:buffer"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.out.contains("FAIL  two busy") && said.out.contains("desired: expected 6, got 5"),
        "{}",
        said.out
    );

    folder.write("cases.yaml", &CASES.replace("idleTarget", "idelTarget"));
    let said = folder.stoker(&["test", "builtin:buffer"]);
    assert_eq!(said.code, Some(1));
    let words = "cases.yaml: two busy: scale.idelTarget: there is no such field; there are now, pool, ";
    assert!(said.error.contains(words), "{}", said.error);
    assert!(said.error.contains("did you mean idleTarget?"), "{}", said.error);

    let lead = "- {name: a, lead: {}, expectError: does not export warm-up}";
    let said = folder.write("cases.yaml", lead).stoker(&["test", "builtin:buffer"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn answers_that_were_found_right_are_kept_and_compared() {
    let folder = Folder::new("snapshot");
    folder.write("cases.yaml", "- {name: ten, scale: {idleTarget: 1, counts: {busy: 10}}}\n");
    let said = folder.stoker(&["test", "builtin:buffer"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("the snapshot has no answer yet"), "{}", said.out);

    assert_eq!(folder.stoker(&["test", "builtin:buffer", "--update"]).code, Some(0));
    let kept = folder.read("cases.snapshot.yaml");
    assert!(kept.contains("desired: 11"), "{kept}");
    assert_eq!(folder.stoker(&["test", "builtin:buffer"]).code, Some(0));

    let said = folder.stoker(&["test", "builtin:percent-buffer"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("it was {") && said.out.contains("it is  {"), "{}", said.out);
    assert_eq!(folder.read("cases.snapshot.yaml"), kept, "only --update writes it");

    folder.write("cases.yaml", "- {name: other, validate: {}, expect: []}\n");
    let said = folder.stoker(&["test", "builtin:buffer"]);
    assert!(said.code == Some(0) && said.out.contains("answers of cases that are gone"), "{said:?}");
    folder.stoker(&["test", "builtin:buffer", "--update"]);
    assert_eq!(folder.read("cases.snapshot.yaml").trim(), "{}");
}

#[test]
fn a_component_is_looked_into() {
    let folder = Folder::new("inspect");
    let said = folder.stoker(&["inspect", "builtin:learned-lead"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for words in
        ["decides     warm-up\n", "contract    stoker:policy@1.0.0\n", "digest      sha256:", "\"quantile\""]
    {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    let said = folder.stoker(&["inspect", "builtin:buffer", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&told["name"], &told["decides"][0]), (&"buffer".into(), &"scaling".into()));

    let said = folder.write("a.wasm", "hello").stoker(&["inspect", "a.wasm"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.error.contains("a.wasm: not a WebAssembly component: it begins with 68 65"),
        "{}",
        said.error
    );
    let said = folder.stoker(&["inspect", "builtin:buffet"]);
    assert!(said.error.contains("no built-in policy buffet; there are buffer, "), "{}", said.error);
}

#[test]
fn a_decision_is_measured() {
    let folder = Folder::new("bench");
    let said = folder.stoker(&["bench", "builtin:hysteresis", "--rounds", "3"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for row in ["classify, 1 pod ", "classify, 100 pods ", "classify, 1000 pods "] {
        assert!(said.out.contains(row), "{}", said.out);
    }
    folder.write("config.yaml", "extra: 1");
    let said = folder.stoker(&["bench", "builtin:buffer", "--config", "config.yaml"]);
    assert!(said.code == Some(1) && said.error.contains("give one that it takes with --config"), "{said:?}");
}

#[test]
fn a_project_is_made_once() {
    let folder = Folder::new("new");
    let said = folder.stoker(&["new", "rush-hour", "--decides", "scaling,warm-up"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(folder.read("rush-hour/src/lib.rs").contains("impl warm_up::Guest for Policy"));
    let said = folder.stoker(&["new", "rush-hour"]);
    assert!(said.code == Some(1) && said.error.contains("./rush-hour exists already"), "{said:?}");
    let said = folder.stoker(&["build", "elsewhere"]);
    assert!(said.code == Some(1) && said.error.contains("stoker policy new"), "{said:?}");
}

/// What a policy is asked, and what it answers.
async fn recorded(name: &str, busy: u32) -> Record {
    let host = PolicyHost::new(HostOptions { compiler: STOKER.into(), ..HostOptions::default() }).unwrap();
    let policy = host.load(builtin::bytes(name).unwrap().into()).await.unwrap();
    let input: scaling::Input = serde_json::from_value(serde_json::json!({
        "now": 1_767_268_800_000_i64,
        "pool": {"kind": "HotStandbyDeployment", "namespace": "a", "name": "b", "uid": "c", "generation": 1},
        "config": "{}", "minimum": 0, "maximum": 100, "idle_target": 1,
        "counts": {
            "current": busy, "ready": busy, "starting": 0, "idle": 0, "busy": busy, "claimed": 0, "unknown": 0,
            "terminating": 0, "unschedulable": 0, "failed": 0,
        },
        "demand": {"waiting": 0, "misses": 0, "oldest_wait": u64::MAX},
        "pods": [], "history": [], "startup": {"samples": 0, "p50": 0, "p90": 0, "p99": 0},
        "signals": [], "previous": null, "state": [0, 255], "extensions": [],
    }))
    .unwrap();
    let (answer, outcome) = parts(host.scale(&policy, Limits::default(), input.clone()).await);
    let exchange = Exchange::Scale { input: Box::new(input), answer };
    Record::new(&policy, Limits::default(), exchange, outcome)
}

#[tokio::test]
async fn what_was_recorded_comes_again_bit_for_bit_and_of_another_it_is_told_where_it_differs() {
    let folder = Folder::new("replay");
    let mut lines = String::new();
    for busy in [1, 40] {
        let record = recorded("buffer", busy).await;
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        lines += &(line + "\n");
    }
    let said = folder.write("decisions.jsonl", &lines).stoker(&["replay", "decisions.jsonl"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "2 the same, bit for bit; 0 differ\n"), "{said:?}");

    let said = folder.stoker(&["replay", "decisions.jsonl", "--policy", "builtin:percent-buffer"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("scale of HotStandbyDeployment a/b\n  desired: 41 → 48"), "{}", said.out);

    folder.write("decisions.jsonl", &lines.replace("\"desired\":41", "\"desired\":42"));
    let said = folder.stoker(&["replay", "decisions.jsonl"]);
    assert!(said.code == Some(1) && said.out.contains("  desired: 42 → 41"), "{said:?}");

    folder.write("decisions.jsonl", &lines.replace("sha256:", "sha256:f"));
    let said = folder.stoker(&["replay", "decisions.jsonl"]);
    assert!(said.code == Some(1) && said.out.contains("is not at hand"), "{said:?}");

    folder.write("decisions.jsonl", "{\"version\":7}\n");
    let said = folder.stoker(&["replay", "decisions.jsonl"]);
    assert!(
        said.error.contains("decisions.jsonl, line 1: a record of version 7; this release reads 1"),
        "{said:?}"
    );
}

#[tokio::test]
async fn components_of_a_folder_are_found_by_digest_and_other_objects_are_left_out() {
    let folder = Folder::new("replay-dir");
    // As if a ConfigMap's component had decided: of the same bytes and a custom section, so of another digest.
    let mut bytes = builtin::bytes("buffer").unwrap().to_vec();
    bytes.extend([0, 4, 3, b'o', b'w', b'n']);
    let host = PolicyHost::new(HostOptions { compiler: STOKER.into(), ..HostOptions::default() }).unwrap();
    let own = host.load(bytes.clone().into()).await.unwrap();
    let mut record = recorded("buffer", 3).await;
    let built_in = serde_json::to_string(&record).unwrap();
    record.digest = own.digest().to_string();
    let lines = format!("{built_in}\n{}\n", serde_json::to_string(&record).unwrap());
    folder.write("decisions.jsonl", &lines);

    let said = folder.stoker(&["replay", "decisions.jsonl"]);
    assert!(said.out.contains("1 the same") && said.out.contains("not at hand"), "{said:?}");
    std::fs::create_dir_all(folder.0.join("cache/components")).unwrap();
    std::fs::write(folder.0.join("cache/components/own.wasm"), &bytes).unwrap();
    let said = folder.stoker(&["replay", "decisions.jsonl", "--policy-dir", "cache"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "2 the same, bit for bit; 0 differ\n"), "{said:?}");

    for (object, namespace, code) in
        [("hsd/b", "a", 0), ("hsd/c", "a", 1), ("hsd/b", "b", 1), ("hsj/b", "a", 1)]
    {
        let words =
            ["replay", "decisions.jsonl", "--object", object, "-n", namespace, "--policy-dir", "cache"];
        let said = folder.stoker(&words);
        assert_eq!(said.code, Some(code), "{object} {said:?}");
        assert_eq!(code == 1, said.error.contains("none of its 2 decisions is for that object"), "{said:?}");
    }
}

#[tokio::test]
async fn no_answer_for_a_reason_of_the_machines_is_no_other_decision() {
    let folder = Folder::new("replay-busy");
    let mut record = recorded("buffer", 3).await;
    let Exchange::Scale { answer, .. } = &mut record.exchange else { panic!("{record:?}") };
    *answer = None;
    for (kind, code, words) in [
        ("busy", 0, "0 the same, bit for bit; 0 differ\n1 had no answer, then or now"),
        ("timeout", 0, "1 had no answer, then or now"),
        ("trap", 1, "1 differ"),
    ] {
        record.outcome.error = Some(Fault { kind: kind.to_owned(), words: "words".to_owned() });
        folder.write("decisions.jsonl", &serde_json::to_string(&record).unwrap());
        let said = folder.stoker(&["replay", "decisions.jsonl"]);
        assert!(said.code == Some(code) && said.out.contains(words), "{kind}: {said:?}");
    }
}

#[test]
fn what_no_config_map_holds_is_not_pushed() {
    let folder = Folder::new("push");
    for (bytes, words) in [
        ((1 << 20) + 1, "1048577 bytes are more than the 1048576 that a ConfigMap holds. Make it smaller: "),
        (1 << 20, "not a WebAssembly component"),
    ] {
        folder.write("a.wasm", &"a".repeat(bytes));
        let said = folder.stoker(&["push", "a.wasm", "--name", "a"]);
        assert!(said.code == Some(1) && said.error.contains(words), "{bytes}: {said:?}");
    }
}
