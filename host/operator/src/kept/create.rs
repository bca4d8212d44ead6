//! Creating children. That the object is the newest is known from an answer a moment ago, or it is read once more before:
//! what has been decided meanwhile stays so, and a plan that has become old creates nothing, because their names are held
//! for a limited time only.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use stoker_api::keys;

use super::{Keeper, KeptChild, KeptError, Memory, api, key};
use crate::apply::{self, timed};
use crate::context::Context;

/// How long after the object was the newest a plan may still create: a child's name is kept longer than that after its
/// outcome was written.
const PLAN_HOLDS: Duration = Duration::from_secs(10);

/// Annotations by which a child says what it is for, besides the label of its execution.
const PART: [&str; 6] = [keys::INSTANT, keys::STEP, keys::NODE, keys::NODE_UID, keys::RUN, keys::ATTEMPT];

/// How the children of an object's parts come about: instants, steps, nodes.
pub struct Maker<Wanted, Hash, Body> {
    /// Which of the parts are still to get a child, as far as the object says that was read just now.
    pub wanted: Wanted,
    /// What a refusal of the part's child holds for, such as all children of its template.
    pub hash: Hash,
    /// The child.
    pub body: Body,
}

/// A child that was asked for.
#[derive(Debug)]
pub struct Created<P> {
    pub part: P,
    /// Its name.
    pub name: String,
    /// When the request was sent.
    pub asked: Instant,
    pub outcome: Outcome,
}

/// What became of a request to create a child.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exists now.
    Created,
    /// It existed already, and is for this part: the watch has not shown it yet.
    Existed,
    /// Another has its name.
    Conflict,
    /// The API server refuses it, and will refuse it again: its words.
    Refused(String),
}

/// What came of a look's creations.
#[derive(Debug)]
pub struct Made<P> {
    pub created: Vec<Created<P>>,
    /// Why some of them could not be asked for.
    pub failed: Option<KeptError>,
}

impl<P> Default for Made<P> {
    fn default() -> Self {
        Self { created: Vec::new(), failed: None }
    }
}

enum Answer<V> {
    Made(V),
    Existed(V),
    Conflict,
    Refused(String),
    /// It was not asked for: the plan is too old, or another of its kind was refused.
    NotAsked,
    Failed(KeptError),
}

/// Creates the children of parts.
pub async fn create<K, P, W, H, B>(
    context: &Arc<Context>,
    object: &Arc<K>,
    memory: &mut Memory<K>,
    mut parts: Vec<P>,
    maker: Maker<W, H, B>,
) -> Made<P>
where
    K: Keeper,
    P: Send + Sync,
    W: FnOnce(&K, Vec<P>) -> Vec<P>,
    H: Fn(&P) -> String,
    B: Fn(&P) -> Value + Sync,
{
    let key = key(&**object);
    let mut made = Made::default();
    parts.retain(|part| !memory.refusals.wait(&(maker.hash)(part)));
    if parts.is_empty() {
        return made;
    }
    let (latest, began) = match latest(context, object, memory).await {
        Ok(Some(latest)) => latest,
        Ok(None) => return made,
        Err(error) => {
            made.failed = Some(error.into());
            return made;
        }
    };
    let parts = (maker.wanted)(&latest, parts);
    let _creating = context.creations.begin();

    let refused = Mutex::new(HashSet::new());
    let stopped = Mutex::new(false);
    let body = &maker.body;
    let requests: Vec<_> = parts
        .into_iter()
        .map(|part| {
            let hash = (maker.hash)(&part);
            let (refused, stopped, key) = (&refused, &stopped, &key);
            async move {
                let asked = Instant::now();
                let void = began.elapsed() > PLAN_HOLDS
                    || *stopped.lock().unwrap_or_else(PoisonError::into_inner)
                    || refused.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash);
                let (name, answer) = if void {
                    (String::new(), Answer::NotAsked)
                } else {
                    let body = body(&part);
                    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    (name, ask::<K::Child>(&context.client, &key.namespace, object.meta(), &body).await)
                };
                match &answer {
                    Answer::Refused(_) => {
                        refused.lock().unwrap_or_else(PoisonError::into_inner).insert(hash.clone());
                    }
                    Answer::Failed(_) => *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true,
                    _ => {}
                }
                (part, hash, name, asked, answer)
            }
        })
        .collect();
    let mut answers = stream::iter(requests).buffer_unordered(K::CREATES);
    while let Some((part, hash, name, asked, answer)) = answers.next().await {
        let (word, outcome) = match answer {
            Answer::NotAsked => continue,
            Answer::Made(view) => {
                memory.refusals.taken(&hash);
                memory.conflicts.taken(&name);
                memory.note_made(view);
                ("created", Outcome::Created)
            }
            Answer::Existed(view) => {
                memory.conflicts.taken(&name);
                memory.note_made(view);
                ("existed", Outcome::Existed)
            }
            Answer::Conflict => {
                memory.conflicts.note(&name, String::new());
                ("conflict", Outcome::Conflict)
            }
            Answer::Refused(words) => {
                memory.refusals.note(&hash, words.clone());
                ("refused", Outcome::Refused(words))
            }
            Answer::Failed(error) => {
                K::count_created(context, "failed");
                made.failed = made.failed.or(Some(error));
                continue;
            }
        };
        K::count_created(context, word);
        made.created.push(Created { part, name, asked, outcome });
    }
    made
}

