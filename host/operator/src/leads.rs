//! How early the warm-ups of a PreScaledCronJob begin: as its spec says, or as its policy decides. Whenever the policy
//! has no answer, the spec's holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use stoker_api::{EndedRun, PolicyRef, PolicyStatus, PreScaledCronJob};
use stoker_core::pre_scaled::{Lead, Rules};
use stoker_policy::contract::{types, warm_up};
use stoker_policy::{Limits, Policy};

use crate::again::patience;
use crate::context::Context;
use crate::object::{Key, Kind};
use crate::policies::{Content, Source};

/// Why the policy does not decide: a reason for the condition, and words.
pub type Trouble = (String, String);

/// Instants that a policy sees.
const INSTANTS: usize = 16;

/// What is remembered of an object's policy between two looks.
#[derive(Default)]
pub struct Leads {
    active: Option<(Arc<Policy>, String, Source)>,
    refused: Option<(String, String, String)>,
    decided: Option<Decided>,
    state: Vec<u8>,
    failures: u32,
    last_error: Option<String>,
    quiet_until: Option<Instant>,
}

/// A decision, and for what it was made.
struct Decided {
    question: String,
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
            context.policies.release(&key, None);
            *self = Self::default();
            return (configured, by_spec.to_owned(), None);
        };
        let trouble = self.settle(context, object, spec, &key).await;
        let Some((policy, config, _)) = self.active.clone() else {
            return (configured, format!("{by_spec}, until the policy decides"), trouble);
        };
        let Some(next) = rules.after(now) else { return (configured, by_spec.to_owned(), trouble) };
        let own = next.duration_since(configured.start(next, &rules.zone));
        let newest = runs.first().map(|run| (run.instant, runs.len()));
        let question = format!(
            "{} {config} {next} {newest:?} {own:?} {:?}",
            policy.digest(),
            object.metadata.generation
        );
        if let Some(decided) = self.decided.as_ref().filter(|decided| decided.question == question) {
            return (Lead::Before(decided.lead), decided.reason.clone(), trouble);
        }
        if let (Some(until), Some(error)) = (self.quiet_until, &self.last_error)
            && Instant::now() < until
        {
            let trouble = trouble.or_else(|| Some(("CallFailed".to_owned(), error.clone())));
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
                uid: object.uid().unwrap_or_default(),
                generation: object.metadata.generation.unwrap_or_default(),
            },
            config,
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
            state: self.state.clone(),
            extensions: Vec::new(),
        };
        match context.host.lead(&policy, limits(spec), input).await {
            Ok(answer) => {
                let decision = answer.value;
                let lead = SignedDuration::from_millis(i64::try_from(decision.lead).unwrap_or(i64::MAX));
                self.state = decision.state;
                (self.failures, self.last_error, self.quiet_until) = (0, None, None);
                self.decided = Some(Decided { question, lead, reason: decision.reason.clone() });
                (Lead::Before(lead), decision.reason, trouble)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.quiet_until = Some(Instant::now() + patience(self.failures, policy.last_cost()));
                let words = error.to_string();
                self.last_error = Some(words.clone());
                let trouble = trouble.unwrap_or_else(|| ("CallFailed".to_owned(), words));
                (configured, format!("{by_spec}: the policy failed"), Some(trouble))
            }
        }
    }

    /// Brings the active policy in line with the spec as far as it goes. Whatever is in the way, the one that was active
    /// stays so.
    async fn settle(
        &mut self,
        context: &Arc<Context>,
        object: &PreScaledCronJob,
        spec: &PolicyRef,
        key: &Key,
    ) -> Option<Trouble> {
        let source = Source::of(&key.namespace, spec)?;
        context.policies.release(key, Some(&source));
        let config = spec.config.as_ref().map_or_else(|| "{}".to_owned(), ToString::to_string);
        let policy = match context.policies.content(context, &source, key.clone()) {
            Content::Loading if self.active.is_some() => return None,
            Content::Loading => return Some(("Loading".to_owned(), format!("{source} is being loaded"))),
            Content::Refused { reason, words, .. } => return Some((reason.to_owned(), words)),
            Content::Loaded(policy) => policy,
        };
        let digest = policy.digest().to_string();
        if let Some(pin) = spec.digest.as_ref().filter(|pin| **pin != digest) {
            let words = format!(
                "{source} holds {digest}, but spec.policy.digest pins {pin}: restore those bytes or change the pin"
            );
            return Some(("DigestMismatch".to_owned(), words));
        }
        if !policy.exports().warm_up {
            let words = format!(
                "{source} does not export the decision warm-up: choose another, such as builtin: learned-lead"
            );
            return Some(("NoWarmUp".to_owned(), words));
        }
        if let Some((active, with, from)) = &mut self.active
            && active.digest() == policy.digest()
            && *with == config
        {
            *from = source;
            return None;
        }
        if let Some((known, with, words)) = &self.refused
            && (known, with) == (&digest, &config)
        {
            return Some(("ConfigInvalid".to_owned(), words.clone()));
        }
        match context.host.validate(&policy, &config, limits(spec)).await {
            Ok(()) => {
                tracing::info!(object = %key, %source, digest, generation = object.metadata.generation, "policy in use");
                self.active = Some((policy, config, source));
                (self.refused, self.decided) = (None, None);
                self.state.clear();
                None
            }
            Err(refusal) => {
                let words = format!("spec.policy.config: {refusal}");
                self.refused = Some((digest, config, words.clone()));
                Some(("ConfigInvalid".to_owned(), words))
            }
        }
    }

    /// When to look again, although nothing changes.
    pub fn wake(&self) -> Option<Duration> {
        self.quiet_until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// What the status says of the policy.
    pub fn status(&self, context: &Context, object: &PreScaledCronJob) -> Option<PolicyStatus> {
        let source = Source::of(&key(object).namespace, object.spec.policy.as_ref()?)?;
        let active = self.active.as_ref();
        Some(PolicyStatus {
            source: source.to_string(),
            active_digest: active.map(|(policy, ..)| policy.digest().to_string()),
            desired_digest: context.policies.desired(&source),
            active_name: active
                .map(|(policy, ..)| format!("{} {}", policy.info().name, policy.info().version)),
            failures_in_a_row: self.failures.min(i32::MAX as u32),
            last_error: self.last_error.clone(),
        })
    }
}

fn key(object: &PreScaledCronJob) -> Key {
    let namespace = object.namespace().unwrap_or_default();
    Key { kind: Kind::PreScaledCronJob, namespace, name: object.name_any() }
}

fn limits(spec: &PolicyRef) -> Limits {
    let given = spec.limits.clone().unwrap_or_default();
    Limits {
        timeout: Duration::from_millis(u64::from(given.timeout_milliseconds)),
        memory_bytes: given.memory_mib as usize * 1024 * 1024,
    }
}
