//! Whoever reads what a command prints may stop before its end, as `head` does: that is no failure, and nothing to tell.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

const OLDER: &str = "
apiVersion: psc.cronprimer.local/v1alpha1
kind: PreScaledCronJob
metadata: {name: nightly}
spec:
  warmUpTimeMins: 5
  cronJob:
    spec:
      schedule: '0 9 * * *'
      jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}
";

#[test]
fn a_reader_who_has_gone_is_no_failure() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pipe-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (old, cases) = (folder.join("old.yaml"), folder.join("cases.yaml"));
    std::fs::write(&old, OLDER).unwrap();
    std::fs::write(&cases, "- {name: a, lead: {}, expectError: does not export warm-up}\n").unwrap();
    let (old, cases) = (old.display().to_string(), cases.display().to_string());
    for call in [
        &["crds"][..],
        &["completions", "bash"],
        &["migrate", &old],
        &["policy", "inspect", "builtin:buffer"],
        &["policy", "inspect", "builtin:buffer", "--output", "json"],
        &["policy", "test", "builtin:buffer", "--cases", &cases],
    ] {
        // given somebody who reads to the end
        let stoker = || Command::new(env!("CARGO_BIN_EXE_stoker"));
        let whole = stoker().args(call).output().unwrap();
        assert!(whole.status.success() && !whole.stdout.is_empty(), "{call:?}: {whole:?}");
        // and somebody who has gone
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let end = stoker().args(call).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        // then all is as well, and nobody is told of it
        let said = String::from_utf8_lossy(&end.stderr);
        assert!(
            end.status.success() && !said.contains("panic") && !said.contains("pipe"),
            "{call:?}: {said}"
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
