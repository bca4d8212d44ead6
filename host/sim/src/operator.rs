//! An operator in the simulated cluster: what it was told, what it remembers, and the plan that it carries out one
//! write after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stoker_api::BusyProbe;
use stoker_core::PodView;
use stoker_core::claims;
use stoker_core::names::pool_member;
use stoker_core::pool::overlay::BELIEVED;
use stoker_core::pool::{Action, Decision, Memory, Snapshot};

use crate::asking::{Hearing, LastWord, Prober, World};
use crate::cluster::{Node, Pool};
use crate::look::{Look, decide_and_plan, judge_all};
use crate::pods::{POOL, POOL_UID};
use crate::store::View;

/// What becomes of a write on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It is done and answered.
    #[default]
    Passes,
    /// It is not done, and not answered.
    Lost,
    /// It is done, and not answered.
    Unanswered,
    /// It is done twice; the second answer comes.
    Doubled,
    /// It is refused without a cause: a creation as by a quota, another write as by a conflict.
    Refused,
}

/// The API server's answer to a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The pod was created.
    Made(PodView),
    /// The name is taken; the pod that has it, unless it went in the meantime.
    Existed(Option<PodView>),
    /// A creation is refused.
    Refused,
    /// The pod was marked.
    Marked,
    /// The pod is going, or gone.
    Removed,
    /// There is no such pod.
    NotFound,
    /// The pod changed since.
    Conflict,
    /// None came.
    Nothing,
    /// It was not made: the last answer of a pod that was about to go is not that it is idle.
    Spared,
}

/// A write, and what came of it.
#[derive(Clone, Debug)]
pub struct Done {
    /// The operator's number.
    pub operator: usize,
    /// The write.
    pub action: Action,
    /// What became of it.
    pub fate: Fate,
    /// The answer.
    pub answer: Answer,
    /// The look that it was planned in.
    pub look: Arc<Look>,
    /// The look was sure of the operator's own doings, see [`Carrying::sure`].
    pub sure: bool,
    /// The operator learned a short while ago that there is no such pod.
    pub missed_before: bool,
    /// The pod as it truly was before.
    pub before: Option<Arc<PodView>>,
    /// What pods said that were asked before the write.
    pub last_words: Vec<LastWord>,
}

/// A plan that is being carried out.
#[derive(Clone, Debug)]
pub struct Carrying {
    /// The look that it comes from.
    pub look: Arc<Look>,
    /// What is left to do.
    pub steps: VecDeque<Action>,
    /// The pool that it was made for.
    pub made_for: Arc<Pool>,
    /// The look was not later, nor the clock set more lately, than the operator believes in its own doings.
    pub sure: bool,
    /// A write failed.
    pub failed: bool,
}

/// First and longest wait after a refused creation.
const REFUSED_FIRST: SignedDuration = SignedDuration::from_secs(5);
const REFUSED_LONGEST: SignedDuration = SignedDuration::from_secs(300);

/// How long it waits after a write that failed.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// An operator.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    /// Number of this life; each start is another.
    pub life: u64,
    /// The pods that it was told of.
    pub pods: View<PodView>,
    /// The nodes that it was told of.
    pub nodes: View<Node>,
    /// The pool that it was told of.
    pub pool: View<Pool>,
    /// What it remembers.
    pub memory: Memory,
    /// What it hears of pods, if they are asked.
    pub prober: Option<Prober>,
    /// The pods that it hands out, the first one first, as they were seen at the last look.
    pub standby: Vec<PodView>,
    /// How far its clock is ahead of the true time.
    pub clock: SignedDuration,
    /// When its clock was last set, in true time.
    pub clock_set: Option<Timestamp>,
    /// The plan that it carries out.
    pub carrying: Option<Carrying>,
    /// The last decision.
    pub last: Option<Decision>,
    /// The last target that was decided without failure, as whoever drives the cluster has it.
    pub held: Option<u32>,
    /// Something asks for a look.
    pub due: bool,
    /// When it looks again by itself, by its clock.
    pub wake: Option<Timestamp>,
    /// No pod is made before then, by its clock: the API server refused one.
    pub refused: Option<Timestamp>,
    /// Refusals in a row.
    pub refusals: u32,
}

