//! A decision applies only to the UID, generation and component that it was made for (I4). Asking a policy and
//! carrying out a plan take time, in which any of them may change; what was decided is then dropped, and
//! decided again.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::Context;
use crate::object::Pool;
use crate::policies::Source;

/// What a decision was made for.
pub struct Fence<'a> {
    context: &'a Context,
    pool: &'a Pool,
    source: Option<&'a Source>,
    desired: Option<String>,
    since: Instant,
}

impl<'a> Fence<'a> {
    /// Notes what holds now, before the policy is settled and asked.
    pub fn new(context: &'a Context, pool: &'a Pool, source: Option<&'a Source>) -> Self {
        Self {
            context,
            pool,
            source,
            desired: source.and_then(|s| context.policies.desired(s)),
            since: Instant::now(),
        }
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// What changed since, if anything did.
    pub fn broken(&self) -> Option<&'static str> {
        let latest = self.context.latest(&self.pool.key());
        let changed = latest.map_or(Some("deleted"), |latest| changed(self.pool.meta(), latest.meta()));
        if let Some(reason) = changed {
            return Some(reason);
        }
        let desired = self.source.and_then(|s| self.context.policies.desired(s));
        (desired != self.desired).then_some("policy")
    }
}

/// What makes a decision for one version of an object void for another.
fn changed(old: &ObjectMeta, new: &ObjectMeta) -> Option<&'static str> {
    if old.uid != new.uid {
        Some("uid")
    } else if old.deletion_timestamp.is_none() && new.deletion_timestamp.is_some() {
        Some("deleted")
    } else if old.generation != new.generation {
        Some("generation")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(uid: &str, generation: i64) -> ObjectMeta {
        ObjectMeta { uid: Some(uid.to_owned()), generation: Some(generation), ..ObjectMeta::default() }
    }

    #[test]
    fn i4_a_decision_is_void_for_another_uid_or_generation() {
        let made_for = object("a", 3);
        assert_eq!(changed(&made_for, &object("a", 3)), None);
        assert_eq!(changed(&made_for, &object("a", 4)), Some("generation"));
        assert_eq!(changed(&made_for, &object("b", 3)), Some("uid"));
        let mut going = object("a", 3);
        going.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(changed(&made_for, &going), Some("deleted"));
    }
}
