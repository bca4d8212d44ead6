//! The last good policies, kept in a folder over a restart. What a ConfigMap held before it was broken is
//! nowhere else.
//!
//! ```text
//! components/HEX.wasm   the component with this SHA-256
//! pools/UID.json        {"digest", "config"} of the policy that last decided for the object
//! pools/UID.trial.json  the same of the policy that was last on trial there
//! ```
//!
//! Nothing here is trusted: bytes count only if they have the digest that the object's status names, and
//! they are checked and compiled again as if they came from the ConfigMap.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use stoker_policy::Digest;
use tokio::task::spawn_blocking;

/// Components that are kept; the longest unused ones go first.
const MAX_BYTES: u64 = 256 << 20;

/// The folder, if there is one.
#[derive(Clone, Default)]
pub struct PolicyCache(Option<Arc<Path>>);

/// What a policy does at an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Deciding,
    OnTrial,
}

impl Role {
    /// How the files of its notes end.
    fn ending(self) -> &'static str {
        match self {
            Self::Deciding => "json",
            Self::OnTrial => "trial.json",
        }
    }
}

const ROLES: [Role; 2] = [Role::Deciding, Role::OnTrial];

#[derive(Serialize, Deserialize)]
struct Note {
    digest: Digest,
    config: String,
}

impl PolicyCache {
    /// Makes the folder. Without one, nothing is kept.
    pub fn open(folder: Option<PathBuf>) -> io::Result<Self> {
        let Some(folder) = folder else { return Ok(Self(None)) };
        for part in ["components", "pools"] {
            fs::create_dir_all(folder.join(part))?;
        }
        // Whether it can be written is better known at once.
        write(&folder.join("pools/.writable"), b"")?;
        Ok(Self(Some(folder.into())))
    }

    /// Whether anything is kept.
    pub fn exists(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps a component.
    pub async fn keep(&self, digest: &Digest, bytes: Arc<[u8]>) {
        let digest = digest.clone();
        self.work("keep a component", move |folder| {
            let file = component(folder, &digest);
            if fs::read(&file).is_ok_and(|kept| kept[..] == bytes[..]) {
                fs::File::options().append(true).open(&file)?.set_modified(SystemTime::now())
            } else {
                write(&file, &bytes)?;
                prune(&folder.join("components"), MAX_BYTES)
            }
        })
        .await;
    }

    /// Notes which policy has a role at an object, by the object's UID.
    pub async fn note(&self, uid: &str, role: Role, digest: &Digest, config: &str) {
        let (uid, note) = (uid.to_owned(), Note { digest: digest.clone(), config: config.to_owned() });
        self.work("note a policy", move |folder| {
            write(&pool(folder, &uid, role), &serde_json::to_vec(&note).map_err(io::Error::other)?)
        })
        .await;
    }

    /// The component and config that last had a role at an object, if it is the digest that its status names. The two
    /// may have changed places since they were noted.
    pub async fn find(&self, uid: &str, role: Role, digest: &str) -> Option<(Arc<[u8]>, String)> {
        let (uid, digest) = (uid.to_owned(), digest.to_owned());
        self.work("find a policy", move |folder| {
            let other = ROLES.into_iter().filter(|other| *other != role);
            for role in [role].into_iter().chain(other) {
                let Ok(note) = fs::read(pool(folder, &uid, role)) else { continue };
                let note: Note = serde_json::from_slice(&note)?;
                if note.digest.as_str() != digest {
                    continue;
                }
                let bytes = fs::read(component(folder, &note.digest))?;
                if Digest::of(&bytes) == note.digest {
                    return Ok((bytes.into(), note.config));
                }
            }
            Err(io::ErrorKind::NotFound.into())
        })
        .await
    }

    /// Forgets an object that is gone.
    pub async fn forget(&self, uid: &str) {
        let uid = uid.to_owned();
        self.work("forget a policy", move |folder| {
            let removed = ROLES.map(|role| fs::remove_file(pool(folder, &uid, role)));
            removed.into_iter().find(is_trouble).unwrap_or(Ok(()))
        })
        .await;
    }

    async fn work<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let folder = Arc::clone(self.0.as_ref()?);
        match spawn_blocking(move || work(&folder)).await {
            Ok(Ok(done)) => Some(done),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the policy cache could not {what}");
                None
            }
            Err(_) => None,
        }
    }
}

fn component(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("components").join(digest.as_str().trim_start_matches("sha256:")).with_extension("wasm")
}

