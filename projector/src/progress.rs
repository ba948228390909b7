//! Whether the projection goes on, for `/readyz`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use shared::ports::{Probe, StoreError};

use crate::storm::Storm;

/// Of the consumers of one process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    storm: Option<Storm>,
}

impl Progress {
    /// A consumer has ended, for good.
    pub(crate) fn stop(&self, storm: Storm) {
        let Storm { read, unreadable } = storm;
        tracing::error!(read, unreadable, "too many events cannot be applied; this projector stops");
        self.state().storm = Some(storm);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Probe for Progress {
    fn name(&self) -> &'static str {
        "projection"
    }

    async fn check(&self) -> Result<(), StoreError> {
        match self.state().storm {
            Some(storm) => Err(StoreError::Unfit { store: "this projector", what: storm.to_string() }),
            None => Ok(()),
        }
    }
}
