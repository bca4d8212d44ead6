//! Jobs and pods of an object that is gone: the request to create one may have come after it, or somebody took the object's
//! finalizer off. Kubernetes deletes them, but the finalizer that they are created with would keep them for ever, and
//! the pods of Jobs with them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use crate::apply::timed;
use crate::context::Context;
use crate::kept::{Keeper, perform};
use crate::object::Key;
use crate::observe::Child as _;

/// How long to wait for what was done to show.
const AGAIN: Duration = Duration::from_secs(5);

/// Objects whose children are being ended.
#[derive(Default)]
pub struct Orphans(Mutex<HashSet<Key>>);

/// Ends what is left of an object that the watch does not show any more, on a task of its own.
pub fn end<K: Keeper>(context: &Arc<Context>, key: &Key) {
    let mut owners = context.owners.uids(key);
    owners.retain(|uid| !K::Child::index(context).of(uid).is_empty());
    let begun = || context.orphans.0.lock().unwrap_or_else(PoisonError::into_inner);
    if owners.is_empty() || !begun().insert(key.clone()) {
        return;
    }
    let (context, key) = (context.clone(), key.clone());
    tokio::spawn(async move {
        while owners_left::<K>(&context, &key, &owners).await {
            tokio::time::sleep(AGAIN).await;
        }
        context.orphans.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    });
}

/// Does what is to be done about them. Returns whether something was left.
async fn owners_left<K: Keeper>(context: &Arc<Context>, key: &Key, owners: &[String]) -> bool {
    let objects: Api<K> = Api::namespaced(context.client.clone(), &key.namespace);
    // The watch may be late.
    let Ok(there) = timed(objects.get_opt(&key.name)).await else { return true };
    let there = there.and_then(|object| object.uid());
    let mut left = false;
    for owner in owners.iter().filter(|owner| there.as_ref() != Some(*owner)) {
        let children = K::Child::index(context).of(owner);
        for deed in K::farewell(context, &children, Timestamp::now()) {
            left = true;
            match perform::<K::Child>(context, &key.namespace, owner, &deed).await {
                Ok(()) => tracing::info!(object = %key, owner, ?deed, "done for an object that is gone"),
                Err(error) => tracing::debug!(object = %key, owner, ?deed, %error, "not done"),
            }
        }
    }
    left
}