impl Operator {
    /// Looks, and has a plan to carry out. None when it knows of no pool.
    pub fn look(
        &mut self,
        outage: bool,
        late_since: Option<Timestamp>,
        true_now: Timestamp,
    ) -> Option<Arc<Look>> {
        let now = true_now + self.clock;
        let pool = self.pool.get(POOL)?.clone();
        self.due = false;
        let shown = self.pods.iter().map(|p| PodView::clone(p)).collect();
        let mut pods = self.memory.see(shown, |uid| self.pods.went(uid), now);
        for pod in &mut pods {
            let node = pod.node.as_deref().and_then(|node| self.nodes.get(node));
            pod.displaced = pod.node.is_some() && node.is_none_or(|node| node.cordoned || node.lost);
        }
        let mut settings = pool.spec.settings();
        settings.draining = pool.deleting;
        settings.no_creation_before = self.refused;
        let (hearing, claims) = self.judge(&pods, outage, pool.spec.claims, now);
        let memories = self.memory.pods.clone();
        let snapshot = Snapshot { pods: &pods, memories: &memories };
        let standby = claims::standby(snapshot, settings.placement, &settings.replace, &[], now);
        self.standby = standby.into_iter().cloned().collect();
        let mut look =
            decide_and_plan(pods, &memories, &pool.says, pool.spec, &settings, &mut self.memory, now);
        (look.outage, look.hearing) = (outage, hearing);
        look.join(claims);
        self.last = Some(look.decision.clone());
        let look = Arc::new(look);
        // Creations first, as the shell does.
        let (creates, others): (Vec<_>, Vec<_>) =
            look.plan.actions.iter().cloned().partition(|a| matches!(a, Action::Create { .. }));
        let steps = creates.into_iter().chain(others).collect();
        let since = |at| true_now.duration_since(at);
        let sure = late_since.is_none_or(|at| since(at) < BELIEVED)
            && self.clock_set.is_none_or(|at| since(at) > BELIEVED);
        self.carrying = Some(Carrying { look: look.clone(), steps, made_for: pool, sure, failed: false });
        Some(look)
    }

    /// Judges pods by what they carry, or by what they answered.
    pub(crate) fn judge(
        &mut self,
        pods: &[PodView],
        outage: bool,
        rules: claims::Rules,
        now: Timestamp,
    ) -> (Option<Hearing>, claims::Seen) {
        let memory = &mut self.memory;
        match &mut self.prober {
            Some(prober) => {
                let (hearing, claims) = prober.judge(pods, rules, memory, now);
                (Some(hearing), claims)
            }
            None => (None, judge_all(pods, &BusyProbe::default(), outage, rules, memory, now)),
        }
    }

    /// Asks pods that it knows, chosen by a number or all. Tells nothing: answers are heard later.
    pub fn ask(&mut self, choice: Option<usize>, world: &World<'_>) {
        let Some(prober) = &mut self.prober else { return };
        let number = self.pods.iter().count().max(1);
        for (i, pod) in self.pods.iter().enumerate() {
            if choice.is_none_or(|choice| choice % number == i) {
                prober.ask(pod, world, &self.memory, self.clock);
            }
        }
    }

    /// Hears an answer, chosen by a number, or all of them.
    pub fn hear(&mut self, choice: Option<usize>, true_now: Timestamp) {
        let Some(prober) = &mut self.prober else { return };
        self.due |= match choice {
            Some(choice) => prober.hear(choice, true_now, self.clock),
            None => prober.hear_all(true_now, self.clock),
        };
    }

    /// Asks the pods of a member that is about to go once more, unless that is done.
    pub(crate) fn ask_last(&mut self, removal: &Action, pods: &[PodView], world: &World<'_>) {
        if let (Some(prober), Action::Remove { uid, reason, .. }) = (&mut self.prober, removal) {
            prober.ask_last(uid, *reason, pods, world, &self.memory, self.clock);
        }
    }

