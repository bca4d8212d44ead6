//! Calls that are wrong are refused in words, with exit code 2.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fixtures;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fixtures::{PAST, command, gates, run};

#[test]
fn a_wrong_call_is_refused_with_what_is_missing() {
    for gate in gates() {
        for (call, why) in [
            (&[][..], "say what to do"),
            (&["open"], "\"open\" is nothing to do"),
            (&["install"], "give a FILE"),
            (&["install", "a", "b", "c"], "give a FILE"),
            (&["pulled", "now"], "takes no arguments"),
            (&["wait"], "give an INSTANT"),
            (&["wait", PAST, "a", "b"], "give an INSTANT"),
            (&["wait", "tomorrow"], "\"tomorrow\" is not an instant"),
            (&["wait", "tomorrow", "a"], "\"tomorrow\" is not an instant"),
            (&["hold"], "give an INSTANT and a DOOR"),
            (&["hold", PAST], "give an INSTANT and a DOOR"),
            (&["hold", "tomorrow", "a"], "\"tomorrow\" is not an instant"),
            (&["exec"], "give an INSTANT, two dashes and a COMMAND"),
            (&["exec", PAST], "give an INSTANT, two dashes and a COMMAND"),
            (&["exec", PAST, "--"], "give an INSTANT, two dashes and a COMMAND"),
            (&["exec", PAST, "echo", "--", "began"], "give an INSTANT, two dashes and a COMMAND"),
            (&["exec", "9:00", "--", "echo", "began"], "\"9:00\" is not an instant"),
        ] {
            let end = run(&mut command(&gate, call));
            assert_eq!((end.code(), end.out.len()), (Some(2), 0), "{end:?}");
            assert!(end.err.starts_with("stoker-gate: ") && end.err.contains(why), "{call:?}: {}", end.err);
        }
    }
}

#[test]
fn an_instant_that_is_no_text_is_refused_with_an_example() {
    for gate in gates() {
        let end = run(command(&gate, &["wait"]).arg(OsStr::from_bytes(b"2026-\xff")));
        assert_eq!(end.code(), Some(2));
        assert!(end.err.contains("such as 2026-11-22T09:00:00Z"), "{}", end.err);
    }
}

#[test]
fn pulled_ends_at_once_and_says_nothing() {
    for gate in gates() {
        let end = run(&mut command(&gate, &["pulled"]));
        assert_eq!((end.code(), end.out.len(), end.err.as_str()), (Some(0), 0, ""));
    }
}

#[test]
fn who_asks_for_help_gets_it() {
    for gate in gates() {
        for ask in ["help", "--help", "-h"] {
            let end = run(&mut command(&gate, &[ask]));
            assert_eq!(end.code(), Some(0));
            assert!(end.out().contains("exec INSTANT -- COMMAND"), "{end:?}");
        }
        let version = run(&mut command(&gate, &["--version"]));
        assert_eq!(version.out(), concat!("stoker-gate ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}
