//! What is done with Jobs that there are.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions, PropagationPolicy};
use stoker_api::keys;
use stoker_core::kept::Upkeep;

use super::{Keeper, KeptError, Memory, News, key, publish};
use crate::apply::{self, timed};
use crate::context::Context;

/// Deeds of one look that are done at a time.
const AT_A_TIME: usize = 8;

/// Something to do with a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// What every kind does.
    Upkeep(Upkeep),
    /// The same, and worth an Event.
    Told(Upkeep, &'static str, String),
    /// Delete a Job that has ended, and leave its pods to Kubernetes.
    Forget { job: String, uid: String },
}

impl From<Upkeep> for Deed {
    fn from(upkeep: Upkeep) -> Self {
        Self::Upkeep(upkeep)
    }
}

/// Does all of it; the first error.
pub async fn carry_out<K: Keeper>(
    context: &Arc<Context>,
    object: &Arc<K>,
    memory: &mut Memory<K>,
    deeds: Vec<Deed>,
) -> Option<KeptError> {
    let (key, mut failed) = (key(&**object), None);
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &key.namespace);
    let mut outcomes = stream::iter(deeds)
        .map(|deed| {
            let (jobs, object) = (jobs.clone(), object.clone());
            async move {
                let outcome = perform(context, &jobs, &deed).await;
                if let (Ok(()), Deed::Told(_, reason, words)) = (&outcome, &deed) {
                    publish(context, &*object, &[News::new(false, *reason, words.clone())]).await;
                }
                (deed, outcome)
            }
        })
        .buffer_unordered(AT_A_TIME);
    while let Some((deed, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => {
                tracing::info!(object = %key, ?deed, "done");
                if let Deed::Upkeep(Upkeep::LetGo { uid, .. }) = deed {
                    memory.note_let_go(uid);
                }
            }
            Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {
                tracing::debug!(object = %key, ?deed, "it has changed");
            }
            Err(error) => failed = failed.or(Some(error.into())),
        }
    }
    failed
}

/// Does what is to be done with a Job.
pub async fn perform(context: &Arc<Context>, jobs: &Api<Job>, deed: &Deed) -> Result<(), kube::Error> {
    match deed {
        Deed::Upkeep(upkeep) | Deed::Told(upkeep, ..) => self::upkeep(context, jobs, upkeep).await,
        Deed::Forget { job, uid } => delete(jobs, job, uid, None, PropagationPolicy::Background).await,
    }
}

async fn delete(
    jobs: &Api<Job>,
    name: &str,
    uid: &str,
    version: Option<&str>,
    how: PropagationPolicy,
) -> Result<(), kube::Error> {
    let preconditions =
        Preconditions { uid: Some(uid.to_owned()), resource_version: version.map(str::to_owned) };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        propagation_policy: Some(how),
        ..DeleteParams::default()
    };
    timed(jobs.delete(name, &params)).await.map(drop)
}

async fn upkeep(context: &Arc<Context>, jobs: &Api<Job>, upkeep: &Upkeep) -> Result<(), kube::Error> {
    match upkeep {
        Upkeep::Delete { job, uid, version } => {
            delete(jobs, job, uid, version.as_deref(), PropagationPolicy::Foreground).await
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
