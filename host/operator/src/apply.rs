//! Carrying out a plan: pods are created by POST under derived names and removed with preconditions.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::request::Request;
use serde_json::{Map, Value, json};
use stoker_api::{HotStandbyDeployment, keys};
use stoker_core::names;
use stoker_core::pod::PodView;
use stoker_core::pool::Marks;

use crate::context::Context;
use crate::observe::SlimPod;

/// No write waits longer for its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// What became of a request to create a pod.
pub enum Created {
    /// It exists now.
    Made(Box<PodView>),
    /// It existed already, and is ours: the watch has not shown it yet.
    Existed,
    /// Somebody else's pod has the name.
    Conflict(String),
    /// The API server refuses it, and will refuse it again: quota, a webhook, an invalid template.
    Refused(String),
    /// It could not be asked, or is overloaded: try again.
    Failed(kube::Error),
}

/// The hash of the template that a pod is made from.
pub fn template_hash(object: &HotStandbyDeployment) -> String {
    let spec = &object.spec;
    // Serialising what was deserialised cannot fail; an empty text would only make templates look alike.
    let text = serde_json::to_vec(&(&spec.pod_template, &spec.selector)).unwrap_or_default();
    names::short_hash(&[&text], 10)
}

/// The pod of a slot.
fn pod(object: &HotStandbyDeployment, slot: u32, hash: &str) -> Value {
    let meta = &object.metadata;
    let (name, uid) = (meta.name.clone().unwrap_or_default(), meta.uid.clone().unwrap_or_default());
    let template = &object.spec.pod_template;
    let mut labels: Map<String, Value> = Map::new();
    let given = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    for (key, value) in given.into_iter().flatten().chain(&object.spec.selector.match_labels) {
        labels.insert(key.clone(), json!(value));
    }
    labels.insert(keys::HSD_NAME.to_owned(), json!(names::label_value(&name)));
    labels.insert(keys::OWNER_UID.to_owned(), json!(uid));
    labels.insert(keys::SLOT.to_owned(), json!(slot.to_string()));
    labels.insert(keys::TEMPLATE_HASH.to_owned(), json!(hash));
    let mut annotations = template.metadata.as_ref().and_then(|m| m.annotations.clone()).unwrap_or_default();
    // A pod is born free of what only an administrator may say.
    annotations.remove(keys::FORCE_REMOVE);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names::pool_member(&name, &uid, slot),
            "namespace": meta.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": HotStandbyDeployment::api_version(&()),
                "kind": HotStandbyDeployment::kind(&()),
                "name": name,
                "uid": uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": template.spec,
    })
}

async fn post(
    context: &Context,
    namespace: &str,
    body: &Value,
    dry_run: bool,
) -> Result<SlimPod, kube::Error> {
    let request = Request::new(Pod::url_path(&(), Some(namespace)));
    let params = PostParams { dry_run, field_manager: Some("stoker".to_owned()) };
    let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
    let mut request = request.create(&params, bytes).map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert("create_pod");
    timed(context.client.request::<SlimPod>(request)).await
}

async fn timed<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(WRITE_TIMEOUT, call).await.unwrap_or_else(|_| {
        Err(kube::Error::Service(format!("no answer within {} s", WRITE_TIMEOUT.as_secs()).into()))
    })
}

/// Creates the pod of a slot.
pub async fn create(context: &Context, object: &HotStandbyDeployment, slot: u32, hash: &str) -> Created {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let body = pod(object, slot, hash);
    let outcome = match post(context, namespace, &body, false).await {
        Ok(made) => Created::Made(Box::new(made.into_view())),
        Err(kube::Error::Api(s)) if s.code == 409 && s.reason == "AlreadyExists" => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            existing(context, object, namespace, name).await
        }
        Err(kube::Error::Api(s)) if matches!(s.code, 400 | 403 | 404 | 422) => {
            Created::Refused(s.message.clone())
        }
        Err(error) => Created::Failed(error),
    };
    context.metrics.created(match &outcome {
        Created::Made(_) => "created",
        Created::Existed => "existed",
        Created::Conflict(_) => "conflict",
        Created::Refused(_) => "refused",
        Created::Failed(_) => "failed",
    });
    outcome
}

async fn existing(context: &Context, object: &HotStandbyDeployment, namespace: &str, name: &str) -> Created {
    let api: Api<SlimPod> = Api::namespaced(context.client.clone(), namespace);
    match timed(api.get_opt(name)).await {
        Ok(Some(found)) if found.owner_uid() == object.metadata.uid.as_deref() => Created::Existed,
        Ok(Some(_)) => Created::Conflict(name.to_owned()),
        // It went in the meantime; the next look tries again.
        Ok(None) => Created::Existed,
        Err(error) => Created::Failed(error),
    }
}

/// Asks the API server whether it would accept a pod of the template. `Ok(Some(words))` = it would not.
pub async fn try_template(
    context: &Context,
    object: &HotStandbyDeployment,
    hash: &str,
) -> Result<Option<String>, kube::Error> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let mut body = pod(object, 0, hash);
    // A name of its own: the slot's may exist already.
    body["metadata"]["name"] = json!(format!("stoker-dry-run-{hash}"));
    match post(context, namespace, &body, true).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(s)) if matches!(s.code, 400 | 422) => {
            let name = format!("Pod \"stoker-dry-run-{hash}\"");
            Ok(Some(s.message.replace(&name, "spec.podTemplate")))
        }
        // Quota and webhooks may change their minds; the creation itself will tell.
        Err(kube::Error::Api(s)) if s.code == 403 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a pod. True = it is going or gone; false = it changed since it was seen, and is spared.
pub async fn remove(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
    resource_version: Option<&str>,
) -> Result<bool, kube::Error> {
    let api: Api<SlimPod> = Api::namespaced(context.client.clone(), namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: resource_version.map(str::to_owned),
        }),
        ..DeleteParams::default()
    };
    match timed(api.delete(name, &params)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(s)) if s.code == 404 => Ok(true),
        Err(kube::Error::Api(s)) if s.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets and removes labels and annotations of a pod. A pod that is gone, or a namesake, needs none.
pub async fn mark(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
    labels: &Marks,
    annotations: &Marks,
) -> Result<(), kube::Error> {
    let api: Api<SlimPod> = Api::namespaced(context.client.clone(), namespace);
    // The UID is a precondition.
    let patch = json!({"metadata": {"uid": uid, "labels": labels, "annotations": annotations}});
    let params = PatchParams { field_manager: Some("stoker".to_owned()), ..PatchParams::default() };
    match timed(api.patch(name, &params, &Patch::Merge(&patch))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Brings the object's finalizer in line with its deletion policy. True = the object changed.
pub async fn finalize(
    context: &Context,
    object: &HotStandbyDeployment,
    wanted: bool,
) -> Result<bool, kube::Error> {
    let meta = &object.metadata;
    let present = meta.finalizers.iter().flatten().any(|f| f == keys::DRAIN);
    if present == wanted {
        return Ok(false);
    }
    let mut finalizers: Vec<String> =
        meta.finalizers.iter().flatten().filter(|f| *f != keys::DRAIN).cloned().collect();
    if wanted {
        finalizers.push(keys::DRAIN.to_owned());
    }
    let api: Api<HotStandbyDeployment> =
        Api::namespaced(context.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    // The version keeps others' finalizers that came meanwhile.
    let patch = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": finalizers,
    }});
    let name = meta.name.as_deref().unwrap_or_default();
    match timed(api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(s)) if s.code == 404 => Ok(true),
        Err(error) => Err(error),
    }
}
