//! Finds the block of a position: positions rise from block to block.

use shared::ids::Position;
use shared::ports::{Archive, Block, StoreError};

/// The first of the partition's first `blocks` blocks that ends at the position or behind it; `None`: all end before.
pub(super) async fn block_at(
    archive: &dyn Archive,
    position: Position,
    blocks: u64,
) -> Result<Option<Block>, StoreError> {
    let (mut low, mut high, mut found) = (0, blocks, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let block = existing(archive, position.partition, middle).await?;
        if block.entries.last().is_some_and(|last| last.position >= position) {
            (high, found) = (middle, Some(block));
        } else {
            low = middle + 1;
        }
    }
    Ok(found)
}

/// One that has to be there, as the stream has its entries no more.
pub(super) async fn existing(
    archive: &dyn Archive,
    partition: u16,
    number: u64,
) -> Result<Block, StoreError> {
    archive.block(partition, number).await?.ok_or_else(|| StoreError::Damaged {
        store: "the archive",
        what: format!("block {number} of partition {partition} is missing, and the stream has it no more"),
    })
}
