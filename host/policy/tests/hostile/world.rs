//! Guests that look for the world around them: it is empty, its clocks stand, and chance follows
//! from the input.

use stoker_policy::contract::scaling::Decision;

use crate::case::{Case, Step, desired, guest};
use crate::fixtures::Guest;

pub fn rows() -> Vec<Case> {
    [surroundings(), time_and_chance(), streams()].concat()
}

fn surroundings() -> Vec<Case> {
    let looks =
        |name, world, imports, scale| guest(name, Guest { world, imports, scale, ..Guest::default() });
    let environment = "package: wasi:cli@0.2.6; interface environment {
            get-environment: func() -> list<tuple<string, string>>;
            get-arguments: func() -> list<string>;
            initial-cwd: func() -> option<string>;
        }
        world: import wasi:cli/environment@0.2.6; include stoker:policy/scaling-policy@1.0.0;";
    let files = "package: wasi:filesystem@0.2.6;
            interface types {
                resource descriptor { open-at: func(path: string) -> result<descriptor, u8>; }
                filesystem-error-code: func(err: u32) -> option<u8>;
            }
            interface preopens {
                use types.{descriptor};
                get-directories: func() -> list<tuple<descriptor, string>>;
            }
        world: import wasi:filesystem/types@0.2.6; import wasi:filesystem/preopens@0.2.6;
            include stoker:policy/scaling-policy@1.0.0;";
    let file_imports = r#"
        (import "wasi:filesystem/preopens@0.2.6" "get-directories" (func $directories (param i32)))
        (import "wasi:filesystem/types@0.2.6" "filesystem-error-code" (func $code (param i32 i32)))
        (import "wasi:filesystem/types@0.2.6" "[method]descriptor.open-at"
            (func $open (param i32 i32 i32 i32)))
        (import "wasi:filesystem/types@0.2.6" "[resource-drop]descriptor" (func $close (param i32)))"#;
    vec![
        // The lengths of both lists, and whether there is a directory.
        looks(
            "looks for an environment, arguments and a directory",
            environment,
            r#"
            (import "wasi:cli/environment@0.2.6" "get-environment" (func $environment (param i32)))
            (import "wasi:cli/environment@0.2.6" "get-arguments" (func $arguments (param i32)))
            (import "wasi:cli/environment@0.2.6" "initial-cwd" (func $directory (param i32)))"#,
            "(memory.fill (i32.const 3000) (i32.const 255) (i32.const 24))
            (call $environment (i32.const 3000))
            (call $arguments (i32.const 3008))
            (call $directory (i32.const 3016))
            (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 3004))
                (i32.add (i32.load (i32.const 3012)) (i32.load8_u (i32.const 3016)))))",
        ),
        looks(
            "looks for files",
            files,
            file_imports,
            "(i64.store (i32.const 3000) (i64.const -1))
            (call $directories (i32.const 3000)) (i32.store (i32.const 2048) (i32.load (i32.const 3004)))",
        ),
        looks(
            "opens a file in a directory that it was not given",
            files,
            file_imports,
            "(call $open (i32.const 3) (i32.const 16) (i32.const 4) (i32.const 3000))",
        )
        .stops(Step::Scale, "unknown handle index 3"),
        looks("closes a file that it does not have", files, file_imports, "(call $close (i32.const 1))")
            .stops(Step::Scale, "unknown handle index 1"),
    ]
}

const CLOCKS: &str = "package: wasi:random@0.2.6;
        interface random { get-random-u64: func() -> u64; get-random-bytes: func(len: u64) -> list<u8>; }
    package: wasi:io@0.2.6; interface poll {
        resource pollable { block: func(); ready: func() -> bool; }
        poll: func(%in: list<borrow<pollable>>) -> list<u32>;
    }
    package: wasi:clocks@0.2.6;
        interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
        interface monotonic-clock {
            use wasi:io/poll@0.2.6.{pollable};
            now: func() -> u64; subscribe-duration: func(when: u64) -> pollable;
        }
    world: import wasi:random/random@0.2.6; import wasi:clocks/wall-clock@0.2.6;
        import wasi:clocks/monotonic-clock@0.2.6; import wasi:io/poll@0.2.6;
        include stoker:policy/scaling-policy@1.0.0;";
