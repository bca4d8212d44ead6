//! The service as a whole, and what it does besides answering: it reads results back after a start, writes down how
//! executions ended, and prunes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::capability::Keys;
use crate::cluster::{Cluster, ExecutionView, JobView, NotReady};
use crate::execution::Executions;
use crate::gate::{Gate, Limits};
use crate::manifest::Manifest;
use crate::metrics::{Counters, Exposed};
use crate::names;
use crate::prune::{self, Pruned};
use crate::result;
use crate::series::Series;
use crate::slot::{ExecutionId, PodSlot};
use crate::store::{self, Store, StoreError};

/// How often it is looked what is to be read or pruned.
const UPKEEP: Duration = Duration::from_secs(30);
/// How often temporary files are looked for that a failed write has left.
const SWEEP: Duration = Duration::from_secs(3600);
/// How soon again while the cluster is not known.
const SOON: Duration = Duration::from_millis(200);
/// How long changes of the cluster are gathered before they are taken up.
const TOGETHER: Duration = Duration::from_secs(1);

/// The report service.
pub struct Reports {
    pub(crate) store: Store,
    keys: RwLock<Keys>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    pub(crate) executions: Executions,
    pub(crate) series: Arc<Series>,
    pub(crate) counters: Counters,
    registry: Registry,
    ready: AtomicBool,
}

impl Reports {
    pub fn new(store: Store, keys: Keys, cluster: Arc<dyn Cluster>, limits: Limits) -> Arc<Self> {
        let series = Arc::new(Series::default());
        let mut registry = Registry::default();
        let counters = Counters::new(&mut registry);
        registry.register_collector(Box::new(Exposed { series: series.clone(), cluster: cluster.clone() }));
        Arc::new(Self {
            gate: Gate::new(&limits),
            executions: Executions::new(store.clone()),
            ready: AtomicBool::new(false),
            store,
            keys: RwLock::new(keys),
            cluster,
            limits,
            series,
            counters,
            registry,
        })
    }

    /// Whether the cluster is known and results have been read back.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// All metrics, in the OpenMetrics format.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }

