//! What is done with children that there are.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::json;
use stoker_api::keys;
use stoker_core::kept::Upkeep;

use super::farewells::{Farewells, let_go_beside};
use super::{Keeper, KeptChild, KeptError, News, key, publish};
use crate::apply::{self, timed};
use crate::context::Context;

/// Deeds of one look that are done at a time.
const AT_A_TIME: usize = 8;

/// Something to do with a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// What every kind does.
    Upkeep(Upkeep),
    /// The same, and worth an Event.
    Told(Upkeep, &'static str, String),
    /// Delete one that has ended, and leave its own children to Kubernetes.
    Forget { name: String, uid: String },
}

impl From<Upkeep> for Deed {
    fn from(upkeep: Upkeep) -> Self {
        Self::Upkeep(upkeep)
    }
}

/// Does all of it; the first error. Children are let go beside.
pub async fn carry_out<K: Keeper>(
    context: &Arc<Context>,
    object: &Arc<K>,
    farewells: &Arc<Farewells>,
    deeds: Vec<Deed>,
) -> Option<KeptError> {
    let (key, owner, mut failed) = (key(&**object), object.uid().unwrap_or_default(), None);
    let (namespace, owner) = (key.namespace.as_str(), owner.as_str());
    let (let_go, deeds): (Vec<_>, Vec<_>) =
        deeds.into_iter().partition(|deed| matches!(deed, Deed::Upkeep(Upkeep::LetGo { .. })));
    let upkeep = |deed| match deed {
        Deed::Upkeep(upkeep) => Some(upkeep),
        _ => None,
    };
    let let_go = let_go.into_iter().filter_map(upkeep).collect();
    let going = object.meta().deletion_timestamp.is_some();
    let_go_beside::<K>(context, farewells, &key, owner, let_go, going);
    let mut outcomes = stream::iter(deeds)
        .map(|deed| {
            let object = object.clone();
            async move {
                let outcome = perform::<K::Child>(context, namespace, owner, &deed).await;
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
            }
            Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {
                tracing::debug!(object = %key, ?deed, "it has changed");
            }
            Err(error) => failed = failed.or(Some(error.into())),
        }
    }
    failed
}

/// Does what is to be done with a child of the owner with a UID.
pub async fn perform<C: KeptChild>(
    context: &Context,
    namespace: &str,
    owner: &str,
    deed: &Deed,
) -> Result<(), kube::Error> {
    let api: Api<C> = Api::namespaced(context.client.clone(), namespace);
    match deed {
        Deed::Forget { name, uid } => delete(&api, name, uid, None, C::FORGETTING).await,
        Deed::Upkeep(upkeep) | Deed::Told(upkeep, ..) => match upkeep {
            Upkeep::Delete { name, uid, version } => {
                delete(&api, name, uid, version.as_deref(), C::DELETION).await
            }
            Upkeep::EndPod { pod, uid } => {
                apply::remove_pod(context, namespace, pod, uid, None).await.map(drop)
            }
            Upkeep::LetGo { name, uid } => {
                let seen = C::index(context).get(owner, name).filter(|seen| C::uid_of(seen) == uid);
                let finalizers = seen.map(|mut seen| std::mem::take(C::finalizers_of(&mut seen)));
                let_go(&api, name, uid, &finalizers.unwrap_or_default()).await
            }
        },
    }
}

async fn delete<C: KeptChild>(
    api: &Api<C>,
    name: &str,
    uid: &str,
    version: Option<&str>,
    how: Option<PropagationPolicy>,
) -> Result<(), kube::Error> {
    let preconditions =
        Preconditions { uid: Some(uid.to_owned()), resource_version: version.map(str::to_owned) };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        propagation_policy: how,
        ..DeleteParams::default()
    };
    timed(api.delete(name, &params)).await.map(drop)
}

