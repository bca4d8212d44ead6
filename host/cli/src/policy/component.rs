//! A component that is named on the command line: a file, or a policy that the binary carries.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use stoker_policy::{Digest, HostOptions, Policy, PolicyHost, builtin};

/// Names a policy that the binary carries.
const BUILTIN: &str = "builtin:";

/// The folder in the operator's policy cache where its components are.
const CACHED: &str = "components";

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

/// Components that are found by their digests.
pub struct Known {
    /// Files by the digest of what is in them.
    files: HashMap<String, PathBuf>,
}

impl Known {
    /// The built-in ones, and those of a folder: a policy cache of the operator's, or any with .wasm files.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be read.
    pub fn of(folder: Option<&Path>) -> Result<Self> {
        let mut files = HashMap::new();
        let inner = folder.map(|folder| folder.join(CACHED)).filter(|inner| inner.is_dir());
        for folder in folder.into_iter().chain(inner.as_deref()) {
            let entries = std::fs::read_dir(folder).with_context(|| {
                format!("cannot read {}: give a folder with .wasm files", folder.display())
            })?;
            for entry in entries {
                let path = entry.with_context(|| folder.display().to_string())?.path();
                if path.extension().is_some_and(|extension| extension == "wasm") {
                    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
                    files.insert(Digest::of(&bytes).to_string(), path);
                }
            }
        }
        Ok(Self { files })
    }

    /// The component of a digest, if it is there.
    ///
    /// # Errors
    /// When its file is gone since.
    pub fn component(&self, digest: &str) -> Result<Option<Component>> {
        let of =
            |name: &&&str| builtin::bytes(name).is_some_and(|bytes| Digest::of(bytes).as_str() == digest);
        let name = match (builtin::NAMES.iter().find(of), self.files.get(digest)) {
            (Some(name), _) => format!("{BUILTIN}{name}"),
            (None, Some(file)) => file.display().to_string(),
            (None, None) => return Ok(None),
        };
        Component::read(&name).map(Some)
    }
}