/// Whether something else is wrong than that there is no such file.
fn is_trouble(done: &io::Result<()>) -> bool {
    done.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

fn pool(folder: &Path, uid: &str, role: Role) -> PathBuf {
    // A UID is made by the API server; nothing else becomes a path.
    let safe: String = uid.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    folder.join("pools").join(safe).with_extension(role.ending())
}

/// Whole or not at all.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let mut out = fs::File::create(&part)?;
    out.write_all(bytes)?;
    out.sync_data()?;
    fs::rename(part, file)
}

/// Removes the longest unused files until the rest is within the limit.
fn prune(folder: &Path, max_bytes: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        files.push((meta.modified()?, meta.len(), entry.path()));
    }
    files.sort_unstable();
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in files {
        if total <= max_bytes {
            break;
        }
        fs::remove_file(path)?;
        total -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("stoker-cache-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[tokio::test]
    async fn what_decided_last_is_found_after_a_restart() {
        let folder = Folder::new("found");
        let bytes: Arc<[u8]> = Arc::from(&b"component"[..]);
        let digest = Digest::of(&bytes);
        let cache = PolicyCache::open(Some(folder.0.clone())).unwrap();
        cache.keep(&digest, bytes.clone()).await;
        cache.note("a-uid", Role::Deciding, &digest, "{\"percent\":1}").await;

        let cache = PolicyCache::open(Some(folder.0.clone())).unwrap();
        let found = cache.find("a-uid", Role::Deciding, digest.as_str()).await;
        assert_eq!(found, Some((bytes.clone(), "{\"percent\":1}".to_owned())));
        assert_eq!(
            cache.find("a-uid", Role::Deciding, Digest::of(b"newer").as_str()).await,
            None,
            "the status is newer"
        );
        assert_eq!(
            cache.find("../a-uid", Role::Deciding, digest.as_str()).await,
            cache.find("a-uid", Role::Deciding, digest.as_str()).await
        );

        fs::write(component(&folder.0, &digest), b"changed").unwrap();
        assert_eq!(cache.find("a-uid", Role::Deciding, digest.as_str()).await, None, "other bytes");
        cache.keep(&digest, bytes).await;
        cache.forget("a-uid").await;
        assert_eq!(cache.find("a-uid", Role::Deciding, digest.as_str()).await, None, "forgotten");
    }

    #[tokio::test]
    async fn i3_a_policy_on_trial_does_not_take_the_place_of_the_one_that_decides() {
        let folder = Folder::new("roles");
        let cache = PolicyCache::open(Some(folder.0.clone())).unwrap();
        let [good, tried] =
            [&b"good"[..], b"tried"].map(|bytes| (Digest::of(bytes), Arc::<[u8]>::from(bytes)));
        for (digest, bytes) in [&good, &tried] {
            cache.keep(digest, bytes.clone()).await;
        }
        cache.note("uid", Role::Deciding, &good.0, "{}").await;
        cache.note("uid", Role::OnTrial, &tried.0, "{\"percent\":1}").await;
        let found = |role, digest: &Digest| {
            let (cache, digest) = (cache.clone(), digest.to_string());
            async move { cache.find("uid", role, &digest).await.map(|(_, config)| config) }
        };
        assert_eq!(found(Role::Deciding, &good.0).await.as_deref(), Some("{}"));
        assert_eq!(found(Role::OnTrial, &tried.0).await.as_deref(), Some("{\"percent\":1}"));
        // They have changed places, and the operator was stopped before it noted that.
        assert_eq!(found(Role::Deciding, &tried.0).await.as_deref(), Some("{\"percent\":1}"));
        assert_eq!(found(Role::OnTrial, &good.0).await.as_deref(), Some("{}"));
        cache.forget("uid").await;
        assert_eq!(found(Role::Deciding, &good.0).await, None);
        assert_eq!(found(Role::OnTrial, &tried.0).await, None);
    }

    #[tokio::test]
    async fn without_a_folder_nothing_is_kept() {
        let cache = PolicyCache::open(None).unwrap();
        cache.note("uid", Role::Deciding, &Digest::of(b""), "{}").await;
        assert!(
            !cache.exists() && cache.find("uid", Role::Deciding, Digest::of(b"").as_str()).await.is_none()
        );
    }

    #[test]
    fn the_longest_unused_components_go_first() {
        let folder = Folder::new("prune");
        fs::create_dir_all(&folder.0).unwrap();
        for (age, name) in [(30, "old"), (20, "used"), (10, "new")] {
            let file = folder.0.join(name);
            fs::write(&file, [0; 100]).unwrap();
            let then = SystemTime::now() - Duration::from_secs(age);
            fs::File::options().append(true).open(file).unwrap().set_modified(then).unwrap();
        }
        prune(&folder.0, 250).unwrap();
        let left: Vec<_> = ["old", "used", "new"].map(|name| folder.0.join(name).exists()).into();
        assert_eq!(left, [false, true, true]);
    }
}
