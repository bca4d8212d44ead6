//! Children as the watch tells them, by owner. Only those with an owner label are watched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use stoker_api::{GROUP, keys};
use stoker_core::PodView;
use stoker_core::pool::JobView;
use stoker_core::pool::overlay::BELIEVED;
use tokio::sync::watch;

use crate::again::{WatchBackOff, watches};
use crate::context::{Context, Scope};
use crate::job_templates;
use crate::object::{Key, Kind};
use crate::slim_job::SlimJob;
use crate::slim_pod::SlimPod;

/// How long it is remembered that a child went: as long as one that was made is believed to exist unseen.
const GONE: Duration = BELIEVED.unsigned_abs();

/// A kind of children that are watched.
pub trait Child:
    Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Send
    + 'static
{
    /// What is kept of one.
    type View: Clone + Send + Sync;
    /// They may have children of their own that are watched.
    const OWNS: bool;

    /// The controller that owns it.
    fn owner(&self) -> Option<Owner>;
    fn view(self) -> Self::View;
    fn uid_of(view: &Self::View) -> &str;
    /// The index that they are kept in.
    fn index(context: &Context) -> &ChildIndex<Self>;
    /// A child was shown, or went.
    fn shown(&self, _: &Context, _gone: bool) {}
    /// All children of a scope have been listed; these are there.
    fn listed(_: &Context, _: &Scope, _there: &HashSet<String>) {}
}

/// The controller of a child.
pub struct Owner {
    pub uid: String,
    /// Which object it is, if it is one of ours. A Job's own pods are owned by it.
    pub key: Option<Key>,
}

impl Owner {
    fn of(meta: &ObjectMeta) -> Option<Self> {
        let owner = meta.owner_references.iter().flatten().find(|r| r.controller == Some(true))?;
        let ours = owner.api_version.split('/').next() == Some(GROUP);
        let key = Kind::named(&owner.kind).filter(|_| ours).map(|kind| Key {
            kind,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: owner.name.clone(),
        });
        let job = owner.kind == "Job" && owner.api_version == "batch/v1";
        (key.is_some() || job).then(|| Self { uid: owner.uid.clone(), key })
    }
}

impl Child for SlimPod {
    type View = PodView;
    const OWNS: bool = false;

    fn owner(&self) -> Option<Owner> {
        Owner::of(&self.metadata)
    }

    fn view(self) -> PodView {
        self.into_view()
    }

    fn uid_of(view: &PodView) -> &str {
        &view.uid
    }

    fn index(context: &Context) -> &ChildIndex<Self> {
        &context.pods
    }
}

impl Child for SlimJob {
    type View = JobView;
    const OWNS: bool = true;

    fn owner(&self) -> Option<Owner> {
        Owner::of(&self.metadata).filter(|owner| owner.key.is_some())
    }

    fn view(self) -> JobView {
        self.into_view()
    }

    fn uid_of(view: &JobView) -> &str {
        &view.uid
    }

    fn index(context: &Context) -> &ChildIndex<Self> {
        &context.jobs
    }

    fn shown(&self, context: &Context, gone: bool) {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        let (uid, from) = (self.uid().unwrap_or_default(), job_templates::made_from(self.annotations()));
        if let Some(template) = context.templates.note_job(&namespace, &name, &uid, from, gone) {
            ask_template(context, &namespace, &template);
        }
    }

    fn listed(context: &Context, scope: &Scope, there: &HashSet<String>) {
        let changed = context.templates.retain_jobs(|n| scope.covers(n), |uid| there.contains(uid));
        for (namespace, template) in changed {
            ask_template(context, &namespace, &template);
        }
    }
}

fn ask_template(context: &Context, namespace: &str, template: &str) {
    if let Some(scope) = context.scope_of(namespace) {
        scope.templates.ask(ObjectRef::new(template).within(namespace));
    }
}

/// Pods by owner: a pool, or a Job of one.
pub type PodIndex = ChildIndex<SlimPod>;
/// Jobs by owner.
pub type JobIndex = ChildIndex<SlimJob>;

