//! What the store acknowledged and may have lost is written again. A store that keeps its commit log periodically
//! loses its last seconds with its machine; the log has the events, and applying them a second time changes nothing
//! that is there. Blocks of the archive may be many: they are given out again to all who fill the generation.

use std::sync::Arc;

use shared::Clock;
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, READ_EVENTS_MAX};
use shared::ports::{Backlog, RecentEvents, StoreError, ViewWriter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::run::{Counters, changes_of};

/// Of one generation: where its last events are, and where they belong.
pub struct Reapplier {
    pub recent: Box<dyn RecentEvents>,
    pub backlog: Box<dyn Backlog>,
    pub views: Arc<dyn ViewWriter>,
    /// How many starts of the store were seen.
    pub starts: watch::Receiver<u64>,
    pub counters: Counters,
    pub clock: Clock,
}

/// Applies the events acknowledged last again, at once and after each start of the store, until shutdown. Every
/// projector does it, as each may be the last that is left.
pub async fn reapply(mut reapplier: Reapplier, shutdown: CancellationToken) {
    loop {
        reapplier.starts.mark_unchanged();
        if shutdown.run_until_cancelled(apply_until_done(&reapplier)).await.is_none() {
            return;
        }
        match shutdown.run_until_cancelled(reapplier.starts.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

async fn apply_until_done(reapplier: &Reapplier) {
    let mut backoff = Backoff::new();
    loop {
        match apply_again(reapplier).await {
            Ok(events) => {
                tracing::info!(events, "applied again what was acknowledged last");
                return;
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot apply again yet");
                backoff.pause().await;
            }
        }
    }
}

/// From the beginning after any error: how much of it was applied does not matter.
async fn apply_again(reapplier: &Reapplier) -> Result<u64, StoreError> {
    let Reapplier { recent, backlog, views, counters, clock, .. } = reapplier;
    let blocks = backlog.owe_again().await?;
    if blocks > 0 {
        tracing::info!(blocks, "blocks of the archive are read again, as the store may have lost their rows");
        counters.reapplied(blocks * ARCHIVE_BLOCK_ENTRIES);
    }
    let mut events = 0;
    for span in recent.spans().await? {
        let mut left = Some(span);
        while let Some(span) = left {
            let batch = recent.read(&span, READ_EVENTS_MAX).await?;
            let Some(last) = batch.last() else { break };
            views.apply(changes_of(&batch, clock), &batch).await?;
            events += batch.len() as u64;
            left = span.behind(last.position);
        }
    }
    counters.reapplied(events);
    Ok(events)
}
