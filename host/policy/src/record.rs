//! A decision as it was made: what was asked, of which component, and what came of it. Whoever has the component gets the
//! same answer again, bit for bit.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the policy noted on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
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
    /// The answer, the error and the log are the same.
    pub same: bool,
}

impl Record {
    /// What was asked of a policy, and what it answered.
    pub fn new(
        policy: &Policy,
        limits: Limits,
        exchange: Exchange,
        error: Option<String>,
        log: Vec<LogLine>,
    ) -> Self {
        let info = policy.info();
        Self {
            version: RECORD_VERSION,
            digest: policy.digest().to_string(),
            policy: format!("{} {}", info.name, info.version),
            timeout_milliseconds: u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            memory_bytes: limits.memory_bytes,
            exchange,
            error,
            log,
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

    /// When it was asked, in milliseconds since 1970, and of which object: its kind, namespace and name.
    pub fn asked(&self) -> (i64, String) {
        let (now, pool) = match &self.exchange {
            Exchange::Scale { input, .. } => (input.now, &input.pool),
            Exchange::Classify { input, .. } => (input.now, &input.pool),
            Exchange::Lead { input, .. } => (input.now, &input.pool),
        };
        (now, format!("{} {}/{}", pool.kind, pool.namespace, pool.name))
    }

    /// Asks a policy the same again. With the component of the record the answer is the same, unless it depended on how
    /// fast the machine was: on the time that it was allowed.
    pub async fn replay(&self, host: &PolicyHost, policy: &Arc<Policy>) -> Replayed {
        let limits = Limits {
            timeout: Duration::from_millis(self.timeout_milliseconds),
            memory_bytes: self.memory_bytes,
        };
        let (exchange, error, log) = match &self.exchange {
            Exchange::Scale { input, .. } => {
                let (answer, error, log) = parts(host.scale(policy, limits, (**input).clone()).await);
                (Exchange::Scale { input: input.clone(), answer }, error, log)
            }
            Exchange::Classify { input, .. } => {
                let (answer, error, log) = parts(host.classify(policy, limits, (**input).clone()).await);
                (Exchange::Classify { input: input.clone(), answer }, error, log)
            }
            Exchange::Lead { input, .. } => {
                let (answer, error, log) = parts(host.lead(policy, limits, (**input).clone()).await);
                (Exchange::Lead { input: input.clone(), answer }, error, log)
            }
        };
        let now = Self::new(policy, limits, exchange, error, log);
        let same = (&now.exchange, &now.error, &now.log) == (&self.exchange, &self.error, &self.log);
        Replayed { now, same }
    }
}

/// What a record holds of what came of a call.
pub fn parts<T>(answer: Result<Answer<T>, CallError>) -> (Option<T>, Option<String>, Vec<LogLine>) {
    match answer {
        Ok(answer) => (Some(answer.value), None, answer.log),
        Err(error) => (None, Some(error.to_string()), Vec::new()),
    }
}