    /// What those pods said, and whether the member goes.
    pub(crate) fn last_words(&mut self, removal: &Action, now: Timestamp) -> (Vec<LastWord>, bool) {
        match (&mut self.prober, removal) {
            (Some(prober), Action::Remove { uid, .. }) => prober.last_words(uid, now, self.clock),
            _ => (Vec::new(), true),
        }
    }

    /// The next write of its plan, unless the plan has become void (I4); none = it is done.
    pub fn next_write(&mut self) -> Option<(Action, Arc<Look>, bool)> {
        let latest = self.pool.get(POOL).cloned();
        let carrying = self.carrying.as_mut()?;
        if latest.is_none_or(|latest| latest.voids(&carrying.made_for)) {
            carrying.steps.clear();
        }
        let step = carrying.steps.pop_front();
        step.map(|step| (step, carrying.look.clone(), carrying.sure))
    }

    /// Takes note of an answer.
    pub fn learn(&mut self, action: &Action, answer: &Answer, true_now: Timestamp) {
        let now = true_now + self.clock;
        self.memory.keep_time(now);
        let overlay = &mut self.memory.overlay;
        let mut failed = false;
        match (action, answer) {
            // After a few unclear answers it is unknown, and another one may go.
            (_, Answer::Spared) => failed = true,
            (Action::Create { .. }, Answer::Made(pod)) => {
                overlay.made(pod.clone(), now);
                (self.refused, self.refusals) = (None, 0);
            }
            (Action::Create { .. }, Answer::Existed(Some(pod))) => overlay.made(pod.clone(), now),
            (Action::Create { .. }, Answer::Refused) => {
                let wait = REFUSED_FIRST * 2_i32.saturating_pow(self.refusals.min(10));
                self.refused = Some(now + wait.min(REFUSED_LONGEST));
                self.refusals += 1;
                failed = true;
            }
            (Action::Create { slot }, _) => {
                overlay.creation_unanswered(*slot, &pool_member(POOL, POOL_UID, *slot), now);
                failed = true;
            }
            (Action::Remove { uid, .. }, Answer::Removed) => overlay.removed(uid, now),
            (Action::Remove { uid, .. } | Action::Mark { uid, .. }, Answer::NotFound) => {
                failed = overlay.gone(uid, now);
            }
            (Action::Remove { uid, resource_version, .. }, _) => {
                if let Some(version) = resource_version {
                    overlay.removal_unanswered(uid, version, now);
                }
                failed = true;
            }
            (Action::Mark { .. }, Answer::Marked) => {}
            (Action::Mark { .. }, _) => failed = true,
        }
        if failed && let Some(carrying) = &mut self.carrying {
            carrying.failed = true;
            if matches!(action, Action::Create { .. }) {
                // The other creations would fail for the same reason.
                carrying.steps.retain(|step| !matches!(step, Action::Create { .. }));
            }
        }
    }

    /// Ends the carrying out of a plan, and knows when to look again.
    pub fn rest(&mut self, true_now: Timestamp) {
        let now = true_now + self.clock;
        let Some(done) = self.carrying.take() else { return };
        if let Some(prober) = &mut self.prober {
            prober.end_plan();
        }
        let again = done.failed.then(|| now + AGAIN);
        let refused = self.refused.filter(|at| *at > now);
        self.wake = [done.look.plan.wake_at, self.memory.overlay.wake_at(now), again, refused]
            .into_iter()
            .flatten()
            .min();
    }

    /// Its clock is set.
    pub fn set_clock(&mut self, clock: SignedDuration, true_now: Timestamp) {
        let by = clock - self.clock;
        self.clock = clock;
        self.clock_set = Some(true_now);
        // Timers run by another clock, which is never set.
        self.wake = self.wake.map(|at| at + by);
        self.refused = self.refused.map(|at| at + by);
    }
}
