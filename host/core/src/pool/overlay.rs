//! What an operator believes of its own doings while its watch is late: pods that it made and the watch does not
//! show, pods that it removed and the watch shows as they were, and writes of which it never learned whether they
//! were done. Beliefs end when the watch shows what became of them, else after [`BELIEVED`].

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::PodView;

/// How long something is believed that the watch does not show. Longer than any healthy watch lags.
pub const BELIEVED: SignedDuration = SignedDuration::from_secs(30);

/// An operator's own doings, as far as the watch has not confirmed them.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// Pods made that the watch does not show.
    made: Vec<(Timestamp, PodView)>,
    /// Pods removed that the watch shows as they were, or may yet.
    removed: Vec<Removed>,
    /// Pods whose removal was not answered clearly.
    perhaps_removed: Vec<Removal>,
    /// Slots of pods that may have been made.
    tried: BTreeMap<u32, Tried>,
}

/// A pod that is going or gone.
#[derive(Clone, Debug)]
struct Removed {
    at: Timestamp,
    uid: String,
    /// The watch has shown it.
    shown: bool,
}

/// A removal that may have been done.
#[derive(Clone, Debug)]
struct Removal {
    at: Timestamp,
    uid: String,
    /// The version that it was for: if it was done, the next one is of a terminating pod.
    version: String,
}

/// A slot whose pod may have been made.
#[derive(Clone, Debug)]
struct Tried {
    at: Timestamp,
    /// The name that it has then.
    name: String,
    /// The pod, if it was made for certain, and it is only unknown what became of it.
    uid: Option<String>,
}

/// Whether one version of an object came after another. Versions are numbers that go up (Kubernetes API Concepts:
/// Resource versions); any that are not are taken to be news.
fn is_after(version: &str, other: &str) -> bool {
    match (version.parse::<u64>(), other.parse::<u64>()) {
        (Ok(version), Ok(other)) => version > other,
        _ => version != other,
    }
}

impl Overlay {
    /// A pod was made, or was found in the slot that should be filled, whatever has become of it.
    pub fn made(&mut self, pod: PodView, now: Timestamp) {
        if let Some(slot) = pod.slot {
            self.tried.remove(&slot);
        }
        self.made.retain(|(_, made)| made.name != pod.name);
        let ended = (!pod.alive()).then(|| pod.uid.clone());
        self.made.push((now, pod));
        if let Some(uid) = ended {
            // The watch may yet show it as it was before.
            self.removed(&uid, now);
        }
    }

    /// The creation of a slot's pod under a name was not answered: it may have been done.
    pub fn creation_unanswered(&mut self, slot: u32, name: &str, now: Timestamp) {
        self.tried.insert(slot, Tried { at: now, name: name.to_owned(), uid: None });
    }

    /// No pod of the pool is in a slot: another's has the name.
    pub fn not_made(&mut self, slot: u32) {
        self.tried.remove(&slot);
    }

    /// A pod's removal was accepted.
    pub fn removed(&mut self, uid: &str, now: Timestamp) {
        self.perhaps_removed.retain(|removal| removal.uid != uid);
        let shown = !self.made.iter().any(|(_, made)| made.uid == uid);
        self.removed.push(Removed { at: now, uid: uid.to_owned(), shown });
    }

    /// A pod's removal in a version was not answered, or with a conflict, which a request repeated on its way also
    /// finds: it may have been done.
    pub fn removal_unanswered(&mut self, uid: &str, version: &str, now: Timestamp) {
        self.perhaps_removed.retain(|removal| removal.uid != uid);
        self.perhaps_removed.push(Removal { at: now, uid: uid.to_owned(), version: version.to_owned() });
    }

    /// The API server does not know a pod any more. True = the watch has never shown it, so that nothing else will ask
    /// for the look that is due now.
    pub fn gone(&mut self, uid: &str, now: Timestamp) -> bool {
        // The watch may yet show how it came.
        self.removed(uid, now);
        let before = self.made.len();
        self.made.retain(|(_, made)| made.uid != uid);
        self.made.len() < before
    }

