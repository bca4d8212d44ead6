//! How often, and after which time, what failed is tried again.

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How often, and after which time, what failed is tried again. Each attempt is a Job of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retry {
    /// Attempts after the first: 0 to 100.
    #[schemars(schema_with = "crate::schema::retries")]
    pub limit: u32,
    /// Seconds from the first failure to the second attempt; doubled each time.
    #[schemars(schema_with = "crate::schema::delay")]
    pub backoff_seconds: u32,
    /// It is never more than this.
    #[schemars(schema_with = "crate::schema::delay")]
    pub max_backoff_seconds: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { limit: 1, backoff_seconds: 10, max_backoff_seconds: 300 }
    }
}

impl Retry {
    /// How long to wait after so many failures.
    pub fn delay(&self, failures: u32) -> SignedDuration {
        let Some(doublings) = failures.checked_sub(1) else { return SignedDuration::ZERO };
        let seconds = u64::from(self.backoff_seconds) << doublings.min(30);
        let seconds = seconds.min(self.max_backoff_seconds.into());
        SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_bound() {
        let retry = Retry { limit: 9, backoff_seconds: 10, max_backoff_seconds: 35 };
        let seconds = |failures| retry.delay(failures).as_secs();
        assert_eq!([0, 1, 2, 3, 4, u32::MAX].map(seconds), [0, 10, 20, 35, 35, 35]);
        let longest = Retry { limit: 100, backoff_seconds: 86_400, max_backoff_seconds: 86_400 };
        assert_eq!(longest.delay(101).as_secs(), 86_400);
    }
}
