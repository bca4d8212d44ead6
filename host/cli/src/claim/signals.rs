//! Signals that end a program, caught so that a claim is released first.

use std::process::ExitCode;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Those that people and service managers send, and the end of a terminal.
const CAUGHT: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Signals as they come.
pub struct Signals(mpsc::UnboundedReceiver<Signal>);

impl Signals {
    /// Catches them from now on, but for those that this program was started to ignore, as nohup does.
    pub fn catch() -> std::io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let (tell, told) = mpsc::unbounded_channel();
        for which in CAUGHT {
            if ignored(&status, which.as_raw()) {
                continue;
            }
            let mut stream = signal(SignalKind::from_raw(which.as_raw()))?;
            let tell = tell.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && tell.send(which).is_ok() {} });
        }
        Ok(Self(told))
    }

    /// The next one; may be dropped and asked again.
    pub async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            // All are ignored.
            None => std::future::pending().await,
        }
    }
}

/// Whether a process with this /proc/PID/status ignores a signal.
fn ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    signal > 0 && mask.checked_shr(signal.unsigned_abs() - 1).unwrap_or(0) & 1 == 1
}

/// What a shell tells of a program that a signal has ended.
pub fn code(signal: Signal) -> ExitCode {
    ExitCode::from(128 + u8::try_from(signal.as_raw()).unwrap_or(0))
}

/// Passes a signal to a child that has not been waited for yet. What comes from the terminal's keys, the child has got
/// from there.
pub fn pass(signal: Signal, child: Option<u32>) {
    let keys = matches!(signal, Signal::INT | Signal::QUIT);
    if keys && std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| at_terminal(&stat)) {
        return;
    }
    let child = child.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(child) = child {
        // An error means that it has ended.
        kill_process(child, signal).ok();
    }
}

/// Whether a process with this /proc/PID/stat is of the group that a terminal's keys reach.
fn at_terminal(stat: &str) -> bool {
    // After the program's name: state, parent, group, session, terminal, the terminal's group.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = fields.split(' ').take(6).collect();
    fields.len() == 6 && fields[2] == fields[5]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_were_ignored_stay_so() {
        let status = "Name:\tstoker\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(ignored(status, Signal::HUP.as_raw()));
        assert!(!ignored(status, Signal::INT.as_raw()));
        assert!(!ignored("", Signal::HUP.as_raw()));
    }

    #[test]
    fn a_terminals_group_is_told_from_others() {
        assert!(at_terminal("7 (a ) b) S 1 7 5 34816 7 4194304"));
        assert!(!at_terminal("7 (sh) S 1 7 5 34816 9 4194304"));
        assert!(!at_terminal("7 (sh) S 1 7 7 0 -1 4194304"));
        assert!(!at_terminal(""));
    }
}
