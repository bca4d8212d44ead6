//! Tells the crate where the built-in policies' components are, and stops the build with the
//! command to run when they have not been built. It builds nothing itself.

use std::path::PathBuf;

const NAMES: [&str; 11] = [
    "buffer",
    "percent-buffer",
    "scheduled-buffer",
    "predictive",
    "queue-depth",
    "expression",
    "probe-verdict",
    "hysteresis",
    "json-status",
    "fixed-lead",
    "learned-lead",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../wit/policy.wit");
    println!("cargo::rerun-if-env-changed=STOKER_POLICIES_DIR");
    // Read when it runs, not when it is built: folders that share a target folder share its program.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = std::env::var_os("STOKER_POLICIES_DIR")
        .map_or_else(|| here.join("../../target/policies"), PathBuf::from);
    for name in NAMES {
        let file = folder.join(format!("{name}.wasm"));
        println!("cargo::rerun-if-changed={}", file.display());
        if !file.is_file() {
            println!(
                "cargo::error=the built-in policies are not built: run `make policies` ({} is missing)",
                file.display()
            );
        }
        let variable = format!("STOKER_BUILTIN_{}", name.to_uppercase().replace('-', "_"));
        println!("cargo::rustc-env={variable}={}", file.display());
    }
}
