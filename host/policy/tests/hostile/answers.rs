//! Guests that trap, or answer with what the contract or the canonical ABI does not allow.

use stoker_policy::contract::scaling::Decision;
use stoker_policy::contract::{busyness, warm_up};

use crate::case::{
    Case, LEAD, Step, Step::Load, VERDICT, VERDICTS, case, classify, desired, guest, lead, scale, set, set8,
    set64,
};
use crate::fixtures::Guest;
use crate::shape::{place, with_module};

const UNREACHABLE: &str = "wasm trap: wasm `unreachable` instruction executed";
const PAST_MEMORY: &str = "wasm trap: out of bounds memory access";
const STRING: &str = "string pointer/length out of bounds of memory";
const LIST: &str = "list pointer/length out of bounds of memory";
const LIST_ODD: &str = "list pointer is not aligned";
const NOT_UTF8: &str = "invalid utf-8 sequence of 1 bytes from index 0";
const OPTION: &str = "invalid option discriminant";

pub fn rows() -> Vec<Case> {
    [
        traps(),
        floats(),
        features(),
        describes(),
        validates(),
        scales(),
        scale_numbers(),
        classifies(),
        leads(),
        reallocs(),
    ]
    .concat()
}

fn traps() -> Vec<Case> {
    let trap = |name, body: &str, words| guest(name, scale(body)).stops(Step::Scale, words);
    let indirect = |name, call: &'static str, words| {
        let more = "(type $other (func (param i64)))
            (table $t 4 funcref) (elem (table $t) (i32.const 0) func $scale)";
        guest(name, Guest { more, scale: call, ..Guest::default() }).stops(Step::Scale, words)
    };
    vec![
        trap("unreachable", "unreachable", UNREACHABLE),
        trap(
            "a division by zero",
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            "wasm trap: integer divide by zero",
        ),
        trap(
            "a division that overflows",
            "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
            "wasm trap: integer overflow",
        ),
        trap("a read past the memory", "(drop (i32.load (i32.const -4)))", PAST_MEMORY),
        trap(
            "a read past the memory by its offset",
            "(drop (i64.load offset=0xffffffff (i32.const -1)))",
            PAST_MEMORY,
        ),
        trap("a write past the memory", "(i32.store8 (i32.const 131072) (i32.const 1))", PAST_MEMORY),
        trap(
            "a copy past the memory",
            "(memory.copy (i32.const 0) (i32.const 1) (i32.const -1))",
            PAST_MEMORY,
        ),
        indirect(
            "a call of nothing",
            "(call_indirect $t (type $other) (i64.const 0) (i32.const 1))",
            "wasm trap: uninitialized element",
        ),
        indirect(
            "a call of another type",
            "(call_indirect $t (type $other) (i64.const 0) (i32.const 0))",
            "wasm trap: indirect call type mismatch",
        ),
        indirect(
            "a call past the table",
            "(call_indirect $t (type $other) (i64.const 0) (i32.const 4))",
            "wasm trap: undefined element: out of bounds table access",
        ),
        guest("a trap in describe", Guest { describe: "unreachable", ..Guest::default() })
            .stops(Load, UNREACHABLE),
        guest("a trap in validate", Guest { validate: "unreachable", ..Guest::default() })
            .stops(Step::Validate, UNREACHABLE),
        guest("a trap in classify", classify("unreachable")).stops(Step::Classify, UNREACHABLE),
        guest("a trap in lead", lead("unreachable")).stops(Step::Lead, UNREACHABLE),
        guest(
            "a trap in a start function",
            Guest { more: "(func $start unreachable) (start $start)", ..Guest::default() },
        )
        .stops(Load, UNREACHABLE),
        guest(
            "a trap after scale",
            Guest {
                more: r#"(func (export "cabi_post_stoker:policy/scaling@1.0.0#scale") (param i32)
                    unreachable)"#,
                ..Guest::default()
            },
        )
        .stops(Step::Scale, UNREACHABLE),
    ]
}

