//! Waiting: never early, at once when the instant is past, until a signal, and whoever reads what it says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fixtures;

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use fixtures::{FAR, PAST, Running, ahead, command, gates, run};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

/// The seconds in `open 0.000213 s after …`.
fn late(line: &str, instant: &str) -> f64 {
    let seconds =
        line.strip_prefix("open ").and_then(|rest| rest.strip_suffix(&format!(" s after {instant}")));
    let seconds = seconds.unwrap_or_else(|| panic!("{line:?} for {instant}"));
    assert_eq!(seconds.split_once('.').expect("a fraction").1.len(), 6, "{line}");
    seconds.parse().unwrap()
}

/// Repeats what has to begin before an instant, with ever longer leads, until it did.
fn early_enough<T>(attempt: impl Fn(Duration) -> Option<T>) -> T {
    [1, 10, 60].into_iter().map(Duration::from_secs).find_map(attempt).expect("a minute is enough to begin")
}

#[test]
fn it_never_opens_before_its_instant() {
    for gate in gates() {
        for n in 0..60u64 {
            // Up to 50 ms ahead, in steps that are no multiple of anything; the gate may even come too late.
            let (instant, text) = ahead(Duration::from_nanos(n * n * 13_777 + n * 1_001));
            let end = run(&mut command(&gate, &["wait", &text]));
            let now = SystemTime::now();
            assert_eq!(end.code(), Some(0), "{end:?}");
            assert!(now >= instant, "open {:?} early", instant.duration_since(now));
        }
    }
}

#[test]
fn what_it_becomes_never_sees_the_clock_before_the_instant() {
    for gate in gates() {
        for n in 0..30u64 {
            let (_, text) = ahead(Duration::from_nanos(20_000_000 + n * n * 13_777));
            // The second gate is the workload, and says so if it has to wait.
            let gate = gate.to_str().unwrap();
            let end = run(&mut command(gate, &["exec", &text, "--", gate, "wait", &text]));
            let waits = end.lines().iter().skip_while(|line| line.starts_with("waiting")).count();
            assert_eq!((end.code(), waits), (Some(0), 2), "{end:?}");
        }
    }
}

/// `time(2)`, which shells and many runtimes ask, is behind the clock by up to a tick of the kernel.
#[test]
fn what_it_becomes_sees_the_instant_also_by_the_coarse_clock() {
    for gate in gates() {
        for _ in 0..3 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let second = (now + Duration::from_millis(100)).as_secs() + 1;
            let instant = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            let text = humantime::format_rfc3339(instant).to_string();
            let gate = gate.to_str().unwrap();
            let end = run(&mut command(gate, &["exec", &text, "--", "bash", "-c", r#"printf '%(%s)T' -1"#]));
            let seen: u64 = String::from_utf8_lossy(&end.out).parse().unwrap();
            assert!(seen >= second, "it saw {seen}, not {second}: {end:?}");
        }
    }
}

#[test]
fn it_says_when_it_begins_to_wait_and_how_late_it_opens() {
    for gate in gates() {
        let (text, end) = early_enough(|lead| {
            let (_, text) = ahead(lead);
            let end = run(&mut command(&gate, &["wait", &text]));
            (end.lines().len() > 1).then_some((text, end))
        });
        assert_eq!(end.lines().len(), 2, "{end:?}");
        assert_eq!(end.lines()[0], format!("waiting until {text}"));
        late(end.lines()[1], &text);
        assert!(end.out.is_empty());
    }
}

#[test]
fn a_past_instant_opens_at_once_and_without_waiting() {
    for gate in gates() {
        for past in [PAST, "1970-01-01T00:00:00Z"] {
            let end = run(&mut command(&gate, &["wait", past]));
            assert_eq!((end.code(), end.lines().len()), (Some(0), 1), "{end:?}");
            assert!(late(end.lines()[0], past) > 20.0 * 365.0 * 86_400.0, "{end:?}");
        }
    }
}

#[test]
fn signals_end_the_wait_with_128_and_their_number() {
    for gate in gates() {
        for (signal, code) in
            [(Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGQUIT, 131), (Signal::SIGTERM, 143)]
        {
            for (call, code) in [
                (&["wait", FAR][..], code),
                (&["wait", FAR, "door"], code),
                (&["hold", FAR, "door"], 0),
                (&["exec", FAR, "--", "echo", "began"], code),
            ] {
                let waiting = Running::start(&mut command(&gate, call)).waits();
                waiting.signal(signal);
                let end = waiting.end();
                assert_eq!(end.code(), Some(code), "{call:?}: {end:?}");
                assert_eq!(end.lines()[1..], [format!("ended by {signal} before {FAR}")]);
                assert!(end.out.is_empty(), "{end:?}");
            }
        }
    }
}

#[test]
fn signals_end_the_wait_also_when_they_were_ignored_or_blocked_before() {
    for gate in gates() {
        let gate = gate.to_str().unwrap();
        for found in ["--ignore-signal=TERM,HUP", "--block-signal=TERM,HUP"] {
            let waiting = Running::start(&mut command("env", &[found, gate, "wait", FAR])).waits();
            waiting.signal(Signal::SIGTERM);
            assert_eq!(waiting.end().code(), Some(143), "{found}");
        }
    }
}

#[test]
fn other_signals_do_not_open_it() {
    for gate in gates() {
        let waiting = Running::start(&mut command(&gate, &["wait", FAR])).waits();
        for signal in [Signal::SIGPIPE, Signal::SIGCHLD, Signal::SIGWINCH, Signal::SIGSTOP, Signal::SIGCONT] {
            waiting.signal(signal);
        }
        waiting.signal(Signal::SIGTERM);
        let end = waiting.end();
        assert_eq!((end.code(), end.lines().len()), (Some(143), 2), "{end:?}");
    }
}

#[test]
fn a_broken_pipe_while_it_waits_does_not_reach_the_workload() {
    for gate in gates() {
        let end = early_enough(|lead| {
            let (instant, text) = ahead(lead);
            let mut gate = command(&gate, &["exec", &text, "--", "echo", "began"]);
            let waiting = Running::start(&mut gate).begins_to_wait()?;
            waiting.signal(Signal::SIGPIPE);
            // Had it been sent to the workload, it would have ended it, and rightly.
            (SystemTime::now() < instant).then(|| waiting.end())
        });
        assert_eq!((end.code(), end.out()), (Some(0), "began\n".to_owned()));
    }
}

#[test]
fn it_opens_also_when_nobody_reads_what_it_says() {
    for gate in gates() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (_, text) = ahead(Duration::from_millis(50));
        let mut gate = command(&gate, &["exec", &text, "--", "echo", "began"]);
        let output = gate.stderr(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(0), b"began\n".to_vec()));
    }
}

#[test]
fn it_does_not_wait_for_a_reader_who_is_stuck() {
    for gate in gates() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        while poll(&mut [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(1) {
            writer.write_all(&[b'.'; 4096]).unwrap();
        }
        let (_, text) = ahead(Duration::from_millis(50));
        let mut gate = command(&gate, &["exec", &text, "--", "echo", "began"]);
        let child = gate.stdout(std::process::Stdio::piped()).stderr(writer).spawn().unwrap();
        let id = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        let output = fixtures::within(fixtures::PATIENCE, id, move || child.wait_with_output().unwrap());
        assert_eq!((output.status.code(), output.stdout), (Some(0), b"began\n".to_vec()));
        drop(reader);
    }
}
