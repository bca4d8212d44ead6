//! Removes executions that are over a job's history or too old, with their metrics, and those of jobs that are gone.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use object_store::path::Path as ObjectPath;

use crate::cluster::JobView;
use crate::service::Reports;
use crate::slot::{ExecutionId, JobKey};
use crate::store::{self, StoreError};

/// What a round removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub executions: u64,
}

/// Prunes all jobs. `jobs` are all that there are.
pub async fn prune(reports: &Reports, jobs: &[Arc<JobView>]) -> Result<Pruned, StoreError> {
    let mut pruned = Pruned::default();
    for job in jobs {
        pruned.executions += prune_job(reports, job).await?;
    }
    for namespace in reports.store.folders(None).await? {
        let Some(folder) = store::folder(&[&namespace]) else { continue };
        for name in reports.store.folders(Some(&folder)).await? {
            let key = JobKey { namespace: namespace.clone(), name };
            if jobs.iter().all(|job| job.key != key) {
                pruned.executions += prune_orphan(reports, &key).await?;
            }
        }
    }
    let running = |job: &JobKey, id: &ExecutionId| {
        let view = jobs.iter().find(|view| view.key == *job);
        view.and_then(|view| view.executions.get(id)).is_some_and(|execution| execution.ended.is_none())
    };
    reports.executions.forget_where(|job, id| !running(job, id));
    Ok(pruned)
}

async fn prune_job(reports: &Reports, job: &JobView) -> Result<u64, StoreError> {
    let kept = reports.kept(job).await?;
    let over = kept.len().saturating_sub(job.retention.history);
    let mut removed = 0;
    for (at, id) in kept.iter().enumerate() {
        let runs = job.executions.get(id).is_some_and(|execution| execution.ended.is_none());
        if runs {
            continue;
        }
        let gone = at < over
            || match job.retention.ttl {
                Some(ttl) => is_older(reports, &job.key, id, ttl).await?,
                None => false,
            };
        if gone {
            removed += remove(reports, &job.key, id).await?;
        } else {
            // The rest is newer still.
            break;
        }
    }
    Ok(removed)
}

async fn prune_orphan(reports: &Reports, key: &JobKey) -> Result<u64, StoreError> {
    let Some(folder) = store::job_folder(key) else { return Ok(0) };
    let mut removed = 0;
    for id in reports.store.folders(Some(&folder)).await? {
        // What is not named like an execution is not ours.
        let Ok(id) = id.parse() else { continue };
        if is_older(reports, key, &id, reports.limits.orphans).await? {
            removed += remove(reports, key, &id).await?;
        }
    }
    Ok(removed)
}

fn folder(key: &JobKey, id: &ExecutionId) -> Option<ObjectPath> {
    store::execution_folder(key, id)
}

/// Whether the last report to an execution was longer ago than that.
async fn is_older(
    reports: &Reports,
    key: &JobKey,
    id: &ExecutionId,
    age: Duration,
) -> Result<bool, StoreError> {
    let Some(folder) = folder(key, id) else { return Ok(false) };
    let last = reports.store.files(&folder).await?.into_iter().map(|file| file.modified).max();
    let since = last.map(|last| Timestamp::now().duration_since(last).unsigned_abs());
    Ok(since.is_some_and(|since| since > age))
}

async fn remove(reports: &Reports, key: &JobKey, id: &ExecutionId) -> Result<u64, StoreError> {
    let Some(folder) = folder(key, id) else { return Ok(0) };
    if !reports.executions.forget(key, id) {
        return Ok(0);
    }
    reports.store.remove_all(&folder).await?;
    reports.series.prune(key, id);
    tracing::info!(job = %key, execution = %id, "reports pruned");
    Ok(1)
}
