//! How fast a generation is built: not faster than it was told, and only while the one that is read is up to date, so
//! that live traffic keeps its latency. It is a feed that holds back; the consumer behind it knows nothing of it.

use std::time::Duration;

use async_trait::async_trait;
use shared::limits::{CONSUMERS_PER_PROJECTOR, FEED_WAIT_MAX, REBUILD_YIELDS_AT};
use shared::ports::{Delivery, EventFeed, StoreError};
use tokio::time::Instant;

use crate::progress::Progress;

pub struct Paced {
    feed: Box<dyn EventFeed>,
    /// Of the generations that are complete.
    live: Progress,
    /// Events per second of this consumer.
    rate: Option<u32>,
    /// When what was read so far may have been read.
    due: Instant,
}

impl Paced {
    /// `rate` is that of all consumers of this process.
    #[must_use]
    pub fn new(feed: Box<dyn EventFeed>, live: Progress, rate: Option<u32>) -> Self {
        let consumers = u32::try_from(CONSUMERS_PER_PROJECTOR).expect("a constant of a few");
        let rate = rate.map(|rate| (rate / consumers).max(1));
        Self { feed, live, rate, due: Instant::now() }
    }

    fn is_held(&self) -> bool {
        self.due > Instant::now() || self.live.behind() > REBUILD_YIELDS_AT
    }

    fn note(&mut self, events: usize) {
        let Some(rate) = self.rate else { return };
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        self.due = self.due.max(Instant::now()) + Duration::from_secs(1) * events / rate;
    }
}

#[async_trait]
impl EventFeed for Paced {
    /// Held back it waits as if there were no event.
    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        if self.is_held() {
            tokio::time::sleep(FEED_WAIT_MAX).await;
            return Ok(Vec::new());
        }
        // Not more than a second's worth at once, whatever the partitions hold.
        let events_max = self.rate.map_or(events_max, |rate| events_max.min(rate as usize));
        let batch = self.feed.next_batch(events_max).await?;
        self.note(batch.len());
        Ok(batch)
    }

    async fn ack(&mut self, batch: &[Delivery]) -> Result<(), StoreError> {
        self.feed.ack(batch).await
    }
}
