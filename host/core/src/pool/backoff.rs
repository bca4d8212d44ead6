//! Back-off for pods that keep failing. The first failure is replaced at once; failures that follow without
//! a pod having held out wait 10 s, 20 s, 40 s … at most 5 min. Only the failed pods' replacements wait: the
//! rest of the pool goes on. Ages are by what the operator itself saw: other clocks may be wrong.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use crate::verdict::PodMemories;
use crate::{Phase, PodView};

/// A pod that is Ready and was so this long ago has held out; one that ended sooner after it was first seen has failed.
pub const HELD_OUT: SignedDuration = SignedDuration::from_secs(10);

/// Failures this close together are one: a node that dies takes many pods at a time.
const SAME_ROUND: SignedDuration = SignedDuration::from_secs(1);

const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_DELAY: SignedDuration = SignedDuration::from_secs(300);

/// Failures of a pool's pods.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    /// Rounds of failures in a row.
    pub rounds: u32,
    /// When this round began.
    began: Option<Timestamp>,
    /// Until when replacements wait.
    until: Option<Timestamp>,
    /// Failed pods whose replacements wait.
    waiting: u32,
    counted: HashSet<String>,
    /// What the last failed pod said.
    pub last: Option<String>,
}

impl Backoff {
    /// Takes notice of pods, or of Jobs where these are the members, that ended or held out. Returns nothing: ask
    /// [`Backoff::held_back`].
    pub fn note(&mut self, pods: &[PodView], memories: &PodMemories, jobs: bool, now: Timestamp) {
        let present: HashSet<&str> = pods.iter().map(|p| p.uid.as_str()).collect();
        self.counted.retain(|uid| present.contains(uid.as_str()));
        let held_out = self.holds_out_at(pods, memories).is_some_and(|t| t <= now);
        if held_out && self.rounds > 0 {
            *self = Self { counted: std::mem::take(&mut self.counted), ..Self::default() };
        }
        for pod in pods {
            if !failed(pod, memories, jobs, now) || !self.counted.insert(pod.uid.clone()) {
                continue;
            }
            let same_round = self.began.is_some_and(|b| now.duration_since(b) < SAME_ROUND)
                || self.until.is_some_and(|u| now < u);
            if !same_round {
                self.rounds += 1;
                self.began = Some(now);
                self.until = Some(now + delay(self.rounds));
                self.waiting = 0;
            }
            self.waiting += 1;
            self.last = Some(format!("pod {} ended as {:?}", pod.name, pod.phase));
        }
    }

    /// When the first of the pods that got Ready since this round began will have held out, if they stay so. One that
    /// is Ready again is no sign that others can be.
    pub fn holds_out_at(&self, pods: &[PodView], memories: &PodMemories) -> Option<Timestamp> {
        pods.iter()
            .filter(|p| p.alive() && p.ready())
            .filter_map(|p| memories.get(&p.uid)?.first_ready)
            .filter(|at| self.began.is_none_or(|began| *at >= began))
            .map(|at| at + HELD_OUT)
            .min()
    }

    /// How many replacements wait, and until when.
    pub fn held_back(&self, now: Timestamp) -> Option<(u32, Timestamp)> {
        self.until.filter(|u| now < *u && self.waiting > 0).map(|u| (self.waiting, u))
    }

    /// True when pods keep failing: more than two rounds.
    pub fn keeps_failing(&self) -> bool {
        self.rounds > 2
    }

    /// Moves all that is remembered by so much into the past.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        self.began.iter_mut().chain(&mut self.until).for_each(|at| *at -= by);
    }
}

/// A pod that ended well has failed if it did so soon. A Job's work may be short, so that one that completed has failed
/// only if it was never Ready: a command that just exits would make Jobs without end.
fn failed(pod: &PodView, memories: &PodMemories, jobs: bool, now: Timestamp) -> bool {
    let memory = memories.get(&pod.uid);
    match pod.phase {
        Phase::Failed => true,
        Phase::Succeeded if jobs => memory.is_some_and(|m| m.first_ready.is_none()),
        Phase::Succeeded => memory.is_none_or(|m| now.duration_since(m.seen) < HELD_OUT),
        _ => false,
    }
}

fn delay(round: u32) -> SignedDuration {
    match round {
        0 | 1 => SignedDuration::ZERO,
        n => (FIRST_DELAY * 2_i32.saturating_pow((n - 2).min(10))).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_ten_seconds_to_five_minutes() {
        let seconds: Vec<i64> = (1..=9).map(|n| delay(n).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }
}
