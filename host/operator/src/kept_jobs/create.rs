//! Creating Jobs. The object is read once more before: what has been decided meanwhile stays so, and a plan that has
//! become old creates nothing, because names of Jobs are held for a limited time only.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::Value;
use stoker_api::keys;
use stoker_core::pool::JobView;

use super::{Keeper, KeptError, Memory, api, key};
use crate::apply::{self, timed};
use crate::context::Context;
use crate::slim_job::SlimJob;

/// How long after its look a plan may still create: a Job's name is kept longer than that after the Job's end.
const PLAN_HOLDS: Duration = Duration::from_secs(10);

/// Annotations by which a Job says what it is for.
const PART: [&str; 6] = [keys::INSTANT, keys::STEP, keys::NODE, keys::NODE_UID, keys::RUN, keys::ATTEMPT];

/// How the Jobs of an object's parts come about: instants, steps, nodes.
pub struct Maker<Wanted, Hash, Body> {
    /// Which of the parts are still to get a Job, as far as the object says that was read just now.
    pub wanted: Wanted,
    /// What a refusal of the part's Job holds for, such as all Jobs of its template.
    pub hash: Hash,
    /// The Job.
    pub body: Body,
}

/// A Job that was asked for.
#[derive(Debug)]
pub struct Created<P> {
    pub part: P,
    /// The Job's name.
    pub job: String,
    /// When the request was sent.
    pub asked: Instant,
    pub outcome: Outcome,
}

/// What became of a request to create a Job.
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

enum Answer {
    Made(JobView),
    Existed(JobView),
    Conflict,
    Refused(String),
    /// It was not asked for: the plan is too old, or another of its kind was refused.
    NotAsked,
    Failed(KeptError),
}

/// Creates the Jobs of parts.
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
    let (key, began) = (key(&**object), Instant::now());
    let mut made = Made::default();
    parts.retain(|part| !memory.refusals.wait(&(maker.hash)(part)));
    if parts.is_empty() {
        return made;
    }
    let latest = match timed(api(context, &**object).get_opt(&key.name)).await {
        Ok(Some(latest)) if is_same(latest.meta(), object.meta()) => memory.outbox.saw(latest),
        Ok(_) => return made,
        Err(error) => {
            made.failed = Some(error.into());
            return made;
        }
    };
    let parts = (maker.wanted)(&latest, parts);

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
                let (job, answer) = if void {
                    (String::new(), Answer::NotAsked)
                } else {
                    let body = body(&part);
                    let job = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    (job, ask(context, &key.namespace, object.meta(), &body).await)
                };
                match &answer {
                    Answer::Refused(_) => {
                        refused.lock().unwrap_or_else(PoisonError::into_inner).insert(hash.clone());
                    }
                    Answer::Failed(_) => *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true,
                    _ => {}
                }
                (part, hash, job, asked, answer)
            }
        })
        .collect();
    let mut answers = stream::iter(requests).buffer_unordered(K::CREATES);
    while let Some((part, hash, job, asked, answer)) = answers.next().await {
        let (word, outcome) = match answer {
            Answer::NotAsked => continue,
            Answer::Made(view) => {
                memory.refusals.taken(&hash);
                memory.conflicts.taken(&job);
                memory.note_made(view);
                ("created", Outcome::Created)
            }
            Answer::Existed(view) => {
                memory.conflicts.taken(&job);
                memory.note_made(view);
                ("existed", Outcome::Existed)
            }
            Answer::Conflict => {
                memory.conflicts.note(&job, String::new());
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
        made.created.push(Created { part, job, asked, outcome });
    }
    made
}

/// Whether the object is still the one, of the same spec, for which was planned (I4).
fn is_same(latest: &ObjectMeta, planned: &ObjectMeta) -> bool {
    latest.uid == planned.uid
        && latest.generation == planned.generation
        && latest.deletion_timestamp.is_none()
}

/// Asks for a Job.
async fn ask(context: &Context, namespace: &str, owner: &ObjectMeta, body: &Value) -> Answer {
    match apply::post_job(context, namespace, body, false).await {
        Ok(made) => Answer::Made(made),
        Err(kube::Error::Api(s)) if s.code == 409 && s.reason == "AlreadyExists" => {
            let jobs: Api<SlimJob> = Api::namespaced(context.client.clone(), namespace);
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            match timed(jobs.get_opt(name)).await {
                Ok(Some(found)) if is_owned(&found, owner) && is_for(&found, body) => {
                    Answer::Existed(found.into_view())
                }
                Ok(Some(_)) => Answer::Conflict,
                Ok(None) => Answer::Failed(KeptError::Create(kube::Error::Api(s))),
                Err(error) => Answer::Failed(error.into()),
            }
        }
        Err(kube::Error::Api(s)) if matches!(s.code, 400 | 403 | 404 | 422) => {
            Answer::Refused(s.message.clone())
        }
        Err(error) => Answer::Failed(KeptError::Create(error)),
    }
}

/// Whether a Job is the object's (I7).
fn is_owned(job: &SlimJob, owner: &ObjectMeta) -> bool {
    let references = job.metadata.owner_references.iter().flatten();
    references.filter(|o| o.controller == Some(true)).any(|o| Some(&o.uid) == owner.uid.as_ref())
}

/// Whether a Job is for the same part as one that was to be created.
fn is_for(job: &SlimJob, body: &Value) -> bool {
    let wanted = &body["metadata"]["annotations"];
    let said = job.annotations();
    PART.iter().all(|key| wanted[*key].as_str() == said.get(*key).map(String::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
