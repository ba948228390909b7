//! Blocks of the archive that have to be there. One that cannot be read is damaged or lost, or who wrote it died meanwhile.
//! A store that is away is none of this: what it has is not lost.

use shared::limits::ARCHIVE_BLOCK_ENTRIES;
use shared::ports::{Archive, BeingWritten, Block, StoreError};

use super::numbers::damaged;

/// The last of an archive with so many entries of the partition; `None`: with none.
pub(crate) async fn last_block(
    archive: &dyn Archive,
    partition: u16,
    entries: u64,
) -> Result<Option<Block>, StoreError> {
    let Some(others) = entries.checked_sub(1) else { return Ok(None) };
    let number = others / ARCHIVE_BLOCK_ENTRIES;
    let block = archive.block(partition, number).await?.filter(|block| block.reach() >= entries);
    block.map(Some).ok_or_else(|| not_whole(partition, number))
}

/// Or the one before it, if that one cannot be read.
pub(crate) async fn last_readable_block(
    archive: &dyn Archive,
    partition: u16,
    entries: u64,
) -> Result<Option<Block>, StoreError> {
    match last_block(archive, partition, entries).await {
        Err(error) if is_unreadable(&error) => {
            tell(partition, &error);
            last_block(archive, partition, before_last(entries)).await
        }
        found => found,
    }
}

/// How many entries are in the blocks before the last.
pub(crate) fn before_last(entries: u64) -> u64 {
    entries.saturating_sub(1) / ARCHIVE_BLOCK_ENTRIES * ARCHIVE_BLOCK_ENTRIES
}

/// `None`: there is no such block, or it cannot be read.
pub(crate) async fn readable_block(
    archive: &dyn Archive,
    partition: u16,
    number: u64,
) -> Result<Option<Block>, StoreError> {
    match archive.block(partition, number).await {
        Err(error) if is_unreadable(&error) => {
            tell(partition, &error);
            Ok(None)
        }
        block => block,
    }
}

pub(crate) fn is_unreadable(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged { .. }) || BeingWritten::is_why(error)
}

fn tell(partition: u16, error: &StoreError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(partition, error, "a block of the archive cannot be read");
}

/// Of one that has to reach further, or to be there at all.
pub(crate) fn not_whole(partition: u16, number: u64) -> StoreError {
    damaged(partition, &format!("block {number} is not whole"))
}