/// Asks ahead whether the object is the newest: children that are to come within moments need not wait for the answer.
pub async fn foresee<K: Keeper>(context: &Context, object: &Arc<K>, memory: &Memory<K>) {
    if let Err(error) = latest(context, object, memory).await {
        tracing::debug!(object = %key(&**object), %error, "it is asked for again when children come");
    }
}

/// The object as it is now, and when it surely was so; None = it is another than was planned for, or goes. Large ones cost,
/// so that it is first asked whether it is still what is known.
async fn latest<K: Keeper>(
    context: &Context,
    object: &Arc<K>,
    memory: &Memory<K>,
) -> Result<Option<(Arc<K>, Instant)>, kube::Error> {
    if let Some(proven) = memory.outbox.proven(&**object) {
        return Ok(Some((object.clone(), proven)));
    }
    let (api, name, asked) = (api(context, &**object), key(&**object).name, Instant::now());
    let Some(head) = timed(api.get_metadata_opt(&name)).await? else { return Ok(None) };
    if !is_same(&head.metadata, object.meta()) {
        return Ok(None);
    }
    if head.metadata.resource_version == object.meta().resource_version {
        memory.outbox.prove(&**object, asked);
        return Ok(Some((object.clone(), asked)));
    }
    let asked = Instant::now();
    let latest = timed(api.get_opt(&name)).await?.filter(|latest| is_same(latest.meta(), object.meta()));
    Ok(latest.map(|latest| {
        let latest = memory.outbox.saw(latest);
        memory.outbox.prove(&*latest, asked);
        (latest, asked)
    }))
}

/// Whether the object is still the one, of the same spec, for which was planned (I4).
fn is_same(latest: &ObjectMeta, planned: &ObjectMeta) -> bool {
    latest.uid == planned.uid
        && latest.generation == planned.generation
        && latest.deletion_timestamp.is_none()
}

/// Asks for a child.
async fn ask<C: KeptChild>(
    client: &Client,
    namespace: &str,
    owner: &ObjectMeta,
    body: &Value,
) -> Answer<C::View> {
    match apply::post::<C>(client, namespace, body, false, C::CREATION).await {
        Ok(made) => Answer::Made(made.view()),
        Err(kube::Error::Api(s)) if s.code == 409 && s.reason == "AlreadyExists" => {
            let api: Api<C> = Api::namespaced(client.clone(), namespace);
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            match timed(api.get_opt(name)).await {
                Ok(Some(found)) if is_owned(&found, owner) && is_for(&found, body) => {
                    Answer::Existed(found.view())
                }
                Ok(Some(_)) => Answer::Conflict,
                Ok(None) => Answer::Failed(KeptError::Create(C::WORD, kube::Error::Api(s))),
                Err(error) => Answer::Failed(error.into()),
            }
        }
        Err(kube::Error::Api(s)) if matches!(s.code, 400 | 403 | 404 | 422) => {
            Answer::Refused(s.message.clone())
        }
        Err(error) => {
            // It may have been created all the same, which the next plan is to know.
            let api: Api<C> = Api::namespaced(client.clone(), namespace);
            match timed(api.get_opt(body["metadata"]["name"].as_str().unwrap_or_default())).await {
                Ok(Some(found)) if is_owned(&found, owner) && is_for(&found, body) => {
                    Answer::Existed(found.view())
                }
                _ => Answer::Failed(KeptError::Create(C::WORD, error)),
            }
        }
    }
}

