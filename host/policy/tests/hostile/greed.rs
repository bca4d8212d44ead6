//! Guests that want more than they get: time, memory, tables, stack, room for a log.

use crate::case::{Case, Step, Step::Load, case, classify, guest, lead, scale};
use crate::fixtures::{Guest, SPIN};
use crate::shape::{number, place, section, with, with_component, with_module};

pub fn rows() -> Vec<Case> {
    [loops(), memories(), tables(), stack(), logs(), sizes()].concat()
}

fn loops() -> Vec<Case> {
    let more = |name, more| guest(name, Guest { more, ..Guest::default() });
    let logging = "(loop $again (call $write (i32.const 0) (i32.const 16) (i32.const 4)) (br $again))";
    let filling = "(drop (memory.grow (i32.const 478)))
        (loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 31457280)) (br $again))";
    vec![
        guest("a loop in describe", Guest { describe: SPIN, ..Guest::default() }).times_out(Load),
        guest("a loop in validate", Guest { validate: SPIN, ..Guest::default() }).times_out(Step::Validate),
        guest("a loop in scale", scale(SPIN)).times_out(Step::Scale),
        guest("a loop in classify", classify(SPIN)).times_out(Step::Classify),
        guest("a loop in lead", lead(SPIN)).times_out(Step::Lead),
        more("a loop in a start function", "(func $start (loop $again (br $again))) (start $start)")
            .times_out(Load),
        more("a loop in _initialize", r#"(func (export "_initialize") (loop $again (br $again)))"#)
            .times_out(Load),
        guest("a loop in cabi_realloc", Guest { realloc: SPIN, ..Guest::default() })
            .times_out(Step::Validate),
        guest(
            "a loop in cabi_realloc for what scale gets",
            Guest {
                realloc: "(if (i32.gt_u (local.get 3) (i32.const 64)) (then (loop $again (br $again))))",
                ..Guest::default()
            },
        )
        .times_out(Step::Scale),
        more(
            "a loop after describe",
            r#"(func (export "cabi_post_stoker:policy/settings@1.0.0#describe") (param i32)
                (loop $again (br $again)))"#,
        )
        .times_out(Load),
        more(
            "a loop after scale",
            r#"(func (export "cabi_post_stoker:policy/scaling@1.0.0#scale") (param i32)
                (loop $again (br $again)))"#,
        )
        .times_out(Step::Scale),
        guest(
            "two functions that end in each other",
            Guest {
                more: "(func $a (return_call $b)) (func $b (return_call $a))",
                scale: "(call $a)",
                ..Guest::default()
            },
        )
        .times_out(Step::Scale),
        guest("a loop that fills 30 MiB each time", scale(filling)).times_out(Step::Scale),
        guest("a loop that logs", Guest { imports: LOG, scale: logging, ..Guest::default() })
            .times_out(Step::Scale),
    ]
}

/// Grows by a step until it is refused, and then gives up as allocators do.
const GROW: &str = "(loop $more
    (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
    (br $more))";

