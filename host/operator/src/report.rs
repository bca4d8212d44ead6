//! Telling: the status when it changed, and Events when a condition did. Looks hand over what there is to tell and go
//! on: no replacement waits for a status. What is newest is written, at most once a second for an object.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::core::request::Request;
use kube::runtime::events::{Event, EventType};
use serde::de::IgnoredAny;
use serde_json::json;
use stoker_core::pool::status::{PoolStatus, differs};
use tokio::sync::Semaphore;

use crate::again::ERRORS;
use crate::apply::timed;
use crate::context::Context;
use crate::object::Pool;

/// A status is written at most this often.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// Statuses that are written at a time: they leave the API server to creations, which somebody waits for.
const AT_A_TIME: usize = 8;

/// What is to be told of each object, by UID.
pub struct Reports {
    objects: Mutex<HashMap<String, Told>>,
    permits: Semaphore,
}

struct Told {
    /// What was written last.
    written: Arc<PoolStatus>,
    /// The object says that: no later write failed, which may have been carried out all the same.
    sure: bool,
    /// What it is to say.
    next: Option<(Pool, Arc<PoolStatus>)>,
    /// A task is at it.
    at_work: bool,
}

impl Default for Reports {
    fn default() -> Self {
        Self { objects: Mutex::default(), permits: Semaphore::new(AT_A_TIME) }
    }
}

impl Reports {
    fn objects(&self) -> MutexGuard<'_, HashMap<String, Told>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.objects().remove(uid);
    }

    /// Takes what is to be written, with what is there; None = nothing, and the task that asks ends.
    fn take(&self, uid: &str) -> Option<(Pool, Arc<PoolStatus>, Arc<PoolStatus>)> {
        let mut objects = self.objects();
        let told = objects.get_mut(uid)?;
        while let Some((pool, new)) = told.next.take() {
            // What changed may have changed back meanwhile.
            if !told.sure || differs(&told.written, &new) {
                return Some((pool, told.written.clone(), new));
            }
        }
        told.at_work = false;
        None
    }

    fn wrote(&self, uid: &str, status: Arc<PoolStatus>) {
        if let Some(told) = self.objects().get_mut(uid) {
            told.written = status;
            told.sure = true;
        }
    }

    /// What could not be written is still to be told, unless there is something newer.
    fn put_back(&self, uid: &str, pool: Pool, status: Arc<PoolStatus>) {
        if let Some(told) = self.objects().get_mut(uid) {
            told.sure = false;
            told.next.get_or_insert((pool, status));
        }
    }
}

/// Has a status written soon. `previous` is what the object says if nothing was handed over yet.
pub(crate) fn report(context: &Arc<Context>, pool: &Pool, previous: &Arc<PoolStatus>, new: Arc<PoolStatus>) {
    let uid = pool.uid().to_owned();
    let mut objects = context.reports.objects();
    let told = objects.entry(uid.clone()).or_insert_with(|| Told {
        written: previous.clone(),
        sure: true,
        next: None,
        at_work: false,
    });
    told.next = Some((pool.clone(), new));
    if !std::mem::replace(&mut told.at_work, true) {
        tokio::spawn(write_all(context.clone(), uid));
    }
}

/// Writes what there is to tell of an object until there is nothing any more.
async fn write_all(context: Arc<Context>, uid: String) {
    let mut failures = 0;
    loop {
        // The semaphore is never closed.
        let permit = context.reports.permits.acquire().await;
        let Some((pool, before, new)) = context.reports.take(&uid) else { return };
        let began = Instant::now();
        let outcome = write(&context, &pool, &new).await;
        drop(permit);
        match outcome {
            Ok(()) => {
                failures = 0;
                context.metrics.status_written("ok");
                context.reports.wrote(&uid, new.clone());
                publish(&pool, &context, &before.conditions, &new.conditions).await;
            }
            Err(kube::Error::Api(s)) if s.code == 404 || s.code == 409 && is_gone(&context, &pool) => {
                // There is nothing to tell any more.
                context.metrics.status_written("gone");
            }
            Err(error) => {
                failures += 1;
                context.metrics.status_written("error");
                tracing::warn!(object = %pool.key(), %error, "the status cannot be written, trying again");
                context.reports.put_back(&uid, pool, new);
                tokio::time::sleep(ERRORS.after(failures)).await;
                continue;
            }
        }
        tokio::time::sleep(STATUS_PERIOD.saturating_sub(began.elapsed())).await;
    }
}

/// Whether the watch has another object of the name, or none.
fn is_gone(context: &Context, pool: &Pool) -> bool {
    context.latest(&pool.key()).is_none_or(|latest| latest.uid() != pool.uid())
}

pub(crate) async fn write(context: &Context, pool: &Pool, status: &PoolStatus) -> Result<(), kube::Error> {
    let (api_version, kind) = pool.type_meta();
    let body = json!({
        "apiVersion": api_version,
        "kind": kind,
        // The UID makes the write fail for a namesake.
        "metadata": {"name": pool.name(), "uid": pool.uid()},
        "status": pool.status_json(status.clone()).map_err(kube::Error::SerdeError)?,
    });
    let params = PatchParams::apply("stoker").force();
    let mut request = Request::new(pool.url_path())
        .patch_subresource("status", pool.name(), &params, &Patch::Apply(&body))
        .map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert("write_status");
    // The answer is the whole object, which the watch brings, too.
    timed(context.client.request::<IgnoredAny>(request)).await.map(|_| ())
}

async fn publish(pool: &Pool, context: &Context, before: &[Condition], after: &[Condition]) {
    for condition in after {
        let old = before.iter().find(|c| c.type_ == condition.type_);
        if old.is_some_and(|c| c.status == condition.status && c.reason == condition.reason) {
            continue;
        }
        let bad = matches!(
            (condition.type_.as_str(), condition.status.as_str()),
            ("PolicyHealthy" | "TemplateValid" | "ProbesHealthy", "False") | ("Stalled" | "Conflict", "True")
        );
        // Loading takes a moment and is no trouble; a good state is news only after a bad one.
        let news = match condition.type_.as_str() {
            "Ready" => condition.status == "True" && condition.reason != "Paused",
            "PolicyHealthy" | "TemplateValid" | "ProbesHealthy" => {
                (bad && condition.reason != "Loading") || (!bad && old.is_some())
            }
            "Stalled" | "Conflict" => true,
            _ => false,
        };
        if !news {
            continue;
        }
        let event = Event {
            type_: if bad { EventType::Warning } else { EventType::Normal },
            reason: format!("{}{}", condition.type_, condition.reason),
            note: Some(condition.message.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = timed(context.recorder.publish(&event, &pool.object_ref())).await {
            tracing::warn!(%error, "an Event could not be written");
        }
    }
}