    /// The pods that the watch shows, corrected by what was done. `went` tells of a UID whether the watch told lately
    /// that it is gone: a pod that came and went between two looks is in no view.
    pub fn see(&mut self, shown: Vec<PodView>, went: impl Fn(&str) -> bool, now: Timestamp) -> Vec<PodView> {
        let mut pods = shown;
        if self.made.is_empty()
            && self.removed.is_empty()
            && self.perhaps_removed.is_empty()
            && self.tried.is_empty()
        {
            return pods;
        }
        let fresh = |at: &Timestamp| now < *at + BELIEVED;
        let names: HashSet<&str> = pods.iter().map(|p| p.name.as_str()).collect();
        let uids: HashSet<&str> = pods.iter().map(|p| p.uid.as_str()).collect();

        self.removed.iter_mut().for_each(|r| r.shown |= uids.contains(r.uid.as_str()));
        self.made.retain(|(_, made)| !uids.contains(made.uid.as_str()) && !went(&made.uid));
        let (made, doubtful) = std::mem::take(&mut self.made).into_iter().partition(|(at, _)| fresh(at));
        self.made = made;
        for (_, pod) in doubtful {
            // The watch is very late, or the pod vanished unseen: should its slot be filled, its name will tell.
            if let Some(slot) = pod.slot {
                self.tried.insert(slot, Tried { at: now, name: pod.name, uid: Some(pod.uid) });
            }
        }
        self.tried.retain(|_, tried| match tried.uid.as_deref() {
            Some(uid) => !uids.contains(uid) && !went(uid),
            None => !names.contains(tried.name.as_str()),
        });
        // A namesake that the watch shows is another pod; one of both is gone. If that one has ended, it may be the one:
        // a Job that has ended holds no slot, and another would be made beside the one that is there.
        let goes_on = pods.iter().filter(|p| !p.phase.is_terminal());
        let taken: HashSet<&str> = goes_on.map(|p| p.name.as_str()).collect();
        let unseen = self.made.iter().filter(|(_, made)| !taken.contains(made.name.as_str()));
        let unseen: Vec<PodView> = unseen.map(|(_, made)| made.clone()).collect();
        pods.extend(unseen);

        let alive = pods.iter().filter(|p| !p.terminating);
        let shown: HashMap<&str, &str> =
            alive.map(|p| (p.uid.as_str(), p.resource_version.as_str())).collect();
        self.removed
            .retain(|r| fresh(&r.at) && !went(&r.uid) && (!r.shown || shown.contains_key(r.uid.as_str())));
        let as_it_was =
            |r: &Removal| shown.get(r.uid.as_str()).is_some_and(|shown| !is_after(shown, &r.version));
        self.perhaps_removed.retain(|r| fresh(&r.at) && as_it_was(r));
        let removed: HashSet<&str> = self.removed.iter().map(|r| r.uid.as_str()).collect();
        for pod in &mut pods {
            pod.terminating |= removed.contains(pod.uid.as_str());
        }
        pods
    }

    /// Slots that are to be filled before any other, should a pod be missing: a pod may be there already, and in
    /// another slot there would be one too many.
    pub fn tried(&self) -> impl Iterator<Item = u32> {
        self.tried.keys().copied()
    }

    /// The name under which a slot's pod may be there already.
    pub fn name_tried(&self, slot: u32) -> Option<&str> {
        self.tried.get(&slot).map(|tried| tried.name.as_str())
    }

    /// Slots that may have been filled a short while ago: they take room.
    pub fn in_doubt(&self, now: Timestamp) -> HashSet<u32> {
        self.tried.iter().filter(|(_, tried)| now < tried.at + BELIEVED).map(|(slot, _)| *slot).collect()
    }

    /// Pods that may have been removed: if any, no other goes for being too many or replaced, else there might be
    /// one too few.
    pub fn perhaps_removed(&self) -> HashSet<String> {
        self.perhaps_removed.iter().map(|removal| removal.uid.clone()).collect()
    }

    /// When the next belief ends, should the watch go on showing nothing.
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let made = self.made.iter().map(|(at, _)| *at);
        let removed = self.removed.iter().map(|removed| removed.at);
        let doubted = self.perhaps_removed.iter().map(|removal| removal.at);
        let tried = self.tried.values().map(|tried| tried.at);
        made.chain(removed).chain(doubted).chain(tried).map(|at| at + BELIEVED).filter(|at| *at > now).min()
    }

    /// Moves all that is remembered by so much into the past.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        let made = self.made.iter_mut().map(|(at, _)| at);
        let removed = self.removed.iter_mut().map(|removed| &mut removed.at);
        let doubted = self.perhaps_removed.iter_mut().map(|removal| &mut removal.at);
        let tried = self.tried.values_mut().map(|tried| &mut tried.at);
        made.chain(removed).chain(doubted).chain(tried).for_each(|at| *at -= by);
    }
}
