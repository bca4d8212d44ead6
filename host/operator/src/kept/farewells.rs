//! Children are let go beside the looks: no creation waits for it, and nobody waits for its answer. Their names are held a
//! while after their outcome was written: a plan from before may not make one a second time (I5, I6).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use stoker_api::keys;
use stoker_core::kept::{NAME_HELD, Upkeep};
use tokio::sync::Notify;

use super::deeds::{Deed, perform};
use super::{Keeper, KeptChild};
use crate::again::ERRORS;
use crate::context::Context;
use crate::object::Key;

/// Children of one object that are let go at a time when it goes, too.
const AT_A_TIME: usize = 8;

/// The children of an object that are to be let go, or were.
#[derive(Default)]
pub struct Farewells {
    inner: Mutex<Inner>,
    sooner: Notify,
}

#[derive(Default)]
struct Inner {
    /// When those are let go that wait for it, by UID.
    waiting: HashMap<String, (Instant, Upkeep)>,
    /// UIDs of those that are being let go.
    open: HashSet<String>,
    /// UIDs of those that were, although the watch may still show them otherwise.
    done: HashSet<String>,
    /// A task is at it.
    at_work: bool,
    /// The object goes, too.
    going: bool,
}

impl Farewells {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines children up that are to be let go then; those that wait already go then if that is sooner. True = somebody has
    /// to begin.
    fn ask(&self, children: Vec<Upkeep>, at: Instant, going: bool) -> bool {
        let mut inner = self.inner();
        inner.going = going;
        for child in children {
            let Upkeep::LetGo { uid, .. } = &child else { continue };
            if inner.done.contains(uid) || inner.open.contains(uid) {
                continue;
            }
            let uid = uid.clone();
            let due = &mut inner.waiting.entry(uid).or_insert((at, child)).0;
            if at < *due {
                *due = at;
                self.sooner.notify_one();
            }
        }
        !inner.waiting.is_empty() && !std::mem::replace(&mut inner.at_work, true)
    }

    /// Those whose time has come, and when that of the first of the others comes. None are left = the task ends.
    fn take(&self, now: Instant) -> (Vec<Upkeep>, Option<Instant>) {
        let mut inner = self.inner();
        let due: Vec<String> =
            inner.waiting.iter().filter(|(_, (at, _))| *at <= now).map(|(uid, _)| uid.clone()).collect();
        let next: Vec<_> =
            due.iter().filter_map(|uid| inner.waiting.remove(uid)).map(|(_, child)| child).collect();
        inner.open.extend(due);
        let first = inner.waiting.values().map(|(at, _)| *at).min();
        inner.at_work = !next.is_empty() || first.is_some();
        (next, first)
    }

    /// How many are let go at a time: those of an object that goes on leave the API server to its creations.
    fn at_a_time(&self) -> usize {
        if self.inner().going { AT_A_TIME } else { 1 }
    }

    /// Notes what became of one.
    fn settled(&self, uid: &str, gone: bool) {
        let mut inner = self.inner();
        inner.open.remove(uid);
        if gone {
            inner.done.insert(uid.to_owned());
        }
    }

    /// Those that are being let go are not any more: looks line them up again.
    fn give_up(&self) {
        self.inner().open.clear();
    }

    /// Notes that a child was let go.
    #[cfg(test)]
    pub fn note_let_go(&self, uid: String) {
        self.settled(&uid, true);
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let inner = self.inner();
        inner.done.is_empty() && inner.open.is_empty() && inner.waiting.is_empty()
    }

    /// Those that were let go are not kept, whatever the watch shows; those that it shows no longer are forgotten.
    pub fn overlay<C: KeptChild>(&self, shown: &mut [C::View]) {
        let mut inner = self.inner();
        if inner.done.is_empty() {
            return;
        }
        let there: HashSet<&str> = shown.iter().map(C::uid_of).collect();
        inner.done.retain(|uid| there.contains(uid.as_str()));
        for one in shown.iter_mut().filter(|one| inner.done.contains(C::uid_of(one))) {
            C::finalizers_of(one).retain(|finalizer| finalizer != keys::OUTCOME);
        }
    }
}