fn floats() -> Vec<Case> {
    // Answers sign, exponent and first bit, if the others are zeros, as they are in a canonical one.
    let bits = |name, nan: &str| {
        let body = format!(
            "(local $bits i64)
            (local.set $bits (i64.reinterpret_f64 {nan}))
            (if (i64.eqz (i64.shl (local.get $bits) (i64.const 13)))
                (then (i32.store (i32.const 2048)
                    (i32.wrap_i64 (i64.shr_u (local.get $bits) (i64.const 51))))))"
        );
        guest(name, scale(body)).scales(desired(0xfff))
    };
    vec![
        guest("a float too large for an integer", scale("(drop (i32.trunc_f64_s (f64.const 1e10)))"))
            .stops(Step::Scale, "wasm trap: integer overflow"),
        guest(
            "not a number as an integer",
            scale("(drop (i32.trunc_f64_s (f64.div (f64.const 0) (f64.const 0))))"),
        )
        .stops(Step::Scale, "wasm trap: invalid conversion to integer"),
        bits("the bits of 0 / 0", "(f64.div (f64.const 0) (f64.const 0))"),
        bits("the bits of the root of -1", "(f64.sqrt (f64.const -1))"),
        bits("the bits of a sum with a crafted NaN", "(f64.add (f64.const -nan:0x1234567) (f64.const 1))"),
        bits("the bits of a longer NaN", "(f64.promote_f32 (f32.sub (f32.const inf) (f32.const inf)))"),
    ]
}

/// What is switched off, because it is not repeatable or not needed.
fn features() -> Vec<Case> {
    let uses = |name, content: &str, problem: &str| {
        let module = wat::parse_str(format!("(module (memory 1) {content})")).unwrap();
        case(name, with_module(&module)).not_compiled(problem)
    };
    let parsed = |problem: &str, offset| {
        format!("failed to parse WebAssembly module: {problem} (at offset {:#x})", place(offset))
    };
    let translated = |problem: &str, offset| {
        format!(
            "failed to compile: wasm[1]::function[0]: WebAssembly translation error: Invalid input \
            WebAssembly code at offset {}: {problem}",
            place(offset),
        )
    };
    vec![
        uses(
            "relaxed vector instructions",
            "(func (param v128 v128 v128) (result v128)
                (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))",
            &translated("relaxed SIMD support is not enabled", 40),
        ),
        uses(
            "a wait for another thread",
            "(func (result i32) (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))",
            &translated("threads support is not enabled", 37),
        ),
        uses("an exception", "(tag $t) (func (throw $t))", &parsed("exceptions proposal not enabled", 27)),
        uses(
            "types that are collected",
            "(type (struct (field i32)))",
            &parsed("cannot define struct types when gc types are disabled", 13),
        ),
        uses(
            "a stack of its own",
            "(type $f (func)) (type $c (cont $f)) (func (drop (ref.null $c)))",
            &parsed("cannot define continuation types when stack switching is disabled", 16),
        ),
    ]
}

