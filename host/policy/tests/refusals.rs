//! What is not a policy is refused in words, before it can decide anything.
#![allow(clippy::unwrap_used)]

mod fixtures;
#[path = "hostile/process.rs"]
mod process;

use std::sync::Arc;

use fixtures::{Guest, SPIN, host, input, limits, options};
use process::resident_bytes;
use stoker_policy::{CallError, HostOptions, PolicyHost, Refusal};

async fn refusal(guest: Guest) -> Refusal {
    host().load(guest.bytes()).await.unwrap_err()
}

async fn words(guest: Guest) -> String {
    refusal(guest).await.to_string()
}

#[tokio::test]
async fn a_core_module_is_refused() {
    let module = wat::parse_str("(module)").unwrap();
    let refusal = host().load(module.into()).await.unwrap_err();
    assert_eq!(refusal, Refusal::CoreModule);
    assert!(refusal.to_string().contains("wasm32-wasip2"));
}

#[tokio::test]
async fn a_component_that_is_cut_short_is_refused_wherever_the_cut_is() {
    let host = host();
    let bytes = Guest::default().bytes();
    for keep in [8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        let refusal = host.load(Arc::from(&bytes[..keep])).await.unwrap_err();
        assert!(
            matches!(refusal, Refusal::Damaged(_) | Refusal::Contract(_) | Refusal::Compile(_)),
            "{keep}: {refusal}"
        );
    }
}

#[tokio::test]
async fn a_component_with_any_byte_changed_is_loaded_or_refused_but_harms_nothing() {
    let host = host();
    let bytes = Guest::default().bytes();
    for position in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut changed = bytes.to_vec();
        changed[position] ^= 0x55;
        let _ = host.load(changed.into()).await;
    }
    host.load(bytes).await.unwrap();
}

#[tokio::test]
async fn a_component_past_the_size_limit_is_refused() {
    let options = HostOptions { max_component_bytes: 100, ..options() };
    let bytes = Guest::default().bytes();
    let size = bytes.len();
    let refusal = PolicyHost::new(options).unwrap().load(bytes).await.unwrap_err();
    assert_eq!(refusal, Refusal::TooLarge { bytes: size, max: 100 });
}

#[tokio::test]
async fn another_version_of_the_contract_is_named() {
    // 0.1 was before the contract was settled.
    for version in ["0.1.0", "1.1.0", "2.0.0"] {
        let words = words(Guest { version, ..Guest::default() }).await;
        for interface in ["scaling", "settings"] {
            let named = format!("exports stoker:policy/{interface}@{version}, this host speaks 1.0.x");
            assert!(words.contains(&named), "{words}");
        }
    }
}

#[tokio::test]
async fn a_later_patch_level_of_the_contract_is_taken() {
    let policy = host().load(Guest { version: "1.0.7", ..Guest::default() }.bytes()).await.unwrap();
    assert!(policy.exports().scaling);
}

#[tokio::test]
async fn an_import_that_no_policy_gets_is_named() {
    let words = words(Guest {
        world: "package: wasi:sockets@0.2.3; interface tcp { connect: func(); }
                world: import wasi:sockets/tcp@0.2.3; include stoker:policy/scaling-policy@1.0.0;",
        imports: r#"(import "wasi:sockets/tcp@0.2.3" "connect" (func $connect))"#,
        scale: "(call $connect)",
        ..Guest::default()
    })
    .await;
    assert!(words.contains("imports wasi:sockets/tcp@0.2.3, which no policy gets"), "{words}");
}

#[tokio::test]
async fn a_served_interface_of_another_type_is_refused() {
    let refusal = refusal(Guest {
        world: "package: wasi:random@0.2.3; interface random { get-random-u64: func() -> string; }
                world: import wasi:random/random@0.2.3; include stoker:policy/scaling-policy@1.0.0;",
        imports: r#"(import "wasi:random/random@0.2.3" "get-random-u64" (func $random (param i32)))"#,
        scale: "(call $random (i32.const 0))",
        ..Guest::default()
    })
    .await;
    assert!(matches!(&refusal, Refusal::Contract(words) if words.contains("random")), "{refusal}");
}

#[tokio::test]
async fn a_component_without_a_decision_is_refused() {
    let words = words(Guest { world: "export stoker:policy/settings@1.0.0;", ..Guest::default() }).await;
    assert!(words.contains("exports none of scaling, busyness, warm-up of stoker:policy@1.0.0"), "{words}");
}

#[tokio::test]
async fn a_component_without_settings_is_refused() {
    let words = words(Guest { world: "export stoker:policy/scaling@1.0.0;", ..Guest::default() }).await;
    assert!(words.contains("exports no settings"), "{words}");
}

#[tokio::test]
async fn a_component_that_is_described_by_nothing_is_refused() {
    let refusal =
        refusal(Guest { describe: "(i32.store (i32.const 1028) (i32.const 0))", ..Guest::default() }).await;
    assert_eq!(refusal, Refusal::Describe(CallError::Answer("describe answered with an empty name".into())));
}

