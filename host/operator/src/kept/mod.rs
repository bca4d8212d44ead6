//! Jobs and pods that a finalizer keeps until their outcome is in their owner's status: what the kinds share whose objects
//! make such children. A kind says in its own file what it wants; how that is carried out stands here, once.
//!
//! ```text
//!   control ─▶ K::look ─▶ memory: the children, as far as they are known
//!                      ─▶ create: after one more read of the object
//!                      ─▶ deeds: what is done with children that there are
//!                      ─▶ farewells: children are let go beside
//!                      ─▶ outbox: the status, in the object's version
//! ```

mod child;
mod control;
mod create;
mod creations;
mod deeds;
#[cfg(test)]
pub(crate) mod fake;
mod farewells;
mod memory;
mod outbox;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::core::object::HasStatus;
use kube::runtime::controller::Action as Next;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::again::ERRORS;
use crate::apply::timed;
use crate::context::{Context, Scope};
use crate::looked::Looked;
use crate::object::{Key, Kind};

pub use child::{KeptChild, View};
pub use control::control;
pub use create::{Created, Maker, Outcome, create, foresee};
pub use creations::Creations;
pub use deeds::{Deed, carry_out, perform};
pub use farewells::Farewells;
pub use memory::{Memory, Remembered};
pub use outbox::{Outbox, Permits, hand_over, write};

/// Why a look failed. The object is looked at again.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("a {0} cannot be created: {1}")]
    Create(&'static str, kube::Error),
}

/// A kind of object whose children are kept.
pub trait Keeper:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status: Clone + Default + PartialEq + Serialize + Send + Sync + 'static>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const KIND: Kind;
    /// Children of one look that are created at a time.
    const CREATES: usize;
    /// So long its statuses give way while looks, of whatever objects, create children. What is urgent does not.
    const YIELDS: Duration = Duration::ZERO;
    /// Jobs, or pods.
    type Child: KeptChild;
    /// News that hold once a status is written.
    type Told: Send + Sync + 'static;
    /// What the kind itself remembers of an object between two looks.
    type Own: Default + Send + 'static;

    /// What is remembered of its objects.
    fn remembered(context: &Context) -> &Remembered<Self>;
    /// What asks for looks at its objects.
    fn looked(scope: &Scope) -> &Looked<Self>;

    /// Looks at an object that is not being deleted, and does what is to be done.
    fn look(
        context: &Arc<Context>,
        object: &Arc<Self>,
        memory: &mut Memory<Self>,
    ) -> impl Future<Output = Result<Next, KeptError>> + Send;

    /// What is to be done with its children when the object goes. Nothing = that is done.
    fn farewell(context: &Context, children: &[View<Self>], now: Timestamp) -> Vec<Deed>;

    /// What its status says while it goes, if that is something else.
    fn leaving(&self) -> Option<Self::Status> {
        None
    }

    /// Whether somebody waits for what a status says now: children that may only come once it is written, or whoever
    /// waits for the object's state. Such a status is written at once.
    fn urgent(_before: &Self::Status, _after: &Self::Status) -> bool {
        false
    }

    /// A child was asked for; in one word, what became of it.
    fn count_created(context: &Context, outcome: &'static str);

    /// A status was written: what there is to tell of it. What is counted is counted here.
    fn written(
        &self,
        context: &Context,
        before: &Self::Status,
        after: &Self::Status,
        told: &[Self::Told],
    ) -> Vec<News>;
}

/// An object is looked at so often at least while something is to come: timers do not know when the clock is set, or that
/// the machine slept.
const RARELY: Duration = Duration::from_secs(60);

/// How long until a time.
pub fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}

/// When to look again after a look that did all it wanted: at the first of these, if any.
pub fn later(wakes: impl IntoIterator<Item = Option<Duration>>) -> Next {
    let first = wakes.into_iter().flatten().min();
    // A moment more than asked, so that the look comes after what it waits for.
    let first = first.map(|wake| (wake + Duration::from_millis(2)).min(RARELY));
    first.map_or_else(Next::await_change, Next::requeue)
}

