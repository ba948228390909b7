//! Waiting for the projection: how many may, and what wakes them.

use std::sync::Arc;

use shared::Conversation;
use shared::limits::{FRESHNESS_POLL, PAGES_WAITING_MAX};
use shared::ports::Applied;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, timeout_at};

use crate::metrics::{Outcome, ReadMetrics};

/// The pages of this process that wait.
pub(crate) struct Waits {
    places: Arc<Semaphore>,
    metrics: ReadMetrics,
}

impl Waits {
    pub(crate) fn new(metrics: ReadMetrics) -> Self {
        Self { places: Arc::new(Semaphore::new(PAGES_WAITING_MAX)), metrics }
    }

    /// `None`: as many wait as may.
    pub(crate) fn begin(&self) -> Option<Wait> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.metrics.waited(Outcome::Full);
            return None;
        };
        self.metrics.waiting.inc();
        Some(Wait { _place: place, outcome: Outcome::Failed, metrics: self.metrics.clone() })
    }
}

/// One page that waits. It has failed unless it is said otherwise.
pub(crate) struct Wait {
    _place: OwnedSemaphorePermit,
    metrics: ReadMetrics,
    outcome: Outcome,
}

impl Wait {
    pub(crate) fn over(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.metrics.waiting.dec();
        self.metrics.waited(self.outcome);
    }
}

/// Until the conversation has moved, notices were lost, or it is time to look again anyway.
pub(crate) async fn moved(
    applied: &mut broadcast::Receiver<Applied>,
    conversation: &Conversation,
    deadline: Instant,
) {
    let look_again = deadline.min(Instant::now() + FRESHNESS_POLL);
    let notice = async {
        loop {
            match applied.recv().await {
                Ok(notice) if notice.conversation != *conversation => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    // Either way the next step is to read again.
    let _ = timeout_at(look_again, notice).await;
}