fn describes() -> Vec<Case> {
    let describe = |name, body: String| guest(name, Guest { describe: body.leak(), ..Guest::default() });
    let answer =
        |name, body, words: &str| describe(name, body).fails(Load, "answer", format!("describe {words}"));
    let abi = |name, body, words| describe(name, body).stops(Load, words);
    vec![
        answer("an empty name", set(1028, 0), "answered with an empty name"),
        answer(
            "a name of 64 bytes",
            set(1028, 64),
            "answered with a name of 64 bytes, at most 63 are allowed",
        ),
        answer(
            "a version of 64 bytes",
            set(1036, 64),
            "answered with a version of 64 bytes, at most 63 are allowed",
        ),
        answer(
            "a summary of 257 bytes",
            set(1044, 257),
            "answered with a summary of 257 bytes, at most 256 are allowed",
        ),
        answer(
            "a schema of 65,537 bytes",
            set(1052, 65_537),
            "answered with a config-schema of 65537 bytes, at most 65536 are allowed",
        ),
        answer(
            "a schema of 2 MiB",
            format!("(drop (memory.grow (i32.const 64))) {}", set(1052, 2 << 20)),
            "handed over more than 1 MiB at once: answer with less",
        ),
        answer("17 labels", set(1056, 8192) + &set(1060, 17), "wants 17 labels, at most 16 are given"),
        answer(
            "a label without a name",
            set(1056, 8192) + &set(1060, 1),
            "wants labels with a key of 0 bytes, 1 to 317 are allowed",
        ),
        answer(
            "an annotation of 318 bytes",
            set(1064, 8192) + &set(1068, 1) + &set(8196, 318),
            "wants annotations with a key of 318 bytes, 1 to 317 are allowed",
        ),
        abi("a name of 4 GiB", set(1028, u32::MAX), STRING),
        abi("a name outside of memory", set(1024, u32::MAX), STRING),
        abi("a name that is not UTF-8", set(16, 0xffff), NOT_UTF8),
        abi("2^28 labels", set(1060, 1 << 28), LIST),
        abi("labels at an odd place", set(1056, 8193) + &set(1060, 1), LIST_ODD),
    ]
}

fn validates() -> Vec<Case> {
    let validate = |name, body: String| guest(name, Guest { validate: body.leak(), ..Guest::default() });
    let silent = "validate refused the config without saying why";
    let errors = |count| set8(1536, 1) + &set(1540, 8192) + &set(1544, count);
    vec![
        validate("refuses the config without a word", set8(1536, 1)).fails(Step::Validate, "answer", silent),
        validate("refuses the config with 100 empty words", errors(100)).fails(
            Step::Validate,
            "answer",
            silent,
        ),
        validate("refuses the config with 2^28 words", errors(1 << 28)).stops(Step::Validate, LIST),
        validate("neither takes nor refuses the config", set8(1536, 2))
            .stops(Step::Validate, "invalid expected discriminant"),
    ]
}

/// Sizes and places in the answer of `scale`.
fn scales() -> Vec<Case> {
    let answer = |name, body: String, words: &str| {
        guest(name, scale(body)).fails(Step::Scale, "answer", format!("scale {words}"))
    };
    let abi = |name, body: String, words: &str| guest(name, scale(body)).stops(Step::Scale, words);
    let too_much = "handed over more than 1 MiB at once: answer with less";
    let grown = "(drop (memory.grow (i32.const 64)))".to_owned();
    vec![
        answer(
            "a reason of 1025 bytes",
            set(2056, 1025),
            "answered with a reason of 1025 bytes, at most 1024 are allowed",
        ),
        answer("a reason of 4 MiB", grown.clone() + &set(2056, 4 << 20), too_much),
        abi("a reason of 4 GiB", set(2056, u32::MAX), STRING),
        abi("a reason outside of memory", set(2052, 0x7fff_ffff) + &set(2056, 100), STRING),
        abi("a reason that ends outside of memory", set(2052, 131_000) + &set(2056, 1000), STRING),
        abi("a reason that is not UTF-8", set(16, 0xc0c0) + &set(2052, 16) + &set(2056, 4), NOT_UTF8),
        abi(
            "a reason with half a character",
            set(16, 0xd800_00ed) + &set(2052, 16) + &set(2056, 4),
            NOT_UTF8,
        ),
        guest(
            "a reason that clears the screen",
            scale(set(16, u32::from_le_bytes(*b"\x1b[2J")) + &set(2052, 16) + &set(2056, 4)),
        )
        .scales(Decision { reason: " [2J".into(), ..desired(0) }),
        answer("300,000 victims", grown + &set(2064, 300_000), too_much),
        abi("2^28 victims", set(2064, 1 << 28), LIST),
        abi("2^32 - 1 victims", set(2064, u32::MAX), LIST),
        abi("victims at an odd place", set(2060, 8193) + &set(2064, 1), LIST_ODD),
        answer(
            "state of 4097 bytes",
            set(2108, 4097),
            "answered with state of 4097 bytes, at most 4096 are allowed",
        ),
        abi("state of 2 GiB", set(2108, 1 << 31), LIST),
        answer(
            "33 extensions",
            set(2112, 8192) + &set(2116, 33),
            "answered 33 extensions, at most 32 are allowed",
        ),
        answer(
            "an extension of 1025 bytes",
            set(2112, 8192) + &set(2116, 1) + &set(8196, 512) + &set(8204, 513),
            "answered with an extension of 1025 bytes, at most 1024 are allowed",
        ),
        abi("2^28 extensions", set(2116, 1 << 28), LIST),
        abi("neither some nor no time to awake", set8(2072, 2), OPTION),
        abi(
            "an answer outside of memory",
            "(return (i32.const 131064))".into(),
            "pointer out of bounds of memory",
        ),
        abi("an answer past all memory", "(return (i32.const -8))".into(), "pointer out of bounds of memory"),
        abi("an answer at an odd place", "(return (i32.const 2049))".into(), "return pointer not aligned"),
    ]
}