const CLOCK_IMPORTS: &str = r#"
    (import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))
    (import "wasi:random/random@0.2.6" "get-random-bytes" (func $bytes (param i64 i32)))
    (import "wasi:clocks/wall-clock@0.2.6" "now" (func $wall (param i32)))
    (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $monotonic (result i64)))
    (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $wait (param i64) (result i32)))
    (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.6" "[resource-drop]pollable" (func $drop (param i32)))
    (import "wasi:io/poll@0.2.6" "poll" (func $poll (param i32 i32 i32)))"#;

fn time_and_chance() -> Vec<Case> {
    let asks =
        |name, scale| guest(name, Guest { world: CLOCKS, imports: CLOCK_IMPORTS, scale, ..Guest::default() });
    // A random number, then the wall clock, then the other one.
    let reads = "(i64.store (i32.const 3000) (call $random)) (call $wall (i32.const 3008))
        (i64.store (i32.const 3024) (call $monotonic))
        (i32.store (i32.const 2104) (i32.const 3000)) (i32.store (i32.const 2108) (i32.const 32))";
    let told = |random: u64, seconds: u64, nanoseconds: u64| {
        let state = [random, seconds, nanoseconds, seconds * 1_000_000_000 + nanoseconds];
        Decision { state: state.map(u64::to_le_bytes).concat(), ..desired(0) }
    };
    let first = told(0xc240_5d03_a752_f2e8, 1_700_000_000, 123_000_000);
    let later = told(0x9dbd_036f_8664_a1cd, 1_700_000_000, 124_000_000);
    let before = told(0xa793_c2bb_71d1_7f26, 0, 0);
    vec![
        asks("reads the clocks and chance", reads).scales(first),
        asks("reads the clocks and chance a millisecond later", reads).at(1_700_000_000_124).scales(later),
        asks("reads the clocks before there was time", reads).at(i64::MIN).scales(before),
        asks(
            "sleeps for an hour a thousand times",
            "(local $n i32) (local $handle i32)
            (loop $again
                (call $block (local.tee $handle (call $wait (i64.const 3600000000000))))
                (call $drop (local.get $handle))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const 1000))))",
        ),
        asks(
            "polls for an hour",
            "(i32.store (i32.const 3000) (call $wait (i64.const 3600000000000)))
            (i32.store (i32.const 3004) (call $wait (i64.const -1)))
            (call $poll (i32.const 3000) (i32.const 2) (i32.const 3008))
            (i32.store (i32.const 2048) (i32.load (i32.const 3012)))",
        )
        .scales(desired(2)),
        asks("polls nothing", "(call $poll (i32.const 3000) (i32.const 0) (i32.const 3008))")
            .stops(Step::Scale, "it polls nothing, which would never end"),
        asks(
            "holds 1,001 handles",
            "(local $n i32)
            (loop $again
                (drop (call $wait (i64.const 1)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const 1001))))",
        )
        .stops(Step::Scale, "cannot allocate another handle: store handle limit exceeded"),
        asks(
            "drops a handle twice",
            "(local $handle i32)
            (call $drop (local.tee $handle (call $wait (i64.const 1)))) (call $drop (local.get $handle))",
        )
        .stops(Step::Scale, "unknown handle index 1"),
        asks("makes up a handle", "(call $block (i32.const 77))")
            .stops(Step::Scale, "unknown handle index 77"),
        asks("wants 65,537 random bytes", "(call $bytes (i64.const 65537) (i32.const 3000))")
            .stops(Step::Scale, "it asked for 65537 random bytes at once, at most 65536 are given"),
        asks("wants all random bytes there are", "(call $bytes (i64.const -1) (i32.const 3000))").stops(
            Step::Scale,
            "it asked for 18446744073709551615 random bytes at once, at most 65536 are given",
        ),
    ]
}

