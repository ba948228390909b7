//! How far generations are, by the log's own numbers.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use super::{Loss, StoreError};
use crate::ids::Position;
use crate::limits::CONSUMER_SILENCE_MAX;

/// How far a generation is.
#[async_trait]
pub trait FeedMonitor: Send + Sync {
    async fn status(&self) -> Result<FeedStatus, StoreError>;

    /// Of each partition that has any: the first event that is not acknowledged.
    async fn first_unacknowledged(&self) -> Result<Vec<Position>, StoreError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeedStatus {
    pub partitions: Vec<PartitionStatus>,
    pub consumers: Vec<ConsumerStatus>,
}

impl FeedStatus {
    /// Events ever appended.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.head).sum()
    }

    /// Events appended and not yet acknowledged.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.lag).sum()
    }

    /// Delivered and not acknowledged.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.pending).sum()
    }

    /// Age of the oldest event that is not acknowledged; zero: there is none.
    #[must_use]
    pub fn behind(&self) -> Duration {
        Duration::from_millis(self.partitions.iter().map(|partition| partition.behind_ms).max().unwrap_or(0))
    }

    /// The same, without the partitions that stand still.
    #[must_use]
    pub fn moving_behind(&self) -> Duration {
        let moving = self.partitions.iter().filter(|partition| partition.loss.is_none());
        Duration::from_millis(moving.map(|partition| partition.behind_ms).max().unwrap_or(0))
    }

    /// Events acknowledged by all consumers since the group was made.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.consumers.iter().map(|consumer| consumer.applied).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    pub partition: u16,
    /// Events ever appended.
    pub head: u64,
    /// Delivered and not acknowledged.
    pub pending: u64,
    /// Appended and not acknowledged: `pending` and what was not delivered yet.
    pub lag: u64,
    /// Age of the oldest event that is not acknowledged, by the log's clock; 0: there is none.
    pub behind_ms: u64,
    /// The log does not hold what it has held: nobody reads on, and a human looks.
    pub loss: Option<Loss>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsumerStatus {
    pub name: String,
    /// Events acknowledged by it since the group was made.
    pub applied: u64,
    pub pending: u64,
    /// Since it was heard of, by the log's clock. `None`: it is in the group no more.
    pub silent_ms: Option<u64>,
}

impl ConsumerStatus {
    /// Whether it lives, as others of its group judge it.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.silent_ms.is_some_and(|silent| Duration::from_millis(silent) < CONSUMER_SILENCE_MAX)
    }
}
