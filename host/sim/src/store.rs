//! Objects with the API server's rules: names are taken once, each change gives a new version, writes may say which
//! version they are for, and a log tells the watches what happened.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

/// What a store must know of a kind.
pub trait Object: Clone + PartialEq {
    /// Its name; no two objects of a store have the same.
    fn name(&self) -> &str;
    /// Its UID.
    fn uid(&self) -> &str;
    /// The version in which it is.
    fn version(&self) -> &str;
    /// Gives it a version.
    fn set_version(&mut self, version: String);
    /// It is being deleted.
    fn terminating(&self) -> bool;
    /// Marks it as being deleted.
    fn terminate(&mut self);
    /// A deletion leaves it for a while: its containers end, or a finalizer holds it.
    fn lingers(&self) -> bool;
}

/// Why a write was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is taken.
    AlreadyExists,
    /// There is no such object.
    NotFound,
    /// It is not the object, or not the version, that the write is for.
    Conflict,
}

/// One thing that a watch tells: an object as it became, or that it is gone.
#[derive(Clone, Debug)]
struct Event<O> {
    at: Timestamp,
    name: String,
    uid: String,
    object: Option<Arc<O>>,
}

/// The truth about the objects of a kind.
#[derive(Clone, Debug)]
pub struct Store<O> {
    objects: BTreeMap<String, Arc<O>>,
    log: Vec<Event<O>>,
    now: Timestamp,
}

impl<O: Object> Store<O> {
    /// No objects.
    pub fn new(now: Timestamp) -> Self {
        Self { objects: BTreeMap::new(), log: Vec::new(), now }
    }

    /// Moves the clock that the log is kept by.
    pub fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The object of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<O>> {
        self.objects.get(name)
    }

    /// The object of a UID.
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<O>> {
        self.iter().find(|o| o.uid() == uid)
    }

    /// All objects, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<O>> {
        self.objects.values()
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        self.objects.keys().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The name of some object, chosen by a number.
    pub fn some(&self, choice: usize) -> Option<String> {
        self.objects.keys().nth(choice % self.objects.len().max(1)).cloned()
    }

    fn put(&mut self, mut object: O) -> Arc<O> {
        object.set_version((self.log.len() + 1).to_string());
        let (name, uid) = (object.name().to_owned(), object.uid().to_owned());
        let object = Arc::new(object);
        self.log.push(Event { at: self.now, name: name.clone(), uid, object: Some(object.clone()) });
        self.objects.insert(name, object.clone());
        object
    }

    /// Creates an object. Errors: [`Refusal::AlreadyExists`].
    pub fn create(&mut self, object: O) -> Result<Arc<O>, Refusal> {
        if self.objects.contains_key(object.name()) {
            return Err(Refusal::AlreadyExists);
        }
        Ok(self.put(object))
    }

    /// Changes an object; what changes nothing gives no new version. Errors: [`Refusal::NotFound`], and
    /// [`Refusal::Conflict`] if the object has not the UID given.
    pub fn change(
        &mut self,
        name: &str,
        uid: Option<&str>,
        change: impl FnOnce(&mut O),
    ) -> Result<Arc<O>, Refusal> {
        let old = self.objects.get(name).ok_or(Refusal::NotFound)?;
        if uid.is_some_and(|uid| uid != old.uid()) {
            return Err(Refusal::Conflict);
        }
        let mut new = O::clone(old);
        change(&mut new);
        if new == **old { Ok(old.clone()) } else { Ok(self.put(new)) }
    }

    /// Deletes an object: at once, or it lingers until [`Store::finish`]. Returns it as it was. Errors:
    /// [`Refusal::NotFound`], and [`Refusal::Conflict`] if it has not the UID or version given.
    pub fn delete(
        &mut self,
        name: &str,
        uid: Option<&str>,
        version: Option<&str>,
    ) -> Result<Arc<O>, Refusal> {
        let old = self.objects.get(name).cloned().ok_or(Refusal::NotFound)?;
        if uid.is_some_and(|u| u != old.uid()) || version.is_some_and(|v| v != old.version()) {
            return Err(Refusal::Conflict);
        }
        if !old.lingers() {
            self.erase(name);
        } else if !old.terminating() {
            let mut new = O::clone(&old);
            new.terminate();
            self.put(new);
        }
        Ok(old)
    }

