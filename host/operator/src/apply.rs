//! Writes to the API server: members are created by POST under derived names and removed with preconditions.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::request::Request;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_api::keys;
use stoker_core::PodView;
use stoker_core::pool::jobs::{RemovalStep, removal};
use stoker_core::pool::{JobPods, Marks};

use crate::children;
use crate::context::Context;
use crate::object::Pool;
use crate::observe::Child;
use crate::slim_job::SlimJob;
use crate::slim_pod::SlimPod;

/// No write waits longer for its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// What became of a request to create a member.
pub enum Created {
    /// It exists now.
    Made(Box<PodView>),
    /// It existed already, and is ours: the watch has not shown it yet. None = it went in the meantime.
    Existed(Option<Box<PodView>>),
    /// Somebody else's has the name.
    Conflict(String),
    /// The API server refuses it, and will refuse it again: quota, a webhook, an invalid template.
    Refused(String),
    /// It could not be asked, is overloaded, or did not answer, so that it may have been done: try again.
    Failed(kube::Error),
}

/// What became of a request to remove or mark a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// It is done.
    Done,
    /// There is no such child.
    Gone,
    /// It changed since it was seen, or is another's; it is left alone.
    Conflict,
}

async fn post_member(
    context: &Context,
    pool: &Pool,
    body: &Value,
    dry_run: bool,
) -> Result<PodView, kube::Error> {
    let (client, namespace, call) = (&context.client, pool.namespace(), "create_member");
    match pool {
        Pool::Pods(_) => Ok(post::<SlimPod>(client, namespace, body, dry_run, call).await?.into_view()),
        Pool::Jobs(_) => Ok(member(post::<SlimJob>(client, namespace, body, dry_run, call).await?)),
    }
}

/// A Job as a member, by itself.
fn member(job: SlimJob) -> PodView {
    JobPods { job: &job.into_view(), pods: &[] }.member()
}

/// A call with a limit for its answer.
pub async fn timed<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(WRITE_TIMEOUT, call).await.unwrap_or_else(|_| {
        Err(kube::Error::Service(format!("no answer within {} s", WRITE_TIMEOUT.as_secs()).into()))
    })
}

/// Creates the member of a slot.
pub async fn create(context: &Context, pool: &Pool, body: &Value) -> Created {
    let outcome = match post_member(context, pool, body, false).await {
        Ok(made) => Created::Made(Box::new(made)),
        Err(kube::Error::Api(s)) if s.code == 409 && s.reason == "AlreadyExists" => {
            existing(context, pool, body["metadata"]["name"].as_str().unwrap_or_default()).await
        }
        Err(kube::Error::Api(s)) if matches!(s.code, 400 | 403 | 404 | 422) => {
            Created::Refused(s.message.clone())
        }
        Err(error) => Created::Failed(error),
    };
    context.metrics.created(match &outcome {
        Created::Made(_) => "created",
        Created::Existed(_) => "existed",
        Created::Conflict(_) => "conflict",
        Created::Refused(_) => "refused",
        Created::Failed(_) => "failed",
    });
    outcome
}

async fn existing(context: &Context, pool: &Pool, name: &str) -> Created {
    let found = match pool {
        Pool::Pods(_) => get::<SlimPod>(context, pool, name, SlimPod::into_view).await,
        Pool::Jobs(_) => get::<SlimJob>(context, pool, name, member).await,
    };
    match found {
        Ok(Some((owner, found))) if owner.as_deref() == Some(pool.uid()) => {
            Created::Existed(Some(Box::new(found)))
        }
        Ok(Some(_)) => Created::Conflict(name.to_owned()),
        Ok(None) => Created::Existed(None),
        Err(error) => Created::Failed(error),
    }
}

/// A child as a member, with the UID of its controller, if it exists.
async fn get<C: Child>(
    context: &Context,
    pool: &Pool,
    name: &str,
    member: impl FnOnce(C) -> PodView,
) -> Result<Option<(Option<String>, PodView)>, kube::Error> {
    let api: Api<C> = Api::namespaced(context.client.clone(), pool.namespace());
    let found = timed(api.get_opt(name)).await?;
    Ok(found.map(|child| (child.owner().map(|owner| owner.uid), member(child))))
}

/// Asks the API server whether it would accept a member made from the template. `Ok(Some(words))` = it would not.
pub async fn try_template(context: &Context, pool: &Pool, hash: &str) -> Result<Option<String>, kube::Error> {
    // A name of its own: the slot's may exist already.
    let body = children::body(pool, 0, hash, &format!("stoker-dry-run-{hash}"));
    let (kind, field) = match pool {
        Pool::Pods(_) => ("Pod", "spec.podTemplate"),
        Pool::Jobs(_) => ("Job.batch", "spec.jobTemplate"),
    };
    match post_member(context, pool, &body, true).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(s)) if matches!(s.code, 400 | 422) => {
            let name = format!("{kind} \"stoker-dry-run-{hash}\"");
            Ok(Some(s.message.replace(&name, field)))
        }
        // Quota and webhooks may change their minds; the creation itself will tell.
        Err(kube::Error::Api(s)) if s.code == 403 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a child, unless it changed since it was seen.
