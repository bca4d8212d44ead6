//! Telling: the status when it changed, and Events when a condition did.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use serde_json::json;
use stoker_core::pool::status::{PoolStatus, differs};

use crate::context::Context;
use crate::object::Pool;
use crate::pool::{PoolState, ReconcileError};

/// A status is written at most this often.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// Writes the status if it changed, at most once a period, and tells conditions that changed as Events.
pub(crate) async fn report(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    previous: &PoolStatus,
    new: PoolStatus,
) -> Result<Option<Duration>, ReconcileError> {
    if !differs(previous, &new) {
        return Ok(None);
    }
    if let Some(wait) = state.written_at.and_then(|at| STATUS_PERIOD.checked_sub(at.elapsed())) {
        return Ok(Some(wait));
    }
    let (api_version, kind) = pool.type_meta();
    let body = json!({
        "apiVersion": api_version,
        "kind": kind,
        // The UID makes the write fail for a namesake.
        "metadata": {"name": pool.name(), "uid": pool.uid()},
        "status": pool.status_json(new.clone()).map_err(|e| ReconcileError::Status(kube::Error::SerdeError(e)))?,
    });
    let params = PatchParams::apply("stoker").force();
    let api = pool.api(context.client.clone());
    match api.patch_status(pool.name(), &params, &Patch::Apply(&body)).await {
        Ok(_) => context.metrics.status_written("ok"),
        // Deleted in the meantime: there is nothing to tell any more.
        Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {
            context.metrics.status_written("gone");
            return Ok(None);
        }
        Err(error) => {
            context.metrics.status_written("error");
            return Err(ReconcileError::Status(error));
        }
    }
    state.written_at = Some(Instant::now());
    publish(pool, context, &previous.conditions, &new.conditions).await;
    state.written = Some(new);
    Ok(None)
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
        if let Err(error) = context.recorder.publish(&event, &pool.object_ref()).await {
            tracing::warn!(%error, "an Event could not be written");
        }
    }
}
