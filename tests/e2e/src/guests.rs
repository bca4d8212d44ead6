//! Policies of a few lines of WebAssembly text.
#![allow(clippy::unwrap_used)]

#[path = "../../../host/policy/tests/fixtures/mod.rs"]
mod fixtures;

pub use fixtures::{DECISION, Guest, SPIN};
use wit_parser::{Resolve, SizeAlign, TypeDefKind};

/// A policy that always wants so many replicas.
pub fn wants(replicas: u32) -> Vec<u8> {
    let scale = format!("(i32.store (i32.const {}) (i32.const {replicas}))", DECISION);
    Guest { scale: Box::leak(scale.into_boxed_str()), ..Guest::default() }.bytes().to_vec()
}

/// A policy that wants so many replicas, and takes its time.
pub fn wants_slowly(replicas: u32, rounds: u64) -> Vec<u8> {
    let scale = format!(
        "(local.set $round (i64.const {rounds}))
         (loop $again
            (local.set $round (i64.sub (local.get $round) (i64.const 1)))
            (br_if $again (i64.ne (local.get $round) (i64.const 0))))
         (i32.store (i32.const {DECISION}) (i32.const {replicas}))"
    );
    let scale = format!("(local $round i64) {scale}");
    Guest { scale: Box::leak(scale.into_boxed_str()), ..Guest::default() }.bytes().to_vec()
}

/// Policies of which each fails in its own way.
pub fn bad_policies() -> Vec<(&'static str, Vec<u8>)> {
    let guest = |guest: Guest| guest.bytes().to_vec();
    vec![
        ("loops in scale", guest(Guest { scale: SPIN, ..Guest::default() })),
        ("loops in validate", guest(Guest { validate: SPIN, ..Guest::default() })),
        ("loops in describe", guest(Guest { describe: SPIN, ..Guest::default() })),
        (
            "loops at its start",
            guest(Guest { more: "(func $s (loop $l (br $l))) (start $s)", ..Guest::default() }),
        ),
        ("traps", guest(Guest { scale: "unreachable", ..Guest::default() })),
        (
            "wants memory",
            guest(Guest {
                scale: "(loop $m (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (br $m))",
                ..Guest::default()
            }),
        ),
        ("recurses", guest(Guest { scale: "(drop (call $scale (local.get $input)))", ..Guest::default() })),
        (
            "answers nonsense",
            guest(Guest { scale: "(i32.store (i32.const 2048) (i32.const -1))", ..Guest::default() }),
        ),
        ("is cut short", wants(1)[..300].to_vec()),
        ("is junk", b"\0asm junk".to_vec()),
    ]
}

/// The same component with a custom section at its end, and so another digest.
pub fn padded(component: &[u8], number: u8) -> Vec<u8> {
    [component, &[0, 3, 1, b'n', number]].concat()
}

/// A policy that says of each pod what the busy probe says, and that none is to be used again.
pub fn spends() -> Vec<u8> {
    let [now, evidence, verdict] = ["input", "evidence", "verdict"].map(layout);
    let (pods, says) = (now.at("pods"), evidence.at("probe-says"));
    let (state, spent) = (verdict.at("state"), verdict.at("spent"));
    let (pod_size, size) = (evidence.size, verdict.size);
    // Zeros are no reason, no slots and no time; the answer is built in memory that is zero.
    let more = format!(
        r#"(func (export "stoker:policy/busyness@1.0.0#classify") (param $input i32) (result i32)
            (local $left i32) (local $pod i32) (local $verdict i32)
            (local.set $left (i32.load offset={} (local.get $input)))
            (local.set $pod (i32.load offset={pods} (local.get $input)))
            (local.set $verdict (i32.const {ANSWERS}))
            (i32.store (i32.const {ANSWER}) (i32.const {ANSWERS}))
            (i32.store (i32.const {}) (local.get $left))
            (block $done (loop $next
                (br_if $done (i32.eqz (local.get $left)))
                (i32.store8 offset={state} (local.get $verdict) (i32.load8_u offset={says} (local.get $pod)))
                (i32.store8 offset={spent} (local.get $verdict) (i32.const 1))
                (local.set $pod (i32.add (local.get $pod) (i32.const {pod_size})))
                (local.set $verdict (i32.add (local.get $verdict) (i32.const {size})))
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br $next)))
            (i32.const {ANSWER}))"#,
        pods + 4,
        ANSWER + 4,
    );
    let world = "include stoker:policy/busyness-policy@1.0.0;";
    Guest { world, more: more.leak(), ..Guest::default() }.bytes().to_vec()
}

/// Where `spends` answers, and where its verdicts begin.
const ANSWER: usize = 4096;
const ANSWERS: usize = 4352;

/// Where the fields of a record lie in memory.
struct Layout {
    fields: Vec<(String, usize)>,
    size: usize,
}

impl Layout {
    fn at(&self, field: &str) -> usize {
        self.fields.iter().find(|(name, _)| name == field).unwrap().1
    }
}

/// The layout of a record of the contract's busyness interface.
fn layout(record: &str) -> Layout {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", include_str!("../../../wit/policy.wit")).unwrap();
    let mut sizes = SizeAlign::default();
    sizes.fill(&resolve);
    let interface = &resolve.interfaces[resolve.packages[package].interfaces["busyness"]];
    let TypeDefKind::Record(found) = &resolve.types[interface.types[record]].kind else {
        panic!("{record} is no record")
    };
    let types = || found.fields.iter().map(|field| &field.ty);
    let offsets = sizes.field_offsets(types());
    let names = found.fields.iter().map(|field| field.name.clone());
    let fields = names.zip(offsets.iter().map(|(at, _)| at.size_wasm32())).collect();
    Layout { fields, size: sizes.record(types()).size.size_wasm32() }
}
