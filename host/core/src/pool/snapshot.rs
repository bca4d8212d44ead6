//! What was seen of a pool at one moment, with a verdict for each pod.

use jiff::{SignedDuration, Timestamp};

use crate::verdict::{PodMemories, Verdict};
use crate::{Phase, PodView};

/// How many pods are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Alive: neither ended nor terminating.
    pub current: u32,
    /// Alive and Ready.
    pub ready: u32,
    /// Alive, not Ready.
    pub starting: u32,
    /// Alive, Ready and free on a node that takes pods: standby.
    pub idle: u32,
    /// Alive, Ready and free, but on a node that is about to be lost.
    pub displaced: u32,
    /// Alive and busy by the present verdict.
    pub busy: u32,
    /// Alive, claimed, and not busy by the probe.
    pub claimed: u32,
    /// Alive, and nothing is known.
    pub unknown: u32,
    /// Busy for sizing: busy, claimed, or unknown and last known to be one of them (I3).
    pub busy_for_sizing: u32,
    /// Unknown, and nothing was ever known, as after a restart while the probe is out: they may be at work.
    pub never_known: u32,
    /// Being deleted.
    pub terminating: u32,
    /// Starting, and the scheduler finds no node.
    pub unschedulable: u32,
    /// Ended badly, not yet removed.
    pub failed: u32,
    /// Every pod object that exists.
    pub objects: u32,
    /// Claims that wait for a pod: each takes one as soon as there is one.
    pub waiting: u32,
}

/// The pods of a pool with their verdicts.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The pods.
    pub pods: &'a [PodView],
    /// What is known of them; holds every one of `pods`.
    pub memories: &'a PodMemories,
}

impl Snapshot<'_> {
    /// The verdict on a pod; a pod never judged is unknown.
    pub fn verdict(&self, pod: &PodView) -> Verdict {
        self.memories.get(&pod.uid).map_or(Verdict::Unknown, |m| m.verdict)
    }

    /// Pods that have been starting for longer than they may: how many, why the first is not Ready, and when the
    /// next will have been.
    pub fn not_starting(
        &self,
        limit: SignedDuration,
        now: Timestamp,
    ) -> (Option<(u32, String)>, Option<Timestamp>) {
        let once = |p: &PodView| self.memories.get(&p.uid).is_some_and(|m| m.ever_ready);
        let seen = |p: &PodView| self.memories.get(&p.uid).map_or(now, |m| m.seen);
        let starting =
            || self.pods.iter().filter(|p| p.alive() && self.verdict(p) == Verdict::Starting && !once(p));
        let late = || starting().filter(|p| seen(p) + limit <= now);
        let next = starting().map(|p| seen(p) + limit).filter(|at| *at > now).min();
        let why = |p: &PodView| {
            let words = match (&p.waiting, p.unschedulable(), &p.node) {
                (Some(waiting), ..) => waiting.as_str(),
                (None, true, _) => "no node has room for it",
                (None, false, None) => "it has no node",
                (None, false, Some(_)) => "its containers run, but it is not Ready",
            };
            format!("{} ({words})", p.name)
        };
        let count = u32::try_from(late().count()).unwrap_or(u32::MAX);
        (late().next().map(|p| (count, why(p))), next)
    }

    /// Counts the pods.
    pub fn counts(&self) -> Counts {
        let mut c = Counts::default();
        for pod in self.pods {
            c.objects += 1;
            if pod.terminating {
                c.terminating += 1;
            } else if pod.phase == Phase::Failed {
                c.failed += 1;
            }
            if !pod.alive() {
                continue;
            }
            c.current += 1;
            c.ready += u32::from(pod.ready());
            match self.verdict(pod) {
                Verdict::Idle if pod.displaced => c.displaced += 1,
                Verdict::Idle => c.idle += 1,
                Verdict::Starting => {
                    c.starting += 1;
                    c.unschedulable += u32::from(pod.unschedulable());
                }
                Verdict::Busy => {
                    c.busy += 1;
                    c.busy_for_sizing += 1;
                }
                Verdict::Claimed => {
                    c.claimed += 1;
                    c.busy_for_sizing += 1;
                }
                Verdict::Unknown => {
                    c.unknown += 1;
                    let last_clear = self.memories.get(&pod.uid).and_then(|m| m.last_clear);
                    c.busy_for_sizing += u32::from(last_clear == Some(true));
                    c.never_known += u32::from(last_clear.is_none());
                }
            }
        }
        c
    }
}
