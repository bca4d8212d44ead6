//! A policy on trial: it is asked the same as the one that decides, beside the looks and never before them, and what it
//! answers is compared and told. Nothing waits for it, and nothing of it is applied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use stoker_api::{PolicyState, ShadowStatus, WantedPolicy};
use stoker_core::pod::PodView;
use stoker_core::pool::decision::{Bounds, decide};
use stoker_core::pool::{Asked, Counts, Previous, Snapshot};
use stoker_core::verdict::Judgement;
use stoker_policy::contract::{busyness, scaling, warm_up};
use tokio::task::AbortHandle;

use crate::asking::Asking;
use crate::context::Context;
use crate::deciding::{self, Looks};
use crate::object::Key;
use crate::policies::Source;
use crate::policy_cache::Role;
use crate::pool::PoolState;
use crate::projection;
use crate::seat::{Active, Seat, Sitter};

/// The policy on trial of an object, if it has one.
#[derive(Default)]
pub(crate) struct Shadow(Arc<Inner>);

#[derive(Default)]
struct Inner {
    seat: tokio::sync::Mutex<Seat>,
    told: Mutex<Told>,
    at_work: AtomicBool,
    /// The next look comes of what was told here: it has no news.
    skip: AtomicBool,
}

/// What is known of the trial.
#[derive(Clone, Default)]
struct Told {
    active: Option<Active>,
    state: Option<PolicyState>,
    bytes: Vec<u8>,
    previous: Option<Previous>,
    sizing: Option<(u32, u32, String)>,
    judging: Option<(u32, Option<String>)>,
    lead: Option<(u64, u64, String)>,
    compared: u32,
    differed: u32,
    error: Option<String>,
    wake: Option<Arc<Sleeper>>,
}

/// A wait that ends with its last owner.
struct Sleeper(AbortHandle);

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the policy that decides was asked, and what came of it.
#[derive(Default)]
pub(crate) struct Question {
    scale: Option<Box<Scale>>,
    classify: Option<(busyness::Input, Vec<busyness::VerdictState>)>,
    lead: Option<(warm_up::Input, u64)>,
}

struct Scale {
    input: scaling::Input,
    counts: Counts,
    bounds: Bounds,
    applied: u32,
}

impl Question {
    /// What a warm-up policy was asked, and the lead that holds, in milliseconds.
    pub(crate) fn lead(input: warm_up::Input, held: u64) -> Self {
        Self { lead: Some((input, held)), ..Self::default() }
    }
}

impl Shadow {
    pub(crate) fn new(seat: Seat) -> Self {
        Self(Arc::new(Inner { seat: tokio::sync::Mutex::new(seat), ..Inner::default() }))
    }

    /// Lets the two policies change places. What was compared so far is no longer told.
    pub(crate) async fn change_places(&mut self, seat: &mut Seat) {
        let mut other = std::mem::take(&mut *self.0.seat.lock().await);
        std::mem::swap(seat, &mut other);
        *self = Self::new(other);
    }

    /// There is no trial any more.
    pub(crate) fn end(&mut self) {
        if self.0.told().active.is_some() {
            *self = Self::default();
        }
    }

    /// Whether it says what pods do, so that it wants to see what probes found.
    pub(crate) fn judges(&self) -> bool {
        self.0.told().active.as_ref().is_some_and(|active| active.policy.exports().busyness)
    }

    /// Whether it is known who is on trial, so that what it is asked is answered.
    pub(crate) fn is_known(&self) -> bool {
        self.0.told().active.is_some()
    }

    /// What it asked to be given back.
    pub(crate) fn kept_state(&self) -> Option<PolicyState> {
        self.0.told().state.clone()
    }

