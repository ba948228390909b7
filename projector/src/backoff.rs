//! Pauses between attempts: twice as long each time, up to a bound, and scattered.

use std::time::Duration;

use shared::limits::{BACKOFF_MAX, BACKOFF_MIN};
use tokio::time::Instant;

pub(crate) struct Backoff {
    longest: Duration,
    /// When the first attempt failed since one succeeded.
    failing_since: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { longest: BACKOFF_MIN, failing_since: None }
    }

    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// An attempt failed; for how long all have.
    pub(crate) fn failing_for(&mut self) -> Duration {
        self.failing_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// What the next pause is at most.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    pub(crate) async fn pause(&mut self) {
        let longest = self.longest;
        self.longest = (longest * 2).min(BACKOFF_MAX);
        tokio::time::sleep(jittered(longest)).await;
    }
}

/// Between half and all of it, so that projectors that failed together do not come back together.
fn jittered(backoff: Duration) -> Duration {
    let half = backoff / 2;
    let mut byte = [0];
    // Without randomness the jitter is lost, not the wait.
    let _ = getrandom::fill(&mut byte);
    half + half * u32::from(byte[0]) / u32::from(u8::MAX)
}
