//! Conditions with kstatus meaning: one small builder that keeps transition times.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that the API's own validation accepts.
const MAX_MESSAGE: usize = 32 * 1024;

/// Collects the conditions of one status.
#[derive(Debug)]
pub struct Conditions<'a> {
    previous: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    built: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts from the conditions that the object has now.
    pub fn new(previous: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { previous, generation, now, built: Vec::new() }
    }

    /// Sets a condition; its transition time stays while its status does.
    pub fn set(&mut self, type_: &str, status: bool, reason: &str, message: impl Into<String>) {
        let status = if status { "True" } else { "False" };
        let since = self
            .previous
            .iter()
            .find(|c| c.type_ == type_ && c.status == status)
            .map_or_else(|| Time(self.now), |c| c.last_transition_time.clone());
        let mut message: String = message.into();
        if message.len() > MAX_MESSAGE {
            message = message.chars().take(MAX_MESSAGE / 4).collect();
        }
        self.built.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: self.generation,
            last_transition_time: since,
        });
    }

    /// The conditions, in the order in which they were set.
    pub fn finish(self) -> Vec<Condition> {
        self.built
    }
}

/// Whether a condition of a list is True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}