/// Has children let go: at once if their owner goes, too, or else when their names have been held for long enough.
pub fn let_go_beside<K: Keeper>(
    context: &Arc<Context>,
    farewells: &Arc<Farewells>,
    key: &Key,
    owner: &str,
    children: Vec<Upkeep>,
    going: bool,
) {
    let held = if going { Duration::ZERO } else { NAME_HELD.unsigned_abs() };
    if farewells.ask(children, Instant::now() + held, going) {
        tokio::spawn(see_off::<K>(context.clone(), farewells.clone(), key.clone(), owner.to_owned()));
    }
}

/// Lets children go until none are left. After an error they wait, and the next look says what is left to do.
async fn see_off<K: Keeper>(context: Arc<Context>, farewells: Arc<Farewells>, key: Key, owner: String) {
    loop {
        let (next, first) = farewells.take(Instant::now());
        if next.is_empty() {
            let Some(first) = first else { return };
            tokio::select! {
                () = tokio::time::sleep_until(first.into()) => {}
                () = farewells.sooner.notified() => {}
            }
            continue;
        }
        let (context, key, owner) = (&context, &key, owner.as_str());
        let outcomes = stream::iter(next).map(|child| async move {
            let deed = Deed::Upkeep(child);
            let outcome = perform::<K::Child>(context, &key.namespace, owner, &deed).await;
            (deed, outcome)
        });
        let mut outcomes = std::pin::pin!(outcomes.buffer_unordered(farewells.at_a_time()));
        while let Some((deed, outcome)) = outcomes.next().await {
            let Deed::Upkeep(Upkeep::LetGo { uid, .. }) = &deed else { continue };
            match outcome {
                Ok(()) => {
                    tracing::info!(object = %key, ?deed, "done");
                    farewells.settled(uid, true);
                }
                Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {
                    tracing::debug!(object = %key, ?deed, "it has changed");
                    farewells.settled(uid, false);
                }
                Err(error) => {
                    tracing::warn!(object = %key, %error, "a child cannot be let go, trying again");
                    tokio::time::sleep(ERRORS.after(1)).await;
                    farewells.give_up();
                    context.trigger(key);
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(uid: &str) -> Upkeep {
        Upkeep::LetGo { name: format!("job-{uid}"), uid: uid.to_owned() }
    }

    #[test]
    fn a_child_is_let_go_once_however_often_looks_ask_for_it() {
        let (farewells, now) = (Farewells::default(), Instant::now());
        assert!(farewells.ask(vec![child("1")], now, false));
        assert!(!farewells.ask(vec![child("1")], now, false), "a task is at it");
        assert_eq!(farewells.take(now), (vec![child("1")], None));
        assert!(!farewells.ask(vec![child("1")], now, false), "it is on its way");
        farewells.settled("1", true);
        assert!(!farewells.ask(vec![child("1")], now, false), "the watch is late");
        assert_eq!(farewells.take(now), (vec![], None));
        assert!(farewells.ask(vec![child("2")], now, false), "the next one needs a task again");
    }

    #[test]
    fn i6_its_name_is_held_since_that_was_first_asked_for_unless_its_owner_goes() {
        let (farewells, now) = (Farewells::default(), Instant::now());
        let (soon, later) = (now + Duration::from_secs(30), now + Duration::from_secs(31));
        farewells.ask(vec![child("1"), child("2")], soon, false);
        farewells.ask(vec![child("1")], later, false);
        assert_eq!(farewells.take(now), (vec![], Some(soon)));
        farewells.ask(vec![child("1")], now, false);
        assert_eq!(farewells.take(now), (vec![child("1")], Some(soon)));
        assert_eq!(farewells.take(soon), (vec![child("2")], None));
    }

    #[test]
    fn after_an_error_looks_ask_anew() {
        let (farewells, now) = (Farewells::default(), Instant::now());
        farewells.ask(vec![child("1"), child("2")], now, false);
        farewells.take(now);
        farewells.settled("1", true);
        farewells.give_up();
        farewells.ask(vec![child("1"), child("2")], now, false);
        assert_eq!(farewells.take(now), (vec![child("2")], None));
    }
}