/// Which object the owner with a UID is or, if it is a Job, belongs to.
#[derive(Default)]
pub struct Owners {
    keys: RwLock<HashMap<String, Key>>,
    /// Since when a change waits to be looked at.
    touched: RwLock<HashMap<Key, Instant>>,
}

impl Owners {
    /// The object.
    pub fn of(&self, uid: &str) -> Option<Key> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// UIDs that are an object's, past ones among them, or its children's.
    pub fn uids(&self, key: &Key) -> Vec<String> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().filter(|(_, of)| *of == key).map(|(uid, _)| uid.clone()).collect()
    }

    fn note(&self, uid: &str, key: &Key) {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner).contains_key(uid);
        if !known {
            self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), key.clone());
        }
    }

    /// Forgets an owner that is gone.
    pub fn forget(&self, uid: &str) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Since when a change of the object's children has waited, taken.
    pub fn take_touched(&self, key: &Key) -> Option<Instant> {
        self.touched.write().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    /// Notes that a change waits to be looked at.
    pub fn touch(&self, key: &Key) {
        let mut touched = self.touched.write().unwrap_or_else(PoisonError::into_inner);
        touched.entry(key.clone()).or_insert_with(Instant::now);
    }
}

type Siblings<V> = BTreeMap<String, V>;

/// Children that went, and when.
type Gone<V> = Vec<(Instant, V)>;

/// Children by owner UID and name.
pub struct ChildIndex<C: Child> {
    children: RwLock<HashMap<String, Siblings<C::View>>>,
    /// Children that went a short while ago, as they were at last, by owner UID. One that came and went between two looks is
    /// not in `children`, and this alone tells it from one that the watch has not shown yet.
    gone: RwLock<HashMap<String, Gone<C::View>>>,
    synced: watch::Sender<usize>,
    scopes: usize,
}

impl<C: Child> ChildIndex<C> {
    pub fn new(scopes: usize) -> Self {
        Self { children: RwLock::default(), gone: RwLock::default(), synced: watch::channel(0).0, scopes }
    }

    /// Waits until every scope has been listed once.
    pub async fn ready(&self) {
        let mut synced = self.synced.subscribe();
        synced.wait_for(|n| *n >= self.scopes).await.ok();
    }

    /// Whether every scope has been listed once.
    pub fn is_ready(&self) -> bool {
        *self.synced.borrow() >= self.scopes
    }

    /// The children of an owner.
    pub fn of(&self, owner: &str) -> Vec<C::View> {
        let children = self.children.read().unwrap_or_else(PoisonError::into_inner);
        children.get(owner).map(|c| c.values().cloned().collect()).unwrap_or_default()
    }

    /// A child of an owner, by its name.
    pub fn get(&self, owner: &str, name: &str) -> Option<C::View> {
        let children = self.children.read().unwrap_or_else(PoisonError::into_inner);
        children.get(owner)?.get(name).cloned()
    }

    /// Whether the watch told within the last [`GONE`] that a child of an owner is gone.
    pub fn went(&self, owner: &str, uid: &str) -> bool {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        gone.get(owner).is_some_and(|gone| gone.iter().any(|(_, gone)| C::uid_of(gone) == uid))
    }

    /// Children of an owner of which the watch told within the last [`GONE`] that they are gone, as they were at last.
    pub fn gone(&self, owner: &str) -> Vec<C::View> {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        gone.get(owner).map(|gone| gone.iter().map(|(_, view)| view.clone()).collect()).unwrap_or_default()
    }

    fn put(&self, owner: &str, name: &str, view: C::View) {
        let mut children = self.children.write().unwrap_or_else(PoisonError::into_inner);
        children.entry(owner.to_owned()).or_default().insert(name.to_owned(), view);
    }

    fn remove(&self, owner: &str, name: &str, view: C::View) {
        let uid = C::uid_of(&view).to_owned();
        let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
        gone.entry(owner.to_owned()).or_default().push((Instant::now(), view));
        gone.retain(|_, gone| {
            gone.retain(|(at, _)| at.elapsed() < GONE);
            !gone.is_empty()
        });
        drop(gone);
        let mut children = self.children.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(siblings) = children.get_mut(owner) {
            if siblings.get(name).is_some_and(|c| C::uid_of(c) == uid) {
                siblings.remove(name);
            }
            if siblings.is_empty() {
                children.remove(owner);
            }
        }
    }

