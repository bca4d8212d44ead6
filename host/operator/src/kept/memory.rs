//! What is remembered of objects between two looks, and their children as far as they are known: as the watch shows them,
//! with what was done since and is not shown yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::{Api, Client, ResourceExt as _};

use super::outbox::STATUS_PERIOD;
use super::{Farewells, Keeper, KeptChild as _, Outbox, View};
use crate::again::REFUSALS;
use crate::apply::timed;
use crate::context::Context;
use crate::object::Key;
use crate::observe::Child as _;

/// What was made is believed to exist for so long although the watch does not show it; then it is asked for.
const BELIEVED: Duration = Duration::from_secs(30);

type Shared<K> = Arc<tokio::sync::Mutex<Memory<K>>>;

/// What is remembered of all objects of a kind, by UID.
pub struct Remembered<K: Keeper>(Mutex<HashMap<String, Shared<K>>>);

impl<K: Keeper> Default for Remembered<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// What is remembered of an object between two looks.
pub struct Memory<K: Keeper> {
    key: Key,
    /// The object as it was read or written last, and what is to be written.
    pub outbox: Arc<Outbox<K>>,
    /// Children that were made and that the watch may not have shown yet.
    made: Vec<(Instant, View<K>)>,
    /// Children that are let go beside the looks, or were and no watch may have shown it yet.
    pub farewells: Arc<Farewells>,
    /// What the API server does not take.
    pub refusals: Refusals,
    /// Names of children that are another's.
    pub conflicts: Refusals,
    /// Looks in a row that left something undone.
    pub failures: u32,
    /// Since when no look has handed a status over.
    untold: Option<Instant>,
    /// What the kind itself remembers.
    pub own: K::Own,
}

impl<K: Keeper> Remembered<K> {
    /// What is remembered of an object.
    pub fn of(&self, uid: &str, key: &Key) -> Shared<K> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(uid.to_owned())
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Memory::new(key.clone()))))
            .clone()
    }

    /// Forgets an object that is gone; its UID.
    pub fn forget(&self, key: &Key) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        all.retain(|uid, memory| {
            // One that is being looked at is forgotten by the next look.
            let other = memory.try_lock().map_or(true, |memory| memory.key != *key);
            if !other {
                gone.push(uid.clone());
            }
            other
        });
        gone
    }
}

impl<K: Keeper> Memory<K> {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            outbox: Arc::default(),
            made: Vec::new(),
            farewells: Arc::default(),
            refusals: Refusals::default(),
            conflicts: Refusals::default(),
            failures: 0,
            untold: None,
            own: K::Own::default(),
        }
    }

    /// The children of an object.
    pub async fn children(&mut self, context: &Context, uid: &str) -> Vec<View<K>> {
        let index = K::Child::index(context);
        let children = self.overlay(index.of(uid), |child| index.went(uid, child));
        if !self.made.iter().any(|(at, _)| at.elapsed() >= BELIEVED) {
            return children;
        }
        self.ask_for_made(&context.client).await;
        self.overlay(index.of(uid), |child| index.went(uid, child))
    }

    /// That a watch does not show a child does not tell that there is none: it may be late, or cut off. Those that should
    /// have been shown by now are read; where nobody answers they are believed in.
    async fn ask_for_made(&mut self, client: &Client) {
        let api: Api<K::Child> = Api::namespaced(client.clone(), &self.key.namespace);
        let mut gone = HashSet::new();
        for (at, made) in self.made.iter_mut().filter(|(at, _)| at.elapsed() >= BELIEVED) {
            let (name, uid) = (K::Child::name_of(made), K::Child::uid_of(made));
            match timed(api.get_opt(name)).await {
                Ok(found) if found.as_ref().and_then(|found| found.uid()).as_deref() != Some(uid) => {
                    gone.insert(uid.to_owned());
                }
                Ok(_) => *at = Instant::now(),
                Err(error) => {
                    let word = K::Child::WORD;
                    tracing::warn!(object = %self.key, name, %error, "a {word} that no watch shows cannot be read");
                    break;
                }
            }
        }
        self.made.retain(|(_, made)| !gone.contains(K::Child::uid_of(made)));
    }

    /// The children that the watch shows, and what it does not show yet. `went` = it has told that one is gone.
    fn overlay(&mut self, mut shown: Vec<View<K>>, went: impl Fn(&str) -> bool) -> Vec<View<K>> {
        let uid = K::Child::uid_of;
        self.made.retain(|(_, made)| !went(uid(made)) && shown.iter().all(|one| uid(one) != uid(made)));
        shown.extend(self.made.iter().map(|(_, made)| made.clone()));
        self.farewells.overlay::<K::Child>(&mut shown);
        shown
    }

    /// Whether the status of a look waits for the next one, which follows at once because this one made something, and tells
    /// of that, too. Where each look makes something it does not wait longer than it is written at most.
    pub fn status_waits(&mut self, made: bool) -> bool {
        let since = *self.untold.get_or_insert_with(Instant::now);
        let waits = made && since.elapsed() < STATUS_PERIOD;
        if !waits {
            self.untold = None;
        }
        waits
    }

    /// Notes that a child exists.
    pub(super) fn note_made(&mut self, child: View<K>) {
        self.made.push((Instant::now(), child));
    }
}