async fn remove<C: Child>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    resource_version: Option<&str>,
    propagation: Option<PropagationPolicy>,
) -> Result<Wrote, kube::Error> {
    let api: Api<C> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: resource_version.map(str::to_owned),
        }),
        propagation_policy: propagation,
        ..DeleteParams::default()
    };
    match timed(api.delete(name, &params)).await {
        Ok(_) => Ok(Wrote::Done),
        Err(error) => unwritten(error),
    }
}

/// Why a write to a child was not done, if that is no error.
fn unwritten(error: kube::Error) -> Result<Wrote, kube::Error> {
    match error {
        kube::Error::Api(s) if s.code == 404 => Ok(Wrote::Gone),
        kube::Error::Api(s) if s.code == 409 => Ok(Wrote::Conflict),
        error => Err(error),
    }
}

/// Removes a pod, in the version in which it was seen if one is given.
pub async fn remove_pod(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
    resource_version: Option<&str>,
) -> Result<Wrote, kube::Error> {
    remove::<SlimPod>(&context.client, namespace, name, uid, resource_version, None).await
}

/// Removes a Job that has finished, and what is left of its pods.
pub async fn remove_finished(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<Wrote, kube::Error> {
    let background = Some(PropagationPolicy::Background);
    remove::<SlimJob>(&context.client, namespace, name, uid, None, background).await
}

/// Removes a Job that stands by, step by step as core has it. A pod that changed is spared, and the Job with it: unless the
/// pod is ended already, as Kubernetes ends the others of a Job that may not fail once the first is removed.
pub async fn remove_job(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    resource_version: Option<&str>,
    pods: &[PodView],
) -> Result<Wrote, kube::Error> {
    let mut wrote = Wrote::Gone;
    for step in removal(resource_version, pods) {
        wrote = match step {
            RemovalStep::Pod { name, uid, version } => {
                match remove::<SlimPod>(client, namespace, &name, &uid, version.as_deref(), None).await? {
                    Wrote::Conflict if ends(client, namespace, &name, &uid).await? => Wrote::Gone,
                    wrote => wrote,
                }
            }
            RemovalStep::NoPod if has_pods(client, namespace, uid).await? => Wrote::Conflict,
            RemovalStep::NoPod => Wrote::Done,
            RemovalStep::Job { version } => {
                let foreground = Some(PropagationPolicy::Foreground);
                remove::<SlimJob>(client, namespace, name, uid, version.as_deref(), foreground).await?
            }
        };
        if wrote == Wrote::Conflict {
            break;
        }
    }
    Ok(wrote)
}

/// Whether a pod is on its way out, or gone.
async fn ends(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<bool, kube::Error> {
    let api: Api<SlimPod> = Api::namespaced(client.clone(), namespace);
    let pod = timed(api.get_metadata_opt(name)).await?.map(|pod| pod.metadata);
    Ok(pod.is_none_or(|meta| meta.uid.as_deref() != Some(uid) || meta.deletion_timestamp.is_some()))
}

/// Whether the API server knows of a pod of a Job that is alive.
async fn has_pods(client: &Client, namespace: &str, job: &str) -> Result<bool, kube::Error> {
    let api: Api<SlimPod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default()
        .labels(&format!("batch.kubernetes.io/controller-uid={job}"))
        .fields("status.phase!=Succeeded,status.phase!=Failed");
    let pods = timed(api.list_metadata(&params)).await?;
    Ok(pods.items.iter().any(|p| p.metadata.deletion_timestamp.is_none()))
}

/// Sets and removes labels and annotations of a pod, in the version in which it was seen if one is given; a namesake is
/// left alone.
pub async fn mark(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
    resource_version: Option<&str>,
    labels: &Marks,
    annotations: &Marks,
) -> Result<Wrote, kube::Error> {
    let api: Api<SlimPod> = Api::namespaced(context.client.clone(), namespace);
    // The UID is a precondition, and so is the version.
    let mut metadata = json!({"uid": uid, "annotations": annotations});
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    if let Some(version) = resource_version {
        metadata["resourceVersion"] = json!(version);
    }
    let patch = json!({"metadata": metadata});
    let params = PatchParams { field_manager: Some("stoker".to_owned()), ..PatchParams::default() };
    // Only the metadata is wanted back: the whole pod costs the API server more than the change.
    match timed(api.patch_metadata(name, &params, &Patch::Merge(&patch))).await {
        Ok(_) => Ok(Wrote::Done),
        Err(error) => unwritten(error),
    }
}

/// Puts a finalizer on an object as it was read, or takes it off. One that is gone needs none.
pub async fn finalizer<K>(
    api: &Api<K>,
    meta: &ObjectMeta,
    finalizer: &str,
    wanted: bool,
) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut finalizers: Vec<&str> =
        meta.finalizers.iter().flatten().map(String::as_str).filter(|f| *f != finalizer).collect();
    if wanted {
        finalizers.push(finalizer);
    }
    // The version keeps others' finalizers that came meanwhile.
    let patch = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": finalizers,
    }});
    let name = meta.name.as_deref().unwrap_or_default();
    match timed(api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
        Err(kube::Error::Api(s)) if s.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// Creates a child, or asks whether it would be; traces call that request so.
pub async fn post<C: Child>(
    client: &Client,
    namespace: &str,
    body: &Value,
    dry_run: bool,
    call: &'static str,
) -> Result<C, kube::Error> {
    let params = PostParams { dry_run, field_manager: Some("stoker".to_owned()) };
    let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
    let request = Request::new(C::url_path(&(), Some(namespace))).create(&params, bytes);
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert(call);
    timed(client.request::<C>(request)).await
}

/// Brings the object's finalizer in line with its deletion policy. True = the object changed.
pub async fn finalize(context: &Context, pool: &Pool, wanted: bool) -> Result<bool, kube::Error> {
    let meta = pool.meta();
    let present = meta.finalizers.iter().flatten().any(|f| f == keys::DRAIN);
    if present == wanted {
        return Ok(false);
    }
    let mut finalizers: Vec<String> =
        meta.finalizers.iter().flatten().filter(|f| *f != keys::DRAIN).cloned().collect();
    if wanted {
        finalizers.push(keys::DRAIN.to_owned());
    }
    let api = pool.api(context.client.clone());
    // The version keeps others' finalizers that came meanwhile.
    let patch = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": finalizers,
    }});
    match timed(api.patch_metadata(pool.name(), &PatchParams::default(), &Patch::Merge(&patch))).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(s)) if s.code == 404 => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::kept::fake::{partial, refusal, serve};

    /// A pod of the Job, in the version in which it was seen.
    fn pod(name: &str) -> PodView {
        let seen: SlimPod = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "namespace": "a",
                "uid": format!("uid-{name}"),
                "resourceVersion": "1",
                "creationTimestamp": Timestamp::UNIX_EPOCH,
            },
            "spec": {"containers": []},
            "status": {"phase": "Running"},
        }))
        .unwrap();
        seen.into_view()
    }

    /// Removes a Job of two pods, of which the second is in another version: a get tells this of its metadata.
    async fn removed(second: (u16, Value)) -> (Wrote, Vec<String>) {
        let server = serve(move |asked| match asked.what.as_str() {
            "DELETE /api/v1/namespaces/a/pods/second" => refusal(409, "Conflict"),
            "GET /api/v1/namespaces/a/pods/second" => second.clone(),
            "GET /api/v1/namespaces/a/pods" => (
                200,
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": []}),
            ),
            _ => (200, json!({"apiVersion": "v1", "kind": "Status", "status": "Success"})),
        });
        let pods = [pod("first"), pod("second")];
        let wrote = remove_job(&server.client, "a", "work", "uid", Some("7"), &pods).await.unwrap();
        (wrote, server.calls())
    }

    #[tokio::test]
    async fn i1_a_pod_that_changed_is_spared_and_its_job_with_it() {
        let (wrote, calls) = removed(partial(json!({"name": "second", "uid": "uid-second"}))).await;
        assert_eq!(wrote, Wrote::Conflict);
        assert!(!calls.iter().any(|call| call.contains("/jobs/")), "{calls:?}");
    }

    /// A Job that may not fail has failed when its first pod is removed, and Kubernetes ends the others.
    #[tokio::test]
    async fn a_job_whose_pods_kubernetes_ended_meanwhile_goes_with_them() {
        let ends = json!({"name": "second", "uid": "uid-second", "deletionTimestamp": Timestamp::UNIX_EPOCH});
        let another = json!({"name": "second", "uid": "uid-of-another"});
        for second in [partial(ends), partial(another), refusal(404, "NotFound")] {
            let (wrote, calls) = removed(second).await;
            assert_eq!(wrote, Wrote::Done);
            assert_eq!(calls.last().unwrap(), "DELETE /apis/batch/v1/namespaces/a/jobs/work");
        }
    }
}
