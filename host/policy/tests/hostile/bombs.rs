//! Small components on which the compiler would spend minutes or gigabytes.

use std::time::Duration;

use stoker_policy::CompileLimits;

use crate::case::{Case, case};
use crate::shape::{number, place, section, with, with_component, with_module};

const TIME: &str = "compiling the component takes more than 1 s of processor time: make it smaller, leave \
    out code that is not needed, split large functions";
const MEMORY: &str = "compiling the component takes more than 256 MiB of memory: make it smaller, leave out \
    code that is not needed, split large functions";

/// Limits on compiling, and what reaches them.
pub fn rows() -> [(CompileLimits, Vec<Case>); 2] {
    let time = |name: &str, module: String| case(name, compiled(&module)).refused("compile-time", TIME);
    let memory = |name: &str, module: String| case(name, compiled(&module)).refused("compile-memory", MEMORY);
    [
        (
            CompileLimits { cpu: Duration::from_secs(1), memory_bytes: 4 << 30 },
            vec![
                time("10,000 variables alive across 10,000 blocks", live(10_000)),
                time("10,000 loops in a loop with 10,000 variables", loops(10_000)),
                time("200,000 nested blocks with ways out", nested(200_000)),
                time("1,000 functions of 10 KB", large(1_000)),
            ],
        ),
        (
            CompileLimits { cpu: Duration::from_secs(30), memory_bytes: 256 << 20 },
            vec![
                memory("10,000 variables alive across 10,000 blocks, again", live(10_000)),
                memory("a jump to 65,000 places out of 10,000 blocks", jumps(65_000, 10_000, 1)),
                memory("a jump to 65,000 places with 900 values", jumps(65_000, 500, 900)),
                case("10^13 instances in 600 bytes", doubling(14)).refused("compile-memory", MEMORY),
                case("a jump to a million places", compiled(&jumps(1_000_000, 10, 1))).not_compiled(
                    "failed to compile: wasm[1]::function[0]: WebAssembly translation error: Unsupported \
                    feature: `br_table` has 1000000 targets, which exceeds the implementation limit of 65520",
                ),
                case("a type of 2^60 numbers", with_types(60)).not_compiled(&format!(
                    "failed to parse WebAssembly module: effective type size exceeds the limit of 1000000 \
                    (at offset {:#x})",
                    place(87),
                )),
            ],
        ),
    ]
}

/// A component that no compiler ends within the limits of a test, different for each number.
pub fn endless(number: u8) -> Vec<u8> {
    [compiled(&nested(200_000)), section(0, &[1, b'n', number])].concat()
}

fn compiled(function: &str) -> Vec<u8> {
    with_module(&wat::parse_str(format!("(module {function})")).unwrap())
}

/// Variables that are set on one of two ways each, and all used at the end.
fn live(count: usize) -> String {
    let set = |local| {
        format!("block local.get 0 br_if 0 local.get {local} i32.const 1 i32.add local.set {local} end ")
    };
    let blocks: String = (1..=count).map(set).collect();
    let sum: String = (1..=count).map(|local| format!("local.get {local} i32.add ")).collect();
    format!("(func (param i32) (result i32) (local {}) {blocks} i32.const 0 {sum})", "i32 ".repeat(count))
}

fn loops(count: usize) -> String {
    let turn = |local| format!("loop local.get {local} i32.const 1 i32.add local.tee {local} br_if 0 end ");
    let turns: String = (1..=count).map(turn).collect();
    format!("(func (param i32) (local {}) loop {turns} local.get 0 br_if 0 end)", "i32 ".repeat(count))
}

fn nested(depth: usize) -> String {
    let out: String = (0..depth).rev().map(|label| format!("local.get 0 br_if {label} end ")).collect();
    format!("(func (param i32) {} {out})", "block ".repeat(depth))
}

fn large(functions: usize) -> String {
    let body = "local.get 0 i32.const 3 i32.add i32.mul i32.const 5 i32.xor ".repeat(1_100);
    format!("(func (param i32) (result i32) local.get 0 {body})").repeat(functions)
}

/// A jump that leaves any of `depth` blocks with `values`.
fn jumps(targets: usize, depth: usize, values: usize) -> String {
    let results = "i32 ".repeat(values);
    let some = "local.get 0 ".repeat(values);
    let none = "drop ".repeat(values);
    let labels: String = (0..targets).map(|target| format!("{} ", target % depth)).collect();
    let begin = format!("block (result {results}) ").repeat(depth);
    let end = format!("end {none} {some}").repeat(depth);
    format!("(func (param i32) {begin} {some} local.get 0 br_table {labels} 0 {end} {none})")
}

/// Components that have ten instances each of the one within.
fn doubling(depth: usize) -> Vec<u8> {
    let header = b"\0asm\x0d\0\x01\0".as_slice();
    let ten = section(5, &[[10].as_slice(), &[0, 0, 0].repeat(10)].concat());
    let innermost = [header, &section(1, b"\0asm\x01\0\0\0"), &section(2, &[1, 0, 0, 0])].concat();
    let component = (1..depth).fold(innermost, |inner, _| [header, &section(4, &inner), &ten].concat());
    with_component(&component)
}

/// Pairs of pairs of pairs.
fn with_types(depth: usize) -> Vec<u8> {
    let pairs = (0..depth).flat_map(|pair| [vec![0x6f, 2], number(pair), number(pair)].concat());
    let types = [number(depth + 1), vec![0x6f, 2, 0x7d, 0x7d], pairs.collect()].concat();
    let component = [b"\0asm\x0d\0\x01\0".to_vec(), section(7, &types)].concat();
    with(4, &component)
}
