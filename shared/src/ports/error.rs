//! How a store fails.

use std::sync::Arc;

/// What went wrong in a store, by what the caller may do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing was done.
    #[error("{store} is unavailable")]
    Unavailable {
        store: &'static str,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// It may have been done: the call was sent and its answer was lost.
    #[error("the outcome of a call to {store} is unknown")]
    Unknown {
        store: &'static str,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// It was done or had been before, and too few replicas said in time that they have it: a failover may undo it
    /// still. The same call again tells.
    #[error("{replicas} replicas of {store} have it, {required} must")]
    Unreplicated { store: &'static str, replicas: u64, required: u8 },
    /// A bounded queue is full. Nothing was done.
    #[error("{queue} is full")]
    Busy { queue: &'static str },
    /// What is stored is damaged. It is never skipped: a human looks.
    #[error("{store} is damaged: {what}")]
    Damaged { store: &'static str, what: String },
    /// The store is not what this program was set up for: another schema, another number of partitions, a server
    /// that may lose what is acknowledged.
    #[error("{store} does not fit: {what}")]
    Unfit { store: &'static str, what: String },
}

type Source = Box<dyn std::error::Error + Send + Sync>;

impl StoreError {
    pub fn unavailable(store: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { store, source: source.into().into() }
    }

    pub fn unknown(store: &'static str, source: impl Into<Source>) -> Self {
        Self::Unknown { store, source: source.into().into() }
    }

    /// Whether the same call may succeed later without a human.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Unknown { .. }
            | Self::Unreplicated { .. }
            | Self::Busy { .. } => true,
            Self::Damaged { .. } | Self::Unfit { .. } => false,
        }
    }
}
