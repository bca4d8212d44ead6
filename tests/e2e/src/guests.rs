//! Policies of a few lines of WebAssembly text.
#![allow(clippy::unwrap_used)]

#[path = "../../../host/policy/tests/fixtures/mod.rs"]
mod fixtures;

pub use fixtures::{DECISION, Guest, SPIN};

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
