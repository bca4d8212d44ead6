//! `stoker policy build`: a policy's crate becomes a component.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args as ClapArgs;
use serde_json::Value;
use stoker_policy::Digest;

/// The target whose components need nothing of WASI.
const TARGET: &str = "wasm32-unknown-unknown";
/// What a ConfigMap holds in all its values. The API server counts bytes as they are, not as base64.
pub const CONFIG_MAP_BYTES: usize = 1 << 20;

#[derive(ClapArgs)]
pub struct Args {
    /// The crate's folder.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

pub fn build(args: &Args) -> Result<()> {
    let manifest = args.folder.join("Cargo.toml");
    if !manifest.is_file() {
        bail!(
            "{} is missing: give the folder of a policy, or begin one with `stoker policy new`",
            manifest.display()
        );
    }
    present("cargo", &["component", "--version"]).map_err(|()| {
        anyhow!("cargo component is missing: `cargo install cargo-component --locked --version 0.21.1` installs it")
    })?;
    let status = Command::new("cargo")
        .args(["component", "build", "--release", "--target", TARGET, "--manifest-path"])
        .arg(&manifest)
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!(
            "the build failed, see above; if it says that the target is not installed: \
             `rustup target add {TARGET} wasm32-wasip1`"
        );
    }
    let file = artefact(&manifest)?;
    let bytes = std::fs::read(&file).with_context(|| format!("the build left no {}", file.display()))?;
    say!("{}", file.display());
    say!("{:.1} KiB, {}", bytes.len() as f64 / 1024.0, Digest::of(&bytes));
    if bytes.len() > CONFIG_MAP_BYTES {
        say!("{}", too_large(bytes.len()));
    }
    Ok(())
}

/// What to do about a component that no ConfigMap holds.
pub fn too_large(bytes: usize) -> String {
    format!(
        "{bytes} bytes are more than the {CONFIG_MAP_BYTES} that a ConfigMap holds. Make it smaller: in [profile.release] set \
         opt-level = \"s\", lto = true, codegen-units = 1, strip = true, panic = \"abort\"; leave out dependencies such \
         as general parsers and formatters; run wasm-opt -Oz on it"
    )
}

/// Whether a program is there.
fn present(program: &str, args: &[&str]) -> Result<(), ()> {
    let output = Command::new(program).args(args).output();
    if output.is_ok_and(|output| output.status.success()) { Ok(()) } else { Err(()) }
}

/// The component that a build of this crate makes.
fn artefact(manifest: &Path) -> Result<PathBuf> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
        .arg(manifest)
        .output()
        .context("cargo cannot be started")?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata says nothing that can be read")?;
    let here = manifest.canonicalize()?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let ours = packages
        .filter(|package| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == here));
    let targets = ours.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let library = targets
        .filter(|target| {
            target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
        })
        .find_map(|target| target["name"].as_str())
        .ok_or_else(|| anyhow!("{}: it has no library with crate-type = [\"cdylib\"]", manifest.display()))?;
    let folder = metadata["target_directory"].as_str().unwrap_or("target");
    Ok(Path::new(folder).join(TARGET).join("release").join(format!("{}.wasm", library.replace('-', "_"))))
}
