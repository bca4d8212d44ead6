//! Guests that trap, or answer with what the contract or the canonical ABI does not allow.

use stoker_policy::contract::{busyness, warm_up};

use crate::case::{
    Case, LEAD, Step, Step::Load, VERDICT, VERDICTS, case, classify, desired, guest, lead, scale, set, set8, set64,
};
use crate::fixtures::Guest;

pub fn rows() -> Vec<Case> {
    [traps(), floats(), features(), describes(), validates(), scales(), classifies(), leads(), reallocs()]
        .into_iter()
        .flatten()
        .collect()
}

fn traps() -> Vec<Case> {
    let trap = |name, body: &str| guest(name, scale(body)).fails(Step::Scale, "trap", "?");
    let indirect = |name, call: &'static str| {
        let more = "(type $other (func (param i64))) (table $t 4 funcref) (elem (table $t) (i32.const 0) func $scale)";
        guest(name, Guest { more, scale: call, ..Guest::default() }).fails(Step::Scale, "trap", "?")
    };
    vec![
        trap("unreachable", "unreachable"),
        trap("a division by zero", "(drop (i32.div_s (i32.const 1) (i32.const 0)))"),
        trap("a division that overflows", "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))"),
        trap("a read past the memory", "(drop (i32.load (i32.const -4)))"),
        trap("a read past the memory by its offset", "(drop (i64.load offset=0xffffffff (i32.const -1)))"),
        trap("a write past the memory", "(i32.store8 (i32.const 131072) (i32.const 1))"),
        trap("a copy past the memory", "(memory.copy (i32.const 0) (i32.const 1) (i32.const -1))"),
        indirect("a call of nothing", "(call_indirect $t (type $other) (i64.const 0) (i32.const 1))"),
        indirect("a call of another type", "(call_indirect $t (type $other) (i64.const 0) (i32.const 0))"),
        indirect("a call past the table", "(call_indirect $t (type $other) (i64.const 0) (i32.const 4))"),
        guest("a trap in describe", Guest { describe: "unreachable", ..Guest::default() }).fails(Load, "describe", "?"),
        guest("a trap in validate", Guest { validate: "unreachable", ..Guest::default() }).fails(Step::Validate, "trap", "?"),
        guest("a trap in a start function", Guest { more: "(func $start unreachable) (start $start)", ..Guest::default() })
            .fails(Load, "describe", "?"),
        guest("a trap in classify", classify("unreachable")).fails(Step::Classify, "trap", "?"),
        guest("a trap in lead", lead("unreachable")).fails(Step::Lead, "trap", "?"),
        guest(
            "a trap after scale",
            Guest { more: r#"(func (export "cabi_post_stoker:policy/scaling@0.1.0#scale") (param i32) unreachable)"#, ..Guest::default() },
        )
        .fails(Step::Scale, "trap", "?"),
    ]
}

fn floats() -> Vec<Case> {
    let trap = |name, body: &str| guest(name, scale(body)).fails(Step::Scale, "trap", "?");
    // Sign, exponent and the first bit of the mantissa; the rest of a canonical one is zeros.
    let bits = |name, nan: &str| {
        let body = format!(
            "(local $bits i64)
            (local.set $bits (i64.reinterpret_f64 {nan}))
            (if (i64.eqz (i64.shl (local.get $bits) (i64.const 13)))
                (then (i32.store (i32.const 2048) (i32.wrap_i64 (i64.shr_u (local.get $bits) (i64.const 51))))))"
        );
        guest(name, scale(body)).scales(desired(0xfff))
    };
    vec![
        trap("a float too large for an integer", "(drop (i32.trunc_f64_s (f64.const 1e10)))"),
        trap("not a number as an integer", "(drop (i32.trunc_f64_s (f64.div (f64.const 0) (f64.const 0))))"),
        bits("the bits of 0 / 0", "(f64.div (f64.const 0) (f64.const 0))"),
        bits("the bits of the root of -1", "(f64.sqrt (f64.const -1))"),
        bits("the bits of a sum with a crafted NaN", "(f64.add (f64.const -nan:0x1234567) (f64.const 1))"),
        bits("the bits of ∞ - ∞ made smaller and larger", "(f64.promote_f32 (f32.sub (f32.const inf) (f32.const inf)))"),
    ]
}

/// Instructions that are switched off, because they are not repeatable or not needed.
fn features() -> Vec<Case> {
    let more = |name, more| guest(name, Guest { more, ..Guest::default() }).fails(Load, "compile", "?");
    vec![
        more(
            "relaxed vector instructions",
            "(func (param v128 v128 v128) (result v128)
                (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))",
        ),
        more("a wait for another thread", "(func (result i32) (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))"),
        more("an exception", "(tag $t) (func (throw $t))"),
        more("garbage-collected types", "(type (struct (field i32)))"),
        more("a stack of its own", "(type $f (func)) (type $c (cont $f)) (func (drop (ref.null $c)))"),
    ]
}

