//! Whose place a slot's next Job takes. Its name derives from that Job's UID (I2), and a finished Job may vanish at any
//! moment (its time to live), which two operators see at different moments: so that both go on giving the next one the
//! same name for a while, and then leave the slot alone until both must have seen what was made in it.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::jobs::JobView;
use super::overlay::BELIEVED;

/// The last Job of each slot.
#[derive(Clone, Debug, Default)]
pub struct Successions {
    last: BTreeMap<u32, Last>,
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

    fn is_older(&self, job: &JobView) -> bool {
        (self.created, &self.uid) < (job.created, &job.uid)
    }
}

impl Successions {
    /// Takes notice of the Jobs that the watch shows, and of those of which it told lately that they are gone, as they
    /// were at last.
    pub fn note(&mut self, jobs: &[JobView], gone: &[JobView], now: Timestamp) {
        let shown: HashSet<&str> = jobs.iter().map(|j| j.uid.as_str()).collect();
        for last in self.last.values_mut().filter(|last| !shown.contains(last.uid.as_str())) {
            if last.gone.is_none() {
                last.gone = Some(now);
                let at_last = gone.iter().find(|j| j.uid == last.uid).map(|j| j.finished.is_some());
                last.finished = at_last.or(last.finished.filter(|finished| *finished));
            }
        }
        // Also of those that came and went between two looks.
        for job in gone.iter().filter(|j| j.finished.is_some() && !self.told.contains(&j.uid)) {
            let Some(slot) = job.slot else { continue };
            if self.last.get(&slot).is_none_or(|last| last.is_older(job)) {
                self.last.insert(slot, Last::of(job, Some(now)));
            }
        }
        self.told = gone.iter().map(|j| j.uid.clone()).collect();
        // One that had not finished leaves nobody a name.
        self.last.retain(|_, last| {
            last.gone.is_none_or(|gone| last.finished != Some(false) && now < gone + BELIEVED * 2)
        });
        for job in jobs {
            let Some(slot) = job.slot else { continue };
            if self.last.get(&slot).is_none_or(|last| last.uid == job.uid || last.is_older(job)) {
                self.last.insert(slot, Last::of(job, None));
            }
        }
    }

    /// UID of the Job whose place a slot's next one takes.
    pub fn predecessor(&self, slot: u32) -> Option<&str> {
        self.last.get(&slot).filter(|last| last.finished == Some(true)).map(|last| last.uid.as_str())
    }

    /// Slots that are left alone, and until when.
    pub fn resting(&self, now: Timestamp) -> BTreeMap<u32, Timestamp> {
        let gone = self.last.iter().filter_map(|(slot, last)| Some((*slot, last, last.gone?)));
        gone.filter(|(_, last, gone)| last.finished.is_none() || *gone + BELIEVED <= now)
            .map(|(slot, _, gone)| (slot, gone + BELIEVED * 2))
            .collect()
    }

    /// Moves all that is remembered by so much into the past.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        self.last.values_mut().filter_map(|last| last.gone.as_mut()).for_each(|at| *at -= by);
    }
}
