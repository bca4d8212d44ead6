//! The seat of a policy at an object: which component sits there, with which config, what it asked to be given back, and how
//! it fared. An object that has a policy on trial has two.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use stoker_api::{PolicyState, PolicyStatus, WantedPolicy};
use stoker_core::names;
use stoker_policy::{ConfigRefusal, Limits, Policy};

use crate::again::patience;
use crate::context::Context;
use crate::object::{Key, Kind};
use crate::policies::{Content, Source};
use crate::policy_cache::Role;

/// Why the policy that the spec names does not decide: a reason for the condition, and words.
pub(crate) type Trouble = (String, String);

/// A policy that decides, and how it is asked.
#[derive(Clone)]
pub(crate) struct Active {
    pub(crate) policy: Arc<Policy>,
    pub(crate) config: String,
    pub(crate) source: Source,
    pub(crate) limits: Limits,
}

/// A config that a component did not take.
struct RefusedConfig {
    digest: String,
    config: String,
    words: String,
    /// When it is tried again, if there was no answer; an answer stands.
    again: Option<Instant>,
}

/// Whose seat it is.
#[derive(Clone, Copy)]
pub(crate) struct Sitter<'a> {
    pub(crate) key: &'a Key,
    pub(crate) uid: &'a str,
    pub(crate) generation: Option<i64>,
    pub(crate) role: Role,
    /// What decides as long as no component does, for people.
    pub(crate) otherwise: &'static str,
}

/// What is remembered of a policy between two looks at its object.
#[derive(Default)]
pub(crate) struct Seat {
    pub(crate) active: Option<Active>,
    /// The role in which the active one was noted in the cache.
    noted: Option<Role>,
    /// Digest of the component that decided before the operator started, until it is needed or replaced.
    last_known: Option<String>,
    /// Why that one does not decide now.
    lost: Option<String>,
    /// The last config that was not taken.
    refused_config: Option<RefusedConfig>,
    /// Calls of `validate` in a row that gave no answer.
    refusals_in_a_row: u32,
    failures: u32,
    last_error: Option<String>,
    /// A policy that fails is not asked again before then: it is most often the costly ones that fail.
    quiet_until: Option<Instant>,
    generation: Option<i64>,
    /// What the policy is to be given back.
    pub(crate) state: Vec<u8>,
    /// What the status holds of policies from before the operator started.
    restored: Vec<PolicyState>,
}

enum Found {
    Loading,
    Policy(Arc<Policy>),
    Trouble(Trouble),
}

impl Seat {
    /// A seat whose component of before the restart is known by the status.
    pub(crate) fn before(last_known: Option<String>, restored: Vec<PolicyState>) -> Self {
        Self { last_known, restored, ..Self::default() }
    }

    /// Nobody sits here any more.
    pub(crate) fn vacate(&mut self) {
        *self = Self::default();
    }

    /// Brings the active policy in line with the spec as far as it goes, and tells what is in the way. Whatever that is,
    /// the one that was active stays so; after a restart, the one that was active before is looked for.
    pub(crate) async fn settle(
        &mut self,
        context: &Arc<Context>,
        sitter: Sitter<'_>,
        wanted: &WantedPolicy,
        source: &Source,
    ) -> Option<Trouble> {
        if self.generation != sitter.generation {
            // Other limits or another configuration may be the remedy.
            self.generation = sitter.generation;
            self.quiet_until = None;
            if let Some(refused) = &mut self.refused_config {
                refused.again = refused.again.map(|_| Instant::now());
            }
        }
        let limits = limits(wanted);
        if let Some(active) = &mut self.active {
            active.limits = limits;
        }
        let (reason, words) = match find(context, sitter.key, wanted, source) {
            Found::Loading if self.active.is_some() => return None,
            // What is loading is most often what decided before: no other is looked for yet.
            Found::Loading => return Some(("Loading".to_owned(), format!("{source} is being loaded"))),
            Found::Trouble(trouble) => trouble,
            Found::Policy(policy) => {
                let field = wanted.field;
                let wanted = Active { policy, config: wanted.config.clone(), source: source.clone(), limits };
                match self.adopt(context, sitter, field, wanted).await {
                    Ok(()) => return None,
                    Err(trouble) => trouble,
                }
            }
        };
        if self.active.is_none()
            && let Some(digest) = self.last_known.take()
        {
            self.lost = self.restore(context, sitter, source, limits, &digest).await.err();
        }
        let now = match (&self.active, &self.lost) {
            (Some(active), _) => {
                format!("the last good component {} goes on deciding", active.policy.digest().short())
            }
            (None, Some(lost)) => format!("{lost}, so {}", sitter.otherwise),
            (None, None) => sitter.otherwise.to_owned(),
        };
        Some((reason, format!("{words}; until then {now}")))
    }

