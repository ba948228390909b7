//! Whether the log still holds what the archive has of it. What is archived no view may have seen yet, so that a log which
//! was put back from an older copy may lack what only the archive knows.

use std::collections::BTreeMap;

use shared::ports::{Archive, Block, HotLog, LogPlace, Loss, StoreError};

use super::blocks::{is_unreadable, last_readable_block};
use crate::reading::retrying;

/// By partition. Of a log that was repaired since it was archived nothing is said: it is archived again.
pub(crate) async fn losses(
    log: &dyn HotLog,
    archive: &dyn Archive,
) -> Result<BTreeMap<u16, Loss>, StoreError> {
    let mut ends = Vec::new();
    // Before the log is asked: it only goes on, so it holds whatever was archived of it before.
    for standing in retrying(|| log.standing()).await?.partitions {
        let reach = retrying(|| archive.reach(standing.partition)).await?;
        if reach.entries > 0 && reach.repairs >= standing.repairs {
            match retrying(|| last_readable_block(archive, standing.partition, reach.entries)).await {
                Ok(last) => ends.extend(last.and_then(|block| end(log, &block))),
                // What the others have lost is told nevertheless.
                Err(error) if is_unreadable(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    retrying(|| lost(log, &ends)).await
}

/// By partition, in one call for all that end there.
pub(super) async fn lost(log: &dyn HotLog, ends: &[LogPlace]) -> Result<BTreeMap<u16, Loss>, StoreError> {
    let losses = log.losses(ends).await?;
    let lost = |(end, loss): (&LogPlace, Option<Loss>)| Some((end.position.partition, loss?));
    Ok(ends.iter().zip(losses).filter_map(lost).collect())
}

/// The last entry of the block that can be read.
pub(super) fn end(log: &dyn HotLog, block: &Block) -> Option<LogPlace> {
    let readable = block.entries.iter().rev().filter(|entry| entry.may_hold_event());
    readable.map(|entry| log.read(entry.clone())).find_map(|delivery| LogPlace::of(&delivery))
}