/// When to look again after a look that left something undone.
pub fn undone<K: Keeper>(memory: &mut Memory<K>, key: &Key, error: &KeptError) -> Next {
    memory.failures += 1;
    tracing::warn!(object = %key, %error, "a look left something undone, trying again");
    // What others wait for, or has an instant, does not wait long.
    Next::requeue(ERRORS.after(memory.failures.min(2)))
}

/// Something to tell in an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub warning: bool,
    pub reason: String,
    pub words: String,
}

impl News {
    pub fn new(warning: bool, reason: impl Into<String>, words: impl Into<String>) -> Self {
        Self { warning, reason: reason.into(), words: words.into() }
    }
}

/// Which object it is.
pub fn key<K: Keeper>(object: &K) -> Key {
    let namespace = object.namespace().unwrap_or_default();
    Key { kind: K::KIND, namespace, name: object.name_any() }
}

/// The API for objects of its kind in its namespace.
pub fn api<K: Keeper>(context: &Context, object: &K) -> Api<K> {
    Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default())
}

/// Its version, as a number: versions of one object can be compared.
pub fn version<K: Keeper>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Events about an object, one after the other.
pub async fn publish<K: Keeper>(context: &Context, object: &K, news: &[News]) {
    for news in news {
        tracing::info!(object = %key(object), reason = news.reason, words = news.words);
        let event = Event {
            type_: if news.warning { EventType::Warning } else { EventType::Normal },
            reason: news.reason.clone(),
            note: Some(news.words.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = timed(context.recorder.publish(&event, &object.object_ref(&()))).await {
            tracing::warn!(%error, "an Event could not be written");
        }
    }
}

/// So long Events give way while looks create children.
const EVENTS_YIELD: Duration = Duration::from_secs(30);

/// The same beside what goes on: nobody waits for Events.
pub fn publish_soon<K: Keeper>(context: &Arc<Context>, object: &Arc<K>, news: Vec<News>) {
    let (context, object) = (context.clone(), object.clone());
    tokio::spawn(async move {
        // When it is over, they have waited long enough.
        tokio::time::timeout(EVENTS_YIELD, context.creations.none()).await.ok();
        let _permit = context.event_permits.one().await;
        publish(&context, &*object, &news).await;
    });
}

/// What there is to tell of conditions that turned bad: of those in `healthy` when they are False, of those in `harmful`
/// when they are True. Loading takes a moment and is no trouble.
pub fn turned_bad(
    before: &[Condition],
    after: &[Condition],
    healthy: &[&str],
    harmful: &[&str],
) -> Vec<News> {
    let bad = |c: &&Condition| match c.status.as_str() {
        "False" => healthy.contains(&c.type_.as_str()),
        _ => harmful.contains(&c.type_.as_str()),
    };
    let news = |c: &&Condition| {
        let old = before.iter().find(|old| old.type_ == c.type_);
        !old.is_some_and(|old| old.status == c.status && old.reason == c.reason) && c.reason != "Loading"
    };
    let tell = |c: &Condition| News::new(true, format!("{}{}", c.type_, c.reason), c.message.clone());
    after.iter().filter(bad).filter(news).map(tell).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "so it is".to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn a_condition_is_told_of_once_when_it_turns_bad_and_not_when_it_mends() {
        let told = |before: &[Condition], after: &[Condition]| {
            let news = turned_bad(before, after, &["TemplateValid"], &["Conflict"]);
            news.into_iter().map(|news| news.reason).collect::<Vec<_>>()
        };
        let refused = condition("TemplateValid", "False", "Refused");
        let taken = condition("Conflict", "True", "NameTaken");
        assert_eq!(
            told(&[], &[refused.clone(), taken.clone()]),
            ["TemplateValidRefused", "ConflictNameTaken"]
        );
        assert!(
            told(std::slice::from_ref(&refused), &[refused.clone(), condition("Ready", "False", "No")])
                .is_empty()
        );
        assert!(told(&[taken], &[condition("Conflict", "False", "NoConflict")]).is_empty());
        assert!(told(&[], &[condition("TemplateValid", "False", "Loading")]).is_empty());
    }
}