/// Takes the finalizer off a child: with one request, if its finalizers are those that the watch has shown. Others' stay,
/// and so does a namesake (I7).
async fn let_go<C: KeptChild>(
    api: &Api<C>,
    name: &str,
    uid: &str,
    seen: &[String],
) -> Result<(), kube::Error> {
    if seen.iter().any(|finalizer| finalizer == keys::OUTCOME) {
        let patch = release(uid, seen)?;
        match timed(api.patch_metadata(name, &PatchParams::default(), &patch)).await {
            // It is another by now, or has other finalizers.
            Err(kube::Error::Api(s)) if matches!(s.code, 409 | 422) => {}
            Err(kube::Error::Api(s)) if s.code == 404 => return Ok(()),
            other => return other.map(drop),
        }
    }
    let found = timed(api.get_metadata_opt(name)).await?;
    let found = found.filter(|found| found.metadata.uid.as_deref() == Some(uid));
    // The watch may be late to show that it was let go.
    let found = found.filter(|found| found.finalizers().iter().any(|f| f == keys::OUTCOME));
    let Some(found) = found else { return Ok(()) };
    apply::finalizer(api, &found.metadata, keys::OUTCOME, false).await
}

/// The patch that takes the finalizer off an object that has this UID and these finalizers, and does nothing to another:
/// the API server applies all of it or none, to one version of the object.
fn release(uid: &str, seen: &[String]) -> Result<Patch<()>, kube::Error> {
    let left: Vec<&String> = seen.iter().filter(|finalizer| *finalizer != keys::OUTCOME).collect();
    let change = if left.is_empty() {
        json!({"op": "remove", "path": "/metadata/finalizers"})
    } else {
        json!({"op": "replace", "path": "/metadata/finalizers", "value": left})
    };
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/metadata/finalizers", "value": seen},
        change,
    ]);
    serde_json::from_value(patch).map(Patch::Json).map_err(kube::Error::SerdeError)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::fake::{Fake, partial, refusal, serve};
    use super::*;
    use crate::slim_job::SlimJob;
    use crate::slim_pod::SlimPod;

    const ANOTHERS: &str = "example.com/a";

    fn api<C: KeptChild>(server: &Fake) -> Api<C> {
        Api::namespaced(server.client.clone(), "ops")
    }

    fn seen(finalizers: &[&str]) -> Vec<String> {
        finalizers.iter().map(|finalizer| (*finalizer).to_owned()).collect()
    }

    async fn pod_let_go(server: &Fake, finalizers: &[&str]) -> Result<(), kube::Error> {
        let_go::<SlimPod>(&api(server), "a", "u1", &seen(finalizers)).await
    }

    /// A server that has the pod `a` with this metadata, which is not as it was seen.
    fn changed(metadata: Value) -> Fake {
        serve(move |asked| match asked.kind.as_str() {
            "application/json-patch+json" => refusal(422, "Invalid"),
            _ => partial(metadata.clone()),
        })
    }

    const GET: &str = "GET /api/v1/namespaces/ops/pods/a";
    const PATCH: &str = "PATCH /api/v1/namespaces/ops/pods/a";

    #[tokio::test]
    async fn i7_one_request_lets_a_child_go_if_it_is_that_one_and_its_finalizers_are_as_seen() {
        let server = serve(|_| partial(json!({"name": "a"})));
        pod_let_go(&server, &[keys::OUTCOME]).await.unwrap();
        let asked = server.asked();
        assert_eq!(server.calls(), [PATCH]);
        assert_eq!(asked[0].kind, "application/json-patch+json");
        let expected = json!([
            {"op": "test", "path": "/metadata/uid", "value": "u1"},
            {"op": "test", "path": "/metadata/finalizers", "value": [keys::OUTCOME]},
            {"op": "remove", "path": "/metadata/finalizers"},
        ]);
        assert_eq!(asked[0].body, expected);
    }

    #[tokio::test]
    async fn i7_finalizers_of_others_stay_in_their_order() {
        let server = serve(|_| partial(json!({"name": "a"})));
        let api: Api<SlimJob> = api(&server);
        let finalizers = seen(&[ANOTHERS, keys::OUTCOME, "foregroundDeletion"]);
        let_go(&api, "a", "u1", &finalizers).await.unwrap();
        let asked = &server.asked()[0];
        assert_eq!(asked.what, "PATCH /apis/batch/v1/namespaces/ops/jobs/a");
        assert_eq!(asked.body[1]["value"], json!(finalizers));
        let left = json!({
            "op": "replace", "path": "/metadata/finalizers", "value": [ANOTHERS, "foregroundDeletion"],
        });
        assert_eq!(asked.body[2], left);
    }

    #[tokio::test]
    async fn a_child_whose_finalizers_have_changed_is_read_and_let_go_all_the_same() {
        let server = changed(json!({
            "name": "a", "uid": "u1", "resourceVersion": "7", "finalizers": [keys::OUTCOME, ANOTHERS],
        }));
        pod_let_go(&server, &[keys::OUTCOME]).await.unwrap();
        assert_eq!(server.calls(), [PATCH, GET, PATCH]);
        let metadata = json!({"uid": "u1", "resourceVersion": "7", "finalizers": [ANOTHERS]});
        assert_eq!(server.asked()[2].body, json!({"metadata": metadata}));
    }

    #[tokio::test]
    async fn i7_a_namesake_keeps_its_finalizer() {
        let server = changed(json!({"name": "a", "uid": "u2", "finalizers": [keys::OUTCOME]}));
        pod_let_go(&server, &[keys::OUTCOME]).await.unwrap();
        assert_eq!(server.calls(), [PATCH, GET]);
    }

    #[tokio::test]
    async fn a_child_that_was_let_go_before_or_is_gone_asks_for_nothing_more() {
        let server = changed(json!({"name": "a", "uid": "u1", "finalizers": [ANOTHERS]}));
        pod_let_go(&server, &[keys::OUTCOME]).await.unwrap();
        assert_eq!(server.calls(), [PATCH, GET]);
        let server = serve(|_| refusal(404, "NotFound"));
        pod_let_go(&server, &[keys::OUTCOME]).await.unwrap();
        assert_eq!(server.calls(), [PATCH]);
    }

    #[tokio::test]
    async fn a_child_that_no_watch_has_shown_with_its_finalizer_is_read_first() {
        let server = serve(|_| {
            partial(json!({"name": "a", "uid": "u1", "resourceVersion": "7", "finalizers": [keys::OUTCOME]}))
        });
        pod_let_go(&server, &[]).await.unwrap();
        assert_eq!(server.calls(), [GET, PATCH]);
        assert_eq!(server.asked()[1].body["metadata"]["finalizers"], json!([]));
    }

    #[tokio::test]
    async fn a_server_in_trouble_is_asked_once() {
        let server = serve(|_| refusal(500, "InternalError"));
        assert!(pod_let_go(&server, &[keys::OUTCOME]).await.is_err());
        assert_eq!(server.calls(), [PATCH]);
    }

    async fn deleted<C: KeptChild>(how: Option<PropagationPolicy>) -> Value {
        let server = serve(|_| refusal(200, ""));
        delete::<C>(&api(&server), "a", "u1", Some("7"), how).await.ok();
        let asked = server.asked().remove(0);
        assert!(asked.what.starts_with("DELETE ") && asked.what.ends_with("/a"), "{}", asked.what);
        asked.body
    }

    #[tokio::test]
    async fn i7_a_child_is_deleted_by_its_uid_and_a_job_with_its_pods() {
        let preconditions = json!({"uid": "u1", "resourceVersion": "7"});
        let pod = deleted::<SlimPod>(SlimPod::DELETION).await;
        assert_eq!((&pod["preconditions"], &pod["propagationPolicy"]), (&preconditions, &Value::Null));
        let job = deleted::<SlimJob>(SlimJob::DELETION).await;
        assert_eq!(
            (&job["preconditions"], &job["propagationPolicy"]),
            (&preconditions, &json!("Foreground"))
        );
        let ended = deleted::<SlimJob>(SlimJob::FORGETTING).await;
        assert_eq!(ended["propagationPolicy"], json!("Background"));
    }
}