/// Numbers in the answer of `scale`. Of the five pods the first two are busy.
fn scale_numbers() -> Vec<Case> {
    let answer = |name, body: String, words: &str| {
        guest(name, scale(body)).fails(Step::Scale, "answer", format!("scale {words}"))
    };
    let victims = |name, list: &[u32], words: &str| {
        let stored: String = (0..).zip(list).map(|(place, victim)| set(8192 + 4 * place, *victim)).collect();
        answer(name, stored + &set(2060, 8192) + &set(2064, list.len() as u32), words)
    };
    let wake = |name, after: u64| {
        let words = format!("answered wake-after {after} ms, 1000 to 86400000 are allowed");
        answer(name, set8(2072, 1) + &set64(2080, after), &words)
    };
    vec![
        guest("desired 1,000,000", scale(set(2048, 1_000_000))).scales(desired(1_000_000)),
        answer(
            "desired 1,000,001",
            set(2048, 1_000_001),
            "answered desired 1000001, at most 1000000 is allowed",
        ),
        answer(
            "desired 4,294,967,295",
            set(2048, u32::MAX),
            "answered desired 4294967295, at most 1000000 is allowed",
        ),
        victims("a victim that is busy", &[0], "named victim 0, which is busy; only idle pods may be named"),
        victims("a victim past the pods", &[3, 5], "named victim 5, but there are 5 pods"),
        victims("the last number as a victim", &[u32::MAX], "named victim 4294967295, but there are 5 pods"),
        victims("a victim twice", &[3, 4, 3], "named victim 3 twice"),
        wake("awake after 0 ms", 0),
        wake("awake after 999 ms", 999),
        wake("awake after a day and a millisecond", 86_400_001),
        wake("awake after all time", u64::MAX),
    ]
}

