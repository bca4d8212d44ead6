//! The closed world that language runtimes find in place of WASI 0.2: clocks stand at the
//! decision's `now`, random numbers follow from the input, output goes to the log, and there is
//! no input, environment, file, socket or sleep. It touches nothing but the call's [`State`].
//!
//! Handles carry no data of their own, so there is no table of them to fill up.

use wasmtime::StoreContextMut;
use wasmtime::component::{Component, types::ComponentItem};
use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType, Val};

use crate::limits::ANSWER_BYTES;
use crate::log::LogLevel;
use crate::state::State;

/// Interfaces served here, of any 0.2 version. Those of [`STUBS`] fail when they are called.
pub(crate) const SERVED: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Interfaces that runtimes import but can do nothing with here: without a preopened directory
/// there is no descriptor to call them on.
const STUBS: &[&str] = &["wasi:filesystem/types"];

/// What a program may ask for in one go; bounds the host's memory.
const MAX_RANDOM_BYTES: u64 = 64 << 10;

// Kinds of handles. No value of these types exists; only their identity matters.
enum Pollable {}
enum IoError {}
enum InputStream {}
enum OutputStream {}
enum TerminalInput {}
enum TerminalOutput {}
enum Descriptor {}
enum DirectoryEntryStream {}

/// Representation of the two output streams.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code)]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

type Cx<'a> = StoreContextMut<'a, State>;
type Instance<'a> = LinkerInstance<'a, State>;
type Done = wasmtime::Result<()>;
type StreamResult<T> = Result<T, StreamError>;

/// Defines what every component may import.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> Done {
    io(linker)?;
    cli(linker)?;
    clocks(linker)?;
    random(linker)?;
    linker
        .instance("wasi:filesystem/preopens@0.2.0")?
        .func_wrap("get-directories", |_: Cx<'_>, (): ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),)))
}

/// Defines those of the [`STUBS`] that `component` imports, under the very names it uses.
pub(crate) fn add_stubs(linker: &mut Linker<State>, component: &Component) -> Done {
    let engine = component.engine();
    let ty = component.component_type();
    for (name, item) in ty.imports(engine) {
        let interface = name.split('@').next().unwrap_or_default();
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        if !STUBS.contains(&interface) {
            continue;
        }
        let mut target = linker.instance(name)?;
        for (export, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => stub(&mut target, interface, export)?,
                ComponentItem::Resource(_) => match export {
                    "descriptor" => handle::<Descriptor>(&mut target, export)?,
                    "directory-entry-stream" => handle::<DirectoryEntryStream>(&mut target, export)?,
                    // Handles of other interfaces that this one uses.
                    "input-stream" => handle::<InputStream>(&mut target, export)?,
                    "output-stream" => handle::<OutputStream>(&mut target, export)?,
                    "pollable" => handle::<Pollable>(&mut target, export)?,
                    "error" => handle::<IoError>(&mut target, export)?,
                    _ => {}
                },
                _ => {}
            }
        }
    }
    Ok(())
}

fn stub(target: &mut Instance<'_>, interface: &str, name: &str) -> Done {
    let what = format!("{interface}#{name}");
    target.func_new(name, move |_, _, _, results| match (what.as_str(), results) {
        ("wasi:filesystem/types#filesystem-error-code", [result]) => {
            *result = Val::Option(None);
            Ok(())
        }
        _ => Err(wasmtime::format_err!("it called {what}, and a policy has no files")),
    })
}

fn handle<T: 'static>(target: &mut Instance<'_>, name: &str) -> Done {
    target.resource(name, ResourceType::host::<T>(), |_, _| Ok(()))
}

fn new<T: 'static>() -> (Resource<T>,) {
    (Resource::new_own(0),)
}

