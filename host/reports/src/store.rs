//! What is kept, over `object_store`: a directory today, a bucket when that is asked for. What this adds to it is small: whole
//! files or none, errors that tell a full disk from others, and that nothing is left behind by a process that was killed.
//!
//! A write goes to `<file>#<number>` first. Both are synced to disk before a write returns: the file's bytes before it is
//! renamed, its directory after (`LocalFileSystem::with_fsync`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::path::{Path as ObjectPath, PathPart};
use object_store::{GetResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutPayload};

use crate::names::MAX_FILE;
use crate::slot::{ExecutionId, JobKey};

/// Bytes that are gathered before they are written.
const PART: usize = 64 << 10;

/// Why something was not kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store is full: give its volume more room, or keep fewer reports")]
    Full,
    #[error("the store does not work: {0}")]
    Failed(object_store::Error),
    #[error("the store at {path} cannot be used: {error}")]
    Unusable { path: PathBuf, error: io::Error },
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(one) = cause {
            let kind = one.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
                return Self::Full;
            }
            cause = one.source();
        }
        Self::Failed(error)
    }
}

/// A kept file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub name: String,
    /// In bytes.
    pub size: u64,
    pub modified: Timestamp,
}

/// Where reports are kept: `<namespace>/<job>/<execution>/<file>`.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Option<PathBuf>,
}

/// The folder of a job.
pub fn job_folder(job: &JobKey) -> Option<ObjectPath> {
    folder(&[&job.namespace, &job.name])
}

/// The folder of an execution.
pub fn execution_folder(job: &JobKey, execution: &ExecutionId) -> Option<ObjectPath> {
    folder(&[&job.namespace, &job.name, execution.as_str()])
}

/// A path of segments, `None` if one of them would lead elsewhere: a separator, dots only, control characters, too long,
/// or what marks temporary files.
pub fn folder(segments: &[&str]) -> Option<ObjectPath> {
    let mut path = String::new();
    for segment in segments {
        let fits = (1..=MAX_FILE).contains(&segment.len()) && !segment.contains('#');
        PathPart::parse(segment).ok().filter(|_| fits)?;
        path.push('/');
        path.push_str(segment);
    }
    ObjectPath::parse(&path).ok()
}

/// A file in a folder, under the same rules.
pub fn file(folder: &ObjectPath, name: &str) -> Option<ObjectPath> {
    let fits = (1..=MAX_FILE).contains(&name.len()) && !name.contains('#');
    PathPart::parse(name).ok().filter(|_| fits)?;
    ObjectPath::parse(format!("{folder}/{name}")).ok()
}

