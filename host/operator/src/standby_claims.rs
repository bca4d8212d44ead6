//! StandbyClaim objects: each gets one pod for as long as it exists. The claim itself is the pod's annotation, as it is
//! for every claim, with the object's UID as its token; the object's status is what hands the pod out. It is written with
//! the object's version, so that of two operators that bind it one is too late, and releases its pod.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, Predicate as _, WatchStreamExt as _, predicates, reflector, watcher};
use serde_json::json;
use stoker_api::{ClaimPhase, PoolKindName, StandbyClaim, StandbyClaimStatus, keys};
use stoker_core::PodView;
use stoker_core::claims::{Claim, End};
use stoker_core::conditions::Conditions;
use tokio::sync::{oneshot, watch};

use crate::again::{ERRORS, WatchBackOff, watches};
use crate::apply::{self, timed};
use crate::claims::{self, Bound, Refused, Unchanged, Wanted};
use crate::context::{Context, Scope};
use crate::looks;
use crate::object::{Key, Kind, Pool};

/// As long as the object exists.
const WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a look at a claim failed. It is looked at again.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Unchanged(#[from] Unchanged),
}

type Reference = ObjectRef<StandbyClaim>;

/// A claim that has its pod.
struct Held {
    object: Reference,
    pod: String,
}

/// What is remembered of StandbyClaims between two looks.
#[derive(Default)]
pub struct StandbyClaims {
    /// Claims that wait for a pod, by UID. Who is dropped waits no longer.
    waiting: Mutex<HashMap<String, oneshot::Sender<()>>>,
    /// Claims that have one, by their pools' UIDs and then by their own.
    held: Mutex<HashMap<String, HashMap<String, Held>>>,
    /// Claims whose pool does not exist.
    without_pool: Mutex<HashMap<Key, HashSet<Reference>>>,
    /// Why claims ended that objects have, by the objects' UIDs.
    ends: Mutex<HashMap<String, End>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a claim on a pod names the object that has it.
fn token(uid: &str) -> String {
    format!("object:{uid}")
}

impl StandbyClaims {
    /// Tells what a look at a pool saw: claims whose pods have gone or been given back are to be looked at, and those
    /// that the pool was missing for.
    pub fn seen(&self, context: &Context, pool: &Key, uid: &str, pods: &[PodView], ended: &[(String, End)]) {
        let came = lock(&self.without_pool).remove(pool);
        let mut again: Vec<Reference> = came.into_iter().flatten().collect();
        if let Some(held) = lock(&self.held).get_mut(uid) {
            let of = |pod: &PodView| Claim::of(pod).and_then(Result::ok);
            let lasting: HashMap<String, String> = pods
                .iter()
                .filter(|pod| pod.alive())
                .filter_map(|pod| of(pod).and_then(|claim| Some((claim.token?, claim.id))))
                .collect();
            held.retain(|uid, held| {
                let id = lasting.get(&token(uid));
                let end = ended.iter().find(|(ended, _)| Some(ended) == id);
                if let Some((_, end)) = end {
                    lock(&self.ends).insert(uid.clone(), *end);
                }
                let stays = id.is_some_and(|id| id.rsplit_once('.').is_some_and(|(pod, _)| pod == held.pod));
                if !stays {
                    again.push(held.object.clone());
                }
                stays
            });
        }
        for object in again {
            context.trigger_claim(object);
        }
    }

    fn hold(&self, pool: &Pool, uid: &str, object: Reference, pod: &str) {
        let held = Held { object, pod: pod.to_owned() };
        lock(&self.held).entry(pool.uid().to_owned()).or_default().insert(uid.to_owned(), held);
    }