#[tokio::test]
async fn a_loop_in_describe_ends() {
    let refusal = refusal(Guest { describe: SPIN, ..Guest::default() }).await;
    assert!(matches!(refusal, Refusal::Describe(CallError::Timeout { call: "describe", .. })), "{refusal}");
}

#[tokio::test]
async fn a_loop_in_a_start_function_ends() {
    let more = "(func $start (loop $again (br $again))) (start $start)";
    let refusal = refusal(Guest { more, ..Guest::default() }).await;
    assert!(matches!(refusal, Refusal::Describe(CallError::Timeout { .. })), "{refusal}");
}

#[tokio::test]
async fn a_memory_that_begins_past_the_limit_is_refused() {
    let refusal = refusal(Guest { memory: "5000", ..Guest::default() }).await;
    assert!(
        matches!(refusal, Refusal::Compile(_) | Refusal::Contract(_) | Refusal::Describe(_)),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_component_is_compiled_once_for_all_who_ask_at_the_same_time() {
    let host = host();
    let bytes = Guest::default().bytes();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (host, bytes) = (host.clone(), Arc::clone(&bytes));
        asking.spawn(async move { host.load(bytes).await.unwrap() });
    }
    let policies = asking.join_all().await;
    assert!(policies.iter().all(|policy| Arc::ptr_eq(policy, &policies[0])));
    assert_eq!(host.compiled(), 1);
}

/// A policy that answers `desired`, other bytes for each.
fn answering(desired: u32) -> Arc<[u8]> {
    let scale = format!("(i32.store (i32.const 2048) (i32.const {desired}))").leak();
    Guest { scale, ..Guest::default() }.bytes()
}

#[tokio::test]
async fn a_policy_is_kept_when_nobody_holds_it() {
    let host = host();
    drop(host.load(answering(0)).await.unwrap());
    for other in 1..16 {
        host.load(answering(other)).await.unwrap();
    }
    host.load(answering(0)).await.unwrap();
    assert_eq!(host.compiled(), 16);
}

#[tokio::test]
async fn a_policy_that_nobody_holds_is_forgotten_after_16_others() {
    let host = host();
    let held = host.load(answering(100)).await.unwrap();
    drop(host.load(answering(0)).await.unwrap());
    for other in 1..=16 {
        host.load(answering(other)).await.unwrap();
    }
    assert_eq!(host.compiled(), 18);
    let again = host.load(answering(100)).await.unwrap();
    assert!(Arc::ptr_eq(&held, &again), "what somebody holds is not made again");
    host.load(answering(0)).await.unwrap();
    assert_eq!(host.compiled(), 19);
}

#[tokio::test]
async fn two_policies_that_take_turns_are_compiled_once_each() {
    let host = host();
    let bytes = [answering(1), answering(2)];
    let mut warm = 0;
    for turn in 0..1_000 {
        let policy = host.load(Arc::clone(&bytes[turn % 2])).await.unwrap();
        let answer = host.scale(&policy, limits(8_000), input(0, 0)).await.unwrap();
        assert_eq!(answer.value.desired, turn as u32 % 2 + 1);
        if turn == 100 {
            warm = resident_bytes();
        }
    }
    assert_eq!(host.compiled(), 2);
    let growth = resident_bytes().saturating_sub(warm);
    // Other tests of this file may run beside it and hold some.
    assert!(growth < 64 << 20, "{growth} bytes");
}

#[tokio::test]
async fn a_load_goes_on_when_the_first_who_asked_gives_up() {
    let host = host();
    let bytes = Guest::default().bytes();
    let (first, second) = (host.load(Arc::clone(&bytes)), host.load(Arc::clone(&bytes)));
    tokio::select! {
        biased;
        _ = first => panic!("it cannot be done at once"),
        () = std::future::ready(()) => {}
    }
    second.await.unwrap();
    assert_eq!(host.compiled(), 1);
}

#[tokio::test]
async fn a_refusal_is_remembered() {
    let host = host();
    // Passes the check of names, and fails when it is linked.
    let bytes = Guest {
        world: "package: wasi:random@0.2.3; interface random { get-random-u64: func() -> string; }
                world: import wasi:random/random@0.2.3; include stoker:policy/scaling-policy@1.0.0;",
        imports: r#"(import "wasi:random/random@0.2.3" "get-random-u64" (func $random (param i32)))"#,
        scale: "(call $random (i32.const 0))",
        ..Guest::default()
    }
    .bytes();
    let first = host.load(Arc::clone(&bytes)).await.unwrap_err();
    assert_eq!(host.load(bytes).await.unwrap_err(), first);
    assert_eq!(host.compiled(), 1);
}

#[tokio::test]
async fn a_fault_of_the_host_is_not_held_against_the_component() {
    let folder = std::env::temp_dir().join(format!("stoker-compiler-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let compiler = folder.join("compiler");
    let host = PolicyHost::new(HostOptions { compiler: compiler.clone(), ..options() }).unwrap();
    let refusal = host.load(Guest::default().bytes()).await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Host(words) if words.contains("does not run")), "{refusal}");
    assert!(refusal.may_pass());
    // The next try succeeds as soon as the fault is mended.
    std::os::unix::fs::symlink(options().compiler, &compiler).unwrap();
    host.load(Guest::default().bytes()).await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}