impl Store {
    /// A directory, made if it is missing. What a killed process left half-written there is removed; hence one process at a
    /// time.
    pub fn local(root: &Path) -> Result<Self, StoreError> {
        let unusable = |error| StoreError::Unusable { path: root.to_owned(), error };
        std::fs::create_dir_all(root).map_err(unusable)?;
        let root = root.canonicalize().map_err(unusable)?;
        sweep(&root, Duration::ZERO).map_err(|error| StoreError::Unusable { path: root.clone(), error })?;
        let objects = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self { objects: Arc::new(objects), root: Some(root) })
    }

    /// Any other store. A write must be durable when it returns, and parts of 64 KiB must be welcome: most buckets ask for
    /// 5 MiB.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, root: None }
    }

    /// Keeps a whole file, replacing one of that name.
    pub async fn put(&self, path: &ObjectPath, body: Bytes) -> Result<(), StoreError> {
        self.objects.put(path, PutPayload::from_bytes(body)).await?;
        Ok(())
    }

    /// Begins a file that comes in pieces. Nobody sees it before it is finished.
    pub async fn begin(&self, path: &ObjectPath) -> Result<Writing, StoreError> {
        let upload = self.objects.put_multipart(path).await?;
        Ok(Writing { upload, part: Vec::with_capacity(PART) })
    }

    /// Makes sure that a folder, not what is in it, survives a crash of the machine, even if a process was killed between
    /// making the folder and syncing the one above.
    pub async fn settle(&self, folder: &ObjectPath) -> Result<(), StoreError> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        let parts: Vec<String> = folder.parts().map(|part| part.as_ref().to_owned()).collect();
        let synced = tokio::task::spawn_blocking(move || {
            let mut at = root;
            File::open(&at)?.sync_all()?;
            for part in parts {
                at.push(part);
                File::open(&at)?.sync_all()?;
            }
            Ok(())
        });
        let failed = |error| StoreError::Unusable { path: PathBuf::from(folder.as_ref()), error };
        synced.await.map_err(io::Error::other).and_then(|done| done).map_err(failed)
    }

    /// A file, to be read in pieces; `None` if there is none.
    pub async fn get(&self, path: &ObjectPath) -> Result<Option<GetResult>, StoreError> {
        match self.objects.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A whole file of at most `most` bytes; `None` if there is none, or if it is larger.
    pub async fn read(&self, path: &ObjectPath, most: u64) -> Result<Option<Bytes>, StoreError> {
        match self.get(path).await? {
            Some(found) if found.meta.size <= most => Ok(Some(found.bytes().await?)),
            _ => Ok(None),
        }
    }

    /// The folders in a folder, by name.
    pub async fn folders(&self, within: Option<&ObjectPath>) -> Result<Vec<String>, StoreError> {
        let listed = self.objects.list_with_delimiter(within).await;
        let found = match listed {
            Ok(found) => found.common_prefixes,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut names: Vec<String> = found.iter().filter_map(|p| p.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// The files in a folder, by name. Those of folders within it are not among them.
    pub async fn files(&self, within: &ObjectPath) -> Result<Vec<Kept>, StoreError> {
        let listed = self.objects.list_with_delimiter(Some(within)).await;
        let found = match listed {
            Ok(found) => found.objects,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut files: Vec<Kept> = found.iter().filter_map(kept).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Removes all that is in a folder, the folders within and the folder itself.
    pub async fn remove_all(&self, within: &ObjectPath) -> Result<(), StoreError> {
        let listed = self.objects.list(Some(within)).map_ok(|meta| meta.location).boxed();
        let mut removed = self.objects.delete_stream(listed);
        while let Some(one) = removed.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes temporary files that nobody has written to for longer than that.
    pub async fn sweep(&self, older: Duration) -> Result<(), StoreError> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        let swept = {
            let root = root.clone();
            tokio::task::spawn_blocking(move || sweep(&root, older)).await
        };
        let failed = |error| StoreError::Unusable { path: root, error };
        swept.map_err(io::Error::other).and_then(|done| done).map_err(failed)
    }
}

fn kept(meta: &ObjectMeta) -> Option<Kept> {
    let modified = Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or_default();
    Some(Kept { name: meta.location.filename()?.to_owned(), size: meta.size, modified })
}

fn sweep(folder: &Path, older: Duration) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        // Not ours: a volume's `lost+found`.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sweep(&entry.path(), older)?;
        } else if kind.is_file() && is_temporary(&entry.file_name().to_string_lossy()) {
            let modified = entry.metadata()?.modified()?;
            if SystemTime::now().duration_since(modified).unwrap_or_default() >= older {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Whether a file is a write that was not finished. No kept file has a `#` in its name.
fn is_temporary(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// A file that is being written. Dropped or aborted, it leaves nothing.
pub struct Writing {
    upload: Box<dyn MultipartUpload>,
    part: Vec<u8>,
}

impl Writing {
    /// Takes more bytes. What is held in memory is at most one part.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if self.part.len() == PART {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(PART));
        self.upload.put_part(PutPayload::from(part)).await?;
        Ok(())
    }

    /// Syncs and shows the file; it is durable when this returns.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        let written = match self.part.is_empty() {
            true => Ok(()),
            false => self.flush().await,
        };
        if let Err(error) = written {
            self.abort().await;
            return Err(error);
        }
        self.upload.complete().await?;
        Ok(())
    }

    /// Gives up.
    pub async fn abort(mut self) {
        // A temporary file that cannot be removed now is removed by the next sweep.
        let _ = self.upload.abort().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_a_path_outside_the_store() {
        for bad in ["..", ".", "", "a/b", "/", "a\0b", "a\nb", "x#1", &"x".repeat(241)] {
            assert_eq!(folder(&["ns", bad]), None, "{bad:?}");
        }
        assert_eq!(folder(&["ns", "job", "1"]).unwrap().as_ref(), "ns/job/1");
    }

    #[test]
    fn a_full_disk_is_told_from_other_trouble() {
        let error =
            |kind| object_store::Error::Generic { store: "x", source: Box::new(io::Error::from(kind)) };
        assert!(matches!(error(io::ErrorKind::StorageFull).into(), StoreError::Full));
        assert!(matches!(error(io::ErrorKind::QuotaExceeded).into(), StoreError::Full));
        assert!(matches!(error(io::ErrorKind::PermissionDenied).into(), StoreError::Failed(_)));
    }

    #[tokio::test]
    async fn never_half_written_files_leftovers_go_at_the_start() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("ns/job/1");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["n-a.txt#1", "n-a.txt", "n-b#x", ".execution.json#12"] {
            std::fs::write(folder.join(name), "x").unwrap();
        }
        Store::local(root.path()).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["n-a.txt", "n-b#x"]);
    }

    #[tokio::test]
    async fn a_file_shows_when_it_is_finished_and_not_before() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::local(root.path()).unwrap();
        let folder = folder(&["ns", "job", "1"]).unwrap();
        let path = file(&folder, "n-a.txt").unwrap();
        let body = vec![7; 3 * PART + 5];
        let mut writing = store.begin(&path).await.unwrap();
        writing.write(&body).await.unwrap();
        assert!(store.get(&path).await.unwrap().is_none());
        writing.finish().await.unwrap();
        store.settle(&folder).await.unwrap();
        assert_eq!(store.read(&path, 1 << 20).await.unwrap().unwrap(), body);
        assert_eq!(store.files(&folder).await.unwrap().len(), 1);
        let mut writing = store.begin(&path).await.unwrap();
        writing.write(b"other").await.unwrap();
        writing.abort().await;
        assert_eq!(store.read(&path, 1 << 20).await.unwrap().unwrap().len(), body.len());
        assert_eq!(std::fs::read_dir(root.path().join("ns/job/1")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_removed_leaves_no_folder() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::local(root.path()).unwrap();
        let folder = folder(&["ns", "job", "1"]).unwrap();
        store.put(&file(&folder, "n.json").unwrap(), Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!(store.folders(None).await.unwrap(), ["ns"]);
        store.remove_all(&folder).await.unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        store.remove_all(&folder).await.unwrap();
    }
}