    /// What it is to be asked about a look at a pool.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn question(
        &self,
        state: &PoolState,
        snapshot: Snapshot<'_>,
        looks: &Looks<'_>,
        (pods, verdicts, by_probe): (&[PodView], &[Judgement], &[Judgement]),
        asking: Option<&Asking>,
        applied: u32,
    ) -> Question {
        let told = self.0.told();
        // Before it is known what it decides, there is nothing to ask.
        let Some(active) = &told.active else { return Question::default() };
        let exports = active.policy.exports();
        let scale = exports.scaling.then(|| {
            let input =
                looks.scaling_input(state, snapshot, &active.config, told.previous.as_ref(), &told.bytes);
            Box::new(Scale { input, counts: *looks.counts, bounds: looks.pool.bounds(), applied })
        });
        let classify = exports.busyness.then(|| {
            let known = asking.map(|asking| &asking.known);
            let memories = &state.memory.pods;
            let input =
                deciding::busyness_input(looks.pool, active, pods, memories, by_probe, known, looks.now);
            (input, verdicts.iter().map(|judged| projection::verdict_state(judged.verdict)).collect())
        });
        Question { scale, classify, lead: None }
    }

    /// Has it asked, unless it is still at the question before. Nobody waits for that.
    pub(crate) fn ask(
        &self,
        context: &Arc<Context>,
        sitter: Sitter<'_>,
        wanted: &WantedPolicy,
        source: &Source,
        question: Question,
    ) {
        let inner = self.0.clone();
        // A lead is asked for once anyway.
        let skip = question.lead.is_none() && inner.skip.swap(false, Ordering::Relaxed);
        if skip || inner.at_work.swap(true, Ordering::Acquire) {
            return;
        }
        let (context, wanted, source) = (context.clone(), wanted.clone(), source.clone());
        let (key, uid, generation) = (sitter.key.clone(), sitter.uid.to_owned(), sitter.generation);
        tokio::spawn(async move {
            let (role, otherwise) = (Role::OnTrial, "nothing is compared");
            let sitter = Sitter { key: &key, uid: &uid, generation, role, otherwise };
            let again = inner.run(&context, sitter, &wanted, &source, question).await;
            inner.at_work.store(false, Ordering::Release);
            if let Some(skip) = again {
                inner.skip.store(skip, Ordering::Relaxed);
                context.trigger(&key);
            }
        });
    }

    /// What the status says of it. What it would keep is told beside the decision that it was compared with: until it has
    /// answered about this one, nothing is.
    pub(crate) fn status(&self, source: &Source, applied: Option<u32>) -> ShadowStatus {
        let mut told = self.0.told().clone();
        told.sizing = told.sizing.filter(|(_, instead, _)| applied == Some(*instead));
        let sizing = told.sizing.as_ref();
        ShadowStatus {
            source: source.to_string(),
            active_digest: told.active.as_ref().map(|a| a.policy.digest().to_string()),
            active_name: told.active.as_ref().map(Active::name),
            differs: told.differs(),
            would_keep: sizing.map(|(would, ..)| *would),
            judges_otherwise: told.judging.as_ref().map(|(pods, _)| *pods),
            would_lead_seconds: told.lead.as_ref().map(|(would, ..)| (would / 1000) as u32),
            reason: sizing.map(|s| s.2.clone()).or_else(|| Some(told.lead.as_ref()?.2.clone())),
            compared: told.compared.min(i32::MAX as u32),
            differed: told.differed.min(i32::MAX as u32),
            error: told.error.clone(),
            state: told.state.clone(),
        }
    }
}

