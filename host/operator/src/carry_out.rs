//! Carrying out a plan: what is missing is made, what is too many goes, and what became of it is noted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use serde_json::Value;
use stoker_core::names;
use stoker_core::pool::RemovalReason;
use stoker_core::pool::plan::Action as Step;

use crate::again::REFUSALS;
use crate::apply::{self, Created, Wrote};
use crate::asking::{Asking, Spared};
use crate::children;
use crate::context::Context;
use crate::fence::Fence;
use crate::members::Seen;
use crate::object::Pool;
use crate::pool::{PoolState, ReconcileError};

/// Members of one pool that are created, marked or removed, or asked for their last word, at a time: enough to fill a
/// large pool fast, few enough to leave the API server to others.
const AT_A_TIME: usize = 16;

/// Members that are created for one look while claims wait: what became ready meanwhile is offered by the next.
const A_LOOK: usize = 4 * AT_A_TIME;

/// How long after its look a plan makes Jobs: their names keep two operators apart only for a while.
const PLAN_HOLDS: Duration = Duration::from_secs(10);

/// How a plan was carried out.
#[derive(Default)]
pub(crate) struct Carried {
    /// The first error.
    pub(crate) failed: Option<ReconcileError>,
    /// Something turned out to be other than it was seen, and no watch may ever tell: it is worth another look soon.
    pub(crate) again: bool,
    /// A part of the plan was left for the next look, which is due at once.
    pub(crate) more: bool,
}

/// Carries out the actions. Removals of ended pods and creations do not wait for each other's fate; the first
/// error is told when all is done.
#[allow(clippy::too_many_arguments)]
pub(crate) async fn apply_plan(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    actions: &[Step],
    seen: &Seen,
    asking: Option<&Asking>,
    fence: &Fence<'_>,
    hash: &str,
    touched: Option<Instant>,
) -> Carried {
    let (namespace, name) = (pool.namespace(), pool.name());
    let mut carried = Carried::default();
    let mut slots: Vec<u32> = actions
        .iter()
        .filter_map(|a| if let Step::Create { slot } = a { Some(*slot) } else { None })
        .collect();
    if let (Some(at), false) = (touched, slots.is_empty()) {
        context.metrics.reacted(at.elapsed());
    }
    if slots.len() > A_LOOK && context.desk.waiting_in(pool.uid()) > 0 {
        slots.truncate(A_LOOK);
        carried.more = true;
    }
    let mut void = create(pool, context, state, slots, fence, hash, &mut carried).await;
    // Owned, as what borrows from the list cannot be awaited by a controller of any kind. Those go below that are asked
    // for their last word.
    let now = |action: &&Step| match action {
        Step::Create { .. } => false,
        Step::Mark { .. } => true,
        Step::Remove { .. } => asking.is_none(),
    };
    let changes: Vec<Step> = actions.iter().filter(now).cloned().collect();
    let mut changes = stream::iter(changes)
        .map(|action| async move {
            let outcome = match fence.broken() {
                Some(reason) if matches!(action, Step::Remove { .. }) => Err(reason),
                _ => Ok(change(pool, context, &action, seen).await),
            };
            (action, outcome)
        })
        .buffer_unordered(AT_A_TIME);
    while let Some((action, outcome)) = changes.next().await {
        match outcome {
            Ok(outcome) => note(pool, context, state, &action, outcome, &mut carried),
            Err(reason) => {
                void.get_or_insert(reason);
            }
        }
    }
    drop(changes);
    if let Some(asking) = asking {
        let gone = remove_asked(pool, context, state, actions, seen, asking, fence, &mut carried).await;
        void = void.or(gone);
    }
    if let Some(reason) = void {
        // Whatever broke the fence asks for another look.
        tracing::info!(namespace, name, reason, "the rest of a decision dropped, deciding again");
        context.metrics.policies.dropped(reason);
    }
    carried
}

