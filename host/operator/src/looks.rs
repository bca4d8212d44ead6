//! Numbers of looks: what the log tells of one look has one number, however many others go on beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Instrument as _;

static LOOKS: AtomicU64 = AtomicU64::new(0);

/// A look, whose lines in the log have a number of their own: `look{id=17}`.
pub fn numbered<F: Future>(look: F) -> tracing::instrument::Instrumented<F> {
    let id = LOOKS.fetch_add(1, Ordering::Relaxed) + 1;
    look.instrument(tracing::info_span!("look", id))
}