impl Told {
    /// Where it would do otherwise, in words.
    fn differs(&self) -> Option<String> {
        let mut words = Vec::new();
        if let Some((would, applied, _)) = &self.sizing
            && would != applied
        {
            words.push(format!("would keep {would} instead of {applied}"));
        }
        if let Some((pods, Some(first))) = &self.judging
            && *pods > 0
        {
            words.push(format!("judges {pods} pods otherwise: {first}"));
        }
        if let Some((would, held, _)) = &self.lead
            && would != held
        {
            words.push(format!("would lead by {would} ms instead of {held} ms"));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// What is worth telling at once: that it differs, fails, or was compared for the first time.
    fn news(&self) -> (Option<String>, Option<String>, bool) {
        (self.differs(), self.error.clone(), self.compared > 0)
    }

    fn compare(&mut self, differs: bool) {
        self.compared = self.compared.saturating_add(1);
        self.differed = self.differed.saturating_add(u32::from(differs));
    }
}

impl Inner {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles the policy and asks it. Whether the object is to be looked at again, and if so, whether that look brings
    /// no news.
    async fn run(
        &self,
        context: &Arc<Context>,
        sitter: Sitter<'_>,
        wanted: &WantedPolicy,
        source: &Source,
        question: Question,
    ) -> Option<bool> {
        let mut seat = self.seat.lock().await;
        let trouble = seat.settle(context, sitter, wanted, source).await;
        let mut told = self.told().clone();
        let before = told.news();
        let Some(active) = seat.active.clone() else {
            told.error = trouble.map(|(_, words)| words);
            let news = told.news() != before;
            *self.told() = told;
            return news.then_some(true);
        };
        let same =
            |known: &Active| known.policy.digest() == active.policy.digest() && known.config == active.config;
        if !told.active.as_ref().is_some_and(same) {
            // Of another component nothing is known; it is asked at once.
            let state = seat.kept_state();
            let bytes = seat.state.clone();
            *self.told() = Told { active: Some(active), state, bytes, ..Told::default() };
            return Some(false);
        }
        if seat.quiet().is_none() {
            let (error, wake) = ask(context, &active, &mut seat, &mut told, question).await;
            seat.called(error);
            told.wake = wake.map(|wake| Arc::new(sleeper(context, sitter.key, wake)));
        }
        told.error = trouble.map(|(_, words)| words).or_else(|| seat.last_error().cloned());
        (told.state, told.bytes) = (seat.kept_state(), seat.state.clone());
        let news = told.news() != before;
        *self.told() = told;
        news.then_some(true)
    }
}

/// Has an object looked at after a while.
fn sleeper(context: &Arc<Context>, key: &Key, wake: Duration) -> Sleeper {
    let (context, key) = (Arc::downgrade(context), key.clone());
    let task = tokio::spawn(async move {
        tokio::time::sleep(wake).await;
        if let Some(context) = context.upgrade() {
            context.trigger(&key);
        }
    });
    Sleeper(task.abort_handle())
}

/// Asks, and compares the answers. Why there was none, and when to ask again.
async fn ask(
    context: &Context,
    active: &Active,
    seat: &mut Seat,
    told: &mut Told,
    question: Question,
) -> (Option<String>, Option<Duration>) {
    let (mut failed, mut wake) = (None, None);
    let tried = |call, outcome| context.metrics.policies.tried(call, outcome);
    let outcome = |differs: bool| if differs { "differs" } else { "same" };
    if let Some(scale) = question.scale {
        let now = scale.input.now;
        match context.host.scale(&active.policy, active.limits, scale.input).await {
            Ok(answer) => {
                let decision = answer.value;
                let now = Timestamp::from_millisecond(now).unwrap_or_default();
                wake = deciding::wake(&decision, now);
                let asked =
                    Asked::Policy { desired: decision.desired, reason: decision.reason, victims: Vec::new() };
                let would = decide(asked, &scale.counts, scale.bounds, None);
                let differs = would.applied != scale.applied;
                told.compare(differs);
                tried("scale", outcome(differs));
                told.previous = Some(Previous {
                    at: now,
                    raw: would.raw,
                    applied: would.applied,
                    limited_by: would.limited_by,
                    reason: would.reason.clone(),
                });
                told.sizing = Some((would.applied, scale.applied, would.reason));
                seat.state = decision.state;
            }
            Err(error) => {
                tried("scale", "failed");
                failed = Some(error.to_string());
            }
        }
    }
    if let Some((input, held)) = question.classify {
        let names: Vec<String> = input.pods.iter().map(|pod| pod.name.clone()).collect();
        match context.host.classify(&active.policy, active.limits, input).await {
            Ok(answer) => {
                let mut count = 0;
                let mut first = None;
                for ((name, says), held) in names.iter().zip(&answer.value).zip(&held) {
                    if says.state != *held {
                        count += 1;
                        let word = projection::verdict_word;
                        let words = || format!("{name} {} instead of {}", word(says.state), word(*held));
                        first.get_or_insert_with(words);
                    }
                }
                told.compare(count > 0);
                tried("classify", outcome(count > 0));
                told.judging = Some((count, first));
            }
            Err(error) => {
                tried("classify", "failed");
                failed = Some(error.to_string());
            }
        }
    }
    if let Some((input, held)) = question.lead {
        let input = warm_up::Input { config: active.config.clone(), state: seat.state.clone(), ..input };
        match context.host.lead(&active.policy, active.limits, input).await {
            Ok(answer) => {
                let differs = answer.value.lead != held;
                told.compare(differs);
                tried("lead", outcome(differs));
                told.lead = Some((answer.value.lead, held, answer.value.reason));
                seat.state = answer.value.state;
            }
            Err(error) => {
                tried("lead", "failed");
                failed = Some(error.to_string());
            }
        }
    }
    (failed, wake)
}
