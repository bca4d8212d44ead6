//! The gate as it is shipped: small, static, at home in an empty image, and as the first process of a container.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fixtures;

use std::fs;
use std::process::Command;

use fixtures::{FAR, Folder, PAST, Running, command, run, shipped, shipped_for, status_field};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Of a file, and of what waits in memory.
const MAX_FILE_BYTES: usize = 1_000_000;
const MAX_RESIDENT_KIB: u64 = 2_048;

#[test]
fn the_file_is_small_and_needs_no_other() {
    for (architecture, machine) in [("amd64", 62), ("arm64", 183)] {
        let elf = fs::read(shipped_for(architecture)).unwrap();
        assert!(elf.len() <= MAX_FILE_BYTES, "{architecture}: {} bytes", elf.len());
        let number = |at: usize, bytes: usize| {
            elf[at..at + bytes].iter().rev().fold(0, |value, byte| value * 256 + usize::from(*byte))
        };
        assert_eq!((&elf[..5], number(18, 2)), (&b"\x7fELF\x02"[..], machine), "{architecture}");
        // Its program headers: one of type 3 would name the loader of a program that is not static.
        let (first, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        let types: Vec<_> = (0..count).map(|n| number(first + n * size, 4)).collect();
        assert!(types.contains(&1) && !types.contains(&3), "{architecture}: {types:?}");
    }
}

#[test]
fn at_most_2_mib_are_resident_while_it_waits_in_one_thread() {
    for call in
        [&["wait", FAR][..], &["wait", FAR, "door"], &["hold", FAR, "door"], &["exec", FAR, "--", "true"]]
    {
        let waiting = Running::start(&mut command(shipped(), call)).waits();
        let status = fs::read_to_string(format!("/proc/{}/status", waiting.id())).unwrap();
        for field in ["VmRSS", "VmHWM"] {
            let size = status_field(&status, field);
            let kib: u64 = size.strip_suffix(" kB").unwrap().parse().unwrap();
            assert!((1..=MAX_RESIDENT_KIB).contains(&kib), "{field}: {size}");
        }
        assert_eq!(status_field(&status, "Threads"), "1");
    }
}

/// What starts a program as the first process of a PID namespace, with a root of its own if given. None where
/// that is not permitted.
fn container(root: Option<&Folder>) -> Option<Command> {
    let ways = [&["--pid", "--kill-child"][..], &["--user", "--map-root-user", "--pid", "--kill-child"]];
    let permitted = |way: &&&[&str]| {
        command("unshare", way).arg("true").output().is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(permitted) else {
        eprintln!("not tested: namespaces are not permitted here");
        return None;
    };
    let mut unshare = command("unshare", way);
    if let Some(root) = root {
        unshare.arg("--root").arg(&root.0);
    }
    Some(unshare)
}

/// The process that `unshare` made, which takes itself for process 1.
fn inner(outer: Pid) -> Pid {
    let parent = outer.to_string();
    let found = fs::read_dir("/proc").unwrap().find_map(|entry| {
        let id: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        // Others may end meanwhile.
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let child = status.lines().any(|line| line.strip_prefix("PPid:\t") == Some(&parent));
        child.then(|| (Pid::from_raw(id), status_field(&status, "NSpid")))
    });
    let (id, names) = found.expect("it has said that it waits");
    assert_eq!(names.split_whitespace().next_back(), Some("1"), "it is not process 1: {names}");
    id
}

#[test]
fn signals_end_it_also_as_process_1() {
    for (signal, code) in
        [(Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGQUIT, 131), (Signal::SIGTERM, 143)]
    {
        let Some(mut container) = container(None) else { return };
        let waiting = Running::start(container.arg(shipped()).args(["wait", FAR])).waits();
        kill(inner(waiting.id()), signal).unwrap();
        let end = waiting.end();
        assert_eq!(end.code(), Some(code), "{end:?}");
    }
}

#[test]
fn a_command_is_process_1_as_the_gate_was() {
    let Some(mut container) = container(None) else { return };
    let call = ["exec", PAST, "--", "sh", "-c", "echo $$"];
    assert_eq!(run(container.arg(shipped()).args(call)).out(), "1\n");
}

#[test]
fn it_waits_and_becomes_a_command_where_there_is_no_other_file() {
    // given a root that has nothing but the gate: no /proc, no /dev, no libraries
    let root = Folder::new("root");
    assert_eq!(run(&mut command(shipped(), &["install", &root.file("gate")])).code(), Some(0));
    let Some(mut container) = container(Some(&root)) else { return };
    // when it waits there and becomes a command, which waits, too
    let (_, soon) = fixtures::ahead(std::time::Duration::from_millis(100));
    let end = run(container.args(["/gate", "exec", PAST, "--", "/gate", "wait", &soon]));
    // then both open, and nothing was written
    assert_eq!((end.code(), end.lines().last().map(|line| &line[..5])), (Some(0), Some("open ")), "{end:?}");
    assert_eq!(root.names(), ["gate"]);
}
