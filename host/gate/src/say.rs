//! Words on standard error, a line in one write.

use std::io::{Write, stderr};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Says what went wrong, however long that takes.
pub fn error(what: &str) {
    line(what);
}

/// Says what happens, but only if that is possible at once: a workload is not held up by a full pipe.
pub fn now(what: &str) {
    let stderr = stderr();
    let mut file = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let _ = poll(&mut file, PollTimeout::ZERO);
    if file[0].revents() == Some(PollFlags::POLLOUT) {
        line(what);
    }
}

/// Whoever cannot be told is not told.
fn line(what: &str) {
    let _ = stderr().write_all(format!("stoker-gate: {what}\n").as_bytes());
}
