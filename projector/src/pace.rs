//! How fast a generation is built: not faster than it was told; and if it was told nothing, in small bites with rests
//! between them while others use the system, so that live traffic keeps its latency. It waits while the generations that
//! are complete are behind. It is a feed that holds back; the consumer behind it knows nothing of it. How fast a
//! comparison reads is in `verify/pace.rs`.

use std::time::Duration;

use async_trait::async_trait;
use shared::limits::{
    CONSUMERS_PER_PROJECTOR, FEED_WAIT_MAX, REBUILD_BITE_EVENTS_MAX, REBUILD_RESTS_FOR, REBUILD_YIELDS_AT,
};
use shared::ports::{Delivery, EventFeed, StoreError};
use tokio::time::Instant;

use crate::progress::Progress;

pub struct Paced {
    feed: Box<dyn EventFeed>,
    pace: Pace,
}

impl Paced {
    /// `rate` is that of all consumers of this process, in events per second; `live` is of the generations that are
    /// complete.
    #[must_use]
    pub fn new(feed: Box<dyn EventFeed>, live: Progress, rate: Option<u32>) -> Self {
        let consumers = u32::try_from(CONSUMERS_PER_PROJECTOR).expect("a constant of a few");
        let rate = rate.map(|rate| (rate / consumers).max(1));
        let now = Instant::now();
        Self { feed, pace: Pace { live, rate, due: now, taken: now } }
    }
}

#[async_trait]
impl EventFeed for Paced {
    /// Held back it waits as if there were no event.
    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        let held = self.pace.held(Instant::now());
        if !held.is_zero() {
            tokio::time::sleep(held).await;
            return Ok(Vec::new());
        }
        let batch = self.feed.next_batch(self.pace.bite(events_max)).await?;
        self.pace.take(batch.len(), Instant::now());
        Ok(batch)
    }

    async fn ack(&mut self, batch: &[Delivery]) -> Result<(), StoreError> {
        self.feed.ack(batch).await?;
        self.pace.rest(Instant::now());
        Ok(())
    }
}

struct Pace {
    live: Progress,
    /// Events per second of this consumer.
    rate: Option<u32>,
    /// When the next batch may be read.
    due: Instant,
    /// When the last one was.
    taken: Instant,
}

impl Pace {
    /// For how long there is nothing now.
    fn held(&self, now: Instant) -> Duration {
        if self.live.behind() > REBUILD_YIELDS_AT {
            return FEED_WAIT_MAX;
        }
        self.due.saturating_duration_since(now).min(FEED_WAIT_MAX)
    }

    /// Events in the next batch.
    fn bite(&self, events_max: usize) -> usize {
        match self.rate {
            // Not more than a second's worth.
            Some(rate) => events_max.min(rate as usize),
            None if self.live.moves() => events_max.min(REBUILD_BITE_EVENTS_MAX),
            None => events_max,
        }
    }

    fn take(&mut self, events: usize, now: Instant) {
        self.taken = now;
        if let Some(rate) = self.rate {
            let events = u32::try_from(events).unwrap_or(u32::MAX);
            self.due = self.due.max(now) + Duration::from_secs(1) * events / rate;
        }
    }

    /// After a batch, as long as it took and longer.
    fn rest(&mut self, now: Instant) {
        if self.rate.is_none() && self.live.moves() {
            self.due = now + now.saturating_duration_since(self.taken) * REBUILD_RESTS_FOR;
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::ports::{ConsumerStatus, FeedStatus, PartitionStatus};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn look(live: &Progress, applied: u64, behind_ms: u64) {
        let partition =
            PartitionStatus { partition: 0, head: applied, pending: 0, lag: 0, behind_ms, loss: None };
        let consumer = ConsumerStatus { name: "one".to_owned(), applied, pending: 0, silent_ms: Some(0) };
        live.note(&[FeedStatus { partitions: vec![partition], consumers: vec![consumer] }], Instant::now());
    }

    fn pace(rate: Option<u32>) -> (Pace, Instant) {
        let now = Instant::now();
        (Pace { live: Progress::default(), rate, due: now, taken: now }, now)
    }

    #[test]
    fn beside_live_traffic_it_takes_small_bites_and_rests() {
        let (mut pace, now) = pace(None);
        let mut bite_and_rest = |applied| {
            look(&pace.live, applied, 0);
            pace.take(100, now);
            pace.rest(now + 4 * MS);
            (pace.bite(512), pace.held(now + 4 * MS))
        };
        assert_eq!(bite_and_rest(0), (512, Duration::ZERO), "nobody is there");
        assert_eq!(bite_and_rest(7), (REBUILD_BITE_EVENTS_MAX, 4 * MS * REBUILD_RESTS_FOR));
        assert_eq!(bite_and_rest(7).0, 512, "nothing was applied since");
    }

    #[test]
    fn it_waits_while_the_complete_ones_are_behind() {
        let (pace, now) = pace(None);
        look(&pace.live, 7, 1_500);
        assert_eq!(pace.held(now), FEED_WAIT_MAX);
        look(&pace.live, 8, 500);
        assert_eq!(pace.held(now), Duration::ZERO);
    }

    #[test]
    fn what_it_was_told_is_its_pace() {
        let (mut pace, now) = pace(Some(1_000));
        look(&pace.live, 7, 0);
        assert_eq!(pace.bite(5_000), 1_000);
        pace.take(100, now);
        pace.rest(now + 4 * MS);
        assert_eq!(pace.held(now), 100 * MS);
    }
}
