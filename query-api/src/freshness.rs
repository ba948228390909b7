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
    for_all: Arc<Semaphore>,
    for_one: Arc<Semaphore>,
    metrics: ReadMetrics,
}

/// What a page waits for. Who waits for long takes no place from those who do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Everything that was acknowledged, for a moment.
    All,
    /// The message of `min_seq`.
    One,
}

impl Waits {
    pub(crate) fn new(metrics: ReadMetrics) -> Self {
        let [for_all, for_one] = [(); 2].map(|()| Arc::new(Semaphore::new(PAGES_WAITING_MAX)));
        Self { for_all, for_one, metrics }
    }

    /// `None`: as many wait as may.
    pub(crate) fn begin(&self, awaited: Awaited) -> Option<Wait> {
        let places = match awaited {
            Awaited::All => &self.for_all,
            Awaited::One => &self.for_one,
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
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
