//! Who reports: a pod of an execution of a NodeBatchJob on a node.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A NodeBatchJob by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The pod that callback URLs are made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodSlot {
    pub job: JobKey,
    /// The NodeBatchJob's UID: one that is made again under the same name is another one.
    pub uid: String,
    pub execution: ExecutionId,
    pub node: String,
    pub pod: String,
}

/// Longest id of an execution, in bytes.
const MAX_ID: usize = 63;
/// Stands for the newest execution wherever one is named.
pub const LATEST: &str = "latest";

/// An execution's id: letters, digits and `-`, such as `202608030910`, or `202608030910-2` for a second one in that minute.
/// The order is that of time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecutionId(String);

/// An id that an execution cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no id of an execution: use 1 to {MAX_ID} letters, digits and `-`, a letter or digit first, and not `{LATEST}`"
)]
pub struct BadExecutionId(String);

impl ExecutionId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The minute and the number within it.
    fn rank(&self) -> (&str, u64) {
        let (minute, number) = self.0.split_once('-').unwrap_or((&self.0, ""));
        (minute, number.parse().unwrap_or_default())
    }
}

impl FromStr for ExecutionId {
    type Err = BadExecutionId;

    fn from_str(text: &str) -> Result<Self, BadExecutionId> {
        let legal = (1..=MAX_ID).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-')
            && text != LATEST;
        if legal {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadExecutionId(text.chars().take(MAX_ID).collect()))
        }
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for ExecutionId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for ExecutionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ExecutionId {
        text.parse().unwrap()
    }

    #[test]
    fn executions_are_in_the_order_of_time() {
        let mut ids = ["202608030910-10", "202608030911", "202608030910-2", "202608030910"].map(id);
        ids.sort();
        assert_eq!(ids, ["202608030910", "202608030910-2", "202608030910-10", "202608030911"].map(id));
    }

    #[test]
    fn ids_that_are_paths_are_refused() {
        for text in ["", "..", "a/b", "-a", "latest", ".hidden", "a\0", &"1".repeat(64)] {
            assert!(text.parse::<ExecutionId>().is_err(), "{text}");
        }
    }
}
