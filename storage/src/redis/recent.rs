//! What a group acknowledged last, found by the trail that `ack.lua` leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use redis::Pipeline;
use shared::ids::Position;
use shared::ports::{Delivery, RecentEvents, Span, StoreError};

use super::link::Link;
use super::server::Server;
use super::{STORE, entry, scan};

/// On the shared connection.
#[derive(Clone)]
pub struct Recent {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
    pub(super) group: String,
}

#[async_trait]
impl RecentEvents for Recent {
    async fn spans(&self) -> Result<Vec<Span>, StoreError> {
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(usize::from(keys.partitions));
        for partition in 0..keys.partitions {
            pipeline.cmd("HVALS").arg(keys.trail(partition, &self.group));
        }
        let trails: Vec<Vec<String>> = self.link.read(&pipeline).await?;
        let mut spans: BTreeMap<u16, Span> = BTreeMap::new();
        for (partition, noted) in (0..)
            .zip(trails)
            .flat_map(|(partition, trail)| trail.into_iter().map(move |noted| (partition, noted)))
        {
            let Span { first, last } = span(partition, &noted).ok_or_else(|| damaged(partition, &noted))?;
            let whole = spans.entry(partition).or_insert(Span { first, last });
            *whole = Span { first: whole.first.min(first), last: whole.last.max(last) };
        }
        Ok(spans.into_values().collect())
    }

    async fn read(&self, span: &Span, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        scan::page(&self.server, &self.link, span, events_max).await
    }
}

/// `first last`, as `ack.lua` writes it.
fn span(partition: u16, noted: &str) -> Option<Span> {
    let (first, last) = noted.split_once(' ')?;
    let position = |id| -> Option<Position> { entry::position(partition, id) };
    Some(Span { first: position(first)?, last: position(last)? })
}

fn damaged(partition: u16, noted: &str) -> StoreError {
    let what = format!("the trail of partition {partition} has {noted:?} in place of two ids");
    StoreError::Damaged { store: STORE, what }
}
