//! Whose place a slot's next Job takes. Its name derives from that Job's UID (I2), and a finished Job may vanish at any
//! moment (its time to live), which two operators see at different moments: so that both go on giving the next one the
//! same name for a while, and then leave the slot alone until both must have seen what was made in it.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::jobs::JobView;
use super::overlay::BELIEVED;

/// The last Jobs of each slot.
#[derive(Clone, Debug, Default)]
pub struct Successions {
    /// The oldest first: those that are gone, and the youngest of those that are there. One that goes before it has
    /// finished leaves its place to the one before, as if it had never been: another operator may not have seen it.
    last: BTreeMap<u32, Vec<Last>>,
    /// UIDs of Jobs of which the watch told that they went, and that were taken notice of.
    told: HashSet<String>,
}

#[derive(Clone, Debug)]
struct Last {
    uid: String,
    created: Timestamp,
    /// It has finished. None = it vanished, and nobody told whether it had.
    finished: Option<bool>,
    /// When it was first seen to be gone.
    gone: Option<Timestamp>,
}

impl Last {
    fn of(job: &JobView, gone: Option<Timestamp>) -> Self {
        let finished = Some(job.finished.is_some());
        Self { uid: job.uid.clone(), created: job.created, finished, gone }
    }

    fn age(&self) -> (Timestamp, &str) {
        (self.created, &self.uid)
    }
}

impl Successions {
    /// Takes notice of the Jobs that the watch shows, and of those of which it told lately that they are gone, as they
    /// were at last.
    pub fn note(&mut self, jobs: &[JobView], gone: &[JobView], now: Timestamp) {
        let shown: HashSet<&str> = jobs.iter().map(|j| j.uid.as_str()).collect();
        for last in self.last.values_mut().flatten().filter(|last| !shown.contains(last.uid.as_str())) {
            if last.gone.is_none() {
                last.gone = Some(now);
                let at_last = gone.iter().find(|j| j.uid == last.uid).map(|j| j.finished.is_some());
                last.finished = at_last.or(last.finished.filter(|finished| *finished));
            }
        }
        // Also of those that came and went between two looks.
        let told = std::mem::take(&mut self.told);
        for job in gone.iter().filter(|j| j.finished.is_some() && !told.contains(&j.uid)) {
            self.add(job, Some(now));
        }
        self.told = gone.iter().map(|j| j.uid.clone()).collect();
        // One that had not finished leaves nobody a name. Those that are there are noted anew.
        self.last.retain(|_, of_slot| {
            of_slot.retain(|last| {
                last.gone.is_some_and(|gone| last.finished != Some(false) && now < gone + BELIEVED * 2)
            });
            !of_slot.is_empty()
        });
        let mut youngest: BTreeMap<u32, &JobView> = BTreeMap::new();
        for job in jobs {
            let Some(slot) = job.slot else { continue };
            let place = youngest.entry(slot).or_insert(job);
            if (place.created, &place.uid) < (job.created, &job.uid) {
                *place = job;
            }
        }
        youngest.into_values().for_each(|job| self.add(job, None));
    }

    fn add(&mut self, job: &JobView, gone: Option<Timestamp>) {
        let Some(slot) = job.slot else { return };
        let of_slot = self.last.entry(slot).or_default();
        if gone.is_none() || of_slot.iter().all(|last| last.uid != job.uid) {
            of_slot.retain(|last| last.uid != job.uid);
            of_slot.push(Last::of(job, gone));
            of_slot.sort_by(|a, b| a.age().cmp(&b.age()));
        }
    }

    /// UID of the Job whose place a slot's next one takes.
    pub fn predecessor(&self, slot: u32) -> Option<&str> {
        let last = self.last.get(&slot)?.iter().rfind(|last| last.finished != Some(false))?;
        (last.finished == Some(true)).then_some(last.uid.as_str())
    }

    /// Slots that are left alone, and until when.
    pub fn resting(&self, now: Timestamp) -> BTreeMap<u32, Timestamp> {
        let youngest = self.last.iter().filter_map(|(slot, of_slot)| Some((*slot, of_slot.last()?)));
        let gone = youngest.filter_map(|(slot, last)| Some((slot, last, last.gone?)));
        gone.filter(|(_, last, gone)| last.finished.is_none() || *gone + BELIEVED <= now)
            .map(|(slot, _, gone)| (slot, gone + BELIEVED * 2))
            .collect()
    }

    /// Moves all that is remembered by so much into the past.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        self.last.values_mut().flatten().filter_map(|last| last.gone.as_mut()).for_each(|at| *at -= by);
    }
}
