//! Installing: a complete copy that anybody may execute, or what was there before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fixtures;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use fixtures::{FAR, Folder, Running, command, gates, run};
use nix::sys::signal::Signal;

/// A complete gate that runs, and nothing beside it.
fn assert_installed(folder: &Folder, gate: &std::path::Path) {
    assert_eq!(folder.names(), ["gate"]);
    let file = folder.file("gate");
    assert!(fs::read(&file).unwrap() == fs::read(gate).unwrap(), "the copy differs");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(run(&mut command(file, &["pulled"])).code(), Some(0));
}

#[test]
fn the_copy_is_complete_and_executable_for_all_whatever_the_umask() {
    for gate in gates() {
        for umask in ["022", "077", "777"] {
            let folder = Folder::new(&format!("install-{umask}"));
            let script = format!("umask {umask}; exec \"$@\"");
            let call = ["-c", &script, "sh", gate.to_str().unwrap(), "install", &folder.file("gate")];
            let end = run(&mut command("sh", &call));
            assert_eq!((end.code(), end.err.as_str()), (Some(0), ""));
            assert_installed(&folder, &gate);
        }
    }
}

#[test]
fn a_copy_that_is_there_is_replaced_even_while_it_runs() {
    for gate in gates() {
        // given an installed gate that waits
        let folder = Folder::new("replace");
        let install = || run(&mut command(&gate, &["install", &folder.file("gate")]));
        assert_eq!(install().code(), Some(0));
        let waiting = Running::start(&mut command(folder.file("gate"), &["wait", FAR])).waits();
        // when it is installed again
        assert_eq!(install().code(), Some(0));
        // then the new one is complete, and the old one waits on
        assert_installed(&folder, &gate);
        waiting.signal(Signal::SIGTERM);
        assert_eq!(waiting.end().code(), Some(143));
    }
}

#[test]
fn a_copy_that_breaks_off_leaves_the_old_one() {
    for gate in gates() {
        let folder = Folder::new("broken-off");
        fs::write(folder.file("gate"), "the old one").unwrap();
        // Files may have a few blocks only, and writing more is an error instead of a signal.
        let script = "ulimit -f 4; trap '' XFSZ; exec \"$@\"";
        let call = ["-c", script, "sh", gate.to_str().unwrap(), "install", &folder.file("gate")];
        let end = run(&mut command("sh", &call));
        assert_eq!(end.code(), Some(1), "{end:?}");
        assert_eq!(
            (folder.names(), fs::read(folder.file("gate")).unwrap()),
            (vec!["gate".to_owned()], b"the old one".to_vec())
        );
    }
}

#[test]
fn what_an_earlier_attempt_left_is_in_nobodys_way() {
    for gate in gates() {
        let folder = Folder::new("left");
        // Of the same process ID, as in a container, where it is always 1; and not writable.
        let script = "umask 777; : >.gate.$$; echo old >gate; exec \"$@\"";
        let call = ["-c", script, "sh", gate.to_str().unwrap(), "install", "gate"];
        let end = run(command("sh", &call).current_dir(&folder.0));
        assert_eq!((end.code(), end.err.as_str()), (Some(0), ""));
        assert_installed(&folder, &gate);
    }
}

#[test]
fn a_copy_that_cannot_be_made_is_told_and_leaves_nothing() {
    for gate in gates() {
        let folder = Folder::new("refused");
        fs::create_dir_all(folder.0.join("folder/gate")).unwrap();
        for to in
            [folder.file("nowhere/gate"), folder.file("folder"), folder.file("folder/.."), "/".to_owned()]
        {
            let end = run(&mut command(&gate, &["install", &to]));
            assert_eq!((end.code(), end.lines().len()), (Some(1), 1), "{end:?}");
            assert!(end.lines()[0].starts_with("install: ") && end.err.contains(&to), "{end:?}");
        }
        assert_eq!(folder.names(), ["folder"]);
    }
}
