//! The objects of a kind that a controller looks after: where the watch keeps them, and what asks for looks at them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::channel::mpsc;
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use tokio::sync::watch;

use crate::object::{Key, Pool, PoolKind};

/// A kind of object that a controller looks after.
pub trait Watched: Resource<DynamicType = ()> + Clone + 'static {}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Watched for K {}

/// Objects of one kind within a scope: what asks for looks at them, and where the watch keeps them.
pub struct Looked<K: Watched> {
    trigger: mpsc::UnboundedSender<ObjectRef<K>>,
    triggers: Mutex<Option<mpsc::UnboundedReceiver<ObjectRef<K>>>>,
    objects: OnceLock<Store<K>>,
    /// Those that the watch has told of, and not that they are gone.
    heard: Mutex<HashSet<ObjectRef<K>>>,
    listed: watch::Sender<bool>,
}

impl<K: Watched> Default for Looked<K> {
    fn default() -> Self {
        let (trigger, triggers) = mpsc::unbounded();
        Self {
            trigger,
            triggers: Mutex::new(Some(triggers)),
            objects: OnceLock::new(),
            heard: Mutex::default(),
            listed: watch::channel(false).0,
        }
    }
}

impl<K: Watched> Looked<K> {
    /// Where the watch keeps the objects; set once, by the one controller of the scope.
    pub fn keep(&self, store: Store<K>) {
        // A second controller would be a mistake of this crate's own; the first one's store stays right.
        self.objects.set(store).ok();
    }

    /// The stream of objects to look at; there is one, for the one controller of the scope.
    pub fn take_triggers(&self) -> mpsc::UnboundedReceiver<ObjectRef<K>> {
        let taken = self.triggers.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| mpsc::unbounded().1)
    }

    /// Notes that every object has been listed once.
    fn note_listed(&self) {
        self.listed.send_if_modified(|listed| !std::mem::replace(listed, true));
    }

    /// Waits until every object has been listed once. The store's own way to wait wakes one of several that wait.
    pub async fn listed(&self) {
        self.listed.subscribe().wait_for(|listed| *listed).await.ok();
    }

    /// Asks for a look at the object that is named so.
    pub fn trigger(&self, key: &Key) {
        self.ask(ObjectRef::new(&key.name).within(&key.namespace));
    }

    /// Asks for a look at an object.
    pub fn ask(&self, object: ObjectRef<K>) {
        // It fails only when the controller has stopped.
        self.trigger.unbounded_send(object).ok();
    }
}

impl<K: Watched + Send + Sync> Looked<K> {
    /// Hears what the watch tells, once the store has it: that every object has been listed; and that one is gone, or is not
    /// in the new list that follows a broken watch. That asks for the look that finds it so, and forgets it: of its end alone
    /// no predicate would make a change.
    pub fn hear<E>(&self, event: &Result<watcher::Event<K>, E>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                heard.insert(ObjectRef::from_obj(object));
            }
            Ok(watcher::Event::Delete(object)) => {
                let gone = ObjectRef::from_obj(object);
                heard.remove(&gone);
                self.ask(gone);
            }
            Ok(watcher::Event::InitDone) => {
                let there = |object: &ObjectRef<K>| self.objects.get().and_then(|store| store.get(object));
                heard.extract_if(|object| there(object).is_none()).for_each(|gone| self.ask(gone));
                self.note_listed();
            }
            _ => {}
        }
    }

    /// Asks for a look at every object.
    pub fn ask_all(&self) {
        for object in self.objects.get().iter().flat_map(|store| store.state()) {
            self.ask(ObjectRef::from_obj(&*object));
        }
    }

    /// An object as the watch has it now.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.objects.get()?.get(&ObjectRef::new(name).within(namespace))
    }
}

impl<K: PoolKind> Looked<K> {
    /// A pool as the watch has it now.
    pub fn latest(&self, key: &Key) -> Option<Pool> {
        let found = self.objects.get()?.get(&ObjectRef::new(&key.name).within(&key.namespace))?;
        Some(K::pool(found))
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use stoker_api::{JobTemplate, JobTemplateJob};
    use watcher::Event;

    use super::*;

    #[test]
    fn an_object_that_goes_while_the_watch_is_broken_is_looked_at_and_forgotten_too() {
        let (looked, (store, mut writer)) = (Looked::<JobTemplate>::default(), reflector::store());
        let mut asked = looked.take_triggers();
        looked.keep(store);
        let object = |name: &str| {
            let mut object = JobTemplate::new(name, JobTemplateJob::default());
            object.metadata.namespace = Some("a".to_owned());
            object
        };
        let mut tell = |event| {
            writer.apply_watcher_event(&event);
            looked.hear::<()>(&Ok(event));
            let asked = std::iter::from_fn(|| asked.try_recv().ok());
            asked.map(|one| one.name).collect::<Vec<_>>()
        };
        for event in [
            Event::Init,
            Event::InitApply(object("stays")),
            Event::InitApply(object("goes")),
            Event::InitDone,
        ] {
            assert!(tell(event).is_empty());
        }
        assert!(tell(Event::Apply(object("vanishes"))).is_empty());
        assert_eq!(tell(Event::Delete(object("goes"))), ["goes"]);
        // The watch breaks, and everything is listed anew.
        assert!(tell(Event::Init).is_empty() && tell(Event::InitApply(object("stays"))).is_empty());
        assert_eq!(tell(Event::InitDone), ["vanishes"]);
        assert!(tell(Event::Init).is_empty() && tell(Event::InitApply(object("stays"))).is_empty());
        assert!(tell(Event::InitDone).is_empty(), "once");
    }
}
