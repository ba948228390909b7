//! `projector repair`: what the log has lost, and gets back from views and archive.

use std::sync::Arc;

use anyhow::Result;
use projector::{Lost, Repair};
use shared::Clock;

use super::generations::rebuild_of;
use super::stores::{Stores, monitor, seen_logs, whole_log};
use crate::config;

pub(crate) async fn repair(options: config::Repair) -> Result<()> {
    let config::Repair { apply, idempotency, asked } = options;
    let stores = Stores::recognising(&asked, idempotency.idempotency_window).await?;
    let (redis, cassandra, generation) = (&stores.redis, &stores.cassandra, stores.serving().await?);
    let repair = Repair {
        generation,
        log: Arc::new(whole_log(redis, cassandra)),
        hot: Arc::new(redis.hot()),
        archive: Arc::new(cassandra.archive()),
        appends: Arc::new(redis.log()),
        epoch: Arc::new(redis.epoch()),
        monitor: Arc::new(monitor(redis, cassandra, generation)),
        views: Arc::new(cassandra.scan(generation)),
        seen: seen_logs(cassandra, generation).await?,
        clock: Clock::system(),
    };
    let lost = if apply {
        // Of two at once each would append what the other has appended already.
        let applied = async { anyhow::Ok(repair.apply().await?) };
        rebuild_of(&stores.redis, &stores.cassandra).alone(applied).await?
    } else {
        repair.look().await?
    };
    projector::print(asked.json, &lost, Lost::lines)?;
    stores.lifecycle.drain().await;
    Ok(())
}