fn describes() -> Vec<Case> {
    let describe = |name, body: String| {
        guest(name, Guest { describe: body.leak(), ..Guest::default() }).fails(Load, "describe", "?")
    };
    vec![
        describe("an empty name", set(1028, 0)),
        describe("a name of 64 bytes", set(1028, 64)),
        describe("a name of 4 GiB", set(1028, u32::MAX)),
        describe("a name outside of memory", set(1024, u32::MAX)),
        describe("a name that is not UTF-8", set(16, 0xffff)),
        describe("a version of 64 bytes", set(1036, 64)),
        describe("a summary of 257 bytes", set(1044, 257)),
        describe("a schema of 65,537 bytes", set(1052, 65_537)),
        describe("a schema of 2 MiB", format!("(drop (memory.grow (i32.const 64))) {}", set(1052, 2 << 20))),
        describe("17 labels", set(1056, 8192) + &set(1060, 17)),
        describe("a label without a name", set(1056, 8192) + &set(1060, 1)),
        describe("an annotation of 318 bytes", set(1064, 8192) + &set(1068, 1) + &set(8196, 318)),
        describe("2^28 labels", set(1060, 1 << 28)),
        describe("labels at an odd place", set(1056, 8193) + &set(1060, 1)),
    ]
}

fn validates() -> Vec<Case> {
    let validate = |name, kind, body: String| {
        guest(name, Guest { validate: body.leak(), ..Guest::default() }).fails(Step::Validate, kind, "?")
    };
    vec![
        validate("refuses the config without a word", "answer", set8(1536, 1)),
        validate("refuses the config with 100 empty words", "invalid", set8(1536, 1) + &set(1540, 8192) + &set(1544, 100)),
        validate("refuses the config with 2^28 words", "trap", set8(1536, 1) + &set(1544, 1 << 28)),
        validate("neither takes nor refuses the config", "trap", set8(1536, 2)),
    ]
}

fn scales() -> Vec<Case> {
    let answer = |name, body: String| guest(name, scale(body)).fails(Step::Scale, "answer", "?");
    let abi = |name, body: String| guest(name, scale(body)).fails(Step::Scale, "trap", "?");
    let victims = |name, list: &[u32]| {
        let stored: String = (0u32..).zip(list).map(|(place, victim)| set(8192 + 4 * place, *victim)).collect();
        answer(name, stored + &set(2060, 8192) + &set(2064, list.len() as u32))
    };
    let wake = |name, after| answer(name, set8(2072, 1) + &set64(2080, after));
    vec![
        answer("desired 1,000,001", set(2048, 1_000_001)),
        answer("desired 4,294,967,295", set(2048, u32::MAX)),
        guest("desired 1,000,000", scale(set(2048, 1_000_000))).scales(desired(1_000_000)),
        answer("a reason of 1025 bytes", set(2056, 1025)),
        answer("a reason of 4 MiB", format!("(drop (memory.grow (i32.const 64))) {}", set(2056, 4 << 20))),
        abi("a reason of 4 GiB", set(2056, u32::MAX)),
        abi("a reason outside of memory", set(2052, 0x7fff_ffff) + &set(2056, 100)),
        abi("a reason that ends outside of memory", set(2052, 131_000) + &set(2056, 1000)),
        abi("a reason that is not UTF-8", set(16, 0xc0c0) + &set(2052, 16) + &set(2056, 4)),
        abi("a reason with half a character", set(16, 0xd800_00ed) + &set(2052, 16) + &set(2056, 4)),
        guest("a reason that clears the screen", scale(set(16, 0x4a32_5b1b) + &set(2052, 16) + &set(2056, 4)))
            .scales(stoker_policy::contract::scaling::Decision { reason: " [2J".into(), ..desired(0) }),
        abi("2^28 victims", set(2064, 1 << 28)),
        abi("2^32 - 1 victims", set(2064, u32::MAX)),
        answer("300,000 victims", format!("(drop (memory.grow (i32.const 64))) {}", set(2064, 300_000))),
        abi("victims at an odd place", set(2060, 8193) + &set(2064, 1)),
        victims("a victim that is busy", &[0]),
        victims("a victim past the pods", &[3, 5]),
        victims("the last number as a victim", &[u32::MAX]),
        victims("a victim twice", &[3, 4, 3]),
        wake("awake after 0 ms", 0),
        wake("awake after 999 ms", 999),
        wake("awake after a day and a millisecond", 86_400_001),
        wake("awake after all time", u64::MAX),
        abi("neither some nor no time to awake", set8(2072, 2)),
        answer("state of 4097 bytes", set(2108, 4097)),
        abi("state of 2 GiB", set(2108, 1 << 31)),
        answer("33 extensions", set(2112, 8192) + &set(2116, 33)),
        answer("an extension of 1025 bytes", set(2112, 8192) + &set(2116, 1) + &set(8196, 512) + &set(8204, 513)),
        abi("2^28 extensions", set(2116, 1 << 28)),
        guest("an answer outside of memory", scale("(return (i32.const 131064))")).fails(Step::Scale, "trap", "?"),
        guest("an answer past all memory", scale("(return (i32.const -8))")).fails(Step::Scale, "trap", "?"),
        guest("an answer at an odd place", scale("(return (i32.const 2049))")).fails(Step::Scale, "trap", "?"),
    ]
}