    /// A pool is gone, and its pods with it.
    pub fn pool_gone(&self, context: &Context, uid: &str) {
        let held = lock(&self.held).remove(uid);
        for (_, held) in held.into_iter().flatten() {
            context.trigger_claim(held.object);
        }
    }
}

/// Looks after the claims within a scope.
pub async fn control(context: Arc<Context>, scope: Arc<Scope>, mut stop: watch::Receiver<bool>) {
    let api: Api<StandbyClaim> = scope.api(context.client.clone());
    let triggers = scope.claims.take_triggers();
    let (claims, writer) = reflector::store();
    scope.claims.keep(claims.clone());
    let wanted = predicates::generation.combine(predicates::finalizers);
    let changes = watcher(api, watches())
        .backoff(WatchBackOff::default())
        .modify(|object| object.metadata.managed_fields = None)
        .reflect(writer)
        .touched_objects()
        .predicate_filter(wanted, Default::default());
    Controller::for_stream(changes, claims)
        .with_config(Config::default().concurrency(16))
        .reconcile_on(triggers)
        .graceful_shutdown_on(async move {
            stop.wait_for(|s| *s).await.ok();
        })
        .run(|object, context| looks::numbered(reconcile(object, context)), on_error, context)
        .for_each(|result| {
            if let Err(error) = result
                && !matches!(error, controller::Error::ObjectNotFound(_))
            {
                tracing::debug!(%error, "a claim");
            }
            std::future::ready(())
        })
        .await;
}

fn on_error(object: Arc<StandbyClaim>, error: &ClaimError, context: Arc<Context>) -> Action {
    tracing::warn!(claim = %reference(&object), %error, "a claim cannot be looked after, trying again");
    context.metrics.reconciled("error");
    Action::requeue(ERRORS.after(2))
}

fn reference(object: &StandbyClaim) -> Reference {
    ObjectRef::from_obj(object)
}

fn pool_key(object: &StandbyClaim) -> Key {
    let kind = match object.spec.pool_ref.kind {
        PoolKindName::HotStandbyDeployment => Kind::HotStandbyDeployment,
        PoolKindName::HotStandbyJob => Kind::HotStandbyJob,
    };
    Key { kind, namespace: object.namespace().unwrap_or_default(), name: object.spec.pool_ref.name.clone() }
}

async fn reconcile(object: Arc<StandbyClaim>, context: Arc<Context>) -> Result<Action, ClaimError> {
    if !context.leads() {
        return Ok(Action::await_change());
    }
    context.listed().await;
    let (uid, key) = (object.uid().unwrap_or_default(), pool_key(&object));
    let pool = context.latest(&key);
    let status = object.status.clone().unwrap_or_default();
    if object.metadata.deletion_timestamp.is_some() {
        lock(&context.standby_claims.waiting).remove(&uid);
        if object.finalizers().iter().any(|f| f == keys::RELEASE) {
            if let Some(pool) = &pool {
                release(&context, pool, &uid, status.pod_name.as_deref(), None).await?;
            }
            finalizer(&context, &object, false).await?;
        }
        return Ok(Action::await_change());
    }
    match (status.phase, pool) {
        (ClaimPhase::Expired | ClaimPhase::Released, _) => {}
        (ClaimPhase::Bound, Some(pool)) => held(&context, &object, &pool, status).await?,
        (ClaimPhase::Bound, None) => ended(&context, &object, status, "its pool is gone").await?,
        (ClaimPhase::Pending, _) if !object.finalizers().iter().any(|f| f == keys::RELEASE) => {
            // The object comes again with it.
            finalizer(&context, &object, true).await?;
        }
        (ClaimPhase::Pending, None) => {
            lock(&context.standby_claims.without_pool)
                .entry(key.clone())
                .or_default()
                .insert(reference(&object));
            let words = format!("there is no {key}: create it, or correct spec.poolRef");
            waits(&context, &object, status, "NoSuchPool", &words).await?;
        }
        (ClaimPhase::Pending, Some(pool)) => {
            wait(&context, &object, pool);
            let words = format!("waits for a pod of {key}");
            waits(&context, &object, status, "Waiting", &words).await?;
        }
    }
    Ok(Action::await_change())
}

/// Has a claim wait for a pod, unless it does already.
fn wait(context: &Arc<Context>, object: &Arc<StandbyClaim>, pool: Pool) {
    let uid = object.uid().unwrap_or_default();
    let (stop, mut stopped) = oneshot::channel();
    {
        let mut waiting = lock(&context.standby_claims.waiting);
        if waiting.contains_key(&uid) {
            return;
        }
        waiting.insert(uid.clone(), stop);
    }
    let (context, object) = (context.clone(), object.clone());
    tokio::spawn(async move {
        let wanted = Wanted {
            by: format!("StandbyClaim {}", object.name_any()),
            token: Some(token(&uid)),
            selector: object.spec.selector.clone(),
            ttl: object.spec.ttl_seconds.map(|s| Duration::from_secs(u64::from(s))),
            wait: WAIT,
            metadata: object.spec.metadata.clone(),
            pool,
        };
        // The watch may be late to show that it has one.
        let outcome = match read_open(&context, &object).await {
            Ok(Some(_)) => {
                let deleted = async {
                    (&mut stopped).await.ok();
                };
                claims::claim_until(&context, &wanted, deleted).await
            }
            Ok(None) => Err(Refused::NoStandby(String::new())),
            Err(error) => Err(Refused::Unanswered(error.to_string())),
        };
        let again = match outcome {
            Ok(bound) => {
                hand_out(&context, &object, &wanted.pool, bound).await;
                false
            }
            // It was deleted.
            Err(Refused::NoStandby(_)) => false,
            Err(refused) => {
                tracing::warn!(claim = %reference(&object), %refused, "a claim has no pod, trying again");
                tokio::time::sleep(ERRORS.after(3)).await;
                true
            }
        };
        lock(&context.standby_claims.waiting).remove(&uid);
        if again {
            context.trigger_claim(reference(&object));
        }
    });
}

/// The object as it is now, if it is there and has no pod yet.
async fn read_open(context: &Context, object: &StandbyClaim) -> Result<Option<StandbyClaim>, kube::Error> {
    let latest = timed(api(context, object).get_opt(&object.name_any())).await?;
    Ok(latest.filter(|latest| {
        let phase = latest.status.as_ref().map(|status| status.phase).unwrap_or_default();
        latest.uid() == object.uid()
            && phase == ClaimPhase::Pending
            && latest.metadata.deletion_timestamp.is_none()
    }))
}

/// Writes into the object's status which pod it has. Where another operator was first, or the object is gone, the pod is
/// released.
async fn hand_out(context: &Context, object: &StandbyClaim, pool: &Pool, bound: Bound) {
    let (uid, api) = (object.uid().unwrap_or_default(), api(context, object));
    for failures in 0_u32.. {
        let latest = match read_open(context, object).await {
            Ok(Some(latest)) => latest,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(claim = %reference(object), %error, "a claim cannot be read, trying again");
                tokio::time::sleep(ERRORS.after(failures)).await;
                continue;
            }
        };
        let pod = &bound.pod;
        let now = Timestamp::now();
        let before = latest.status.clone().unwrap_or_default();
        let mut c = Conditions::new(&before.conditions, latest.metadata.generation, now);
        c.set("Bound", true, "Bound", format!("has pod {} of {}", pod.name, pool.key()));
        let status = StandbyClaimStatus {
            // Of the spec that the pod was claimed by.
            observed_generation: object.metadata.generation,
            phase: ClaimPhase::Bound,
            pod_name: Some(pod.name.clone()),
            pod_uid: Some(pod.uid.clone()),
            pod_ip: pod.ip.map(|ip| ip.to_string()),
            node_name: pod.node.clone(),
            ports: pod.ports.iter().cloned().collect(),
            bound_at: Some(bound.claim.claimed_at),
            conditions: c.finish(),
        };
        match write(context, &latest, &status).await {
            Ok(()) => {
                context.standby_claims.hold(pool, &uid, reference(object), &pod.name);
                return;
            }
            Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {}
            Err(error) => {
                tracing::warn!(claim = %reference(object), %error, "a claim's status cannot be written, trying again");
                tokio::time::sleep(ERRORS.after(failures)).await;
            }
        }
    }
    // Somebody else's pod stays.
    let kept = timed(api.get_opt(&object.name_any())).await.ok().flatten().and_then(|o| o.status?.pod_uid);
    if kept.as_deref() != Some(bound.pod.uid.as_str()) {
        tracing::info!(claim = %reference(object), pod = bound.pod.name, "released: the claim needs it no more");
        if let Err(error) = claims::release_claim(context, pool, &bound.claim.id).await {
            tracing::warn!(claim = bound.claim.id, %error, "it is not released");
        }
    }
}