fn memories() -> Vec<Case> {
    let begins = |pages| {
        let name = format!("a memory that begins with {pages} pages");
        guest(&name, Guest { memory: pages, ..Guest::default() })
    };
    let begins_too_large = |bytes: u64| {
        too_much(&format!(
            "memory has a minimum byte size of {bytes} which exceeds the limit of 0x4000000 bytes"
        ))
    };
    let unused = |name, content: &str| case(name, with_module(&module(content)));
    let beside = |name, count, memory: &str| case(name, beside(count, &format!("(memory {memory})")));
    vec![
        guest("memory grows without end in describe", Guest { describe: GROW, ..Guest::default() })
            .needs_memory(Load),
        guest("memory grows without end in validate", Guest { validate: GROW, ..Guest::default() })
            .needs_memory(Step::Validate),
        guest("memory grows without end in scale", scale(GROW)).needs_memory(Step::Scale),
        guest("memory grows without end in classify", classify(GROW)).needs_memory(Step::Classify),
        guest("memory grows without end in lead", lead(GROW)).needs_memory(Step::Lead),
        guest(
            "growth by 4 GiB, which the guest can do without",
            scale("(drop (memory.grow (i32.const 65535)))"),
        ),
        begins("1000").needs_memory(Step::Validate),
        begins("1025").not_compiled(&begins_too_large(67_174_400)),
        begins("65536").not_compiled(&begins_too_large(4_294_967_296)),
        unused("a memory that begins with 256 TiB", "(memory i64 0x100000000)")
            .not_compiled(&begins_too_large(281_474_976_710_656)),
        unused("a memory that begins with 2^64 - 1 pages", "(memory i64 0xffffffffffffffff)")
            .not_compiled(&parsed("memory size must be at most 0x1000000000000 65536-byte pages", 13)),
        unused("a shared memory", "(memory 1 2 shared)")
            .not_compiled(&parsed("threads must be enabled for shared memories", 13)),
        unused("a memory of pages of a byte", "(memory 1 (pagesize 1))").not_compiled(&parsed(
            "the custom page sizes proposal must be enabled to customize a memory's page size",
            13,
        )),
        guest("two memories in a module", Guest { more: "(memory 1)", ..Guest::default() })
            .not_compiled(&too_much("defined memories count of 2 exceeds the per-instance limit of 1")),
        unused("101 memories in a module", &"(memory 1)".repeat(101))
            .not_compiled(&parsed("memories count exceeds limit of 100", 14)),
        beside("7 more memories", 7, "1"),
        beside("8 more memories", 8, "1").not_compiled(&too_many(9, "Wasm linear memories", 8)),
        beside("4 more memories of 10 MiB", 4, "160").needs_memory(Step::Validate),
        beside("7 more memories of 10 MiB", 7, "160").needs_memory(Load),
        guest(
            "data past the end of memory",
            Guest { more: r#"(data (i32.const 0x7fffffff) "x")"#, ..Guest::default() },
        )
        .stops(Load, "wasm trap: out of bounds memory access"),
        case("900 memories of 16 MiB with two bytes each", sparse(900)),
    ]
}

/// Modules of 60 bytes each, whose memory the compiler could write down as 16 MiB.
fn sparse(count: usize) -> Vec<u8> {
    let module = module(r#"(memory 256) (data (i32.const 0) "x") (data (i32.const 0xfffff0) "x")"#);
    [Guest::default().bytes().to_vec(), section(1, &module).repeat(count)].concat()
}

/// The refusal of what does not fit into a slot of the allocator.
fn too_much(cause: &str) -> String {
    format!("it asks for more than a policy gets: {cause}; use less, or link less code into it")
}

fn too_many(count: usize, of: &str, max: usize) -> String {
    too_much(&format!(
        "The component transitively contains {count} {of}, which exceeds the configured maximum of {max} in \
        the pooling allocator"
    ))
}

fn too_large(bytes: usize) -> String {
    too_much(&format!(
        "instance allocation for this module requires {bytes} bytes which exceeds the configured maximum of \
        1048576 bytes"
    ))
}

/// The refusal of what is not valid, at an offset from the end of the good component.
fn parsed(problem: &str, offset: usize) -> String {
    format!("failed to parse WebAssembly module: {problem} (at offset {:#x})", place(offset))
}

fn tables() -> Vec<Case> {
    let table = |name, more| guest(name, Guest { more, ..Guest::default() });
    let beside = |name, count, table: &str| case(name, beside(count, &format!("(table {table} funcref)")));
    let grow = "(loop $more
        (if (i32.eq (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1)) (then unreachable))
        (br $more))";
    vec![
        guest(
            "a table grows without end",
            Guest { more: "(table $t 1 funcref)", scale: grow, ..Guest::default() },
        )
        .needs_tables(Step::Scale),
        table("two tables in a module", "(table 1 funcref) (table 1 funcref)")
            .not_compiled(&too_much("defined tables count of 2 exceeds the per-instance limit of 1")),
        table("a table that begins with 200,001", "(table 200001 funcref)").not_compiled(&too_much(
            "table index 0 has a minimum element size of 200001 which exceeds the limit of 200000",
        )),
        table("a table that begins with 4 G", "(table 0xffffffff funcref)").not_compiled(&too_much(
            "table index 0 has a minimum element size of 4294967295 which exceeds the limit of 200000",
        )),
        beside("15 tables of 10,000", 15, "10000"),
        beside("15 tables of 20,000", 15, "20000").needs_tables(Load),
        beside("17 tables", 17, "1").not_compiled(&too_many(17, "tables", 16)),
    ]
}

fn stack() -> Vec<Case> {
    let deep = "(func $deep (param i32) (result i32)
        (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (local.get 0)))";
    let call = "(drop (call $deep (i32.const 0)))";
    vec![
        guest("recursion in describe", Guest { more: deep, describe: call, ..Guest::default() })
            .needs_stack(Load),
        guest("recursion in scale", Guest { more: deep, scale: call, ..Guest::default() })
            .needs_stack(Step::Scale),
        guest(
            "recursion in a start function",
            Guest { more: "(func $start (call $start) (call $start)) (start $start)", ..Guest::default() },
        )
        .needs_stack(Load),
        guest("recursion in cabi_realloc", Guest { more: deep, realloc: call, ..Guest::default() })
            .needs_stack(Step::Validate),
        guest(
            "recursion that calls the host at every depth",
            Guest {
                imports: LOG,
                more: "(func $deep (call $write (i32.const 0) (i32.const 16) (i32.const 4))
                    (call $deep) (call $deep))",
                scale: "(call $deep)",
                ..Guest::default()
            },
        )
        .needs_stack(Step::Scale),
        guest(
            "recursion with large frames",
            Guest {
                more: large_frame().leak(),
                scale: "(drop (call $large (i64.const 1)))",
                ..Guest::default()
            },
        )
        .needs_stack(Step::Scale),
    ]
}

