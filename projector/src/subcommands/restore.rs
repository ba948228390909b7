//! `projector restore`: fills a log that has lost everything from the archive.

use std::sync::Arc;

use anyhow::Result;
use projector::{Bar, Restore, Restored};
use shared::Clock;
use shared::process::shutdown::Lifecycle;
use storage::cassandra::{self, Cassandra};
use storage::redis;

use super::stores::{looked_for, seen_logs, serving};
use crate::config;

/// Redis is not connected to as usual: to an empty one that would begin a new log.
pub(crate) async fn restore(options: config::Restore) -> Result<()> {
    let config::Restore { idempotency, asked } = options;
    let (_, views_place) = looked_for(&asked).await?;
    let lifecycle = Lifecycle::default();
    let Lifecycle { store_tasks, stores_stop, .. } = &lifecycle;
    let cassandra =
        Cassandra::connect(&cassandra::Options::of(&asked.views), store_tasks, stores_stop.clone())?;
    views_place.ready(cassandra.probe()).await?;
    let log = redis::EmptyLog::connect(&redis::Options::of(&asked.log)?, Clock::system()).await?;
    let restore = Restore {
        log: Box::new(log),
        archive: Arc::new(cassandra.archive()),
        seen: seen_logs(&cassandra, serving(&cassandra).await?).await?,
        window: idempotency.idempotency_window,
    };
    let bar = Bar::new();
    let restored = restore.run(|done, of| bar.show("events restored", (done, of), "")).await;
    bar.finish();
    projector::print(asked.json, &restored?, Restored::lines)?;
    lifecycle.drain().await;
    Ok(())
}