    /// Makes a policy the active one, unless it refuses its config.
    async fn adopt(
        &mut self,
        context: &Context,
        sitter: Sitter<'_>,
        field: &str,
        wanted: Active,
    ) -> Result<(), Trouble> {
        if let Some(active) = &mut self.active
            && active.policy.digest() == wanted.policy.digest()
            && active.config == wanted.config
        {
            active.source = wanted.source;
            // Places were changed, or the policy was found again after a restart.
            if self.noted.replace(sitter.role) != Some(sitter.role) {
                context.cache.note(sitter.uid, sitter.role, wanted.policy.digest(), &wanted.config).await;
            }
            return Ok(());
        }
        let digest = wanted.policy.digest().to_string();
        if let Some(refused) = &self.refused_config
            && (&refused.digest, &refused.config) == (&digest, &wanted.config)
            && refused.again.is_none_or(|again| Instant::now() < again)
        {
            return Err(("ConfigInvalid".to_owned(), refused.words.clone()));
        }
        match context.host.validate(&wanted.policy, &wanted.config, wanted.limits).await {
            Ok(()) => {
                tracing::info!(object = %sitter.key, source = %wanted.source, digest, "policy in use");
                context.cache.note(sitter.uid, sitter.role, wanted.policy.digest(), &wanted.config).await;
                self.activate(wanted);
                self.noted = Some(sitter.role);
                Ok(())
            }
            Err(refusal) => {
                let (words, cost) = (format!("{field}.config: {refusal}"), wanted.policy.last_cost());
                // An answer stays what it is; a call that failed may succeed the next time, though the question is the
                // same.
                let mut again = None;
                if !matches!(refusal, ConfigRefusal::Invalid(_)) {
                    self.refusals_in_a_row = self.refusals_in_a_row.saturating_add(1);
                    again = Some(Instant::now() + patience(self.refusals_in_a_row + 1, cost));
                }
                let config = wanted.config;
                self.refused_config = Some(RefusedConfig { digest, config, words: words.clone(), again });
                Err(("ConfigInvalid".to_owned(), words))
            }
        }
    }

    /// Finds the policy that decided before the operator was restarted. If that fails, tells why.
    async fn restore(
        &mut self,
        context: &Context,
        sitter: Sitter<'_>,
        source: &Source,
        limits: Limits,
        digest: &str,
    ) -> Result<(), String> {
        let Some((bytes, config)) = context.cache.find(sitter.uid, sitter.role, digest).await else {
            let kept =
                if context.cache.exists() { "" } else { " (`stoker run --policy-cache` would keep it)" };
            return Err(format!(
                "the component {digest} that decided before the restart is not at hand{kept}"
            ));
        };
        let gone = |why: String| {
            format!("the component {digest} that decided before the restart cannot be used: {why}")
        };
        let loaded = context.host.load_for(&sitter.key.namespace, bytes).await;
        let policy = loaded.map_err(|refusal| gone(refusal.to_string()))?;
        let validated = context.host.validate(&policy, &config, limits).await;
        validated.map_err(|refusal| gone(refusal.to_string()))?;
        tracing::info!(object = %sitter.key, digest, "the last good policy was found again");
        self.activate(Active { policy, config, source: source.clone(), limits });
        Ok(())
    }