    /// An object that is being deleted is gone at last.
    pub fn finish(&mut self, name: &str) {
        if self.objects.get(name).is_some_and(|o| o.terminating()) {
            self.erase(name);
        }
    }

    /// An object is gone, whatever it was doing.
    pub fn erase(&mut self, name: &str) {
        if let Some(old) = self.objects.remove(name) {
            let uid = old.uid().to_owned();
            self.log.push(Event { at: self.now, name: name.to_owned(), uid, object: None });
        }
    }
}

/// What a watch has told somebody.
#[derive(Clone, Debug)]
pub struct View<O> {
    objects: BTreeMap<String, Arc<O>>,
    /// Objects that it told are gone, as it had told of them at last, by UID.
    gone: BTreeMap<String, Option<Arc<O>>>,
    /// How much of the log is told or pending.
    taken: usize,
    /// Places in the log that are not told yet.
    pending: VecDeque<usize>,
}

impl<O> Default for View<O> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), gone: BTreeMap::new(), taken: 0, pending: VecDeque::new() }
    }
}

impl<O: Object> View<O> {
    /// The objects, as far as they were told.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<O>> {
        self.objects.values()
    }

    /// An object, as far as it was told.
    pub fn get(&self, name: &str) -> Option<&Arc<O>> {
        self.objects.get(name)
    }

    /// Whether it was told that an object is gone.
    pub fn went(&self, uid: &str) -> bool {
        self.gone.contains_key(uid)
    }

    /// The objects of which it told that they are gone, as it had told of them at last.
    pub fn gone(&self) -> impl Iterator<Item = &Arc<O>> {
        self.gone.values().flatten()
    }

    fn take(&mut self, store: &Store<O>) {
        self.pending.extend(self.taken..store.log.len());
        self.taken = store.log.len();
    }

    /// Since when the oldest event has not been told.
    pub fn late_since(&self, store: &Store<O>) -> Option<Timestamp> {
        let first =
            self.pending.front().copied().or_else(|| (self.taken < store.log.len()).then_some(self.taken));
        first.and_then(|place| store.log.get(place)).map(|event| event.at)
    }

    fn tell(&mut self, event: &Event<O>) {
        match &event.object {
            Some(object) => {
                self.objects.insert(event.name.clone(), object.clone());
            }
            None => {
                let last = self.objects.remove(&event.name).filter(|o| o.uid() == event.uid);
                self.gone.insert(event.uid.clone(), last);
            }
        }
    }

    /// Tells so many events in order. Returns whether there was one.
    pub fn deliver(&mut self, store: &Store<O>, events: usize) -> bool {
        self.take(store);
        let mut told = false;
        for _ in 0..events {
            let Some(event) = self.pending.pop_front().and_then(|place| store.log.get(place)) else { break };
            self.tell(event);
            told = true;
        }
        told
    }

    /// Tells what happened up to some time, in order. Returns whether there was anything.
    pub fn deliver_until(&mut self, store: &Store<O>, until: Timestamp) -> bool {
        let mut told = false;
        while self.late_since(store).is_some_and(|at| at <= until) && self.deliver(store, 1) {
            told = true;
        }
        told
    }

    /// Tells the next event of one object, chosen by a number among those with any, before earlier events of others.
    pub fn deliver_one(&mut self, store: &Store<O>, choice: usize) -> bool {
        self.take(store);
        let of = |place: &usize| store.log.get(*place).map(|event| event.name.as_str());
        let Some(name) = self.pending.get(choice % self.pending.len().max(1)).and_then(of) else {
            return false;
        };
        let Some(index) = self.pending.iter().position(|place| of(place) == Some(name)) else { return false };
        let Some(event) = self.pending.remove(index).and_then(|place| store.log.get(place)) else {
            return false;
        };
        self.tell(event);
        true
    }

    /// Lists all anew: what went in the meantime is missing, and nobody tells that it went.
    pub fn relist(&mut self, store: &Store<O>) {
        self.objects = store.objects.clone();
        self.pending.clear();
        self.taken = store.log.len();
    }
}