fn verdict() -> busyness::Verdict {
    busyness::Verdict {
        state: busyness::VerdictState::Busy,
        reason: String::new(),
        slots: None,
        spent: false,
        wake_after: None,
    }
}

fn classifies() -> Vec<Case> {
    let answer = |name, body: String| guest(name, classify(body)).fails(Step::Classify, "answer", "?");
    let abi = |name, body: String| guest(name, classify(body)).fails(Step::Classify, "trap", "?");
    let slots = |name, used, total| answer(name, set8(VERDICT + 12, 1) + &set(VERDICT + 16, used) + &set(VERDICT + 20, total));
    vec![
        guest("three verdicts of zeros", classify("")).classifies(vec![verdict(); 3]),
        answer("no verdicts", set(VERDICTS + 4, 0)),
        answer("a verdict too few", set(VERDICTS + 4, 2)),
        answer("a verdict too many", set(VERDICTS + 4, 4)),
        answer("1000 verdicts", set(VERDICTS + 4, 1000)),
        abi("2^28 verdicts", set(VERDICTS + 4, 1 << 28)),
        abi("verdicts at an odd place", set(VERDICTS, VERDICT + 1)),
        abi("verdicts outside of memory", set(VERDICTS, 0xffff_fff8)),
        abi("a state that does not exist", set8(VERDICT, 4)),
        abi("the last state that does not exist", set8(VERDICT, 255)),
        guest("a truth of 2", classify(set8(VERDICT + 24, 2)))
            .classifies(vec![busyness::Verdict { spent: true, ..verdict() }, verdict(), verdict()]),
        answer("a verdict's reason of 257 bytes", set(VERDICT + 8, 257)),
        slots("more slots in use than there are", 2, 1),
        slots("all slots in use and one", u32::MAX, u32::MAX - 1),
        answer("a verdict awake after 999 ms", set8(VERDICT + 32, 1) + &set64(VERDICT + 40, 999)),
        abi("neither some nor no slots", set8(VERDICT + 12, 3)),
    ]
}

fn leads() -> Vec<Case> {
    let answer = |name, body: String| guest(name, lead(body)).fails(Step::Lead, "answer", "?");
    let abi = |name, body: String| guest(name, lead(body)).fails(Step::Lead, "trap", "?");
    let led = |lead| warm_up::Decision { lead, reason: String::new(), state: vec![], extensions: vec![] };
    vec![
        guest("a lead of a day", lead(set64(LEAD, 86_400_000))).leads(led(86_400_000)),
        answer("a lead of a day and a millisecond", set64(LEAD, 86_400_001)),
        answer("a lead of all time", set64(LEAD, u64::MAX)),
        answer("a lead's reason of 1025 bytes", set(LEAD + 12, 1025)),
        answer("a lead's state of 4097 bytes", set(LEAD + 20, 4097)),
        answer("a lead's 33 extensions", set(LEAD + 24, 8192) + &set(LEAD + 28, 33)),
        abi("a lead's reason of 4 GiB", set(LEAD + 12, u32::MAX)),
    ]
}

/// What the host is given to write its input to.
fn reallocs() -> Vec<Case> {
    let gives = |name, address: &str| {
        let realloc = format!("(return (i32.const {address}))").leak();
        guest(name, Guest { realloc, ..Guest::default() }).fails(Step::Validate, "trap", "?")
    };
    let scales = |name, address: &str| {
        let realloc = format!("(if (i32.gt_u (local.get 2) (i32.const 1)) (then (return (i32.const {address}))))").leak();
        guest(name, Guest { realloc, ..Guest::default() }).fails(Step::Scale, "trap", "?")
    };
    vec![
        gives("room outside of memory", "-1"),
        gives("room that ends outside of memory", "131071"),
        scales("room at an odd place", "4097"),
        scales("room for the input outside of memory", "131064"),
        guest("the same room for everything", Guest { realloc: "(return (i32.const 8192))", ..Guest::default() }),
        case("no room at all", Guest { realloc: "unreachable", ..Guest::default() }.bytes()).fails(Step::Validate, "trap", "?"),
    ]
}
