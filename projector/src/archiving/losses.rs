//! Whether the log still holds what the archive has of it. What is archived no view may have seen yet, so that a log which
//! was put back from an older copy may lack what only the archive knows.

use std::collections::BTreeMap;

use shared::limits::ARCHIVE_BLOCK_ENTRIES;
use shared::ports::{Archive, BeingWritten, Block, HotLog, LogPlace, Loss, StoreError};

use crate::reading::retrying;

/// By partition. Of a log that was repaired since it was archived nothing is said: it is archived again.
pub(crate) async fn losses(
    log: &dyn HotLog,
    archive: &dyn Archive,
) -> Result<BTreeMap<u16, Loss>, StoreError> {
    let mut ends = Vec::new();
    // Before the log is asked: it only goes on, so it holds whatever was archived of it before.
    for standing in retrying(|| log.standing()).await? {
        let reach = retrying(|| archive.reach(standing.partition)).await?;
        if reach.entries > 0 && reach.repairs >= standing.repairs {
            let last = last_block(archive, standing.partition, reach.entries).await?;
            ends.extend(last.and_then(|block| end(log, &block)));
        }
    }
    let losses = retrying(|| log.losses(&ends)).await?;
    let lost = |(end, loss): (LogPlace, Option<Loss>)| Some((end.position.partition, loss?));
    Ok(ends.into_iter().zip(losses).filter_map(lost).collect())
}

/// Or the one before, if that one cannot be read.
async fn last_block(
    archive: &dyn Archive,
    partition: u16,
    entries: u64,
) -> Result<Option<Block>, StoreError> {
    for number in (0..entries.div_ceil(ARCHIVE_BLOCK_ENTRIES)).rev().take(2) {
        if let Some(block) = retrying(|| readable(archive, partition, number)).await? {
            return Ok(Some(block));
        }
    }
    Ok(None)
}

/// `None`: there is no such block, or it is damaged or half written; who died while he wrote it leaves it so. That the
/// store is away is an error: what it has is not lost.
pub(crate) async fn readable(
    archive: &dyn Archive,
    partition: u16,
    number: u64,
) -> Result<Option<Block>, StoreError> {
    match archive.block(partition, number).await {
        Err(error) if matches!(error, StoreError::Damaged { .. }) || BeingWritten::is_why(&error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(partition, number, error, "a block of the archive cannot be read");
            Ok(None)
        }
        block => block,
    }
}

/// The last entry of the block that can be read.
pub(super) fn end(log: &dyn HotLog, block: &Block) -> Option<LogPlace> {
    let readable = block.entries.iter().rev().filter(|entry| entry.may_hold_event());
    readable.map(|entry| log.read(entry.clone())).find_map(|delivery| LogPlace::of(&delivery))
}
