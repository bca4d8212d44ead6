//! What has become of a step, and whether what it waits for has come.

use jiff::{SignedDuration, Timestamp};
use stoker_api::{StepCondition, StepState, StepStatus};

use super::plan::Answers;
use super::prepared::{Part, Probe, Until, Wait};
use crate::Phase;
use crate::kept::Kept;

/// Longest reason in the status, in characters.
const REASON: usize = 256;

/// A Job may be seen to have ended before its pods are seen so: their message is waited for so long.
const MESSAGE_SHOWN: SignedDuration = SignedDuration::from_secs(5);

/// What is known of a step.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The name of its last Job, or of the one that it would have.
    pub job: String,
    /// What the status says of it.
    pub entry: StepStatus,
    /// That Job, if it is there.
    pub kept: Option<Kept<'a>>,
}

impl Record<'_> {
    /// It ends so.
    pub fn end(&mut self, state: StepState, reason: Option<&str>, at: Option<Timestamp>) {
        self.entry.state = state;
        self.entry.active = 0;
        self.entry.reason = reason.map(|words| words.chars().take(REASON).collect());
        self.entry.completion_time = at.or(self.entry.completion_time);
    }

    /// Its last Job has not ended.
    pub fn runs(&self) -> bool {
        self.entry.state == StepState::Running
    }

    /// Its Job has not ended, and its pods have: unless others are made, the Job is about to.
    pub fn ending(&self) -> bool {
        let over =
            |kept: Kept<'_>| !kept.pods.is_empty() && kept.pods.iter().all(|pod| pod.phase.is_terminal());
        self.runs() && self.kept.is_some_and(over)
    }

    /// It is to start again, by hand: its retries begin anew.
    pub fn again(&mut self) {
        self.entry.state = StepState::Retrying;
        self.entry.earlier = self.entry.attempts();
        self.entry.output = None;
    }
}

/// Whether what a step waits for has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It has.
    Yes,
    /// It may come. A probe that is to be asked.
    NotYet(Option<Probe>),
    /// It can no longer come: why.
    Never(String),
}

/// Weighs one thing that a step waits for. What was asked of a step that has succeeded meanwhile counts as answered.
pub fn weigh(wait: &Wait, on: &Part, record: Option<&Record<'_>>, answers: &Answers) -> Holds {
    use StepCondition::{Failed, Finished, Ready, Succeeded};
    let name = &on.name;
    let Some(record) = record else { return Holds::NotYet(None) };
    match (record.entry.state, &wait.until) {
        (StepState::Retrying, _) => Holds::NotYet(None),
        (StepState::Succeeded, Until::Condition(Failed)) => {
            Holds::Never(format!("step {name} succeeded, and its failure was waited for"))
        }
        (StepState::Succeeded, _) => Holds::Yes,
        (StepState::Failed | StepState::Deleted, Until::Condition(Failed | Finished)) => Holds::Yes,
        (StepState::Failed | StepState::Deleted, _) => Holds::Never(format!("step {name} failed")),
        (StepState::Skipped, Until::Condition(Finished)) => Holds::Yes,
        (StepState::Skipped, _) => Holds::Never(format!("step {name} was left out")),
        (StepState::Running, Until::Condition(Ready)) if record.kept.is_some_and(|kept| ready(&kept)) => {
            Holds::Yes
        }
        (StepState::Running, Until::Condition(Ready | Succeeded | Failed | Finished)) => Holds::NotYet(None),
        (StepState::Running, Until::Probe(probe)) => {
            let uid = record.kept.map(|kept| kept.job.uid.clone()).unwrap_or_default();
            if answers.contains(&(uid, probe.clone())) {
                Holds::Yes
            } else {
                Holds::NotYet(Some(probe.clone()))
            }
        }
    }
}

/// All pods of a Job are Ready, as many as it wants at a time.
fn ready(kept: &Kept<'_>) -> bool {
    let left = kept.job.completions.map_or(u32::MAX, |all| all.saturating_sub(kept.job.succeeded));
    let wanted = kept.job.parallelism.min(left).max(1) as usize;
    let alive = || kept.pods.iter().filter(|pod| pod.alive());
    alive().all(|pod| pod.ready()) && alive().count() >= wanted
}

/// What a Job that completed has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// This, or nothing.
    Is(Option<String>),
    /// Its pod is not seen to have succeeded yet: by then it is.
    By(Timestamp),
}

/// The termination message of a Job's first pod that succeeded.
pub fn message(kept: &Kept<'_>, now: Timestamp) -> Message {
    let succeeded = kept.pods.iter().filter(|pod| pod.phase == Phase::Succeeded);
    let ended = kept.job.finished.as_ref().and_then(|finished| finished.at);
    match succeeded.min_by_key(|pod| (pod.created, &pod.name)) {
        Some(pod) => Message::Is(pod.message.clone()),
        None => match ended.and_then(|at| at.saturating_add(MESSAGE_SHOWN).ok()).filter(|by| *by > now) {
            Some(by) => Message::By(by),
            None => Message::Is(None),
        },
    }
}
