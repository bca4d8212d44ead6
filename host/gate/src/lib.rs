//! `stoker-gate`: holds a workload until its instant, in a pod that was made ready before it.
//!
//! ```text
//! stoker-gate install FILE [DOOR]                copy itself to FILE, in a volume that the containers share; close DOOR
//! stoker-gate pulled                             end at once: to have run is to have been pulled
//! stoker-gate wait INSTANT [DOOR]                at INSTANT, open DOOR and end
//! stoker-gate hold INSTANT DOOR                  at INSTANT, open DOOR; end when it is told to, with 0
//! stoker-gate exec INSTANT -- COMMAND [ARG...]   at INSTANT, become COMMAND
//! ```
//!
//! `hold` is a sidecar's main process, and `wait` its startup probe: a kubelet goes on to the next container at once when
//! a probe succeeds, while it may notice the end of an init container a second late. DOOR is a path in the
//! volume, which the next containers mount as a `subPath`. Closed, it is a link to itself, and a kubelet that
//! would start one of them cannot; open, it is a link to its folder. So the work is held also by a kubelet that
//! takes the sidecar for started, as one does that was itself started anew meanwhile. Its end has ended the probe, too,
//! which `hold` notices within a second: it ends with 1, and is started anew, with a probe of its own.
//!
//! INSTANT is RFC 3339 in UTC, such as `2026-11-22T09:00:00Z`, with up to nine digits of a second's fraction.
//!
//! What holds:
//! - **Never early.** The clock (`CLOCK_REALTIME`) is read on every wake, and the gate opens only when it shows the
//!   instant or more: also when it was set back meanwhile, and at once when it was set forward. An instant that
//!   is past opens at once, so a pod that is tried again starts without delay.
//! - **The workload finds everything as the gate found it**: process ID, environment, signal mask, ignored signals,
//!   open files, folder. The gate changes only the mask, while it waits, and all of its own files close on exec.
//! - **It can be stopped.** SIGTERM, SIGINT, SIGQUIT and SIGHUP end it with 128 + the signal's number (`hold`: 0), also as
//!   process 1 of a container, for which signals have no default action, and also if they were ignored before.
//!   Other signals act as they were found to; so an image's unusual `STOPSIGNAL` waits for the kubelet's SIGKILL.
//! - **It asks for little**: no network, no API, any user, a read-only root, no writable folder but that volume; at most
//!   2 MB of memory, one thread. It never waits for whoever reads its standard error: what cannot be written
//!   at once is lost.
//!
//! On standard error it says `stoker-gate: waiting until INSTANT` when it begins to wait, then
//! `stoker-gate: open SECONDS s after INSTANT`, SECONDS with six digits of fraction, or
//! `stoker-gate: ended by SIGTERM before INSTANT`.
//!
//! Exit codes: 0; 2 for a wrong call; 128 + n after signal n; 127 when COMMAND was not found and 126 when it cannot
//! be executed, as shells say it; 1 for anything else. After exec the code is COMMAND's.
#![deny(missing_docs)]

mod alarm;
mod attended;
mod call;
mod command;
mod door;
mod install;
mod instant;
mod say;
mod wait;

use std::ffi::CStr;
use std::path::Path;
use std::time::SystemTime;

use alarm::Alarm;
use attended::Attended;
use call::Call;
use wait::Outcome;

/// Does what the arguments ask for (without the program's name) and returns the exit code. Does not return when
/// it becomes a command.
pub fn run(arguments: &[&CStr]) -> i32 {
    let call = match Call::parse(arguments) {
        Ok(call) => call,
        Err(what) => {
            say::error(&what);
            return 2;
        }
    };
    match call {
        Call::Help => {
            println!("{}", call::USAGE);
            0
        }
        Call::Version => {
            println!("stoker-gate {}", env!("CARGO_PKG_VERSION"));
            0
        }
        Call::Pulled => 0,
        Call::Install(file, door) => code(install::install(file, door).map(|()| 0)),
        Call::Wait(instant, door) => {
            let _there = door.and_then(attended::tell);
            code(until(instant, None, |_| door.map_or(Ok(()), door::open).map(|()| 0)))
        }
        Call::Hold(instant, door) => code(until(instant, Some(door), |alarm| {
            door::open(door)?;
            alarm.signalled().map(|_| 0).map_err(|error| format!("cannot wait: {error}"))
        })),
        Call::Exec(instant, command) => code(until(instant, None, |alarm| {
            alarm.give_back().map_err(|error| format!("cannot restore the signal mask: {error}"))?;
            Ok(command::become_it(command))
        })),
    }
}

/// A failure is told, and its exit code is 1.
fn code(outcome: Result<i32, String>) -> i32 {
    outcome.unwrap_or_else(|what| {
        say::error(&what);
        1
    })
}

/// Waits for the instant, goes on with `open`, and returns the exit code. Who holds a door is to end well when told to, and
/// badly when nobody waits in front of it any more.
fn until(
    instant: SystemTime,
    held: Option<&Path>,
    open: impl FnOnce(Alarm) -> Result<i32, String>,
) -> Result<i32, String> {
    let mut alarm = Alarm::new().map_err(|error| format!("cannot make a timer: {error}"))?;
    let name = instant::name(instant);
    let begins = || say::now(&format!("waiting until {name}"));
    let outcome = match held {
        Some(door) => wait::wait(instant, &mut Attended::new(&mut alarm, door), begins),
        None => wait::wait(instant, &mut alarm, begins),
    };
    let outcome = outcome.map_err(|error| match error {
        attended::FORSAKEN => format!("the probe that waited until {name} has gone: to be started anew"),
        error => format!("cannot wait: {error}"),
    })?;
    match outcome {
        Outcome::Ended(signal) => {
            say::now(&format!("ended by {signal} before {name}"));
            // Others may take a code for the work's own.
            Ok(if held.is_some() { 0 } else { 128 + signal as i32 })
        }
        Outcome::Open { late } => {
            // By the clock itself: the wait went by whichever of the system's two was behind.
            let late = SystemTime::now().duration_since(instant).unwrap_or(late);
            say::now(&format!("open {}.{:06} s after {name}", late.as_secs(), late.subsec_micros()));
            open(alarm)
        }
    }
}