/// A function that calls itself while 400 of its vectors are alive.
fn large_frame() -> String {
    let locals = "(local v128)".repeat(400);
    let set = |local| format!("(local.set {local} (i64x2.splat (local.get 0)))");
    let add = |local| format!("(i64.add (i64x2.extract_lane 0 (local.get {local})))");
    let (set, add): (String, String) = ((1..=400).map(set).collect(), (1..=400).map(add).collect());
    let call = "(call $large (i64.add (local.get 0) (i64.const 1)))";
    format!("(func $large (param i64) (result i64) {locals} {set} {call} {add})")
}

const LOG: &str = r#"(import "stoker:policy/log@1.0.0" "write" (func $write (param i32 i32 i32)))"#;

fn logs() -> Vec<Case> {
    let logs = |name, scale| guest(name, Guest { imports: LOG, scale, ..Guest::default() });
    vec![
        logs(
            "a million messages",
            "(local $n i32)
            (loop $again
                (call $write (i32.const 1) (i32.const 16) (i32.const 4))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const 1000000))))",
        )
        .logs(64, 999_936),
        logs(
            "100 messages of a MiB",
            "(local $n i32)
            (drop (memory.grow (i32.const 20)))
            (memory.fill (i32.const 65536) (i32.const 97) (i32.const 1048576))
            (loop $again
                (call $write (i32.const 1) (i32.const 65536) (i32.const 1048576))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const 100))))",
        )
        .logs(8, 92),
        logs(
            "a message of 2 MiB",
            "(drop (memory.grow (i32.const 64)))
            (call $write (i32.const 1) (i32.const 65536) (i32.const 2097152))",
        )
        .fails(Step::Scale, "answer", "scale handed over more than 1 MiB at once: answer with less"),
        logs("a message of 4 GiB", "(call $write (i32.const 1) (i32.const 0) (i32.const -1))")
            .stops(Step::Scale, "string pointer/length out of bounds of memory"),
        logs(
            "a message that is not UTF-8",
            "(i32.store (i32.const 16) (i32.const 0xffff))
            (call $write (i32.const 1) (i32.const 16) (i32.const 4))",
        )
        .stops(Step::Scale, "invalid utf-8 sequence of 1 bytes from index 0"),
        logs(
            "a message of a level that does not exist",
            "(call $write (i32.const 7) (i32.const 16) (i32.const 4))",
        )
        .stops(Step::Scale, "unexpected discriminant: 7"),
        guest(
            "a message while the host hands over the input",
            Guest {
                imports: LOG,
                realloc: "(call $write (i32.const 1) (i32.const 16) (i32.const 4))",
                ..Guest::default()
            },
        )
        .stops(Step::Validate, "wasm trap: cannot leave component instance"),
    ]
}

/// Much of what a module or a component may have.
fn sizes() -> Vec<Case> {
    let unused = |name, content: String| case(name, with_module(&module(&content)));
    vec![
        case("10 MB of instructions that do nothing", with_module(&nops(100, 100_000))),
        case("10 MB of debugging information", with(0, &[vec![1, b'x'], vec![0; 10_000_000]].concat())),
        unused("20,000 functions", "(func)".repeat(20_000)),
        unused("100,000 global variables", "(global i64 (i64.const 1))".repeat(100_000))
            .not_compiled(&too_large(1_600_176)),
        unused("100,000 pieces of data", r#"(data "x")"#.repeat(100_000)).not_compiled(&too_large(1_200_176)),
        unused("100,001 pieces of data", r#"(data "x")"#.repeat(100_001))
            .not_compiled(&parsed("data segments count exceeds limit of 100000", 16)),
        case("40 more instances", beside(40, "")).not_compiled(&too_many(41, "core module instances", 32)),
        case("1,001 more instances", beside(1_001, ""))
            .not_compiled(&parsed("instances count exceeds limit of 1000", 35)),
    ]
}

/// A good component with `count` more instances of a module.
fn beside(count: usize, content: &str) -> Vec<u8> {
    let instances = "(core instance (instantiate $m))".repeat(count);
    let component = format!("(component (core module $m {content}) {instances})");
    with_component(&wat::parse_str(component).unwrap())
}

fn module(content: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {content})")).unwrap()
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