    /// Lets a policy decide from now on; what it asked to be given back before a restart is given back.
    fn activate(&mut self, active: Active) {
        let of = state_of(active.policy.digest().as_str(), &active.config);
        let state = self.restored.iter().find(|state| state.of == of);
        let state = state.and_then(|state| BASE64.decode(&state.data).ok()).unwrap_or_default();
        *self = Self { active: Some(active), generation: self.generation, state, ..Self::default() };
    }

    /// Why the policy is not asked now: it failed a short while ago.
    pub(crate) fn quiet(&self) -> Option<String> {
        self.quiet_until.filter(|until| Instant::now() < *until).and(self.last_error.clone())
    }

    /// Notes how calls of the policy ended. Answers that were not asked for change nothing.
    pub(crate) fn called(&mut self, error: Option<String>) {
        if self.quiet().is_some() {
            return;
        }
        self.failures = if error.is_some() { self.failures.saturating_add(1) } else { 0 };
        let cost = self.active.as_ref().map(|active| active.policy.last_cost()).unwrap_or_default();
        self.quiet_until = error.is_some().then(|| Instant::now() + patience(self.failures, cost));
        self.last_error = error;
    }

    /// The last failure, if the last call failed.
    pub(crate) fn last_error(&self) -> Option<&String> {
        self.last_error.as_ref()
    }

    /// When to look again, although nothing changes.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let validate = self.refused_config.as_ref().and_then(|refused| refused.again);
        let at = [validate, self.quiet_until].into_iter().flatten().min()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// What the policy asked to be given back, as the status keeps it.
    pub(crate) fn kept_state(&self) -> Option<PolicyState> {
        let active = self.active.as_ref().filter(|_| !self.state.is_empty())?;
        let of = state_of(active.policy.digest().as_str(), &active.config);
        Some(PolicyState { of, data: BASE64.encode(&self.state) })
    }

    /// What the status says of it, without its state.
    pub(crate) fn status(&self, context: &Context, source: &Source) -> PolicyStatus {
        PolicyStatus {
            source: source.to_string(),
            active_digest: self.active.as_ref().map(|a| a.policy.digest().to_string()),
            desired_digest: context.policies.desired(source),
            active_name: self.active.as_ref().map(Active::name),
            failures_in_a_row: self.failures.min(i32::MAX as u32),
            last_error: self.last_error.clone(),
            state: None,
            shadow: None,
        }
    }
}

impl Active {
    /// What the component calls itself.
    pub(crate) fn name(&self) -> String {
        let info = self.policy.info();
        format!("{} {}", info.name, info.version)
    }
}

/// Of which component with which config a state is.
fn state_of(digest: &str, config: &str) -> String {
    names::short_hash(&[digest.as_bytes(), config.as_bytes()], 10)
}

fn limits(wanted: &WantedPolicy) -> Limits {
    Limits {
        timeout: Duration::from_millis(u64::from(wanted.limits.timeout_milliseconds)),
        memory_bytes: wanted.limits.memory_mib as usize * 1024 * 1024,
    }
}

/// What the spec names, as far as it can be used.
fn find(context: &Arc<Context>, user: &Key, wanted: &WantedPolicy, source: &Source) -> Found {
    let policy = match context.policies.content(context, source, user.clone()) {
        Content::Loading => return Found::Loading,
        Content::Refused { reason, words, .. } => return Found::Trouble((reason.to_owned(), words)),
        Content::Loaded(policy) => policy,
    };
    let digest = policy.digest().as_str();
    if let Some(pin) = wanted.digest.as_deref().filter(|pin| *pin != digest) {
        let words = format!(
            "{source} holds {digest}, but {}.digest pins {pin}: restore those bytes or change the pin",
            wanted.field
        );
        return Found::Trouble(("DigestMismatch".to_owned(), words));
    }
    if user.kind == Kind::PreScaledCronJob && !policy.exports().warm_up {
        let words = format!(
            "{source} does not export the decision warm-up: choose another, such as builtin: learned-lead"
        );
        return Found::Trouble(("NoWarmUp".to_owned(), words));
    }
    Found::Policy(policy)
}
