//! The host's side: starts the child, feeds it, and says in words how it ended.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::program::{OUT_OF_MEMORY, REFUSED};
use super::{Artefact, CompileCost, CompileLimits};
use crate::error::Refusal;
use crate::log::brief;

/// Machine code that a component may become; far more than any limit on its size gives.
const MAX_ARTEFACT: u64 = 128 << 20;
/// What is read of the child's standard error.
const MAX_WORDS: u64 = 4 << 10;

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGXCPU: i32 = 24;

/// How compiling ended.
pub(crate) enum Ended {
    Done(Artefact),
    /// The limit on time was reached.
    TimeUp,
    Refused(Refusal),
}

/// Compiles `component` in a child of its own, which is killed when the future is dropped.
pub(crate) async fn compile(program: &Path, component: &[u8], limits: CompileLimits) -> (Ended, CompileCost) {
    let started = Instant::now();
    let wall = limits.cpu * CompileLimits::WALL_FACTOR;
    let (ended, peak_bytes) = match timeout(wall, run(program, component, limits)).await {
        Ok(Ok(done)) => in_words(done, limits),
        Ok(Err(error)) => {
            let words = format!("the compiler {} does not run: {error}", program.display());
            (Ended::Refused(Refusal::Host(words)), 0)
        }
        Err(_) => (Ended::TimeUp, 0),
    };
    (ended, CompileCost { took: started.elapsed(), peak_bytes })
}

struct Output {
    status: ExitStatus,
    code: Vec<u8>,
    words: String,
}

async fn run(program: &Path, component: &[u8], limits: CompileLimits) -> std::io::Result<Output> {
    let mut child = Command::new(program)
        .arg("compile")
        .arg(limits.memory_bytes.to_string())
        .arg(limits.cpu.as_secs().max(1).to_string())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(std::io::Error::other("a pipe is missing"));
    };
    let feed = async move {
        // A child that ends early stops reading; its status tells why.
        let _ = stdin.write_all(component).await;
        drop(stdin);
    };
    let mut code = Vec::new();
    let mut words = Vec::new();
    let (mut stdout, mut stderr) = (stdout.take(MAX_ARTEFACT), stderr.take(MAX_WORDS));
    // What is past the limit stays in the pipe, and the child hangs until it is killed.
    let (_, code_read, words_read) =
        tokio::join!(feed, stdout.read_to_end(&mut code), stderr.read_to_end(&mut words));
    code_read?;
    words_read?;
    if code.len() as u64 == MAX_ARTEFACT {
        child.start_kill()?;
    }
    let status = child.wait().await?;
    Ok(Output { status, code, words: String::from_utf8_lossy(&words).into_owned() })
}

/// What became of it, and the memory that it took.
fn in_words(output: Output, limits: CompileLimits) -> (Ended, u64) {
    let Output { status, code, words } = output;
    if status.success() {
        return (Ended::Done(Artefact(code)), words.trim().parse().unwrap_or(0));
    }
    let memory = Refusal::CompileMemory { limit: limits.memory_bytes };
    let refusal = match (status.code(), status.signal()) {
        // First, because these words hold names that the component's author chose.
        (Some(code), _) if code == i32::from(REFUSED) => Refusal::Compile(brief(&words)),
        (Some(code), _) if code == i32::from(OUT_OF_MEMORY) => memory,
        _ if words.contains("memory allocation") || words.contains("Cannot allocate memory") => memory,
        // When even the runtime finds no memory to say so.
        (_, Some(SIGSEGV | SIGABRT)) if !words.contains("stack") => memory,
        (_, Some(SIGXCPU)) => return (Ended::TimeUp, 0),
        (_, Some(SIGSEGV | SIGABRT)) => Refusal::Compile("its code is nested too deep".to_owned()),
        (_, Some(SIGKILL)) if code.len() as u64 == MAX_ARTEFACT => {
            Refusal::Compile(format!("it becomes more than {} MiB of machine code", MAX_ARTEFACT >> 20))
        }
        (_, Some(SIGKILL)) => Refusal::Host(
            "the compiler was killed from outside, probably because the operator's container is out of memory: \
             give it more"
                .to_owned(),
        ),
        _ => Refusal::Host(format!("the compiler ended with {status}: {}", brief(words.trim()))),
    };
    (Ended::Refused(refusal), 0)
}