    /// Takes other keys: from now on they prove URLs.
    pub fn change_keys(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether the proof was made for this slot.
    pub(crate) fn proves(&self, slot: &PodSlot, proof: &str) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).verify(slot, proof)
    }

    /// Keeps the metrics and the store in order until told to stop.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut swept = Instant::now();
        let mut changes = self.cluster.changes();
        loop {
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                if let Err(error) = self.store.sweep(self.limits.whole * 2).await {
                    tracing::warn!(%error, "temporary files cannot be removed");
                }
            }
            let again = match self.upkeep().await {
                Ok(_) => UPKEEP,
                Err(Upkeep::NotReady(_)) => SOON,
                Err(Upkeep::Store(error)) => {
                    tracing::warn!(%error, "reports cannot be looked after, trying again");
                    UPKEEP
                }
            };
            let next = Instant::now() + again;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.follow_until(next, &mut changes) => {}
            }
        }
    }

    /// Takes up what changes in the cluster soon after it does, until that time: jobs that are new, and how executions ended.
    async fn follow_until(&self, end: Instant, changes: &mut watch::Receiver<u64>) {
        let until = tokio::time::Instant::from_std(end);
        while let Ok(Ok(())) = tokio::time::timeout_at(until, changes.changed()).await {
            tokio::time::sleep_until(until.min(tokio::time::Instant::now() + TOGETHER)).await;
            changes.borrow_and_update();
            for job in self.cluster.jobs().unwrap_or_default() {
                if let Err(error) = self.take_up(&job).await {
                    // The next round tries it again.
                    tracing::debug!(job = %job.key, %error, "reports cannot be looked after");
                }
            }
        }
        tokio::time::sleep_until(until).await;
    }

    /// Reads back the results of a job that is new, and writes down how its executions ended.
    async fn take_up(&self, job: &Arc<JobView>) -> Result<(), StoreError> {
        if self.series.wants(job) {
            self.restore(job).await?;
        }
        self.conclude(job, false).await
    }

    /// One round: reads back the results of jobs that are new or whose metrics changed, writes down how executions ended, and
    /// prunes what is over the history or too old, with its metrics. Pruning is done whatever cannot be written: it makes room.
    pub async fn upkeep(&self) -> Result<Pruned, Upkeep> {
        let jobs = self.cluster.jobs()?;
        for job in &jobs {
            if self.series.wants(job) {
                self.restore(job).await?;
            }
        }
        self.series.keep_jobs(&jobs);
        self.ready.store(true, Ordering::Release);
        let mut concluded = Ok(());
        for job in &jobs {
            concluded = self.conclude(job, true).await.and(concluded);
        }
        let pruned = prune::prune(self, &jobs).await?;
        self.counters.pruned.inc_by(pruned.executions);
        concluded?;
        Ok(pruned)
    }

    /// Writes down how executions of a job ended that are over, also those to which nobody reported. With `all`, those that
    /// are not kept any more are told from those that are.
    async fn conclude(&self, job: &JobView, all: bool) -> Result<(), StoreError> {
        let ended: Option<Vec<(&ExecutionId, &ExecutionView)>> = self.series.with(job, |series| {
            let ended =
                job.executions.iter().filter(|(_, view)| view.ended.is_some() && (all || view.is_settled()));
            ended.filter(|(id, _)| !series.over.contains_key(id) && !series.pruned.contains(id)).collect()
        });
        let ended = ended.unwrap_or_default();
        if ended.is_empty() {
            return Ok(());
        }
        let mut kept: BTreeSet<ExecutionId> = self.kept(job).await?.into_iter().collect();
        for (id, view) in ended.into_iter().rev() {
            let newer = kept.range(id..).filter(|kept| *kept != id).count();
            let too_old = !kept.contains(id) && job.retention.is_too_old(view.ended);
            if newer >= job.retention.history || too_old {
                self.series.prune(&job.key, id);
            } else if view.is_settled() {
                let manifest = self.executions.conclude(&job.key, id, view).await?;
                self.series.conclude(job, id, manifest);
                kept.insert(id.clone());
            }
        }
        Ok(())
    }

    /// Reads the results of all kept executions of a job, the newest first.
    async fn restore(&self, job: &Arc<JobView>) -> Result<(), StoreError> {
        self.series.begin(job);
        for id in self.kept(job).await?.into_iter().rev() {
            let Some(folder) = store::execution_folder(&job.key, &id) else { continue };
            let manifest = Manifest::read(&self.store, &folder).await?;
            let mut nodes = manifest.names();
            self.series.conclude(job, &id, manifest);
            nodes.extend(job.executions.get(&id).into_iter().flat_map(|e| e.nodes.keys().cloned()));
            for kept in self.store.files(&folder).await? {
                let owner = names::owner(&kept.name, &nodes);
                let Some(node) = owner.filter(|node| names::result_file(node) == kept.name) else { continue };
                let Some(path) = store::file(&folder, &kept.name) else { continue };
                let most = self.limits.result_bytes as u64;
                let Some(body) = self.store.read(&path, most).await? else { continue };
                // Only results were kept that could be read.
                if let Ok(read) = result::parse(&body) {
                    self.series.restore(job, &id, node, result::samples(&read, job.metrics.as_ref()));
                }
            }
        }
        self.series.done(job);
        Ok(())
    }

    /// The executions of a job that are in the store, the oldest first.
    pub(crate) async fn kept(&self, job: &JobView) -> Result<Vec<ExecutionId>, StoreError> {
        let Some(folder) = store::job_folder(&job.key) else { return Ok(Vec::new()) };
        let names = self.store.folders(Some(&folder)).await?;
        let mut ids: Vec<_> = names.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }
}

/// Why a round of upkeep did not get through.
#[derive(Debug, thiserror::Error)]
pub enum Upkeep {
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error(transparent)]
    Store(#[from] StoreError),
}