/// Removes members whose pods are asked once more, each as soon as its pods have said that they are idle. Returns why
/// the plan has become void, if it has.
#[allow(clippy::too_many_arguments)]
async fn remove_asked(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    actions: &[Step],
    seen: &Seen,
    asking: &Asking,
    fence: &Fence<'_>,
    carried: &mut Carried,
) -> Option<&'static str> {
    let (kind, namespace, name) = (pool.kind().as_str(), pool.namespace(), pool.name());
    let (memories, active) = (state.memory.pods.clone(), state.seat.active.clone());
    let words: Vec<_> = actions
        .iter()
        .filter(|action| matches!(action, Step::Remove { .. }))
        .map(|action| asking.last_word(context, pool, active.as_ref(), action, seen, &memories))
        .collect();
    let mut words = stream::iter(words).buffer_unordered(AT_A_TIME);
    while let Some((action, spared)) = words.next().await {
        if let Some(reason) = fence.broken() {
            return Some(reason);
        }
        match spared {
            None => {
                let outcome = change(pool, context, action, seen).await;
                note(pool, context, state, action, outcome, carried);
            }
            Some(Spared { pod, words, unclear }) => {
                tracing::info!(kind, namespace, name, pod, words, "spared by its last answer");
                context.metrics.removed("spared");
                // After a few of those it is unknown, and another one may go.
                carried.again |= unclear;
            }
        }
    }
    None
}

/// Makes members. Returns why the plan has become void, if it has.
#[allow(clippy::too_many_arguments)]
async fn create(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    slots: Vec<u32>,
    fence: &Fence<'_>,
    hash: &str,
    carried: &mut Carried,
) -> Option<&'static str> {
    let (kind, namespace, name) = (pool.kind().as_str(), pool.namespace(), pool.name());
    let child = |slot| match pool {
        Pool::Pods(_) => names::pool_member(pool.name(), pool.uid(), slot),
        Pool::Jobs(_) => state.memory.job_name(pool.name(), pool.uid(), slot),
    };
    let of_jobs = matches!(pool, Pool::Jobs(_));
    let body = |slot| (slot, children::body(pool, slot, hash, &child(slot)));
    let bodies: Vec<(u32, Value)> = slots.into_iter().map(body).collect();
    // After one that failed no other is begun. Those that are on their way are waited for: they may be done.
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let mut outcomes = stream::iter(bodies)
        .map(|(slot, body)| {
            async move {
                if context.desk.waiting_in(pool.uid()) == 0 {
                    context.claims.go_first().await;
                }
                // A plan of many members takes a while, in which it may become void.
                let outcome = match fence.broken() {
                    _ if stop.load(Ordering::Relaxed) => None,
                    Some(reason) => Some(Err(reason)),
                    // Meanwhile another operator may have made Jobs in the slot, which have finished and are gone.
                    None if of_jobs && fence.age() > PLAN_HOLDS => Some(Err("late")),
                    None => Some(Ok(apply::create(context, pool, &body).await)),
                };
                (slot, body, outcome)
            }
        })
        .buffer_unordered(AT_A_TIME);
    let (mut void, mut made, mut refusal) = (None, false, None);
    while let Some((slot, body, outcome)) = outcomes.next().await {
        let outcome = match outcome {
            None => continue,
            Some(Ok(outcome)) => outcome,
            Some(Err(reason)) => {
                carried.again = true;
                void.get_or_insert(reason);
                continue;
            }
        };
        let child = body["metadata"]["name"].as_str().unwrap_or_default();
        match outcome {
            Created::Made(pod) => {
                tracing::info!(kind, namespace, name, member = pod.name, "created");
                state.believe(|overlay, now| overlay.made(*pod, now));
                made = true;
            }
            Created::Existed(Some(pod)) => state.believe(|overlay, now| overlay.made(*pod, now)),
            Created::Existed(None) => {
                state.believe(|overlay, now| overlay.creation_unanswered(slot, child, now));
                carried.again = true;
            }
            Created::Conflict(taken) => {
                tracing::warn!(
                    kind,
                    namespace,
                    name,
                    taken,
                    "the name belongs to another's; that is left alone"
                );
                state.believe(|overlay, _| overlay.not_made(slot));
                state.conflicts.insert(slot, (Instant::now(), taken));
                // Another name takes its place, and no change will ask for that look.
                carried.more = true;
            }
            Created::Refused(words) => {
                refusal.get_or_insert(words);
                stop.store(true, Ordering::Relaxed);
            }
            Created::Failed(error) => {
                state.believe(|overlay, now| overlay.creation_unanswered(slot, child, now));
                carried.failed.get_or_insert(ReconcileError::Create(error));
                stop.store(true, Ordering::Relaxed);
            }
        }
    }
    if let Some(words) = refusal {
        // One refusal a look: the rest would be refused for the same reason.
        state.refusals = state.refusals.saturating_add(1);
        let wait = REFUSALS.after(state.refusals);
        tracing::warn!(kind, namespace, name, error = words, "the API server refuses a member");
        state.refused = Some((Instant::now() + wait, words));
    } else if made {
        state.refused = None;
        state.refusals = 0;
    }
    void
}

