//! What the kernel knows of this process.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;

/// The most memory that this process held, in bytes, since the start or [`forget_peak`].
pub fn peak_bytes() -> u64 {
    status("VmHWM:")
}

/// The memory that this process holds, in bytes.
pub fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// Lets the peak begin anew; where that is not allowed it goes on from the old one.
pub fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

/// Compilers that this process has started and that have not been reaped.
pub fn compilers() -> usize {
    let of_this = |entry: fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // pid (name) state parent …
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let parent: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        (name == "policy-compile" && parent == std::process::id()).then_some(())
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| of_this(entry.ok()?)).count()
}