/// Looks after a claim that has its pod.
async fn held(
    context: &Context,
    object: &StandbyClaim,
    pool: &Pool,
    status: StandbyClaimStatus,
) -> Result<(), ClaimError> {
    let uid = object.uid().unwrap_or_default();
    let name = status.pod_name.clone().unwrap_or_default();
    let found = claims::read(context, pool.namespace(), &name).await?;
    let found = found.filter(|pod| Some(&pod.uid) == status.pod_uid.as_ref() && pod.alive());
    let claim = found.as_ref().and_then(Claim::of).and_then(Result::ok);
    let claim = claim.filter(|claim| claim.token.as_deref() == Some(token(&uid).as_str()));
    let Some(claim) = claim else {
        let why = if found.is_some() { "its pod was given back" } else { "its pod is gone" };
        return ended(context, object, status, why).await;
    };
    // Another pod may have been claimed for it, by an operator that was too late and then ended.
    release(context, pool, &uid, None, status.pod_uid.as_deref()).await?;
    if status.observed_generation != object.metadata.generation {
        let ttl = object.spec.ttl_seconds.map(|s| Duration::from_secs(u64::from(s)));
        claims::renew(context, pool, &claim.id, ttl).await?;
        let status = StandbyClaimStatus { observed_generation: object.metadata.generation, ..status };
        write(context, object, &status).await?;
    }
    context.standby_claims.hold(pool, &uid, reference(object), &name);
    Ok(())
}

