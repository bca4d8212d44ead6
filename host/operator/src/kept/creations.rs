//! Which looks create children just now. What tells of things, statuses and Events, gives way to what somebody waits for: the
//! API server has but so much to give, and a thousand children may be due at one instant.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the looks that create children.
#[derive(Default)]
pub struct Creations {
    looks: AtomicUsize,
    none: Notify,
}

/// A look that creates children, until it is dropped.
pub struct Creating<'a>(&'a Creations);

impl Creations {
    /// Notes that a look begins to create.
    pub fn begin(&self) -> Creating<'_> {
        self.looks.fetch_add(1, Ordering::AcqRel);
        Creating(self)
    }

    /// Whether any look creates.
    pub fn any(&self) -> bool {
        self.looks.load(Ordering::Acquire) > 0
    }

    /// Waits until no look creates. One may have begun again by the time that this is noticed.
    pub async fn none(&self) {
        let mut none = std::pin::pin!(self.none.notified());
        // From here on it is told, so that an end after the question is not missed.
        none.as_mut().enable();
        if self.any() {
            none.await;
        }
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        if self.0.looks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_gives_way_goes_on_when_the_last_look_has_created() {
        let creations = Creations::default();
        creations.none().await;
        let (one, other) = (creations.begin(), creations.begin());
        assert!(creations.any());
        let waiting = async { timeout(Duration::from_secs(9), creations.none()).await };
        let ending = async {
            tokio::task::yield_now().await;
            drop(one);
            tokio::task::yield_now().await;
            assert!(creations.any());
            drop(other);
        };
        let (waited, ()) = tokio::join!(waiting, ending);
        assert!(waited.is_ok() && !creations.any());
        let _another = creations.begin();
        assert!(timeout(Duration::from_millis(50), creations.none()).await.is_err());
    }
}
