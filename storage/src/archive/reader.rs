//! An entry that was read before, by its position, also of what the stream has no more.

use std::sync::Arc;

use async_trait::async_trait;
use shared::ids::Position;
use shared::ports::{Archive, Delivery, LogReader, StoreError};

use super::search::block_at;
use crate::redis::{self, Hot, entry};

#[derive(Clone)]
pub struct Reader {
    stream: redis::Reader,
    hot: Hot,
    archive: Arc<dyn Archive>,
}

impl Reader {
    #[must_use]
    pub fn new(stream: redis::Reader, hot: Hot, archive: Arc<dyn Archive>) -> Self {
        Self { stream, hot, archive }
    }

    async fn archived(&self, position: Position) -> Result<Option<Delivery>, StoreError> {
        let Some((_, blocks)) = self.hot.trimmed(position.partition).await? else { return Ok(None) };
        let block = block_at(&*self.archive, position, blocks).await?;
        let mut entries = block.into_iter().flat_map(|block| block.entries);
        Ok(entries.find(|entry| entry.position == position).map(entry::open))
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn entries_at(&self, positions: &[Position]) -> Result<Vec<Option<Delivery>>, StoreError> {
        let mut found = self.stream.entries_at(positions).await?;
        for (found, position) in found.iter_mut().zip(positions) {
            if found.is_none() {
                *found = self.archived(*position).await?;
            }
        }
        Ok(found)
    }
}
