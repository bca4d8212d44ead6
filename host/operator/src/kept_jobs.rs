//! Jobs that are kept until their outcome is in their owner's status: what kinds that make such Jobs share.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions, PropagationPolicy};
use stoker_api::keys;
use stoker_core::kept::Upkeep;

use crate::apply::{self, timed};
use crate::context::Context;

/// Does what is to be done with a Job that there is.
pub async fn upkeep(context: &Arc<Context>, jobs: &Api<Job>, upkeep: &Upkeep) -> Result<(), kube::Error> {
    match upkeep {
        Upkeep::Delete { job, uid, version } => {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: version.clone(),
                }),
                propagation_policy: Some(PropagationPolicy::Foreground),
                ..DeleteParams::default()
            };
            timed(jobs.delete(job, &params)).await.map(drop)
        }
        Upkeep::EndPod { pod, uid } => {
            let namespace = jobs.namespace().unwrap_or_default();
            apply::remove_pod(context, namespace, pod, uid, None).await.map(drop)
        }
        Upkeep::LetGo { job, uid } => {
            let found = timed(jobs.get_metadata_opt(job))
                .await?
                .filter(|found| found.metadata.uid.as_ref() == Some(uid));
            // The watch may be late to show that it was let go.
            let found = found.filter(|found| found.finalizers().iter().any(|f| f == keys::OUTCOME));
            let Some(found) = found else { return Ok(()) };
            apply::finalizer(jobs, &found.metadata, keys::OUTCOME, false).await
        }
    }
}
