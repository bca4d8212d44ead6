//! The last word of a pod before it goes, in the modes that ask (I1): nothing says in which version of a pod it was
//! idle, so that it is asked once more, and stays unless it says clearly that it is.

use crate::PodView;
use crate::asked::{Answer, Outcome};
use crate::pool::RemovalReason;
use crate::verdict::{PodMemory, ever_ready};

/// Whether a pod has a last word before it goes, or before the Job goes whose pod it is. One that has ended, that goes
/// at somebody's word or that was never Ready has none: nobody uses it.
pub fn has_one(reason: RemovalReason, pod: &PodView, memory: Option<&PodMemory>) -> bool {
    !matches!(reason, RemovalReason::Finished | RemovalReason::Forced)
        && pod.alive()
        && ever_ready(pod, memory)
}

/// Whether a pod goes after its last word.
pub fn lets_go(answer: &Answer) -> bool {
    answer.outcome == Outcome::Idle
}
