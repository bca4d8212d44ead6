//! What is remembered of objects between two looks, and the Jobs as far as they are known: as the watch shows them, with
//! what was done since and is not shown yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Api;
use stoker_api::keys;
use stoker_core::pool::JobView;

use super::{Keeper, Outbox};
use crate::again::REFUSALS;
use crate::apply::timed;
use crate::context::Context;
use crate::object::Key;
use crate::slim_job::SlimJob;

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
    /// Jobs that were made and that the watch may not have shown yet.
    made: Vec<(Instant, JobView)>,
    /// Jobs that were let go and that the watch may not have shown so yet, by UID.
    let_go: HashSet<String>,
    /// What the API server does not take.
    pub refusals: Refusals,
    /// Names of Jobs that are another's.
    pub conflicts: Refusals,
    /// Looks in a row that left something undone.
    pub failures: u32,
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
    fn new(key: Key) -> Self {
        Self {
            key,
            outbox: Arc::default(),
            made: Vec::new(),
            let_go: HashSet::new(),
            refusals: Refusals::default(),
            conflicts: Refusals::default(),
            failures: 0,
            own: K::Own::default(),
        }
    }

    /// The Jobs of an object.
    pub async fn jobs(&mut self, context: &Context, uid: &str) -> Vec<JobView> {
        let jobs = self.overlay(context.jobs.of(uid), |job| context.jobs.went(uid, job));
        if !self.made.iter().any(|(at, _)| at.elapsed() >= BELIEVED) {
            return jobs;
        }
        self.ask_for_made(context).await;
        self.overlay(context.jobs.of(uid), |job| context.jobs.went(uid, job))
    }

    /// That a watch does not show a Job does not tell that there is none: it may be late, or cut off. Those that should
    /// have been shown by now are read; where nobody answers they are believed in.
    async fn ask_for_made(&mut self, context: &Context) {
        let api: Api<SlimJob> = Api::namespaced(context.client.clone(), &self.key.namespace);
        let mut gone = HashSet::new();
        for (at, made) in self.made.iter_mut().filter(|(at, _)| at.elapsed() >= BELIEVED) {
            match timed(api.get_opt(&made.name)).await {
                Ok(found)
                    if found.as_ref().is_none_or(|job| job.metadata.uid.as_ref() != Some(&made.uid)) =>
                {
                    gone.insert(made.uid.clone());
                }
                Ok(_) => *at = Instant::now(),
                Err(error) => {
                    tracing::warn!(object = %self.key, job = made.name, %error, "a Job that no watch shows cannot be read");
                    break;
                }
            }
        }
        self.made.retain(|(_, made)| !gone.contains(&made.uid));
    }

    /// The Jobs that the watch shows, and what it does not show yet. `went` = it has told that a Job is gone.
    fn overlay(&mut self, mut shown: Vec<JobView>, went: impl Fn(&str) -> bool) -> Vec<JobView> {
        self.made.retain(|(_, made)| !went(&made.uid) && shown.iter().all(|job| job.uid != made.uid));
        shown.extend(self.made.iter().map(|(_, made)| made.clone()));
        if !self.let_go.is_empty() {
            let there: HashSet<&str> = shown.iter().map(|job| job.uid.as_str()).collect();
            self.let_go.retain(|uid| there.contains(uid.as_str()));
        }
        for job in shown.iter_mut().filter(|job| self.let_go.contains(&job.uid)) {
            job.finalizers.retain(|finalizer| finalizer != keys::OUTCOME);
        }
        shown
    }

    /// Notes that a Job exists.
    pub(super) fn note_made(&mut self, job: JobView) {
        self.made.push((Instant::now(), job));
    }

    /// Notes that a Job was let go.
    pub(super) fn note_let_go(&mut self, uid: String) {
        self.let_go.insert(uid);
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
    use stoker_api::PreScaledCronJob;

    use super::*;
    use crate::object::Kind;

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
        let mut memory = memory();
        memory.note_made(job("1"));
        for (at, _) in &mut memory.made {
            *at = at.checked_sub(BELIEVED * 2).unwrap_or(*at);
        }
        assert_eq!(uids(&memory.overlay(vec![], |_| false)), ["1"]);
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
        memory.note_let_go("1".to_owned());
        let jobs = memory.overlay(vec![job("1"), job("2")], |_| false);
        assert!(jobs[0].finalizers.is_empty() && !jobs[1].finalizers.is_empty());
        memory.overlay(vec![job("2")], |_| false);
        assert!(memory.let_go.is_empty(), "what is gone is forgotten");
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
