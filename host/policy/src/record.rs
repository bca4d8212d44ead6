//! A decision as it was made: what was asked, of which component, and what came of it. Whoever has the component gets the
//! same answer again, bit for bit.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::types::PoolIdentity;
use crate::contract::{busyness, scaling, warm_up};
use crate::host::PolicyHost;
use crate::limits::Limits;
use crate::log::LogLine;
use crate::policy::Policy;
use crate::{Answer, CallError};

/// The version of the records that are written. Others are refused when they are read.
pub const RECORD_VERSION: u32 = 1;

/// One decision. In a file each is a line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The component's digest, `sha256:…`.
    pub digest: String,
    /// Its name and version, for people.
    pub policy: String,
    /// How long the call was allowed to take, in milliseconds.
    pub timeout_milliseconds: u64,
    /// How much memory it was allowed, in bytes.
    pub memory_bytes: usize,
    /// What was asked.
    #[serde(flatten)]
    pub exchange: Exchange,
    /// What came of the call beside its answer.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a call beside its answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// What the policy noted on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// How long instance and call took by the wall clock, in microseconds; absent where there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_microseconds: Option<u64>,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// As [`CallError::kind`] has it.
    pub kind: String,
    /// For people.
    pub words: String,
}

impl Fault {
    /// Whether the machine had a part in it, so that another try may end differently: it was slow or had too much to do.
    pub fn by_machine(&self) -> bool {
        ["timeout", "busy", "host"].contains(&self.kind.as_str())
    }
}

/// A question, and its answer if there was one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "camelCase")]
pub enum Exchange {
    /// How many replicas.
    Scale {
        /// What was asked.
        input: Box<scaling::Input>,
        /// The answer.
        answer: Option<scaling::Decision>,
    },
    /// Which pods are busy.
    Classify {
        /// What was asked.
        input: Box<busyness::Input>,
        /// The answer.
        answer: Option<Vec<busyness::Verdict>>,
    },
    /// How early to begin.
    Lead {
        /// What was asked.
        input: Box<warm_up::Input>,
        /// The answer.
        answer: Option<warm_up::Decision>,
    },
}

/// What came of asking again.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// As it is now.
    pub now: Record,
    /// How that compares.
    pub comparison: Comparison,
}

/// How a decision compares with its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The answer, the error and the log are the same, bit for bit.
    Same,
    /// One of them is not.
    Differs,
    /// Then or now there was no answer for a reason of the machine's ([`Fault::by_machine`]): it says nothing about the
    /// policy.
    Machine,
}

impl Record {
    /// What was asked of a policy, and what it answered.
    pub fn new(policy: &Policy, limits: Limits, exchange: Exchange, outcome: Outcome) -> Self {
        let info = policy.info();
        Self {
            version: RECORD_VERSION,
            digest: policy.digest().to_string(),
            policy: format!("{} {}", info.name, info.version),
            timeout_milliseconds: u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            memory_bytes: limits.memory_bytes,
            exchange,
            outcome,
        }
    }

    /// Which call it was, as the contract names it.
    pub fn call(&self) -> &'static str {
        match self.exchange {
            Exchange::Scale { .. } => "scale",
            Exchange::Classify { .. } => "classify",
            Exchange::Lead { .. } => "lead",
        }
    }

    /// When it was asked, in milliseconds since 1970, and for which object.
    pub fn asked(&self) -> (i64, &PoolIdentity) {
        match &self.exchange {
            Exchange::Scale { input, .. } => (input.now, &input.pool),
            Exchange::Classify { input, .. } => (input.now, &input.pool),
            Exchange::Lead { input, .. } => (input.now, &input.pool),
        }
    }

    /// Asks a policy the same again. With the component of the record the answer is the same, unless it depended on how
    /// fast the machine was: on the time that it was allowed.
    pub async fn replay(&self, host: &PolicyHost, policy: &Arc<Policy>) -> Replayed {
        let limits = Limits {
            timeout: Duration::from_millis(self.timeout_milliseconds),
            memory_bytes: self.memory_bytes,
        };
        let (exchange, outcome) = match &self.exchange {
            Exchange::Scale { input, .. } => {
                let (answer, outcome) = parts(host.scale(policy, limits, (**input).clone()).await);
                (Exchange::Scale { input: input.clone(), answer }, outcome)
            }
            Exchange::Classify { input, .. } => {
                let (answer, outcome) = parts(host.classify(policy, limits, (**input).clone()).await);
                (Exchange::Classify { input: input.clone(), answer }, outcome)
            }
            Exchange::Lead { input, .. } => {
                let (answer, outcome) = parts(host.lead(policy, limits, (**input).clone()).await);
                (Exchange::Lead { input: input.clone(), answer }, outcome)
            }
        };
        let now = Self::new(policy, limits, exchange, outcome);
        Replayed { comparison: self.compare(&now), now }
    }

    fn compare(&self, now: &Self) -> Comparison {
        let (was, is) = (&self.outcome, &now.outcome);
        if (&self.exchange, &was.error, &was.log) == (&now.exchange, &is.error, &is.log) {
            return Comparison::Same;
        }
        let by_machine = |outcome: &Outcome| outcome.error.as_ref().is_some_and(Fault::by_machine);
        // Of another component it is worth knowing that it is too slow.
        if by_machine(was) || self.digest == now.digest && by_machine(is) {
            return Comparison::Machine;
        }
        Comparison::Differs
    }
}

/// What a record holds of what came of a call.
pub fn parts<T>(answer: Result<Answer<T>, CallError>) -> (Option<T>, Outcome) {
    match answer {
        Ok(answer) => {
            let took = u64::try_from(answer.timing.total().as_micros()).unwrap_or(u64::MAX);
            let outcome = Outcome { error: None, log: answer.log, took_microseconds: Some(took) };
            (Some(answer.value), outcome)
        }
        Err(error) => {
            let fault = Fault { kind: error.kind().to_owned(), words: error.to_string() };
            (None, Outcome { error: Some(fault), ..Outcome::default() })
        }
    }
}
