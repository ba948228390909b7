//! A consumer of a group that was made when the stream had been trimmed. The order in which events are applied does not
//! matter, so it follows the stream first, which can then be trimmed on, and takes what it lacks from the archive in
//! turns between. Whoever consumes from it knows nothing of that.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, BATCH_EVENTS_BYTES_MAX, REPLAY_LOOK_INTERVAL, REPLAY_TURN};
use shared::ports::{Archive, Backlog, Delivery, EventFeed, StoreError};
use tokio::time::Instant;

use super::search::existing;
use crate::redis::{self, entry};

pub struct Feed {
    stream: redis::Feed,
    backlog: redis::Backlog,
    archive: Arc<dyn Archive>,
    /// Until when the archive has its turn.
    turn_ends: Instant,
    /// When to ask again whether there is any backlog.
    look_at: Instant,
    /// Blocks that are this consumer's and not read yet, of one partition.
    taken: VecDeque<(u16, u64)>,
    /// What the last batch was made of, if it came from the archive.
    given: Vec<(u16, u64)>,
}

impl Feed {
    #[must_use]
    pub fn new(stream: redis::Feed, backlog: redis::Backlog, archive: Arc<dyn Archive>) -> Self {
        let now = Instant::now();
        let (taken, given) = (VecDeque::new(), Vec::new());
        Self { stream, backlog, archive, turn_ends: now, look_at: now, taken, given }
    }

    /// Nothing: nobody has any left to give.
    async fn replay(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        if self.taken.is_empty() {
            // No more than this batch may have: what waits for a later one, at a slow pace, outlives its lease.
            let blocks = events_max.div_ceil(ARCHIVE_BLOCK_ENTRIES as usize);
            self.taken = self.backlog.take(blocks).await?.into();
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_EVENTS_BYTES_MAX
            && batch.len() < events_max
            && let Some(&(partition, number)) = self.taken.front()
        {
            let block = match existing(&*self.archive, partition, number).await {
                Ok(block) => block,
                // What was read before it is given first; the next batch begins with it.
                Err(_) if !batch.is_empty() => break,
                Err(error) => {
                    if !error.is_retryable() {
                        // The others can be read, and somebody tries this one again when its lease ends.
                        self.taken.pop_front();
                    }
                    return Err(error);
                }
            };
            self.taken.pop_front();
            let read = batch.len();
            batch.extend(block.entries.into_iter().map(entry::open));
            bytes += batch[read..].iter().map(entry::size).sum::<usize>();
            self.given.push((partition, number));
        }
        Ok(batch)
    }
}

#[async_trait]
impl EventFeed for Feed {
    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        // What was given and not acknowledged is given to somebody again when its lease ends.
        self.given.clear();
        let now = Instant::now();
        if now < self.turn_ends && now >= self.look_at {
            let batch = self.replay(events_max).await?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            self.look_at = now + REPLAY_LOOK_INTERVAL;
        }
        let batch = self.stream.next_batch(events_max).await?;
        if !self.stream.has_more() {
            self.turn_ends = Instant::now() + REPLAY_TURN;
        }
        Ok(batch)
    }

    async fn ack(&mut self, batch: &[Delivery]) -> Result<(), StoreError> {
        let Some(&(partition, _)) = self.given.first() else { return self.stream.ack(batch).await };
        let blocks: Vec<_> = self.given.iter().map(|(_, number)| *number).collect();
        self.backlog.done(partition, &blocks).await
    }
}
