//! A component that is named on the command line: a file, or a policy that the binary carries.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use stoker_policy::{HostOptions, Policy, PolicyHost, builtin};

/// Names a policy that the binary carries.
const BUILTIN: &str = "builtin:";

/// The bytes of a component.
pub struct Component {
    /// As it was named.
    pub name: String,
    pub bytes: Arc<[u8]>,
}

impl Component {
    /// Reads `FILE` or `builtin:NAME`.
    pub fn read(name: &str) -> Result<Self> {
        let bytes: Arc<[u8]> = match name.strip_prefix(BUILTIN) {
            Some(known) => match builtin::bytes(known) {
                Some(bytes) => bytes.into(),
                None => bail!("there is no built-in policy {known}; there are {}", builtin::NAMES.join(", ")),
            },
            None if Path::new(name).is_dir() => {
                bail!("{name} is a folder: give the .wasm file that `stoker policy build {name}` makes")
            }
            None => std::fs::read(name)
                .with_context(|| {
                    format!(
                        "cannot read {name}: give a .wasm file, or {BUILTIN}NAME for one that Stoker carries"
                    )
                })?
                .into(),
        };
        Ok(Self { name: name.to_owned(), bytes })
    }

    /// Loads it as the operator does: checked, compiled in a child with limits, described.
    pub async fn load(&self) -> Result<(PolicyHost, Arc<Policy>)> {
        let host = PolicyHost::new(HostOptions::default())?;
        let policy = host.load(self.bytes.clone()).await.with_context(|| self.name.clone())?;
        Ok((host, policy))
    }
}