/// Whether a child is the object's (I7).
fn is_owned<C: KeptChild>(child: &C, owner: &ObjectMeta) -> bool {
    let references = child.owner_references().iter();
    references.filter(|o| o.controller == Some(true)).any(|o| Some(&o.uid) == owner.uid.as_ref())
}

/// Whether a child is for the same part as one that was to be created.
fn is_for<C: KeptChild>(child: &C, body: &Value) -> bool {
    let wanted = &body["metadata"];
    let same = |said: &BTreeMap<String, String>, wanted: &Value, key: &str| {
        wanted[key].as_str() == said.get(key).map(String::as_str)
    };
    PART.iter().all(|key| same(child.annotations(), &wanted["annotations"], key))
        && same(child.labels(), &wanted["labels"], keys::EXECUTION)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use stoker_api::NodeBatchJob;

    use super::super::fake::{partial, refusal, serve};
    use super::*;
    use crate::context::Options;
    use crate::slim_job::SlimJob;
    use crate::slim_pod::SlimPod;

    const POST: &str = "POST /api/v1/namespaces/ops/pods";
    const GET: &str = "GET /api/v1/namespaces/ops/pods/a";

    fn job(annotations: Value, owner: &str) -> SlimJob {
        serde_json::from_value(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {
            "name": "flow-build",
            "annotations": annotations,
            "ownerReferences": [
                {"apiVersion": "stoker.dev/v1alpha1", "kind": "JobFlow", "name": "flow", "uid": owner, "controller": true},
            ],
        }}))
        .unwrap_or_else(|error| panic!("{error}"))
    }

    fn meta(uid: &str) -> ObjectMeta {
        ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() }
    }

    /// The pod of an attempt, as the API server has it.
    fn pod(attempt: &str, owner: &str) -> Value {
        pod_of("202608030910", attempt, owner)
    }

    fn pod_of(execution: &str, attempt: &str, owner: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "a",
            "uid": "u7",
            "finalizers": [keys::OUTCOME],
            "labels": {keys::EXECUTION: execution},
            "annotations": {keys::NODE: "n1", keys::ATTEMPT: attempt},
            "ownerReferences": [
                {"apiVersion": "stoker.dev/v1alpha1", "kind": "NodeBatchJob", "name": "b", "uid": owner, "controller": true},
            ],
        }})
    }

    /// What comes of asking the API server for the first attempt's pod if it answers the request and a read so.
    async fn asked(create: (u16, Value), read: (u16, Value)) -> (Answer<stoker_core::PodView>, Vec<String>) {
        let server = serve(move |asked| if asked.what == POST { create.clone() } else { read.clone() });
        let answer = ask::<SlimPod>(&server.client, "ops", &meta("u1"), &pod("1", "u1")).await;
        assert_eq!(server.asked()[0].body["metadata"]["annotations"][keys::ATTEMPT], json!("1"));
        (answer, server.calls())
    }

    fn none() -> (u16, Value) {
        refusal(404, "NotFound")
    }

    #[tokio::test]
    async fn a_pod_is_created_by_one_request() {
        let (answer, calls) = asked((201, pod("1", "u1")), none()).await;
        assert!(matches!(answer, Answer::Made(pod) if pod.uid == "u7" && pod.finalizers == [keys::OUTCOME]));
        assert_eq!(calls, [POST]);
    }

    #[tokio::test]
    async fn a_pod_that_exists_counts_if_it_is_the_objects_and_for_the_same_attempt() {
        let exists = || refusal(409, "AlreadyExists");
        let (answer, calls) = asked(exists(), (200, pod("1", "u1"))).await;
        assert!(matches!(answer, Answer::Existed(pod) if pod.uid == "u7"));
        assert_eq!(calls, [POST, GET]);
        assert!(matches!(asked(exists(), (200, pod("2", "u1"))).await.0, Answer::Conflict));
        let later = pod_of("202608030911", "1", "u1");
        assert!(matches!(asked(exists(), (200, later)).await.0, Answer::Conflict));
        assert!(matches!(asked(exists(), (200, pod("1", "u2"))).await.0, Answer::Conflict), "I7");
        assert!(matches!(asked(exists(), none()).await.0, Answer::Failed(_)));
    }

    #[tokio::test]
    async fn what_the_server_will_refuse_again_is_told_from_what_it_may_yet_take() {
        let (answer, _) = asked(refusal(403, "exceeded quota"), none()).await;
        assert!(matches!(answer, Answer::Refused(words) if words == "exceeded quota"));
        let (answer, _) = asked(refusal(500, "InternalError"), none()).await;
        let Answer::Failed(error) = answer else { panic!("not a failure") };
        assert!(error.to_string().starts_with("a pod cannot be created: "), "{error}");
        let (answer, calls) = asked(refusal(500, "InternalError"), (200, pod("1", "u1"))).await;
        assert!(matches!(answer, Answer::Existed(_)), "it was created, and only the answer was lost");
        assert_eq!(calls, [POST, GET]);
    }

    #[tokio::test]
    async fn children_that_were_foreseen_come_without_a_read_before() {
        const HEAD: &str = "GET /apis/stoker.dev/v1alpha1/namespaces/ops/nodebatchjobs/b";
        let metadata = json!({"name": "b", "namespace": "ops", "uid": "u1", "resourceVersion": "7"});
        let spec = json!({"podTemplate": {"spec": {"containers": []}}});
        let stored = json!({"apiVersion": "stoker.dev/v1alpha1", "kind": "NodeBatchJob", "metadata": metadata, "spec": spec});
        let object: Arc<NodeBatchJob> = Arc::new(serde_json::from_value(stored).unwrap());
        for foreseen in [false, true] {
            let head = metadata.clone();
            let server =
                serve(
                    move |asked| {
                        if asked.what == HEAD { partial(head.clone()) } else { (201, pod("1", "u1")) }
                    },
                );
            let context = Context::new(server.client.clone(), Options::default()).unwrap();
            let mut memory = Memory::<NodeBatchJob>::new(key(&*object));
            if foreseen {
                foresee(&context, &object, &memory).await;
                assert_eq!(server.calls(), [HEAD]);
            }
            let before = server.calls().len();
            let maker = Maker {
                wanted: |_: &NodeBatchJob, parts| parts,
                hash: |_: &u8| String::new(),
                body: |_: &u8| pod("1", "u1"),
            };
            let made = create(&context, &object, &mut memory, vec![1], maker).await;
            assert_eq!(made.created[0].outcome, Outcome::Created);
            let needed: &[&str] = if foreseen { &[POST] } else { &[HEAD, POST] };
            assert_eq!(server.calls()[before..], *needed);
        }
    }

    #[test]
    fn i7_a_job_of_that_name_is_ones_own_by_its_controllers_uid() {
        let found = job(json!({}), "u1");
        assert!(is_owned(&found, &meta("u1")));
        assert!(!is_owned(&found, &meta("u2")));
    }

    #[test]
    fn a_job_of_that_name_for_another_part_or_attempt_is_another() {
        let found = job(json!({keys::STEP: "build", keys::RUN: "1", "team": "blue"}), "u1");
        let wanted = |annotations: Value| json!({"metadata": {"annotations": annotations}});
        assert!(is_for(&found, &wanted(json!({keys::STEP: "build", keys::RUN: "1", "team": "red"}))));
        assert!(!is_for(&found, &wanted(json!({keys::STEP: "build", keys::RUN: "2"}))));
        assert!(!is_for(&found, &wanted(json!({keys::STEP: "test", keys::RUN: "1"}))));
        assert!(!is_for(&found, &wanted(json!({keys::STEP: "build", keys::RUN: "1", keys::ATTEMPT: "2"}))));
        assert!(!is_for(&found, &wanted(json!({keys::RUN: "1"}))));
    }
}
