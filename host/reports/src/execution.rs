//! What is known of an execution while it is reported to: what its files take, so that they stay within bounds, and its
//! nodes, so that each file has one owner. Both are read from the store when it is first reported to.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::path::Path as ObjectPath;
use tokio::sync::OnceCell;

use crate::cluster::ExecutionView;
use crate::manifest::Manifest;
use crate::refusal::Refusal;
use crate::slot::{ExecutionId, JobKey, PodSlot};
use crate::store::{self, Store, StoreError};

/// What the smallest file takes, in bytes.
const BLOCK: u64 = 4 << 10;
type Id = (JobKey, ExecutionId);

/// The executions that are being reported to.
pub struct Executions {
    store: Store,
    open: Mutex<HashMap<Id, Arc<Execution>>>,
    /// Held while an execution's folder is made: whoever comes second finds it synced, not only made.
    opening: tokio::sync::Mutex<()>,
}

/// One of them.
pub struct Execution {
    pub folder: ObjectPath,
    loaded: OnceCell<()>,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    sizes: HashMap<String, u64>,
    used: u64,
    reserved: u64,
    nodes: Arc<BTreeSet<String>>,
}

impl Executions {
    pub fn new(store: Store) -> Self {
        Self { store, open: Mutex::default(), opening: tokio::sync::Mutex::default() }
    }

    /// The execution that a pod reports to, its folder made and durable.
    pub async fn open(&self, slot: &PodSlot, view: &ExecutionView) -> Result<Arc<Execution>, Refusal> {
        let (job, id) = (&slot.job, &slot.execution);
        let missing = || Refusal::Unknown(crate::cluster::Unknown::Execution(id.clone()));
        let folder = store::execution_folder(job, id).ok_or_else(missing)?;
        let execution = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let make = || Arc::new(Execution { folder, loaded: OnceCell::new(), ledger: Mutex::default() });
            open.entry((job.clone(), id.clone())).or_insert_with(make).clone()
        };
        execution.loaded.get_or_try_init(|| self.load(&execution, view)).await?;
        let nodes = execution.nodes();
        if !nodes.contains(&slot.node) || nodes.len() < view.nodes.len() {
            self.describe(&execution, view).await?;
        }
        Ok(execution)
    }

    async fn load(&self, execution: &Execution, view: &ExecutionView) -> Result<(), StoreError> {
        let files = self.store.files(&execution.folder).await?;
        {
            let mut ledger = execution.ledger();
            ledger.used = files.iter().map(|file| charge(file.size)).sum();
            ledger.sizes = files.into_iter().map(|file| (file.name, file.size)).collect();
        }
        self.describe(execution, view).await
    }

    async fn describe(&self, execution: &Execution, view: &ExecutionView) -> Result<(), StoreError> {
        let _alone = self.opening.lock().await;
        let known = Manifest::read(&self.store, &execution.folder).await?;
        let mut manifest = known.clone();
        manifest.expect(view);
        if manifest != known {
            manifest.write(&self.store, &execution.folder).await?;
        }
        self.store.settle(&execution.folder).await?;
        execution.ledger().nodes = Arc::new(manifest.names());
        Ok(())
    }

    /// Writes down durably how an execution ended, unless that has been done. Returns what is written.
    pub async fn conclude(
        &self,
        job: &JobKey,
        id: &ExecutionId,
        view: &ExecutionView,
    ) -> Result<Manifest, StoreError> {
        let Some(folder) = store::execution_folder(job, id) else { return Ok(Manifest::default()) };
        let _alone = self.opening.lock().await;
        let mut manifest = Manifest::read(&self.store, &folder).await?;
        if manifest.ended.is_none() {
            manifest.conclude(view);
            manifest.write(&self.store, &folder).await?;
            self.store.settle(&folder).await?;
        }
        Ok(manifest)
    }

    /// Forgets an execution that nobody reports to right now; false if somebody does.
    pub fn forget(&self, job: &JobKey, id: &ExecutionId) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (job.clone(), id.clone());
        match open.get(&id) {
            Some(execution) if Arc::strong_count(execution) > 1 => false,
            _ => {
                open.remove(&id);
                true
            }
        }
    }

    /// Forgets those that the predicate names, save what is reported to right now.
    pub fn forget_where(&self, over: impl Fn(&JobKey, &ExecutionId) -> bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(job, id), execution| Arc::strong_count(execution) > 1 || !over(job, id));
    }
}

impl Execution {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All nodes of the execution.
    pub fn nodes(&self) -> Arc<BTreeSet<String>> {
        self.ledger().nodes.clone()
    }

    /// Room for a file, which grows with it; `limit` is that of the execution, in bytes.
    pub fn room(self: &Arc<Self>, limit: u64) -> Room {
        Room { execution: self.clone(), limit, held: 0 }
    }
}

/// Room that is kept for a file that is being written. Dropped, it is free again.
pub struct Room {
    execution: Arc<Execution>,
    limit: u64,
    held: u64,
}

impl Room {
    /// Makes sure that there is room for so many bytes in all.
    pub fn cover(&mut self, size: u64) -> Result<(), Refusal> {
        let more = charge(size).saturating_sub(self.held);
        let mut ledger = self.execution.ledger();
        if ledger.used.saturating_add(ledger.reserved).saturating_add(more) > self.limit {
            return Err(Refusal::ExecutionFull(self.limit));
        }
        ledger.reserved += more;
        self.held += more;
        Ok(())
    }

    /// Counts the file as kept, in place of one of that name.
    pub fn keep(self, name: &str, size: u64) {
        let mut ledger = self.execution.ledger();
        let old = ledger.sizes.insert(name.to_owned(), size).map_or(0, charge);
        ledger.used = (ledger.used + charge(size)).saturating_sub(old);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.execution.ledger().reserved -= self.held;
    }
}

/// What a file takes.
fn charge(size: u64) -> u64 {
    size.max(1).div_ceil(BLOCK) * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution() -> Arc<Execution> {
        let folder = store::folder(&["ns", "job", "1"]).unwrap();
        Arc::new(Execution { folder, loaded: OnceCell::new(), ledger: Mutex::default() })
    }

    #[test]
    fn room_is_shared_and_given_back() {
        let execution = execution();
        let mut one = execution.room(3 * BLOCK);
        let mut other = execution.room(3 * BLOCK);
        one.cover(BLOCK + 1).unwrap();
        other.cover(1).unwrap();
        assert!(matches!(other.cover(BLOCK + 1), Err(Refusal::ExecutionFull(_))));
        drop(one);
        other.cover(3 * BLOCK).unwrap();
        other.keep("a", 3 * BLOCK);
        assert!(execution.room(3 * BLOCK).cover(1).is_err());
        assert!(execution.room(4 * BLOCK).cover(1).is_ok());
    }

    #[test]
    fn a_file_that_replaces_another_counts_once() {
        let execution = execution();
        for _ in 0..5 {
            let mut room = execution.room(2 * BLOCK);
            room.cover(10).unwrap();
            room.keep("a", 10);
        }
        assert_eq!(execution.ledger().used, BLOCK);
        assert_eq!(execution.ledger().reserved, 0);
    }
}