fn io(linker: &mut Linker<State>) -> Done {
    let mut error = linker.instance("wasi:io/error@0.2.0")?;
    handle::<IoError>(&mut error, "error")?;
    error.func_wrap("[method]error.to-debug-string", |_: Cx<'_>, (_,): (Resource<IoError>,)| {
        Ok(("closed".to_owned(),))
    })?;

    // Everything is ready at once, so that a sleep is over when it begins.
    let mut poll = linker.instance("wasi:io/poll@0.2.0")?;
    handle::<Pollable>(&mut poll, "pollable")?;
    poll.func_wrap("[method]pollable.ready", |_: Cx<'_>, (_,): (Resource<Pollable>,)| Ok((true,)))?;
    poll.func_wrap("[method]pollable.block", |_: Cx<'_>, (_,): (Resource<Pollable>,)| Ok(()))?;
    poll.func_wrap("poll", |_: Cx<'_>, (list,): (Vec<Resource<Pollable>>,)| {
        let count = u32::try_from(list.len())?;
        if count == 0 {
            return Err(wasmtime::format_err!("it polls nothing, which would never end"));
        }
        Ok(((0..count).collect::<Vec<u32>>(),))
    })?;

    let mut streams = linker.instance("wasi:io/streams@0.2.0")?;
    handle::<InputStream>(&mut streams, "input-stream")?;
    handle::<OutputStream>(&mut streams, "output-stream")?;
    input(&mut streams)?;
    output(&mut streams)
}

/// Standard input is at its end.
fn input(streams: &mut Instance<'_>) -> Done {
    for name in ["read", "blocking-read"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |_: Cx<'_>, (_, _): (Resource<InputStream>, u64)| {
                Ok((StreamResult::<Vec<u8>>::Err(StreamError::Closed),))
            },
        )?;
    }
    for name in ["skip", "blocking-skip"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |_: Cx<'_>, (_, _): (Resource<InputStream>, u64)| {
                Ok((StreamResult::<u64>::Err(StreamError::Closed),))
            },
        )?;
    }
    streams.func_wrap("[method]input-stream.subscribe", |_: Cx<'_>, (_,): (Resource<InputStream>,)| {
        Ok(new::<Pollable>())
    })
}

/// Standard output and error take whatever comes; the log keeps as much as it may.
fn output(streams: &mut Instance<'_>) -> Done {
    type This = Resource<OutputStream>;
    streams.func_wrap("[method]output-stream.check-write", |_: Cx<'_>, (_,): (This,)| {
        Ok((StreamResult::Ok(ANSWER_BYTES as u64 / 2),))
    })?;
    for name in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut cx: Cx<'_>, (this, bytes): (This, Vec<u8>)| {
                let level = if this.rep() == STDERR { LogLevel::Stderr } else { LogLevel::Stdout };
                cx.data_mut().log.stream(level, &bytes);
                Ok((StreamResult::Ok(()),))
            },
        )?;
    }
    for name in ["flush", "blocking-flush"] {
        streams.func_wrap(&format!("[method]output-stream.{name}"), |_: Cx<'_>, (_,): (This,)| {
            Ok((StreamResult::Ok(()),))
        })?;
    }
    for name in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        streams.func_wrap(&format!("[method]output-stream.{name}"), |_: Cx<'_>, (_, _): (This, u64)| {
            Ok((StreamResult::Ok(()),))
        })?;
    }
    for name in ["splice", "blocking-splice"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |_: Cx<'_>, (_, _, _): (This, Resource<InputStream>, u64)| {
                Ok((StreamResult::<u64>::Err(StreamError::Closed),))
            },
        )?;
    }
    streams.func_wrap("[method]output-stream.subscribe", |_: Cx<'_>, (_,): (This,)| Ok(new::<Pollable>()))
}

