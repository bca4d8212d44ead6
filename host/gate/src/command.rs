//! Becoming the workload.

use std::ffi::CStr;

use nix::errno::Errno;

use crate::say;

/// Becomes the command (its name first, which is searched for in PATH unless it has a slash). Returns only if that
/// is impossible, with the exit code that shells have for it.
pub fn become_it(command: &[&CStr]) -> i32 {
    let Some(name) = command.first() else { return 0 };
    let Err(error) = nix::unistd::execvp(name, command);
    let (code, why) = match error {
        Errno::ENOENT | Errno::ENOTDIR => (127, "not found, or it names an interpreter that is not"),
        Errno::EACCES => (126, "not executable"),
        Errno::ENOEXEC => (126, "not a program for this machine, nor a script with a #! line"),
        other => (126, other.desc()),
    };
    say::error(&format!("{:?}: {why}", name.to_string_lossy()));
    code
}