fn classifies() -> Vec<Case> {
    let answer = |name, body: String, words: &str| {
        guest(name, classify(body)).fails(Step::Classify, "answer", format!("classify {words}"))
    };
    let abi = |name, body: String, words: &str| guest(name, classify(body)).stops(Step::Classify, words);
    let verdicts =
        |name, count| answer(name, set(VERDICTS + 4, count), &format!("gave {count} verdicts for 3 pods"));
    let slots = |name, used, total| {
        let body = set8(VERDICT + 12, 1) + &set(VERDICT + 16, used) + &set(VERDICT + 20, total);
        answer(name, body, &format!("gave pod 0 {used} used slots of {total}"))
    };
    let verdict = |spent| busyness::Verdict {
        state: busyness::VerdictState::Busy,
        reason: String::new(),
        slots: None,
        spent,
        wake_after: None,
    };
    vec![
        guest("three verdicts of zeros", classify("")).classifies([false; 3].map(verdict).to_vec()),
        guest("a truth of 2", classify(set8(VERDICT + 24, 2)))
            .classifies([true, false, false].map(verdict).to_vec()),
        verdicts("no verdicts", 0),
        verdicts("a verdict too few", 2),
        verdicts("a verdict too many", 4),
        verdicts("1000 verdicts", 1000),
        abi("2^28 verdicts", set(VERDICTS + 4, 1 << 28), LIST),
        abi("verdicts at an odd place", set(VERDICTS, VERDICT + 1), LIST_ODD),
        abi("verdicts outside of memory", set(VERDICTS, 0xffff_fff8), LIST),
        abi("a state that does not exist", set8(VERDICT, 4), "unexpected discriminant: 4"),
        abi("the last state that does not exist", set8(VERDICT, 255), "unexpected discriminant: 255"),
        answer(
            "a verdict's reason of 257 bytes",
            set(VERDICT + 8, 257),
            "answered with a reason of 257 bytes, at most 256 are allowed",
        ),
        slots("more slots in use than there are", 2, 1),
        slots("all slots in use and one", u32::MAX, u32::MAX - 1),
        abi("neither some nor no slots", set8(VERDICT + 12, 3), OPTION),
        answer(
            "a verdict awake after 999 ms",
            set8(VERDICT + 32, 1) + &set64(VERDICT + 40, 999),
            "answered wake-after 999 ms, 1000 to 86400000 are allowed",
        ),
    ]
}

fn leads() -> Vec<Case> {
    let answer = |name, body: String, words: &str| {
        guest(name, lead(body)).fails(Step::Lead, "answer", format!("lead answered {words}"))
    };
    let led =
        warm_up::Decision { lead: 86_400_000, reason: String::new(), state: vec![], extensions: vec![] };
    vec![
        guest("a lead of a day", lead(set64(LEAD, 86_400_000))).leads(led),
        answer(
            "a lead of a day and a millisecond",
            set64(LEAD, 86_400_001),
            "86400001 ms, at most 86400000 is allowed",
        ),
        answer(
            "a lead of all time",
            set64(LEAD, u64::MAX),
            "18446744073709551615 ms, at most 86400000 is allowed",
        ),
        answer(
            "a lead's reason of 1025 bytes",
            set(LEAD + 12, 1025),
            "with a reason of 1025 bytes, at most 1024 are allowed",
        ),
        answer(
            "a lead's state of 4097 bytes",
            set(LEAD + 20, 4097),
            "with state of 4097 bytes, at most 4096 are allowed",
        ),
        answer(
            "a lead's 33 extensions",
            set(LEAD + 24, 8192) + &set(LEAD + 28, 33),
            "33 extensions, at most 32 are allowed",
        ),
        guest("a lead's reason of 4 GiB", lead(set(LEAD + 12, u32::MAX))).stops(Step::Lead, STRING),
    ]
}

/// Where the host is told to write its input.
fn reallocs() -> Vec<Case> {
    let realloc = |name, realloc| guest(name, Guest { realloc, ..Guest::default() });
    vec![
        realloc("no room at all", "unreachable").stops(Step::Validate, UNREACHABLE),
        realloc("room outside of memory", "(return (i32.const -1))")
            .stops(Step::Validate, "realloc return: beyond end of memory"),
        realloc("room that ends outside of memory", "(return (i32.const 131071))")
            .stops(Step::Validate, "realloc return: beyond end of memory"),
        // A text may lie anywhere, other things only where they are aligned.
        realloc(
            "room at an odd place",
            "(if (i32.gt_u (local.get 2) (i32.const 1)) (then (return (i32.const 4097))))",
        )
        .stops(Step::Scale, "realloc return: result not aligned"),
        realloc("the same room for everything", "(return (i32.const 8192))"),
    ]
}
