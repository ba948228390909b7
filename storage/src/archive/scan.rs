//! The whole log: archive, then stream. Where one ends and the other begins moves on while it is read: a page of the
//! stream counts only if nothing of it was trimmed before it was read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use shared::ids::Position;
use shared::ports::{Archive, Delivery, LogScan, Span, StoreError};

use super::search::{block_at, existing};
use crate::redis::{self, Hot, entry};

#[derive(Clone)]
pub struct Scan {
    stream: redis::Scan,
    hot: Hot,
    archive: Arc<dyn Archive>,
    /// Of each partition the block behind the page read last, and where that page ended.
    next: Arc<Mutex<HashMap<u16, (Position, u64)>>>,
}

impl Scan {
    #[must_use]
    pub fn new(stream: redis::Scan, hot: Hot, archive: Arc<dyn Archive>) -> Self {
        Self { stream, hot, archive, next: Arc::default() }
    }

    /// What the archive has from the beginning of the span on, in one block.
    async fn archived(
        &self,
        span: &Span,
        blocks: u64,
        events_max: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let partition = span.first.partition;
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied();
        let block = match next.filter(|(after, block)| begins_behind(span, *after) && *block < blocks) {
            Some((_, number)) => existing(&*self.archive, partition, number).await?,
            None => match block_at(&*self.archive, span.first, blocks).await? {
                Some(block) => block,
                None => return Ok(Vec::new()),
            },
        };
        let (number, end) = (block.number, block.entries.last().map(|entry| entry.position));
        let of_span = |position: Position| (span.first..=span.last).contains(&position);
        let entries = block.entries.into_iter().filter(|entry| of_span(entry.position));
        let mut page: Vec<_> = entries.map(entry::open).collect();
        page.truncate(events_max);
        // Where the span or the page ends within the block, what follows is in the same one.
        if let Some(last) = page.last().filter(|last| Some(last.position) == end) {
            let next = (last.position, number + 1);
            self.next.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, next);
        }
        Ok(page)
    }
}

fn begins_behind(span: &Span, position: Position) -> bool {
    position.counter.checked_add(1).is_some_and(|counter| span.first == Position { counter, ..position })
}

#[async_trait]
impl LogScan for Scan {
    async fn extent(&self) -> Result<Vec<Span>, StoreError> {
        let mut extent = self.stream.extent().await?;
        for span in &mut extent {
            if self.hot.trimmed(span.first.partition).await?.is_some() {
                let first = existing(&*self.archive, span.first.partition, 0).await?;
                span.first = first.entries.first().map_or(span.first, |entry| entry.position);
            }
        }
        Ok(extent)
    }

    async fn page(&self, span: &Span, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        let page = self.stream.page(span, events_max).await?;
        // Asked afterwards: what was not trimmed by now was there when the page was read.
        match self.hot.trimmed(span.first.partition).await? {
            Some((last, blocks)) if span.first <= last => {
                let archived = self.archived(span, blocks, events_max).await?;
                // Hand-made spans may begin between two entries.
                if archived.is_empty() { Ok(page) } else { Ok(archived) }
            }
            Some(_) | None => Ok(page),
        }
    }
}
