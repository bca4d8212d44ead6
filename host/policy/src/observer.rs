//! Who wants to know what the host does: metrics.

use crate::call::Timing;
use crate::compile::CompileCost;
use crate::digest::Digest;
use crate::record::Record;

/// Is told of each piece of work when it ends. Called on the threads that do the work, so it must be
/// quick.
pub trait Observer: Send + Sync {
    /// A component was compiled, or not: `outcome` is `ok` or a [`crate::Refusal::kind`].
    fn compiled(&self, digest: &Digest, outcome: &'static str, cost: CompileCost);

    /// A call ended: `outcome` is `ok` or a [`crate::CallError::kind`].
    fn called(&self, digest: &Digest, call: &'static str, outcome: &'static str, timing: Timing);

    /// Nobody holds the policy any more, and it is no longer kept.
    fn forgotten(&self, digest: &Digest);

    /// Whether it wants [`Self::decided`], which costs a copy of each input.
    fn records(&self) -> bool {
        false
    }

    /// An object's policy was asked, and answered or failed.
    fn decided(&self, _: Record) {}
}

/// For those who do not want to know.
pub(crate) struct Nobody;

impl Observer for Nobody {
    fn compiled(&self, _: &Digest, _: &'static str, _: CompileCost) {}
    fn called(&self, _: &Digest, _: &'static str, _: &'static str, _: Timing) {}
    fn forgotten(&self, _: &Digest) {}
}