/// What the API server refused, by what it was: a hash of a template, a step. It is tried again later.
#[derive(Default)]
pub struct Refusals(HashMap<String, Refused>);

/// Something that was refused.
struct Refused {
    words: String,
    again: Instant,
    in_a_row: u32,
}

impl Refusals {
    /// Whether something is not to be tried yet.
    pub fn wait(&self, what: &str) -> bool {
        self.0.get(what).is_some_and(|refused| Instant::now() < refused.again)
    }

    /// What is not to be tried yet, and the API server's words.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        let now = Instant::now();
        let waits = self.0.iter().filter(move |(_, refused)| now < refused.again);
        waits.map(|(what, refused)| (what.as_str(), refused.words.as_str()))
    }

    /// What was refused, and whether it may be tried again by now.
    pub fn all(&self) -> impl Iterator<Item = (&str, bool)> {
        let now = Instant::now();
        self.0.iter().map(move |(what, refused)| (what.as_str(), refused.again <= now))
    }

    /// Notes that something was refused.
    pub fn note(&mut self, what: &str, words: String) {
        let in_a_row = self.0.get(what).map_or(1, |before| before.in_a_row.saturating_add(1));
        let again = Instant::now() + REFUSALS.after(in_a_row);
        self.0.insert(what.to_owned(), Refused { words, again, in_a_row });
    }

    /// Notes that something was taken.
    pub fn taken(&mut self, what: &str) {
        self.0.remove(what);
    }

    /// Forgets all but what is to be kept.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|what, _| keep(what));
    }

    /// The first of them, by name, and the API server's words.
    pub fn first(&self) -> Option<(&str, &str)> {
        self.0
            .iter()
            .min_by_key(|(what, _)| what.as_str())
            .map(|(what, refused)| (what.as_str(), refused.words.as_str()))
    }

    /// How long until the first of them is tried again. What could have been tried by now has nobody who wants it.
    pub fn wake(&self) -> Option<Duration> {
        let now = Instant::now();
        self.0.values().filter_map(|refused| refused.again.checked_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use serde_json::{Value, json};
    use stoker_api::{NodeBatchJob, PreScaledCronJob, keys};
    use stoker_core::pool::JobView;

    use super::super::fake::{Fake, refusal, serve};
    use super::*;
    use crate::object::Kind;
    use crate::slim_pod::SlimPod;

    fn memory() -> Memory<PreScaledCronJob> {
        Memory::new(Key { kind: Kind::PreScaledCronJob, namespace: "a".into(), name: "b".into() })
    }

    fn job(uid: &str) -> JobView {
        JobView {
            name: format!("job-{uid}"),
            uid: uid.to_owned(),
            resource_version: "1".to_owned(),
            slot: None,
            created: Timestamp::UNIX_EPOCH,
            terminating: false,
            deleted_at: None,
            finalizers: vec![keys::OUTCOME.to_owned()],
            edited: false,
            finished: None,
            parallelism: 1,
            completions: None,
            active: 0,
            succeeded: 0,
            failed: 0,
            template_hash: None,
            annotations: BTreeMap::new(),
        }
    }

    fn uids(jobs: &[JobView]) -> Vec<&str> {
        jobs.iter().map(|job| job.uid.as_str()).collect()
    }

    #[test]
    fn a_job_that_was_made_exists_before_the_watch_shows_it_and_once_afterwards() {
        let mut memory = memory();
        memory.note_made(job("1"));
        assert_eq!(uids(&memory.overlay(vec![], |_| false)), ["1"]);
        assert_eq!(uids(&memory.overlay(vec![job("1")], |_| false)), ["1"]);
        assert!(memory.overlay(vec![], |_| false).is_empty());
    }

    #[test]
    fn that_no_watch_shows_a_job_for_long_does_not_tell_that_it_is_gone() {
        let mut memory = long_unseen(&["1"]);
        assert_eq!(uids(&memory.overlay(vec![], |_| false)), ["1"]);
    }

    /// A memory of Jobs that were made so long ago that the watch should have shown them.
    fn long_unseen(made: &[&str]) -> Memory<PreScaledCronJob> {
        let mut memory = memory();
        made.iter().for_each(|uid| memory.note_made(job(uid)));
        for (at, _) in &mut memory.made {
            *at = at.checked_sub(BELIEVED * 2).unwrap_or(*at);
        }
        memory
    }

    /// A server that has the Job `job-1`, of some UID.
    fn has(uid: &'static str) -> Fake {
        serve(move |asked| match asked.what.as_str() {
            "GET /apis/batch/v1/namespaces/a/jobs/job-1" => (200, stored(uid)),
            _ => refusal(404, "NotFound"),
        })
    }

    fn stored(uid: &str) -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job-1", "uid": uid}})
    }

    #[tokio::test]
    async fn a_job_that_no_watch_shows_for_long_and_that_the_server_denies_is_forgotten() {
        let (mut memory, server) = (long_unseen(&["1", "2"]), has("1"));
        memory.ask_for_made(&server.client).await;
        assert_eq!(uids(&memory.overlay(vec![], |_| false)), ["1"], "there is no Job job-2");
        let (mut memory, server) = (long_unseen(&["1"]), has("another"));
        memory.ask_for_made(&server.client).await;
        assert!(memory.overlay(vec![], |_| false).is_empty(), "a namesake is another");
    }

    #[tokio::test]
    async fn a_job_that_exists_though_no_watch_shows_it_is_believed_in_and_not_asked_for_again_soon() {
        let (mut memory, server) = (long_unseen(&["1"]), has("1"));
        memory.ask_for_made(&server.client).await;
        memory.ask_for_made(&server.client).await;
        assert_eq!(uids(&memory.overlay(vec![], |_| false)), ["1"]);
        assert_eq!(server.calls().len(), 1);
    }

    #[tokio::test]
    async fn where_nobody_answers_jobs_are_believed_in_and_asked_for_at_the_next_look() {
        let (mut memory, server) = (long_unseen(&["1", "2"]), serve(|_| refusal(500, "InternalError")));
        memory.ask_for_made(&server.client).await;
        assert_eq!(uids(&memory.overlay(vec![], |_| false)), ["1", "2"]);
        assert_eq!(server.calls().len(), 1, "the first error tells enough");
        memory.ask_for_made(&server.client).await;
        assert_eq!(server.calls().len(), 2);
    }

    #[tokio::test]
    async fn what_was_made_a_moment_ago_is_not_asked_for() {
        let (mut memory, server) = (memory(), has("1"));
        memory.note_made(job("1"));
        memory.ask_for_made(&server.client).await;
        assert!(server.calls().is_empty());
    }

    #[tokio::test]
    async fn pods_are_made_let_go_and_asked_for_as_jobs_are() {
        let key = Key { kind: Kind::NodeBatchJob, namespace: "a".into(), name: "b".into() };
        let mut memory = Memory::<NodeBatchJob>::new(key);
        let pod = |uid: &str| {
            let metadata = json!({"name": format!("pod-{uid}"), "uid": uid, "finalizers": [keys::OUTCOME]});
            let pod: Result<SlimPod, _> =
                serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}));
            pod.unwrap().into_view()
        };
        memory.note_made(pod("1"));
        memory.farewells.note_let_go("2".to_owned());
        let pods = memory.overlay(vec![pod("2"), pod("3")], |_| false);
        let kept: Vec<_> = pods.iter().map(|pod| (pod.uid.as_str(), !pod.finalizers.is_empty())).collect();
        assert_eq!(kept, [("2", false), ("3", true), ("1", true)]);

        for (at, _) in &mut memory.made {
            *at = at.checked_sub(BELIEVED * 2).unwrap_or(*at);
        }
        let server = serve(|_| refusal(404, "NotFound"));
        memory.ask_for_made(&server.client).await;
        assert_eq!(server.calls(), ["GET /api/v1/namespaces/a/pods/pod-1"]);
        assert!(memory.overlay(vec![], |_| false).is_empty());
    }

    #[test]
    fn a_job_that_came_and_went_between_two_looks_does_not_exist() {
        let mut memory = memory();
        memory.note_made(job("1"));
        assert!(memory.overlay(vec![], |uid| uid == "1").is_empty());
        assert!(memory.overlay(vec![], |_| false).is_empty());
    }

    #[test]
    fn a_job_that_was_let_go_is_not_kept_although_the_watch_shows_it_so() {
        let mut memory = memory();
        memory.farewells.note_let_go("1".to_owned());
        let jobs = memory.overlay(vec![job("1"), job("2")], |_| false);
        assert!(jobs[0].finalizers.is_empty() && !jobs[1].finalizers.is_empty());
        memory.overlay(vec![job("2")], |_| false);
        assert!(memory.farewells.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn a_status_waits_for_the_next_look_while_looks_make_something_but_not_for_ever() {
        let mut memory = memory();
        assert!(!memory.status_waits(false));
        assert!(memory.status_waits(true) && memory.status_waits(true));
        memory.untold = Instant::now().checked_sub(STATUS_PERIOD);
        assert!(!memory.status_waits(true));
        assert!(memory.status_waits(true), "it was handed over a moment ago");
        assert!(!memory.status_waits(false));
        assert_eq!(memory.untold, None);
    }

    #[test]
    fn what_was_refused_waits_and_asks_for_a_look_only_until_then() {
        let mut refusals = Refusals::default();
        refusals.note("a", "quota".to_owned());
        assert!(refusals.wait("a") && !refusals.wait("b"));
        assert!(refusals.wake().is_some_and(|wake| wake <= Duration::from_secs(5)));
        if let Some(refused) = refusals.0.get_mut("a") {
            refused.again = Instant::now();
        }
        assert!(!refusals.wait("a"));
        assert_eq!(refusals.wake(), None);
        assert_eq!(refusals.first(), Some(("a", "quota")));
        refusals.note("a", "quota".to_owned());
        assert!(refusals.wake().is_some_and(|wake| wake > Duration::from_secs(5)), "the wait doubles");
        refusals.taken("a");
        assert_eq!(refusals.first(), None);
    }
}
