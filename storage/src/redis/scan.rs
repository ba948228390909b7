//! Reads the log from its first event on, page by page, on a connection of its own: a page may be large, and
//! nobody's short calls wait behind it.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Pipeline, Value};
use shared::ports::{Delivery, LogScan, Span, StoreError};

use super::entry;
use super::link::Link;
use super::server::{Server, unavailable, unexpected};

#[derive(Clone)]
pub struct Scan {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
}

#[async_trait]
impl LogScan for Scan {
    async fn extent(&self) -> Result<Vec<Span>, StoreError> {
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(2 * usize::from(keys.partitions));
        for partition in 0..keys.partitions {
            let events = keys.events(partition);
            pipeline.cmd("XRANGE").arg(&events).arg("-").arg("+").arg("COUNT").arg(1);
            pipeline.cmd("XREVRANGE").arg(&events).arg("+").arg("-").arg("COUNT").arg(1);
        }
        let answers: Vec<Value> = self.link.read(&pipeline).await?;
        let mut ends = Vec::with_capacity(answers.len());
        for (at, answer) in (0..).zip(answers) {
            let entries = entry::deliveries(at / 2, answer).ok_or_else(|| unavailable(unexpected()))?;
            ends.push(entries.first().map(|delivery| delivery.position));
        }
        let span = |ends: &[_]| match ends {
            [Some(first), Some(last)] => Some(Span { first: *first, last: *last }),
            _ => None,
        };
        Ok(ends.chunks_exact(2).filter_map(span).collect())
    }

    async fn page(&self, span: &Span, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        page(&self.server, &self.link, span, events_max).await
    }
}

/// At most `events_max` from the beginning of the span.
pub(super) async fn page(
    server: &Server,
    link: &Link,
    span: &Span,
    events_max: usize,
) -> Result<Vec<Delivery>, StoreError> {
    let partition = span.first.partition;
    let mut pipeline = Pipeline::with_capacity(1);
    pipeline.cmd("XRANGE").arg(server.keys.events(partition));
    pipeline.arg(entry::id(&span.first)).arg(entry::id(&span.last)).arg("COUNT").arg(events_max);
    let (entries,): (Value,) = link.read(&pipeline).await?;
    entry::deliveries(partition, entries).ok_or_else(|| unavailable(unexpected()))
}
