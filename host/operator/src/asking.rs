//! A pool's side of the prober: whom it wants asked, what came of it, and the last question before a removal.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;
use jiff::Timestamp;
use stoker_core::PodView;
use stoker_core::asked::{Outcome, Rules};
use stoker_core::last_word;
use stoker_core::pool::Action;
use stoker_core::verdict::{Judgement, PodMemories, Verdict, ever_ready, judge, judge_asked, not_answering};

use crate::context::Context;
use crate::deciding;
use crate::members::Seen;
use crate::object::Pool;
use crate::pool::PoolState;
use crate::prober::{Candidate, Known};
use crate::question::{Evidence, Question, Target};
use crate::seat::Active;

/// Pods of one Job that are asked for the last time at a time.
const PODS_AT_A_TIME: usize = 4;

/// What is asked of a pool's pods, and what is known.
pub struct Asking {
    owner: String,
    namespace: Arc<str>,
    question: Question,
    pub rules: Rules,
    pub known: Known,
}

/// Why a pod stays that was about to go.
pub struct Spared {
    pub pod: String,
    pub words: String,
    /// There was no clear answer.
    pub unclear: bool,
}

/// Has a pool's pods asked, if its probe asks at all.
pub fn keep(context: &Context, pool: &Pool, state: &PoolState, pods: &[PodView]) -> Option<Asking> {
    let Some((question, rules)) = Question::of(&pool.spec().busy_probe) else {
        context.prober.forget(pool.uid());
        return None;
    };
    let namespace: Arc<str> = pool.namespace().into();
    let candidates = pods.iter().filter(|p| p.alive()).map(|pod| Candidate {
        uid: pod.uid.clone(),
        target: Target::new(namespace.clone(), pod, &question),
        able: ever_ready(pod, state.memory.pods.get(&pod.uid)),
    });
    let evidence = state.seat.active.as_ref().is_some_and(|active| active.policy.exports().busyness)
        || state.shadow.judges();
    let known = context.prober.keep(pool.uid(), question.clone(), rules, evidence, candidates.collect());
    Some(Asking { owner: pool.uid().to_owned(), namespace, question, rules, known })
}

/// What the pool's probe says of its pods.
pub fn by_probe(
    pool: &Pool,
    asking: Option<&Asking>,
    pods: &[PodView],
    memories: &PodMemories,
    now: Timestamp,
) -> Vec<Judgement> {
    let one = |pod: &PodView| {
        let memory = memories.get(&pod.uid);
        match asking {
            None => judge(pod, &pool.spec().busy_probe, memory),
            Some(asking) => judge_asked(pod, asking.rules, asking.known.answers.get(&pod.uid), memory, now),
        }
    };
    pods.iter().map(one).collect()
}

impl Asking {
    /// How many pods give no clear answer, and why the first does not.
    pub fn not_answering(
        &self,
        pods: &[PodView],
        memories: &PodMemories,
        now: Timestamp,
    ) -> Option<(u32, String)> {
        not_answering(pods, self.rules, &self.known.answers, memories, now)
    }

    /// Asks the pods of a member that is about to go once more, and tells which one must stay, and with it all of
    /// them: one that does not say clearly that it is idle, in the words of the policy if one judges (I1). Pods that
    /// have ended, that go at somebody's word or that were never Ready are not asked: nobody uses them.
    pub async fn last_word<'a>(
        &self,
        context: &Context,
        pool: &Pool,
        active: Option<&Active>,
        removal: &'a Action,
        seen: &Seen,
        memories: &PodMemories,
    ) -> (&'a Action, Option<Spared>) {
        let Action::Remove { uid, reason, .. } = removal else { return (removal, None) };
        let pods = match pool {
            Pool::Pods(_) => seen.pods.iter().find(|p| &p.uid == uid).map(std::slice::from_ref),
            Pool::Jobs(_) => Some(seen.pods_of(uid)),
        };
        let active = active.filter(|active| active.policy.exports().busyness);
        let pods = pods.unwrap_or_default().iter();
        let asked = pods.filter(|p| last_word::has_one(*reason, p, memories.get(&p.uid)));
        let words: Vec<_> = asked.map(|pod| self.word(context, pool, active, pod, memories)).collect();
        let mut words = stream::iter(words).buffer_unordered(PODS_AT_A_TIME);
        while let Some(spared) = words.next().await {
            if spared.is_some() {
                return (removal, spared);
            }
        }
        (removal, None)
    }

    /// Why a pod must stay, if it must.
    async fn word(
        &self,
        context: &Context,
        pool: &Pool,
        active: Option<&Active>,
        pod: &PodView,
        memories: &PodMemories,
    ) -> Option<Spared> {
        let target = Target::new(self.namespace.clone(), pod, &self.question);
        let finding = context.prober.ask_now(&self.owner, &pod.uid, &self.question, &target).await;
        let unanswered = matches!(finding.evidence, Evidence::Error(_));
        let (idle, words) = match active {
            Some(active) if !unanswered => {
                self.policys_word(context, pool, active, pod, finding.evidence, memories).await
            }
            _ => (last_word::lets_go(&finding.answer), finding.answer.words),
        };
        let unclear = unanswered || finding.answer.outcome == Outcome::Unclear;
        (!idle).then(|| Spared { pod: pod.name.clone(), words, unclear })
    }

    /// What the policy makes of the last answer: whether it is idle, and why.
    async fn policys_word(
        &self,
        context: &Context,
        pool: &Pool,
        active: &Active,
        pod: &PodView,
        evidence: Evidence,
        memories: &PodMemories,
    ) -> (bool, String) {
        let now = Timestamp::now();
        let answers = context.prober.answers(&self.owner, &pod.uid).unwrap_or_default();
        let known = Known {
            answers: [(pod.uid.clone(), answers)].into(),
            evidence: [(pod.uid.clone(), evidence)].into(),
        };
        let pods = std::slice::from_ref(pod);
        let says = judge_asked(pod, self.rules, known.answers.get(&pod.uid), memories.get(&pod.uid), now);
        match deciding::classify(pool, context, active, pods, memories, &[says], Some(&known), now).await {
            Ok((verdicts, _)) => {
                let verdict = verdicts.into_iter().next();
                let idle = verdict.as_ref().is_some_and(|v| v.verdict == Verdict::Idle);
                (idle, verdict.map(|v| v.reason).unwrap_or_default())
            }
            Err(words) => (false, words),
        }
    }
}
