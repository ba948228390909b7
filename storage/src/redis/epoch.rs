//! The epoch of the log, on the shared connection.

use std::sync::Arc;

use async_trait::async_trait;
use redis::Pipeline;
use shared::ports::{self, StoreError};

use super::STORE;
use super::keys::LOG_EPOCH;
use super::link::Link;
use super::server::Server;

#[derive(Clone)]
pub struct Epoch {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
}

#[async_trait]
impl ports::LogEpoch for Epoch {
    async fn epoch(&self) -> Result<ports::Epoch, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("HGET").arg(self.server.keys.log()).arg(LOG_EPOCH);
        let (epoch,): (Option<String>,) = self.link.read(&pipeline).await?;
        let damaged =
            || StoreError::Damaged { store: STORE, what: "the log does not say its epoch".to_owned() };
        epoch.and_then(|epoch| epoch.parse().ok()).ok_or_else(damaged)
    }

    /// Who is connected learns of another name of the log when he connects again, and refuses it then.
    async fn begin(&self, epoch: &ports::Epoch) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("HSET").arg(self.server.keys.log()).arg(LOG_EPOCH).arg(epoch.to_string()).ignore();
        self.link.write(&pipeline).await
    }
}
