//! Telling: the status when it changed, and Events when a condition did.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use serde_json::json;
use stoker_api::{HotStandbyDeployment, HotStandbyDeploymentStatus};
use stoker_core::pool::status::differs;

use crate::context::Context;
use crate::pool::{PoolState, ReconcileError};

/// A status is written at most this often.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// Writes the status if it changed, at most once a period, and tells conditions that changed as Events.
pub(crate) async fn report(
    object: &HotStandbyDeployment,
    context: &Context,
    state: &mut PoolState,
    previous: &HotStandbyDeploymentStatus,
    new: HotStandbyDeploymentStatus,
) -> Result<Option<Duration>, ReconcileError> {
    if !differs(previous, &new) {
        return Ok(None);
    }
    if let Some(wait) = state.written_at.and_then(|at| STATUS_PERIOD.checked_sub(at.elapsed())) {
        return Ok(Some(wait));
    }
    let meta = &object.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let api: Api<HotStandbyDeployment> =
        Api::namespaced(context.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let body = json!({
        "apiVersion": HotStandbyDeployment::api_version(&()),
        "kind": HotStandbyDeployment::kind(&()),
        // The UID makes the write fail for a namesake.
        "metadata": {"name": name, "uid": meta.uid},
        "status": new,
    });
    let params = PatchParams::apply("stoker").force();
    match api.patch_status(name, &params, &Patch::Apply(&body)).await {
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
    publish(object, context, &previous.conditions, &new.conditions).await;
    state.written = Some(new);
    Ok(None)
}

async fn publish(
    object: &HotStandbyDeployment,
    context: &Context,
    before: &[Condition],
    after: &[Condition],
) {
    for condition in after {
        let old = before.iter().find(|c| c.type_ == condition.type_);
        if old.is_some_and(|c| c.status == condition.status && c.reason == condition.reason) {
            continue;
        }
        let bad = matches!(
            (condition.type_.as_str(), condition.status.as_str()),
            ("PolicyHealthy" | "TemplateValid", "False") | ("Stalled" | "Conflict", "True")
        );
        // Loading takes a moment and is no trouble; a good state is news only after a bad one.
        let news = match condition.type_.as_str() {
            "Ready" => condition.status == "True" && condition.reason != "Paused",
            "PolicyHealthy" | "TemplateValid" => {
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
        if let Err(error) = context.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, "an Event could not be written");
        }
    }
}
