//! The port `LogTail`: the end of the log and what is appended to it, beside the consumer of the feed.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use shared::ids::Position;
use shared::limits::{FEED_WAIT_MAX, PROJECTED_PER_BATCH_MAX};
use shared::ports::{Delivery, LogEnd, LogTail, StoreError};
use tokio::sync::watch;
use tokio::time::timeout;

use super::entry::{self, Entry};
use super::{Embedded, STORE, damaged, encoding, read_error};

pub struct Tail {
    store: Embedded,
    head: watch::Receiver<u64>,
    /// The next offset to be given.
    next: u64,
}

impl Tail {
    pub(super) fn new(store: Embedded) -> Self {
        Self { head: store.log_end(), store, next: 1 }
    }
}

impl Embedded {
    fn entry(&self, offset: u64) -> Result<(Entry, fjall::Slice), StoreError> {
        let bytes = self.directory().log.get(offset.to_be_bytes()).map_err(read_error)?;
        let bytes = bytes.ok_or_else(|| gone(offset))?;
        Ok((Entry::decode(&bytes).ok_or_else(|| gone(offset))?, bytes))
    }

    fn entries(&self, offsets: RangeInclusive<u64>) -> Result<Vec<Delivery>, StoreError> {
        let rows = self.directory().log.range(offsets.start().to_be_bytes()..=offsets.end().to_be_bytes());
        rows.zip(offsets)
            .map(|(row, offset)| {
                let (key, bytes) = row.into_inner().map_err(read_error)?;
                let entry = Entry::decode(&bytes).filter(|_| encoding::number(&key) == Some(offset));
                Ok(entry.ok_or_else(|| gone(offset))?.deliver(offset, &bytes))
            })
            .collect()
    }

    /// A log is never made without a first entry, and never given up without it.
    fn end(&self, head: u64, events_max: usize) -> Result<LogEnd, StoreError> {
        let (first, _) = self.entry(1)?;
        let before = head.saturating_sub(u64::try_from(events_max).unwrap_or(u64::MAX));
        let ms = if before == 0 { 0 } else { self.entry(before)?.0.ms };
        let behind = vec![Position { partition: 0, ..entry::position(ms, before) }];
        Ok(LogEnd { log: first.envelope.id, behind, entries: self.entries(before + 1..=head)? })
    }
}

#[async_trait]
impl LogTail for Tail {
    async fn end(&mut self, events_max: usize) -> Result<Option<LogEnd>, StoreError> {
        let head = *self.head.borrow();
        if head == 0 {
            return Ok(None);
        }
        let end = self.store.blocking(move |store| store.end(head, events_max)).await?;
        self.next = head + 1;
        Ok(Some(end))
    }

    /// Read by the calling task: a batch takes about a fifth of a millisecond.
    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        let next = self.next;
        // The only await comes before anything is read.
        let head = timeout(FEED_WAIT_MAX, self.head.wait_for(|head| *head >= next)).await;
        let Ok(head) = head.map(|head| head.map(|head| *head)) else { return Ok(Vec::new()) };
        let head = head.map_err(|_| StoreError::unavailable(STORE, "the writer has stopped"))?;
        let wide = u64::try_from(events_max.clamp(1, PROJECTED_PER_BATCH_MAX)).expect("a small number");
        let last = head.min(next + wide - 1);
        let batch = self.store.entries(next..=last)?;
        self.next = last + 1;
        Ok(batch)
    }
}

fn gone(offset: u64) -> StoreError {
    damaged(format!("log entry {offset} cannot be read"))
}
