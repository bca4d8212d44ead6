//! Guests that want more than they get: time, memory, tables, stack, handles, room for a log.

use crate::case::{Case, Step, Step::Load, case, classify, desired, guest, lead, scale};
use crate::fixtures::{Guest, SPIN};
use crate::shape::{number, section, with_module};

pub fn rows() -> Vec<Case> {
    [loops(), memories(), tables(), stack(), logs(), sizes()].into_iter().flatten().collect()
}

fn loops() -> Vec<Case> {
    let hot = |name, body: Guest| guest(name, body).within(100);
    let more = |more| Guest { more, ..Guest::default() };
    let tail = r#"(func $a (return_call $b)) (func $b (return_call $a))"#;
    vec![
        hot("a loop in describe", Guest { describe: SPIN, ..Guest::default() }).fails(Load, "describe", "?"),
        hot("a loop in validate", Guest { validate: SPIN, ..Guest::default() }).fails(Step::Validate, "timeout", "?"),
        hot("a loop in scale", scale(SPIN)).fails(Step::Scale, "timeout", "?"),
        hot("a loop in classify", classify(SPIN)).fails(Step::Classify, "timeout", "?"),
        hot("a loop in lead", lead(SPIN)).fails(Step::Lead, "timeout", "?"),
        hot("a loop in a start function", more("(func $start (loop $again (br $again))) (start $start)"))
            .fails(Load, "describe", "?"),
        hot("a loop in _initialize", more(r#"(func (export "_initialize") (loop $again (br $again)))"#))
            .fails(Load, "describe", "?"),
        hot("a loop in cabi_realloc", Guest { realloc: SPIN, ..Guest::default() }).fails(Step::Validate, "timeout", "?"),
        hot(
            "a loop in cabi_realloc for what scale gets",
            Guest {
                realloc: "(if (i32.gt_u (local.get 3) (i32.const 64)) (then (loop $again (br $again))))",
                ..Guest::default()
            },
        )
        .fails(Step::Scale, "timeout", "?"),
        hot(
            "a loop after describe",
            more(r#"(func (export "cabi_post_stoker:policy/settings@0.1.0#describe") (param i32) (loop $again (br $again)))"#),
        )
        .fails(Load, "describe", "?"),
        hot(
            "a loop after scale",
            more(r#"(func (export "cabi_post_stoker:policy/scaling@0.1.0#scale") (param i32) (loop $again (br $again)))"#),
        )
        .fails(Step::Scale, "timeout", "?"),
        hot("two functions that end in each other", Guest { more: tail, scale: "(call $a)", ..Guest::default() })
            .fails(Step::Scale, "timeout", "?"),
        hot(
            "a loop that fills 30 MiB each time",
            scale(
                "(drop (memory.grow (i32.const 478)))
                (loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 31457280)) (br $again))",
            ),
        )
        .fails(Step::Scale, "timeout", "?"),
        hot(
            "a loop that logs",
            Guest { imports: LOG, scale: "(loop $again (call $write (i32.const 0) (i32.const 16) (i32.const 4)) (br $again))", ..Guest::default() },
        )
        .fails(Step::Scale, "timeout", "?"),
    ]
}

/// Grows by a step until it is refused, and then gives up as allocators do.
const GROW: &str = "(loop $more
    (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
    (br $more))";

fn memories() -> Vec<Case> {
    let begins = |pages| guest(&format!("a memory that begins with {pages} pages"), Guest { memory: pages, ..Guest::default() });
    let beside = |name: &str, count: usize, memory: &str| {
        let more = format!("(memory {memory})").repeat(count);
        guest(name, Guest { more: more.leak(), ..Guest::default() })
    };
    let both = "(loop $more
        (if (i32.eq (memory.grow 0 (i32.const 16)) (i32.const -1)) (then unreachable))
        (if (i32.eq (memory.grow $b (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $more))";
    vec![
        guest("memory grows without end in describe", Guest { describe: GROW, ..Guest::default() }).fails(Load, "describe", "?"),
        guest("memory grows without end in validate", Guest { validate: GROW, ..Guest::default() })
            .fails(Step::Validate, "memory", "?"),
        guest("memory grows without end in scale", scale(GROW)).fails(Step::Scale, "memory", "?"),
        guest("memory grows without end in classify", classify(GROW)).fails(Step::Classify, "memory", "?"),
        guest("memory grows without end in lead", lead(GROW)).fails(Step::Lead, "memory", "?"),
        guest("two memories grow without end", Guest { more: "(memory $b 1)", scale: both, ..Guest::default() })
            .fails(Step::Scale, "memory", "?"),
        guest("growth by 4 GiB is refused and the guest copes", scale("(drop (memory.grow (i32.const 65535)))")),
        beside("8 memories", 7, "1"),
        beside("9 memories", 8, "1").fails(Load, "compile", "?"),
        beside("101 memories", 100, "1").fails(Load, "compile", "?"),
        beside("8 memories of 16 MiB", 7, "256").fails(Load, "describe", "?"),
        begins("1000").fails(Step::Validate, "memory", "?"),
        begins("1025").fails(Load, "compile", "?"),
        begins("65536").fails(Load, "compile", "?"),
        beside("a memory that begins with 256 TiB", 1, "i64 0x100000000").fails(Load, "compile", "?"),
        beside("a shared memory", 1, "1 2 shared").fails(Load, "compile", "?"),
        beside("a memory of pages of a byte", 1, "1 (pagesize 1)").fails(Load, "compile", "?"),
        guest(
            "data past the end of memory",
            Guest { more: r#"(data (i32.const 0x7fffffff) "x")"#, ..Guest::default() },
        )
        .fails(Load, "describe", "?"),
        images(8).fails(Load, "compile", "?"),
        images(60).fails(Load, "compile", "?"),
    ]
}

/// Modules of some bytes each that are compiled to an image of 16 MiB each.
fn images(count: usize) -> Case {
    let module = wat::parse_str(
        r#"(module (memory 256) (data (i32.const 0) "x") (data (i32.const 0xfffff0) "x"))"#,
    )
    .unwrap();
    let modules = section(1, &module).repeat(count);
    case(format!("{count} images of memories of 16 MiB"), [Guest::default().bytes().to_vec(), modules].concat())
}

fn tables() -> Vec<Case> {
    let beside = |name: &str, more: String| guest(name, Guest { more: more.leak(), ..Guest::default() });
    vec![
        guest(
            "a table grows without end",
            Guest {
                more: "(table $t 1 funcref)",
                scale: "(loop $more
                    (if (i32.eq (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1)) (then unreachable))
                    (br $more))",
                ..Guest::default()
            },
        )
        .fails(Step::Scale, "tables", "?"),
        beside("16 tables of 10,000", "(table 10000 funcref)".repeat(16)),
        beside("16 tables of 20,000", "(table 20000 funcref)".repeat(16)).fails(Load, "describe", "?"),
        beside("17 tables", "(table 1 funcref)".repeat(17)).fails(Load, "compile", "?"),
        beside("a table that begins with 200,001", "(table 200001 funcref)".into()).fails(Load, "compile", "?"),
        beside("a table that begins with 4 G", "(table 0xffffffff funcref)".into()).fails(Load, "compile", "?"),
    ]
}

fn stack() -> Vec<Case> {
    let deep = "(func $deep (param i32) (result i32)
        (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (local.get 0)))";
    vec![
        guest("recursion without end in describe", Guest { more: deep, describe: "(drop (call $deep (i32.const 0)))", ..Guest::default() })
            .fails(Load, "describe", "?"),
        guest("recursion without end in scale", Guest { more: deep, scale: "(drop (call $deep (i32.const 0)))", ..Guest::default() })
            .fails(Step::Scale, "stack", "?"),
        guest(
            "recursion without end in a start function",
            Guest { more: "(func $start (call $start) (call $start)) (start $start)", ..Guest::default() },
        )
        .fails(Load, "describe", "?"),
        guest("recursion without end in cabi_realloc", Guest { realloc: "(drop (call $again (i32.const 0)))", more: "(func $again (param i32) (result i32) (i32.add (i32.const 1) (call $again (local.get 0))))", ..Guest::default() })
            .fails(Step::Validate, "stack", "?"),
        guest(
            "recursion that calls the host at every depth",
            Guest {
                imports: LOG,
                more: "(func $deep (call $write (i32.const 0) (i32.const 16) (i32.const 4)) (call $deep) (call $deep))",
                scale: "(call $deep)",
                ..Guest::default()
            },
        )
        .fails(Step::Scale, "stack", "?"),
        guest(
            "one function with more variables than stack",
            Guest { more: big_frame().leak(), scale: "(drop (call $big (i64.const 1)))", ..Guest::default() },
        )
        .fails(Step::Scale, "stack", "?"),
    ]
}

/// A function whose 400 vectors are alive across a call, which calls itself.
fn big_frame() -> String {
    let locals = "(local v128)".repeat(400);
    let set: String = (1..=400).map(|local| format!("(local.set {local} (i64x2.splat (local.get 0)))")).collect();
    let add: String =
        (1..=400).map(|local| format!("(i64.add (i64x2.extract_lane 0 (local.get {local})))")).collect();
    format!("(func $big (param i64) (result i64) {locals} {set} (call $big (i64.add (local.get 0) (i64.const 1))) {add})")
}

const LOG: &str = r#"(import "stoker:policy/log@0.1.0" "write" (func $write (param i32 i32 i32)))"#;

fn logs() -> Vec<Case> {
    let logs = |name, scale| guest(name, Guest { imports: LOG, scale, ..Guest::default() });
    vec![
        logs(
            "a million messages",
            "(local $n i32)
            (loop $again
                (call $write (i32.const 1) (i32.const 16) (i32.const 4))
                (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000000))))",
        )
        .logs(64, 999_936),
        logs(
            "100 messages of a MiB",
            "(local $n i32)
            (drop (memory.grow (i32.const 20)))
            (memory.fill (i32.const 65536) (i32.const 97) (i32.const 1048576))
            (loop $again
                (call $write (i32.const 1) (i32.const 65536) (i32.const 1048576))
                (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100))))",
        )
        .logs(8, 92),
        logs(
            "a message of 2 MiB",
            "(drop (memory.grow (i32.const 64))) (call $write (i32.const 1) (i32.const 65536) (i32.const 2097152))",
        )
        .fails(Step::Scale, "answer", "?"),
        logs("a message of 4 GiB", "(call $write (i32.const 1) (i32.const 0) (i32.const -1))").fails(Step::Scale, "trap", "?"),
        logs("a message that is not UTF-8", r#"(i32.store (i32.const 16) (i32.const 0xffff)) (call $write (i32.const 1) (i32.const 16) (i32.const 4))"#)
            .fails(Step::Scale, "trap", "?"),
        logs("a message of a level that does not exist", "(call $write (i32.const 7) (i32.const 16) (i32.const 4))")
            .fails(Step::Scale, "trap", "?"),
        guest(
            "a message while the host hands over the input",
            Guest { imports: LOG, realloc: "(call $write (i32.const 1) (i32.const 16) (i32.const 4))", ..Guest::default() },
        )
        .fails(Step::Validate, "trap", "?"),
    ]
}