fn streams() -> Vec<Case> {
    let world = "package: wasi:io@0.2.6; interface error { resource error; }
            interface streams {
                use error.{error};
                variant stream-error { last-operation-failed(error), closed }
                resource input-stream { read: func(len: u64) -> result<list<u8>, stream-error>; }
                resource output-stream {
                    write: func(contents: list<u8>) -> result<_, stream-error>;
                    write-zeroes: func(len: u64) -> result<_, stream-error>;
                }
            }
        package: wasi:cli@0.2.6; interface exit { exit: func(status: result); }
            interface stdin { use wasi:io/streams@0.2.6.{input-stream}; get-stdin: func() -> input-stream; }
            interface stdout {
                use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream;
            }
        world: import wasi:cli/stdin@0.2.6; import wasi:cli/stdout@0.2.6; import wasi:cli/exit@0.2.6;
            include stoker:policy/scaling-policy@1.0.0;";
    let imports = r#"
        (import "wasi:cli/stdin@0.2.6" "get-stdin" (func $stdin (result i32)))
        (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
        (import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))
        (import "wasi:io/streams@0.2.6" "[method]input-stream.read" (func $read (param i32 i64 i32)))
        (import "wasi:io/streams@0.2.6" "[method]output-stream.write-zeroes"
            (func $zeroes (param i32 i64 i32)))
        (import "wasi:io/streams@0.2.6" "[method]output-stream.write"
            (func $write (param i32 i32 i32 i32)))"#;
    let does = |name, scale| guest(name, Guest { world, imports, scale, ..Guest::default() });
    let called = format!("it called wasi:filesystem/types#{}", "a".repeat(50_000));
    vec![
        // An error, the second of its kinds: the stream is closed.
        does(
            "reads its input",
            "(call $read (call $stdin) (i64.const 1000) (i32.const 3000))
            (i32.store (i32.const 2048)
                (i32.add (i32.load8_u (i32.const 3000)) (i32.load8_u (i32.const 3004))))",
        )
        .scales(desired(2)),
        does(
            "floods its output with 60 MiB of lines",
            "(local $n i32) (local $to i32)
            (local.set $to (call $stdout))
            (drop (memory.grow (i32.const 16)))
            (memory.fill (i32.const 65536) (i32.const 97) (i32.const 1000000))
            (memory.fill (i32.const 65536) (i32.const 10) (i32.const 1000))
            (loop $again
                (call $write (local.get $to) (i32.const 65536) (i32.const 1000000) (i32.const 3000))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const 60))))",
        )
        .logs(64, 59_937),
        does(
            "writes more zeros than there are",
            "(call $zeroes (call $stdout) (i64.const -1) (i32.const 3000))",
        ),
        does(
            "writes to its input",
            "(call $write (call $stdin) (i32.const 16) (i32.const 4) (i32.const 3000))",
        )
        .stops(
            Step::Scale,
            "handle index 1 used with the wrong type, expected guest-defined resource but found a different \
            guest-defined resource",
        ),
        does("exits with success", "(call $exit (i32.const 0))")
            .stops(Step::Scale, "it exited with code 0 instead of answering"),
        does("exits with failure", "(call $exit (i32.const 1))")
            .stops(Step::Scale, "it exited with code 1 instead of answering"),
        guest("calls a file's function of a name of 50,000 bytes", long_name())
            .stops(Step::Scale, &format!("{called:.1024}…")),
    ]
}

fn long_name() -> Guest {
    let name = "a".repeat(50_000);
    let world = format!(
        "package: wasi:filesystem@0.2.6; interface types {{ {name}: func(); }}
        world: import wasi:filesystem/types@0.2.6; include stoker:policy/scaling-policy@1.0.0;"
    );
    let imports = format!(r#"(import "wasi:filesystem/types@0.2.6" "{name}" (func $call))"#);
    Guest { world: world.leak(), imports: imports.leak(), scale: "(call $call)", ..Guest::default() }
}
