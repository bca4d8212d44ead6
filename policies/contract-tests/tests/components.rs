//! Checks files that were built before: `make policies-test` builds them and says where they are.

use std::path::{Path, PathBuf};

use contract_tests::{Wasi, check};

/// Name, world, and the most bytes. A policy must stay far below a ConfigMap's 1 MiB; more than this is a
/// dependency that slipped in.
const POLICIES: [(&str, &str, usize); 11] = [
    ("buffer", "scaling-policy", 140 * 1024),
    ("percent-buffer", "scaling-policy", 140 * 1024),
    // A third of it are the world's time zones, and another what reads them.
    ("scheduled-buffer", "scaling-policy", 650 * 1024),
    ("predictive", "scaling-policy", 160 * 1024),
    ("queue-depth", "scaling-policy", 160 * 1024),
    // CEL's parser and evaluation.
    ("expression", "scaling-policy", 550 * 1024),
    ("probe-verdict", "busyness-policy", 140 * 1024),
    ("hysteresis", "busyness-policy", 140 * 1024),
    ("json-status", "busyness-policy", 140 * 1024),
    ("fixed-lead", "warm-up-policy", 140 * 1024),
    ("learned-lead", "warm-up-policy", 140 * 1024),
];

fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit")
}

/// Checks `FOLDER/NAME.wasm` for every policy, the folder being the variable's value.
fn check_folder(variable: &str, wasi: Wasi) {
    let folder = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} must name a folder of built components: make policies-test"));
    for (name, world, most) in POLICIES {
        let file = Path::new(&folder).join(format!("{name}.wasm"));
        let component =
            std::fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        if let Err(difference) = check(&component, &wit(), world, wasi) {
            panic!("{}: {difference}", file.display());
        }
        assert!(component.len() <= most, "{} has {} bytes", file.display(), component.len());
        println!("{}: {world}, {} bytes", file.display(), component.len());
    }
}

#[test]
#[ignore = "needs built components: make policies-test"]
fn components_of_plain_cargo_keep_the_contract() {
    check_folder("POLICIES_PLAIN", Wasi::Allowed);
}

#[test]
#[ignore = "needs built components: make policies-test"]
fn components_of_cargo_components_default_target_keep_the_contract() {
    check_folder("POLICIES_COMPONENT_DEFAULT", Wasi::Allowed);
}

#[test]
#[ignore = "needs built components: make policies-test"]
fn components_for_wasm32_unknown_unknown_keep_the_contract_without_wasi() {
    check_folder("POLICIES_COMPONENT", Wasi::Refused);
}

/// The policies of the README; `quickstart.sh` builds them.
#[test]
#[ignore = "needs built components: make policies-test"]
fn the_readmes_components_keep_the_contract() {
    let folder = std::env::var_os("POLICIES_QUICKSTART")
        .expect("POLICIES_QUICKSTART must name the folder that quickstart.sh filled: make policies-test");
    for name in ["rush-hour-cargo-component", "rush-hour-plain-cargo"] {
        let file = Path::new(&folder).join(format!("{name}.wasm"));
        let component =
            std::fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        if let Err(difference) = check(&component, &wit(), "scaling-policy", Wasi::Allowed) {
            panic!("{}: {difference}", file.display());
        }
    }
}

#[test]
fn what_is_not_a_component_is_refused_in_words() {
    for bytes in [&b"no wasm"[..], b"\0asm\x01\0\0\0"] {
        let error = check(bytes, &wit(), "scaling-policy", Wasi::Allowed).unwrap_err();
        assert!(error.contains("not a component"), "{error}");
    }
}