fn cli(linker: &mut Linker<State>) -> Done {
    let mut environment = linker.instance("wasi:cli/environment@0.2.0")?;
    environment.func_wrap("get-environment", |_: Cx<'_>, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    environment.func_wrap("get-arguments", |_: Cx<'_>, (): ()| Ok((Vec::<String>::new(),)))?;
    environment.func_wrap("initial-cwd", |_: Cx<'_>, (): ()| Ok((Option::<String>::None,)))?;

    let mut exit = linker.instance("wasi:cli/exit@0.2.0")?;
    exit.func_wrap("exit", |_: Cx<'_>, (status,): (Result<(), ()>,)| -> Done {
        Err(exited(i32::from(status.is_err())))
    })?;
    exit.func_wrap("exit-with-code", |_: Cx<'_>, (code,): (u8,)| -> Done { Err(exited(code.into())) })?;

    linker
        .instance("wasi:cli/stdin@0.2.0")?
        .func_wrap("get-stdin", |_: Cx<'_>, (): ()| Ok(new::<InputStream>()))?;
    for (name, rep) in [("stdout", STDOUT), ("stderr", STDERR)] {
        linker
            .instance(&format!("wasi:cli/{name}@0.2.0"))?
            .func_wrap(&format!("get-{name}"), move |_: Cx<'_>, (): ()| {
                Ok((Resource::<OutputStream>::new_own(rep),))
            })?;
    }

    handle::<TerminalInput>(&mut linker.instance("wasi:cli/terminal-input@0.2.0")?, "terminal-input")?;
    handle::<TerminalOutput>(&mut linker.instance("wasi:cli/terminal-output@0.2.0")?, "terminal-output")?;
    linker
        .instance("wasi:cli/terminal-stdin@0.2.0")?
        .func_wrap("get-terminal-stdin", |_: Cx<'_>, (): ()| {
            Ok((Option::<Resource<TerminalInput>>::None,))
        })?;
    for name in ["stdout", "stderr"] {
        linker
            .instance(&format!("wasi:cli/terminal-{name}@0.2.0"))?
            .func_wrap(&format!("get-terminal-{name}"), |_: Cx<'_>, (): ()| {
                Ok((Option::<Resource<TerminalOutput>>::None,))
            })?;
    }
    Ok(())
}

fn exited(code: i32) -> wasmtime::Error {
    wasmtime::format_err!("it exited with code {code} instead of answering")
}

fn clocks(linker: &mut Linker<State>) -> Done {
    let mut monotonic = linker.instance("wasi:clocks/monotonic-clock@0.2.0")?;
    monotonic.func_wrap("now", |cx: Cx<'_>, (): ()| Ok((cx.data().now().saturating_mul(1_000_000),)))?;
    monotonic.func_wrap("resolution", |_: Cx<'_>, (): ()| Ok((1_000_000_u64,)))?;
    for name in ["subscribe-instant", "subscribe-duration"] {
        monotonic.func_wrap(name, |_: Cx<'_>, (_,): (u64,)| Ok(new::<Pollable>()))?;
    }

    let mut wall = linker.instance("wasi:clocks/wall-clock@0.2.0")?;
    wall.func_wrap("now", |cx: Cx<'_>, (): ()| {
        let now = cx.data().now();
        let nanoseconds = u32::try_from(now % 1_000)? * 1_000_000;
        Ok((Datetime { seconds: now / 1_000, nanoseconds },))
    })?;
    wall.func_wrap("resolution", |_: Cx<'_>, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },)))
}

fn random(linker: &mut Linker<State>) -> Done {
    for (interface, prefix) in [("random", ""), ("insecure", "insecure-")] {
        let mut target = linker.instance(&format!("wasi:random/{interface}@0.2.0"))?;
        target.func_wrap(&format!("get-{prefix}random-bytes"), |mut cx: Cx<'_>, (count,): (u64,)| {
            if count > MAX_RANDOM_BYTES {
                return Err(wasmtime::format_err!(
                    "it asked for {count} random bytes at once, at most {MAX_RANDOM_BYTES} are given"
                ));
            }
            let count = usize::try_from(count)?;
            let words = std::iter::repeat_with(|| cx.data_mut().random().to_le_bytes());
            Ok((words.flatten().take(count).collect::<Vec<u8>>(),))
        })?;
        target.func_wrap(&format!("get-{prefix}random-u64"), |mut cx: Cx<'_>, (): ()| {
            Ok((cx.data_mut().random(),))
        })?;
    }
    linker.instance("wasi:random/insecure-seed@0.2.0")?.func_wrap(
        "insecure-seed",
        |mut cx: Cx<'_>, (): ()| {
            let state = cx.data_mut();
            Ok(((state.random(), state.random()),))
        },
    )
}
