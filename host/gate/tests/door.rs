//! The door: closed when the gate is brought, open from the instant on, and never before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fixtures;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fixtures::{FAR, Folder, PAST, Running, ahead, command, gates, run};
use nix::sys::signal::Signal;

/// As a kubelet finds it: a folder, or nothing that could be mounted.
fn open(door: &str) -> bool {
    fs::metadata(door).is_ok_and(|found| found.is_dir())
}

/// A folder with a gate in it, and a door, which is closed.
fn installed(gate: &Path, name: &str) -> (Folder, String) {
    let folder = Folder::new(name);
    let door = folder.file("door");
    assert_eq!(run(&mut command(gate, &["install", &folder.file("gate"), &door])).code(), Some(0));
    assert_eq!(folder.names(), ["door", "gate"]);
    (folder, door)
}

#[test]
fn a_closed_door_leads_nowhere_and_an_open_one_to_its_folder() {
    for gate in gates() {
        let (folder, door) = installed(&gate, "door");
        assert_eq!(fs::metadata(&door).unwrap_err().raw_os_error(), Some(nix::libc::ELOOP));
        for _ in 0..2 {
            assert_eq!(run(&mut command(&gate, &["wait", PAST, &door])).code(), Some(0));
            assert!(open(&door));
            assert_eq!(fs::canonicalize(&door).unwrap(), fs::canonicalize(&folder.0).unwrap());
        }
        assert_eq!(folder.names(), ["door", "gate"], "and nothing is left beside it");
        // A pod that is started anew holds its work anew.
        assert_eq!(run(&mut command(&gate, &["install", &folder.file("gate"), &door])).code(), Some(0));
        assert!(!open(&door));
    }
}

#[test]
fn i5_no_door_opens_before_its_instant() {
    for gate in gates() {
        let (_folder, door) = installed(&gate, "instant");
        for call in ["wait", "hold"] {
            for n in 0..30u64 {
                assert_eq!(
                    run(&mut command(&gate, &["install", &door.replace("/door", "/gate"), &door])).code(),
                    Some(0)
                );
                let (instant, text) = ahead(Duration::from_nanos(n * n * 37_777 + n * 1_001));
                let running = Running::start(&mut command(&gate, &[call, &text, &door]));
                while !open(&door) {
                    std::thread::yield_now();
                }
                let now = SystemTime::now();
                assert!(now >= instant, "{call}: open {:?} early", instant.duration_since(now));
                drop(running);
            }
        }
    }
}

#[test]
fn who_is_ended_before_the_instant_opens_nothing() {
    for gate in gates() {
        let (_folder, door) = installed(&gate, "ended");
        for call in ["wait", "hold"] {
            let waiting = Running::start(&mut command(&gate, &[call, FAR, &door])).waits();
            waiting.signal(Signal::SIGTERM);
            waiting.end();
            assert!(!open(&door), "{call}");
        }
    }
}

#[test]
fn who_holds_a_door_stays_until_told_to_end_and_ends_well() {
    for gate in gates() {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let (_folder, door) = installed(&gate, "stays");
            let mut holding = Running::start(&mut command(&gate, &["hold", PAST, &door]));
            while !open(&door) {
                std::thread::yield_now();
            }
            assert!(holding.runs(), "it ended by itself");
            holding.signal(signal);
            let end = holding.end();
            assert_eq!((end.code(), end.lines().len()), (Some(0), 1), "{end:?}");
            assert!(end.lines()[0].ends_with(PAST), "{end:?}");
        }
    }
}

#[test]
fn a_door_that_cannot_be_written_is_told() {
    for gate in gates() {
        let folder = Folder::new("no-door");
        fs::create_dir_all(folder.0.join("folder/inner")).unwrap();
        for door in
            [folder.file("nowhere/door"), folder.file("folder"), folder.file("folder/.."), "/".to_owned()]
        {
            for call in [&["wait", PAST][..], &["hold", PAST], &["install", "gate"]] {
                let end = run(command(&gate, call).arg(&door).current_dir(&folder.0));
                assert_eq!(end.code(), Some(1), "{call:?} {door}: {end:?}");
                assert!(end.err.contains(&door), "{end:?}");
            }
        }
        assert_eq!(folder.names(), ["folder"]);
    }
}

/// A kubelet that ends takes its probe along, and the next one may take the sidecar for started.
#[test]
fn who_holds_a_door_is_to_be_started_anew_when_who_waited_has_gone_before_the_instant() {
    for gate in gates() {
        let (_folder, door) = installed(&gate, "forsaken");
        let waiting = Running::start(&mut command(&gate, &["wait", FAR, &door])).waits();
        let mut holding = Running::start(&mut command(&gate, &["hold", FAR, &door])).waits();
        // It has looked, and looks on, for as long as somebody waits.
        std::thread::sleep(Duration::from_millis(2_500));
        assert!(holding.runs());
        waiting.signal(Signal::SIGKILL);
        waiting.end();
        let end = holding.end();
        assert_eq!(end.code(), Some(1), "{end:?}");
        assert!(end.lines()[1].contains("to be started anew"), "{end:?}");
        assert!(!open(&door));
    }
}

#[test]
fn who_holds_a_door_stays_when_who_waited_goes_at_the_instant() {
    for gate in gates() {
        let (_folder, door) = installed(&gate, "rightly");
        let (_, text) = ahead(Duration::from_millis(2_700));
        let waiting = Running::start(&mut command(&gate, &["wait", &text, &door]));
        let mut holding = Running::start(&mut command(&gate, &["hold", &text, &door]));
        let end = waiting.end();
        assert_eq!(end.code(), Some(0), "{end:?}");
        // Longer than it takes it to look.
        std::thread::sleep(Duration::from_millis(1_500));
        assert!(holding.runs() && open(&door));
        holding.signal(Signal::SIGTERM);
        assert_eq!(holding.end().code(), Some(0));
    }
}
