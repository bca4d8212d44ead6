//! Carrying out a plan: what is missing is made, what is too many goes, and what became of it is noted.

use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use stoker_core::pool::RemovalReason;
use stoker_core::pool::jobs::predecessor;
use stoker_core::pool::plan::Action as Step;

use crate::apply::{self, Created};
use crate::children;
use crate::context::Context;
use crate::fence::Fence;
use crate::members::Seen;
use crate::object::Pool;
use crate::pool::{PoolState, ReconcileError};

/// Pods of one pool that are created at a time: enough to fill a large pool fast, few enough to leave the API
/// server to others.
const CREATES_AT_A_TIME: usize = 16;

/// First and longest wait after the API server refused a pod.
const REFUSED_FIRST: SignedDuration = SignedDuration::from_secs(5);
const REFUSED_LONGEST: SignedDuration = SignedDuration::from_secs(300);

#[allow(clippy::too_many_arguments)]
/// Carries out the actions. Removals of ended pods and creations do not wait for each other's fate; the first
/// error is told when all is done.
pub(crate) async fn apply_plan(
    pool: &Pool,
    context: &Context,
    state: &mut PoolState,
    actions: &[Step],
    seen: &Seen,
    fence: &Fence<'_>,
    hash: &str,
    touched: Option<Instant>,
) -> Option<ReconcileError> {
    let (kind, namespace, name) = (pool.kind().as_str(), pool.namespace(), pool.name());
    let jobs = seen.jobs();
    let mut failed = None;
    let mut void = None;

    let slots: Vec<u32> = actions
        .iter()
        .filter_map(|a| if let Step::Create { slot } = a { Some(*slot) } else { None })
        .collect();
    if let (Some(at), false) = (touched, slots.is_empty()) {
        context.metrics.reacted(at.elapsed());
    }
    let mut outcomes = stream::iter(slots)
        .map(|slot| {
            let before = predecessor(&jobs, slot).map(|job| job.uid.as_str());
            let body = children::body(pool, slot, hash, before);
            async move {
                // A plan of many members takes a while, in which it may become void.
                match fence.broken() {
                    Some(reason) => (slot, Err(reason)),
                    None => (slot, Ok(apply::create(context, pool, &body).await)),
                }
            }
        })
        .buffer_unordered(CREATES_AT_A_TIME);
    while let Some((slot, outcome)) = outcomes.next().await {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(reason) => {
                void.get_or_insert(reason);
                continue;
            }
        };
        match outcome {
            Created::Made(pod) => {
                tracing::info!(kind, namespace, name, member = pod.name, "created");
                state.made.push((Instant::now(), *pod));
                state.refused = None;
                state.refusals = 0;
            }
            Created::Existed => {}
            Created::Conflict(taken) => {
                tracing::warn!(
                    kind,
                    namespace,
                    name,
                    taken,
                    "the name belongs to another's; that is left alone"
                );
                state.conflicts.insert(slot, (Instant::now(), taken));
            }
            Created::Refused(words) => {
                // One refusal a look: the rest would be refused for the same reason.
                state.refusals = state.refusals.saturating_add(1);
                let wait =
                    (REFUSED_FIRST * 2_i32.saturating_pow((state.refusals - 1).min(10))).min(REFUSED_LONGEST);
                tracing::warn!(kind, namespace, name, error = words, "the API server refuses a member");
                state.refused = Some((Timestamp::now() + wait, words));
                break;
            }
            Created::Failed(error) => {
                failed.get_or_insert(ReconcileError::Create(error));
                break;
            }
        }
    }
    drop(outcomes);

    for action in actions {
        if let Step::Mark { name: pod, uid, labels, annotations } = action
            && let Err(error) = apply::mark(context, namespace, pod, uid, labels, annotations).await
        {
            failed.get_or_insert(ReconcileError::Mark(pod.clone(), error));
        }
        let Step::Remove { name: pod, uid, resource_version, reason } = action else { continue };
        if let Some(reason) = fence.broken() {
            void.get_or_insert(reason);
            break;
        }
        let version = resource_version.as_deref();
        let removed = match pool {
            Pool::Pods(_) => apply::remove_pod(context, namespace, pod, uid, version).await,
            Pool::Jobs(_) if *reason == RemovalReason::Finished => {
                apply::remove_finished(context, namespace, pod, uid).await
            }
            Pool::Jobs(_) => {
                apply::remove_job(context, namespace, pod, uid, version, seen.pods_of(uid)).await
            }
        };
        match removed {
            Ok(true) => {
                tracing::info!(kind, namespace, name, member = pod, reason = reason.as_str(), "removed");
                context.metrics.removed(reason.as_str());
                state.removed.push((Instant::now(), uid.clone()));
            }
            Ok(false) => {
                tracing::info!(
                    kind,
                    namespace,
                    name,
                    member = pod,
                    "spared: it changed since it was seen idle"
                );
                context.metrics.removed("spared");
            }
            Err(error) => {
                failed.get_or_insert(ReconcileError::Remove(pod.clone(), error));
            }
        }
    }
    if let Some(reason) = void {
        // Whatever broke the fence asks for another look.
        tracing::info!(namespace, name, reason, "the rest of a decision dropped, deciding again");
        context.metrics.policies.dropped(reason);
    }
    failed
}
