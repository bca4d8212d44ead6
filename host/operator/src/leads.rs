//! How early the warm-ups of a PreScaledCronJob begin: as its spec says, or as its policy decides. Whenever the policy
//! has no answer, the spec's holds.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use stoker_api::{EndedRun, PolicyRef, PolicyStatus, PreScaledCronJob, WantedPolicy};
use stoker_core::pre_scaled::{Lead, Rules};
use stoker_policy::contract::{types, warm_up};

use crate::context::Context;
use crate::object::{Key, Kind};
use crate::policies::Source;
use crate::policy_cache::Role;
use crate::seat::{Seat, Sitter, Trouble};
use crate::shadow::{Question, Shadow};

/// Instants that a policy sees.
const INSTANTS: usize = 16;

/// What is remembered of an object's policy between two looks.
#[derive(Default)]
pub struct Leads {
    seat: Seat,
    shadow: Shadow,
    promoted: bool,
    /// The status of before the operator started was looked at.
    begun: bool,
    decided: Option<Decided>,
    /// The question that the policy on trial was asked last.
    tried: Option<String>,
}

/// A decision, and for what it was made.
struct Decided {
    question: String,
    input: warm_up::Input,
    lead: SignedDuration,
    reason: String,
}

impl Leads {
    /// How early the next warm-ups begin, why, and what is wrong with the policy.
    pub async fn decide(
        &mut self,
        context: &Arc<Context>,
        object: &PreScaledCronJob,
        rules: &Rules,
        configured: Lead,
        runs: &[EndedRun],
        now: Timestamp,
    ) -> (Lead, String, Option<Trouble>) {
        let by_spec =
            if matches!(configured, Lead::Primer(_)) { "spec.primerSchedule" } else { "the spec's warm-up" };
        let key = key(object);
        let Some(spec) = &object.spec.policy else {
            context.policies.release(&key, &[]);
            *self = Self { begun: true, ..Self::default() };
            return (configured, by_spec.to_owned(), None);
        };
        self.begin(object);
        let (wanted, on_trial) = spec.roles();
        let Some(source) = Source::of(&key.namespace, &wanted) else {
            return (configured, by_spec.to_owned(), None);
        };
        let on_trial = on_trial.and_then(|wanted| Some((Source::of(&key.namespace, &wanted)?, wanted)));
        let used: Vec<&Source> =
            [&source].into_iter().chain(on_trial.as_ref().map(|(source, _)| source)).collect();
        context.policies.release(&key, &used);
        if std::mem::replace(&mut self.promoted, spec.promoted()) != spec.promoted() {
            self.shadow.change_places(&mut self.seat).await;
        }
        let uid = object.uid().unwrap_or_default();
        let generation = object.metadata.generation;
        let (role, otherwise) = (Role::Deciding, "the spec's warm-up holds");
        let sitter = Sitter { key: &key, uid: &uid, generation, role, otherwise };
        let trouble = self.seat.settle(context, sitter, &wanted, &source).await;
        if on_trial.is_none() {
            self.shadow.end();
        }
        let Some(active) = self.seat.active.clone() else {
            return (configured, format!("{by_spec}, until the policy decides"), trouble);
        };
        let Some(next) = rules.after(now) else { return (configured, by_spec.to_owned(), trouble) };
        let own = next.duration_since(configured.start(next, &rules.zone));
        let newest = runs.first().map(|run| (run.instant, runs.len()));
        let question =
            format!("{} {} {next} {newest:?} {own:?} {generation:?}", active.policy.digest(), active.config,);
        if let Some(decided) = self.decided.as_ref().filter(|decided| decided.question == question) {
            let outcome = (Lead::Before(decided.lead), decided.reason.clone(), trouble);
            self.ask_shadow(context, sitter, on_trial.as_ref());
            return outcome;
        }
        if let Some(error) = self.seat.quiet() {
            let trouble = trouble.or_else(|| Some(("CallFailed".to_owned(), error)));
            return (configured, format!("{by_spec}: the policy failed"), trouble);
        }
        let mut instants = vec![next];
        while instants.len() < INSTANTS
            && let Some(after) = instants.last().and_then(|last| rules.after(*last))
        {
            instants.push(after);
        }
        let input = warm_up::Input {
            now: now.as_millisecond(),
            pool: types::PoolIdentity {
                kind: Kind::PreScaledCronJob.as_str().to_owned(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                uid: uid.clone(),
                generation: generation.unwrap_or_default(),
            },
            config: active.config.clone(),
            instants: instants.iter().map(|instant| instant.as_millisecond()).collect(),
            configured: u64::try_from(own.as_millis()).unwrap_or(0),
            runs: runs
                .iter()
                .map(|run| warm_up::Phases {
                    instant: run.instant.as_millisecond(),
                    schedule: run.schedule_milliseconds,
                    pull: run.pull_milliseconds,
                    start: run.start_milliseconds,
                    ready: None,
                })
                .collect(),
            state: self.seat.state.clone(),
            extensions: Vec::new(),
        };
        let asked = context.host.lead(&active.policy, active.limits, input.clone()).await;
        match asked {
            Ok(answer) => {
                let decision = answer.value;
                let lead = SignedDuration::from_millis(i64::try_from(decision.lead).unwrap_or(i64::MAX));
                self.seat.state = decision.state;
                self.seat.called(None);
                let reason = decision.reason.clone();
                self.decided = Some(Decided { question, input, lead, reason });
                self.ask_shadow(context, sitter, on_trial.as_ref());
                (Lead::Before(lead), decision.reason, trouble)
            }
            Err(error) => {
                let words = error.to_string();
                self.seat.called(Some(words.clone()));
                let trouble = trouble.unwrap_or_else(|| ("CallFailed".to_owned(), words));
                (configured, format!("{by_spec}: the policy failed"), Some(trouble))
            }
        }
    }

    /// Has the policy on trial asked what the one that decides was asked, once.
    fn ask_shadow(
        &mut self,
        context: &Arc<Context>,
        sitter: Sitter<'_>,
        on_trial: Option<&(Source, WantedPolicy)>,
    ) {
        let (Some((source, wanted)), Some(decided)) = (on_trial, &self.decided) else { return };
        if self.shadow.is_known() {
            if self.tried.as_ref() == Some(&decided.question) {
                return;
            }
            self.tried = Some(decided.question.clone());
        }
        let held = u64::try_from(decided.lead.as_millis()).unwrap_or(0);
        let question = Question::lead(decided.input.clone(), held);
        self.shadow.ask(context, sitter, wanted, source, question);
    }

    /// Takes over what the status tells of before the operator started.
    fn begin(&mut self, object: &PreScaledCronJob) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let Some(policy) = object.status.as_ref().and_then(|status| status.policy.clone()) else { return };
        let shadow = policy.shadow.unwrap_or_default();
        let states: Vec<_> = [policy.state, shadow.state].into_iter().flatten().collect();
        self.seat = Seat::before(policy.active_digest, states.clone());
        self.shadow = Shadow::new(Seat::before(shadow.active_digest, states));
        self.promoted = object.spec.policy.as_ref().is_some_and(PolicyRef::promoted);
    }

    /// When to look again, although nothing changes.
    pub fn wake(&self) -> Option<Duration> {
        self.seat.wake()
    }

    /// What the status says of the policy.
    pub fn status(&self, context: &Context, object: &PreScaledCronJob) -> Option<PolicyStatus> {
        let (wanted, on_trial) = object.spec.policy.as_ref()?.roles();
        let namespace = &key(object).namespace;
        let source = Source::of(namespace, &wanted)?;
        let shadow =
            on_trial.and_then(|wanted| Some(self.shadow.status(&Source::of(namespace, &wanted)?, None)));
        Some(PolicyStatus { state: self.seat.kept_state(), shadow, ..self.seat.status(context, &source) })
    }
}

fn key(object: &PreScaledCronJob) -> Key {
    let namespace = object.namespace().unwrap_or_default();
    Key { kind: Kind::PreScaledCronJob, namespace, name: object.name_any() }
}
