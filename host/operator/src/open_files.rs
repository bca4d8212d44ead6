//! How many files, and so connections, the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Left for everything but kept connections to pods: watches, questions under way, policies, logs.
const OTHERS: u64 = 1024;

/// Raises the limit as far as it may be, and tells how many connections to pods may be kept open. Where that is
/// too few for all, the others are made anew for each question.
pub fn for_pods() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays");
        }
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most.saturating_sub(OTHERS)).unwrap_or(usize::MAX)
}