/// Notes that a claim has lost its pod.
async fn ended(
    context: &Context,
    object: &StandbyClaim,
    status: StandbyClaimStatus,
    why: &str,
) -> Result<(), ClaimError> {
    let uid = object.uid().unwrap_or_default();
    let now = Timestamp::now();
    let told = lock(&context.standby_claims.ends).remove(&uid);
    let over =
        |ttl: u32| status.bound_at.is_some_and(|at| at + SignedDuration::from_secs(i64::from(ttl)) <= now);
    let end = told.or_else(|| object.spec.ttl_seconds.is_some_and(over).then_some(End::Expired));
    let (phase, reason, words) = match end {
        Some(End::Expired) => (ClaimPhase::Expired, "Expired", "its ttlSeconds are over"),
        Some(End::TimedOut) => {
            (ClaimPhase::Expired, "TimedOut", "its pod was not at work within the pool's claimTimeoutSeconds")
        }
        Some(End::Finished) => (ClaimPhase::Released, "Finished", "its pod's work is done"),
        None => (ClaimPhase::Released, "Released", why),
    };
    let mut c = Conditions::new(&status.conditions, object.metadata.generation, now);
    c.set("Bound", false, reason, words);
    let generation = object.metadata.generation;
    let status =
        StandbyClaimStatus { observed_generation: generation, phase, conditions: c.finish(), ..status };
    Ok(write(context, object, &status).await?)
}

/// Notes why a claim waits, unless that is told already.
async fn waits(
    context: &Context,
    object: &StandbyClaim,
    status: StandbyClaimStatus,
    reason: &str,
    words: &str,
) -> Result<(), ClaimError> {
    let same = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        c.type_ == "Bound" && c.reason == reason && c.message == words
    };
    let generation = object.metadata.generation;
    if status.observed_generation == generation && status.conditions.iter().any(same) {
        return Ok(());
    }
    let mut c = Conditions::new(&status.conditions, generation, Timestamp::now());
    c.set("Bound", false, reason, words);
    // By which kstatus takes it for InProgress. It goes when the claim has its pod, or is over.
    c.set("Reconciling", true, reason, words);
    let status = StandbyClaimStatus { observed_generation: generation, conditions: c.finish(), ..status };
    match write(context, object, &status).await {
        // It has its pod meanwhile, or is gone.
        Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => Ok(()),
        other => Ok(other?),
    }
}

/// Releases the pods that an object has, but for one. `pod` is one that the watch may not show yet.
async fn release(
    context: &Context,
    pool: &Pool,
    uid: &str,
    pod: Option<&str>,
    except: Option<&str>,
) -> Result<(), ClaimError> {
    let token = token(uid);
    let mut ids: HashSet<String> = claims::list(context, pool)
        .into_iter()
        .filter(|bound| bound.claim.token.as_deref() == Some(token.as_str()))
        .filter(|bound| except != Some(bound.pod.uid.as_str()))
        .map(|bound| bound.claim.id)
        .collect();
    if let Some(name) = pod
        && let Some(pod) = claims::read(context, pool.namespace(), name).await?
        && let Some(Ok(claim)) = Claim::of(&pod)
        && claim.token.as_deref() == Some(token.as_str())
    {
        ids.insert(claim.id);
    }
    for id in ids {
        match claims::release_claim(context, pool, &id).await {
            Ok(_) | Err(Unchanged::NotFound) => context.metrics.claims.ended("released"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn api(context: &Context, object: &StandbyClaim) -> Api<StandbyClaim> {
    Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default())
}

async fn finalizer(context: &Context, object: &StandbyClaim, wanted: bool) -> Result<(), kube::Error> {
    apply::finalizer(&api(context, object), &object.metadata, keys::RELEASE, wanted).await
}

/// Writes a status into the object as it was read.
async fn write(
    context: &Context,
    object: &StandbyClaim,
    status: &StandbyClaimStatus,
) -> Result<(), kube::Error> {
    let meta = &object.metadata;
    let patch = json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": status,
    });
    let api = api(context, object);
    let name = object.name_any();
    timed(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))).await.map(drop)
}

impl Context {
    /// Asks for a look at a claim.
    pub fn trigger_claim(&self, object: Reference) {
        let namespace = object.namespace.clone().unwrap_or_default();
        if let Some(scope) = self.scopes().iter().find(|scope| scope.covers(&namespace)) {
            scope.claims.ask(object);
        }
    }
}
