//! Becoming the workload: it finds everything as the gate found it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fixtures;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::Duration;

use fixtures::{FAR, Folder, PAST, Running, ahead, command, gates, run, status_field};

/// What a program says when it is started by `before…`, and by a gate that is, without waiting and with: what
/// waiting changes is put back.
fn with_and_without_gate(gate: &str, before: &[&str], program: &[&str]) -> [String; 3] {
    let (_, soon) = ahead(Duration::from_millis(30));
    [&[][..], &[gate, "exec", PAST, "--"], &[gate, "exec", &soon, "--"]].map(|gate| {
        let end = run(&mut command(before[0], &[&before[1..], gate, program].concat()));
        assert_eq!(end.code(), Some(0), "{end:?}");
        end.out()
    })
}

/// Which signals are blocked, ignored, handled and waiting, by /proc/PID/status.
fn signals(status: &str) -> [String; 5] {
    ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"].map(|field| status_field(status, field))
}

#[test]
fn it_is_the_same_process() {
    for gate in gates() {
        let (_, soon) = ahead(Duration::from_millis(30));
        let gate = Running::start(&mut command(gate, &["exec", &soon, "--", "sh", "-c", "echo $$"]));
        let id = gate.id();
        assert_eq!(gate.end().out(), format!("{id}\n"));
    }
}

#[test]
fn arguments_are_handed_on_whatever_is_in_them() {
    let arguments: [&[u8]; 6] = [b"a b", b"", b"--", b"-x", b"\xff\xfe", "é".as_bytes()];
    for gate in gates() {
        let mut gate = command(gate, &["exec", PAST, "--", "printf", "[%s]"]);
        let end = run(gate.args(arguments.map(OsStr::from_bytes)));
        assert_eq!(end.out, b"[a b][][--][-x][\xff\xfe][\xc3\xa9]", "{end:?}");
    }
}

#[test]
fn environment_folder_and_exit_code_are_kept() {
    for gate in gates() {
        let mut gate = command(gate, &["exec", PAST, "--", "sh", "-c", "pwd; env; exit 7"]);
        let end = run(gate.current_dir("/usr").env_clear().env("PATH", "/usr/bin:/bin").env("EMPTY", ""));
        let mut lines: Vec<_> = end.out().lines().map(str::to_owned).collect();
        assert_eq!(lines.remove(0), "/usr");
        // What the shell itself adds.
        lines.retain(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own)));
        lines.sort();
        assert_eq!(lines, ["EMPTY=", "PATH=/usr/bin:/bin"]);
        assert_eq!(end.code(), Some(7));
    }
}

#[test]
fn a_command_is_searched_for_in_the_path_that_the_gate_was_given() {
    let folder = Folder::new("path");
    symlink("/bin/sh", folder.0.join("found-by-path")).unwrap();
    for gate in gates() {
        let mut gate = command(gate, &["exec", PAST, "--", "found-by-path", "-c", "echo found $0", "it"]);
        let end = run(gate.env("PATH", format!("/nowhere:{}", folder.0.display())));
        assert_eq!((end.code(), end.out()), (Some(0), "found it\n".to_owned()));
    }
}

#[test]
fn signals_are_blocked_and_ignored_exactly_as_they_were_found() {
    for gate in gates() {
        for found in [
            &["env"][..],
            &["env", "--ignore-signal=PIPE"],
            &["env", "--default-signal"],
            &["env", "--ignore-signal=HUP,INT,QUIT,TERM,USR1"],
            &["env", "--block-signal=PIPE,TERM,USR2"],
            &["env", "--ignore-signal=PIPE,HUP", "--block-signal=HUP,CHLD"],
            // And one that waits for the workload.
            &["env", "--block-signal=PIPE", "sh", "-c", "kill -s PIPE $$; exec \"$@\"", "sh"],
        ] {
            let said = with_and_without_gate(gate.to_str().unwrap(), found, &["cat", "/proc/self/status"]);
            let [plain, at_once, waited] = said.map(|status| signals(&status));
            assert_eq!(at_once, plain, "{found:?}");
            assert_eq!(waited, plain, "{found:?}");
        }
    }
}

#[test]
fn no_signal_is_left_for_the_workload_when_nobody_reads_the_gates_words() {
    let status = |mut program: std::process::Command| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program.stderr(writer).output().unwrap();
        signals(&String::from_utf8(output.stdout).unwrap())
    };
    for gate in gates() {
        let (_, soon) = ahead(Duration::from_millis(30));
        let gated = command(gate, &["exec", &soon, "--", "cat", "/proc/self/status"]);
        assert_eq!(status(gated), status(command("cat", &["/proc/self/status"])));
    }
}

#[test]
fn open_files_are_exactly_those_that_were_found_also_when_standard_ones_are_closed() {
    for gate in gates() {
        for found in
            ["\"$@\"", "exec 0<&-; \"$@\"", "exec 0<&- 2>&-; \"$@\"", "exec 2>&- 7</dev/null; \"$@\""]
        {
            let before = ["sh", "-c", found, "sh"];
            let [plain, at_once, waited] =
                with_and_without_gate(gate.to_str().unwrap(), &before, &["ls", "/proc/self/fd"]);
            assert_eq!(at_once, plain, "{found}");
            assert_eq!(waited, plain, "{found}");
        }
    }
}

#[test]
fn a_command_that_is_not_found_is_127_and_one_that_cannot_be_executed_126() {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for gate in gates() {
        for (name, code, why) in [
            ("no-such-program", 127, "not found"),
            ("/no/such/program", 127, "not found"),
            ("", 127, "not found"),
            (text, 126, "not executable"),
            ("/etc", 126, "not executable"),
        ] {
            let end = run(&mut command(&gate, &["exec", PAST, "--", name]));
            assert_eq!(end.code(), Some(code), "{end:?}");
            let said = end.lines()[1];
            assert!(said.contains(why) && said.contains(&format!("{name:?}")), "{said}");
        }
    }
}

#[test]
fn nothing_is_executed_before_the_instant() {
    for gate in gates() {
        let gate = Running::start(&mut command(gate, &["exec", FAR, "--", "no-such-program"])).waits();
        gate.signal(nix::sys::signal::Signal::SIGINT);
        assert_eq!(gate.end().code(), Some(130));
    }
}