/// Much of what a module may have.
fn sizes() -> Vec<Case> {
    let module = |name: &str, content: String| case(name, with_module(&wat::parse_str(format!("(module {content})")).unwrap()));
    let text = |name: &str, component: String| case(name, [Guest::default().bytes().to_vec(), section(4, &wat::parse_str(component).unwrap())].concat());
    vec![
        case("10 MB of instructions that do nothing", with_module(&nops(100, 100_000))),
        case("10 MB of debugging information", [Guest::default().bytes().to_vec(), section(0, &[vec![1, b'x'], vec![0; 10_000_000]].concat())].concat()),
        module("100,000 globals", "(global i64 (i64.const 1))".repeat(100_000)).scales(desired(0)),
        module("50,000 functions", "(func)".repeat(50_000)),
        module("100,000 pieces of data", r#"(data "x")"#.repeat(100_000)),
        module("100,001 pieces of data", r#"(data "x")"#.repeat(100_001)),
        text("33 instances of a module", format!("(component (core module $m (memory 0)) {})", "(core instance (instantiate $m))".repeat(33))),
    ]
}

/// Functions of so many bytes each.
fn nops(functions: usize, bytes: usize) -> Vec<u8> {
    let body = [&[0], vec![1; bytes].as_slice(), &[0x0b]].concat();
    let bodies = [number(body.len()), body].concat().repeat(functions);
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[number(functions), vec![0; functions]].concat()),
        section(10, &[number(functions), bodies].concat()),
    ]
    .concat()
}
