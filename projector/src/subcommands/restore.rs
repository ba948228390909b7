//! `projector restore`: fills a log that has lost everything from the archive.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use projector::{Bar, Restore, Restored};
use shared::Clock;
use shared::process::shutdown::Lifecycle;
use storage::cassandra::{self, Cassandra};
use storage::redis;

use super::stores::{looked_for, seen_logs, serving};
use crate::config::{self, Asked};

/// Redis is not connected to as usual: to an empty one that would begin a new log.
pub(crate) async fn restore(options: config::Restore) -> Result<()> {
    let config::Restore { idempotency, asked } = options;
    let lifecycle = Lifecycle::default();
    let restored = restored(&asked, idempotency.idempotency_window, &lifecycle).await;
    // Also after an error: while Cassandra's driver connects, the end of the program would be a panic to it.
    lifecycle.drain().await;
    projector::print(asked.json, &restored?, Restored::lines)?;
    Ok(())
}

async fn restored(asked: &Asked, window: Duration, lifecycle: &Lifecycle) -> Result<Restored> {
    let (log_place, views_place) = looked_for(asked).await?;
    let Lifecycle { store_tasks, stores_stop, .. } = &lifecycle;
    let cassandra =
        Cassandra::connect(&cassandra::Options::of(&asked.views), store_tasks, stores_stop.clone())?;
    views_place.ready(cassandra.probe()).await?;
    let options = redis::Options::of(&asked.log)?;
    let log = log_place.opened(|| redis::EmptyLog::connect(&options, Clock::system())).await?;
    let restore = Restore {
        log: Box::new(log),
        archive: Arc::new(cassandra.archive()),
        seen: seen_logs(&cassandra, serving(&cassandra).await?).await?,
        window,
    };
    let bar = Bar::new();
    let restored = restore.run(|done, of| bar.show("events restored", (done, of), "")).await;
    bar.finish();
    Ok(restored?)
}
