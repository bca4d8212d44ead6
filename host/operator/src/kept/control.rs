//! The controller of a kind: what asks for looks, the finalizer that an object has while it has children, and what is
//! forgotten when it is gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::{self, Action as Next, Config};
use kube::runtime::{Controller, Predicate as _, WatchStreamExt as _, predicates, reflector, watcher};
use stoker_api::keys;
use tokio::sync::watch;

use super::{Keeper, KeptError, Memory, api, carry_out, key, write};
use crate::again::{WatchBackOff, watches};
use crate::apply;
use crate::context::{Context, Scope};
use crate::looks;
use crate::object::Key;
use crate::orphans;

/// Objects that are looked at at a time.
const LOOKS: u16 = 64;

/// How long to wait for what was done about an object that goes to show.
const LEAVING: Duration = Duration::from_secs(5);

/// Looks after the objects of a kind within a scope.
pub async fn control<K: Keeper>(context: Arc<Context>, scope: Arc<Scope>, mut stop: watch::Receiver<bool>) {
    let triggers = K::looked(&scope).take_triggers();
    let (objects, writer) = reflector::store();
    K::looked(&scope).keep(objects.clone());
    // What Stoker writes itself, the status, asks for no look.
    let wanted = predicates::generation.combine(predicates::finalizers).combine(predicates::annotations);
    let noted = scope.clone();
    let changes = watcher(scope.api::<K>(context.client.clone()), watches())
        .backoff(WatchBackOff::default())
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .inspect(move |event| K::looked(&noted).hear(event))
        .touched_objects()
        .predicate_filter(wanted, Default::default());
    Controller::for_stream(changes, objects)
        .with_config(Config::default().concurrency(LOOKS))
        .reconcile_on(triggers)
        .graceful_shutdown_on(async move {
            stop.wait_for(|s| *s).await.ok();
        })
        .run(
            |object, context| looks::numbered(reconcile::<K>(object, context)),
            on_error::<K>,
            context.clone(),
        )
        .for_each(|result| {
            match result {
                Err(controller::Error::ObjectNotFound(gone)) => {
                    let namespace = gone.namespace.unwrap_or_default();
                    forget::<K>(&context, &Key { kind: K::KIND, namespace, name: gone.name });
                }
                Err(error) => tracing::debug!(%error, "{}", K::KIND.as_str()),
                Ok(_) => {}
            }
            std::future::ready(())
        })
        .await;
}

/// Forgets an object that is gone.
fn forget<K: Keeper>(context: &Arc<Context>, key: &Key) {
    if context.leads() {
        orphans::end::<K>(context, key);
    }
    let gone = K::remembered(context).forget(key);
    for uid in &gone {
        context.owners.forget(uid);
    }
    context.forget_policies(key, gone);
    context.templates.uses(key, BTreeSet::new());
    context.unfinished.done(key);
}

fn on_error<K: Keeper>(object: Arc<K>, error: &KeptError, context: Arc<Context>) -> Next {
    let key = key(&*object);
    tracing::warn!(object = %key, %error, "reconcile failed, trying again");
    context.metrics.reconciled("error");
    Next::requeue(context.unfinished.note(&key))
}

async fn reconcile<K: Keeper>(shown: Arc<K>, context: Arc<Context>) -> Result<Next, KeptError> {
    if !context.leads() {
        return Ok(Next::await_change());
    }
    context.children_listed().await;
    let (uid, key) = (shown.uid().unwrap_or_default(), key(&*shown));
    let memory = K::remembered(&context).of(&uid, &key);
    let mut memory = memory.lock().await;
    let object = memory.outbox.newest(shown);
    let deleting = object.meta().deletion_timestamp.is_some();
    let has_finalizer = object.finalizers().iter().any(|f| f == keys::RUNS);
    match (deleting, has_finalizer) {
        (true, false) => Ok(Next::await_change()),
        (true, true) => leave(&context, &object, &mut memory).await,
        (false, false) => {
            match apply::finalizer(&api(&context, &*object), object.meta(), keys::RUNS, true).await {
                // The object comes again with it.
                Ok(_) => Ok(Next::await_change()),
                // It has just changed, and comes again, too.
                Err(kube::Error::Api(s)) if s.code == 409 => Ok(Next::requeue(LEAVING)),
                Err(error) => Err(error.into()),
            }
        }
        (false, true) => K::look(&context, &object, &mut memory).await,
    }
}

/// The object goes.
async fn leave<K: Keeper>(
    context: &Arc<Context>,
    object: &Arc<K>,
    memory: &mut Memory<K>,
) -> Result<Next, KeptError> {
    let children = memory.children(context, &object.uid().unwrap_or_default()).await;
    let deeds = K::farewell(context, &children, Timestamp::now());
    if deeds.is_empty() {
        apply::finalizer(&api(context, &**object), object.meta(), keys::RUNS, false).await?;
        return Ok(Next::await_change());
    }
    if let Some(status) = object.leaving() {
        let before = object.status().cloned().unwrap_or_default();
        if status != before {
            // What matters is that the children are let go; the status is for those who watch.
            write(context, &memory.outbox, object, &before, &status).await.ok();
        }
    }
    match carry_out(context, object, &memory.farewells, deeds).await {
        Some(error) => Err(error),
        // Each of them asks for the next look when the watch shows it; should it not:
        None => Ok(Next::requeue(LEAVING)),
    }
}
