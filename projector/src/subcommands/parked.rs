//! `projector parked`: what could not be applied to one generation.

use std::sync::Arc;

use anyhow::Result;
use projector::{Parked, ParkedCommand};
use storage::archive;

use super::stores::Stores;
use crate::config::Of;

pub(crate) async fn parked(command: ParkedCommand<Of>) -> Result<()> {
    let Of { generation, asked } = command.asked();
    let (json, stores) = (asked.json, Stores::open(asked).await?);
    let generation = stores.known(*generation).await?;
    let parked = Parked {
        generation,
        events: Arc::new(stores.cassandra.parked(generation)),
        log: Arc::new(archive::Reader::new(
            stores.redis.reader(),
            stores.redis.hot(),
            Arc::new(stores.cassandra.archive()),
        )),
        views: Arc::new(stores.cassandra.writer(generation)),
    };
    let done = command.run(json, &parked).await;
    stores.lifecycle.drain().await;
    Ok(done?)
}
