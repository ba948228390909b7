//! Reads the log again where it was read before, on the shared connection: for operators.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Pipeline, Value};
use shared::ids::Position;
use shared::ports::{Delivery, LogReader, StoreError};

use super::entry;
use super::link::Link;
use super::server::{Server, unavailable, unexpected};

#[derive(Clone)]
pub struct Reader {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
}

#[async_trait]
impl LogReader for Reader {
    async fn entries_at(&self, positions: &[Position]) -> Result<Vec<Option<Delivery>>, StoreError> {
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(positions.len());
        for position in positions {
            let id = entry::id(position);
            pipeline.cmd("XRANGE").arg(self.server.keys.events(position.partition)).arg(&id).arg(&id);
        }
        let answers: Vec<Value> = self.link.read(&pipeline).await?;
        let read = |(position, answer): (&Position, Value)| {
            let entries = entry::deliveries(position.partition, answer);
            Ok(entries.ok_or_else(|| unavailable(unexpected()))?.pop())
        };
        positions.iter().zip(answers).map(read).collect()
    }
}