    /// Replaces what is known of a scope by a complete listing.
    fn replace(&self, in_scope: impl Fn(&str) -> bool, listed: HashMap<String, Siblings<C::View>>) {
        let mut children = self.children.write().unwrap_or_else(PoisonError::into_inner);
        children.retain(|owner, _| !in_scope(owner));
        children.extend(listed);
    }
}

impl PodIndex {
    /// Nodes that have pods.
    pub fn nodes(&self) -> HashSet<String> {
        let pools = self.children.read().unwrap_or_else(PoisonError::into_inner);
        pools.values().flat_map(BTreeMap::values).filter_map(|p| p.node.clone()).collect()
    }

    /// Owners of the pods on a node.
    pub fn on_node(&self, node: &str) -> Vec<String> {
        let pools = self.children.read().unwrap_or_else(PoisonError::into_inner);
        let there = |pool: &Siblings<PodView>| pool.values().any(|p| p.node.as_deref() == Some(node));
        pools.iter().filter(|(_, pool)| there(pool)).map(|(uid, _)| uid.clone()).collect()
    }
}

/// Keeps an index true for a scope until told to stop.
pub async fn watch_children<C: Child>(
    context: Arc<Context>,
    scope: Arc<Scope>,
    mut stop: watch::Receiver<bool>,
) {
    let config = watches().labels(keys::OWNER_UID);
    let mut events =
        watcher(scope.api::<C>(context.client.clone()), config).backoff(WatchBackOff::default()).boxed();
    let index = C::index(&context);
    // Owners seen in this scope.
    let mut owners: HashSet<String> = HashSet::new();
    let mut listing: HashMap<String, Siblings<C::View>> = HashMap::new();
    let mut first = true;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = stop.wait_for(|s| *s) => return,
        };
        let (child, gone) = match event {
            None => return,
            Some(Err(error)) => {
                let what = C::plural(&());
                tracing::warn!(scope = scope.label(), %error, "the watch of {what} broke, trying again");
                continue;
            }
            Some(Ok(watcher::Event::Init)) => {
                listing.clear();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(child))) => {
                if let Some(owner) = known_owner(&context, &child) {
                    owners.insert(owner.uid.clone());
                    child.shown(&context, false);
                    listing.entry(owner.uid).or_default().insert(child.name_any(), child.view());
                }
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => {
                let views = listing.values().flat_map(BTreeMap::values);
                C::listed(&context, &scope, &views.map(|view| C::uid_of(view).to_owned()).collect());
                index.replace(|uid| owners.contains(uid), std::mem::take(&mut listing));
                if std::mem::take(&mut first) {
                    index.synced.send_modify(|n| *n += 1);
                }
                for key in owners.iter().filter_map(|uid| context.owners.of(uid)) {
                    context.trigger(&key);
                }
                continue;
            }
            Some(Ok(watcher::Event::Apply(child))) => (child, false),
            Some(Ok(watcher::Event::Delete(child))) => (child, true),
        };
        let Some(owner) = known_owner(&context, &child) else { continue };
        owners.insert(owner.uid.clone());
        child.shown(&context, gone);
        let (name, uid) = (child.name_any(), child.uid().unwrap_or_default());
        if gone {
            index.remove(&owner.uid, &name, child.view());
            // A Job's pods may outlive it; nobody asks for them any more.
            context.owners.forget(&uid);
        } else {
            index.put(&owner.uid, &name, child.view());
        }
        // A pod of a Job that the other watch has not shown yet: that Job's event asks for the look.
        if let Some(key) = context.owners.of(&owner.uid) {
            context.owners.touch(&key);
            context.trigger(&key);
        }
    }
}

/// The child's owner; notes whom it and the child itself, who may own others, belong to.
fn known_owner<C: Child>(context: &Context, child: &C) -> Option<Owner> {
    let owner = child.owner()?;
    if let Some(key) = &owner.key {
        context.owners.note(&owner.uid, key);
        if C::OWNS {
            context.owners.note(&child.uid().unwrap_or_default(), key);
        }
    }
    Some(owner)
}