/// Marks or removes one member.
async fn change(pool: &Pool, context: &Context, action: &Step, seen: &Seen) -> Result<Wrote, ReconcileError> {
    let namespace = pool.namespace();
    match action {
        // Those are made elsewhere.
        Step::Create { .. } => Ok(Wrote::Done),
        Step::Mark { name: pod, uid, resource_version, labels, annotations } => {
            let version = resource_version.as_deref();
            let marked = apply::mark(context, namespace, pod, uid, version, labels, annotations).await;
            marked.map_err(|error| ReconcileError::Mark(pod.clone(), error))
        }
        Step::Remove { name: member, uid, resource_version, reason } => {
            let version = resource_version.as_deref();
            let removed = match pool {
                Pool::Pods(_) => apply::remove_pod(context, namespace, member, uid, version).await,
                Pool::Jobs(_) if *reason == RemovalReason::Finished => {
                    apply::remove_finished(context, namespace, member, uid).await
                }
                Pool::Jobs(_) => {
                    apply::remove_job(&context.client, namespace, member, uid, version, seen.pods_of(uid))
                        .await
                }
            };
            removed.map_err(|error| ReconcileError::Remove(member.clone(), error))
        }
    }
}

/// Takes note of what became of a change.
fn note(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    action: &Step,
    outcome: Result<Wrote, ReconcileError>,
    carried: &mut Carried,
) {
    let (kind, namespace, name) = (pool.kind().as_str(), pool.namespace(), pool.name());
    if let Step::Remove { name: member, uid, resource_version, reason } = action {
        // What a Job's pod does gives the Job no new version, so that only an error leaves a doubt.
        let pods = matches!(pool, Pool::Pods(_));
        if let (true, Some(version)) =
            (outcome.is_err() || pods && matches!(outcome, Ok(Wrote::Conflict)), resource_version)
        {
            state.believe(|overlay, now| overlay.removal_unanswered(uid, version, now));
        }
        match outcome {
            Ok(Wrote::Done) => {
                tracing::info!(kind, namespace, name, member, reason = reason.as_str(), "removed");
                context.metrics.removed(reason.as_str());
                state.believe(|overlay, now| overlay.removed(uid, now));
            }
            Ok(Wrote::Conflict) => {
                tracing::info!(kind, namespace, name, member, "spared: it changed since it was seen idle");
                context.metrics.removed("spared");
            }
            _ => {}
        }
    }
    match (outcome, action) {
        (Ok(Wrote::Done), _) => {}
        (Ok(Wrote::Gone), Step::Mark { uid, .. } | Step::Remove { uid, .. }) => {
            carried.again |= state.believe(|overlay, now| overlay.gone(uid, now));
        }
        // A change most often tells why; but the conflict may have had no cause.
        (Ok(_), _) => carried.again = true,
        (Err(error), _) => {
            carried.failed.get_or_insert(error);
        }
    }
}
