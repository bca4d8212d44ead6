//! The child's side: a program that compiles one component and ends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::process::ExitCode;
use std::thread;

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use wasmtime::OutOfMemory;

use crate::engine;

/// The component does not compile; why is on standard error.
pub(super) const REFUSED: u8 = 3;
/// Memory ended; what the engine says of it is on standard error.
pub(super) const OUT_OF_MEMORY: u8 = 5;
/// Something around it failed; what is on standard error.
const BROKEN: u8 = 4;
/// Compilers recurse over the code that they compile.
const STACK: usize = 8 << 20;
/// How much politer than the operator.
const NICE: i32 = 10;

/// Compiles the component on standard input, and writes the machine code to standard output. Run
/// by the policy host as a child of its own; of no use to people.
///
/// `memory_bytes` and `cpu_seconds` are limits that the process sets for itself before it reads.
pub fn main(memory_bytes: u64, cpu_seconds: u64) -> ExitCode {
    let work = move || limit(memory_bytes, cpu_seconds).and_then(|()| compile());
    let done = thread::Builder::new().stack_size(STACK).spawn(work).map(thread::JoinHandle::join);
    let (code, words) = match done {
        Ok(Ok(Ok(()))) => return ExitCode::SUCCESS,
        Ok(Ok(Err((code, words)))) => (code, words),
        Ok(Err(_)) => (REFUSED, "the compiler panicked".to_owned()),
        Err(error) => (BROKEN, format!("no thread: {error}")),
    };
    eprint!("{words}");
    ExitCode::from(code)
}

fn limit(memory_bytes: u64, cpu_seconds: u64) -> Result<(), (u8, String)> {
    // A second more before the kernel kills for good; by default the first signal ends it, too.
    let limits = [
        (Resource::Cpu, cpu_seconds, cpu_seconds + 1),
        (Resource::As, memory_bytes, memory_bytes),
        (Resource::Core, 0, 0),
    ];
    for (resource, current, maximum) in limits {
        setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
            .map_err(|error| (BROKEN, format!("limit {resource:?} cannot be set: {error}")))?;
    }
    // Where it is not allowed, it competes with the operator, which is a pity and no more.
    let _ = nice(NICE);
    Ok(())
}

fn compile() -> Result<(), (u8, String)> {
    let broken = |error: std::io::Error| match error.kind() {
        ErrorKind::OutOfMemory => (OUT_OF_MEMORY, error.to_string()),
        _ => (BROKEN, error.to_string()),
    };
    let mut component = Vec::new();
    std::io::stdin().lock().read_to_end(&mut component).map_err(broken)?;
    let engine = engine::compiler().map_err(|error| (BROKEN, error.to_string()))?;
    let code = engine.precompile_component(&component).map_err(|error| {
        let code = if out_of_memory(&error) { OUT_OF_MEMORY } else { REFUSED };
        (code, format!("{error:#}"))
    })?;
    let mut out = std::io::stdout().lock();
    out.write_all(&code).and_then(|()| out.flush()).map_err(broken)?;
    eprint!("{}", peak_bytes().unwrap_or(0));
    Ok(())
}

fn out_of_memory(error: &wasmtime::Error) -> bool {
    error.is::<OutOfMemory>()
        || error.downcast_ref().is_some_and(|error: &std::io::Error| error.kind() == ErrorKind::OutOfMemory)
}

/// The most memory that this process ever held.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}
