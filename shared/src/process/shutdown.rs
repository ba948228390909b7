//! The life of a process: its tasks, the signal that ends it, and the deadline by which it is gone.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::health::Health;
use crate::limits::{DRAIN_DEADLINE, TASKS_DEADLINE};
use crate::ports::StoreError;

/// The tasks of one process (or of one of several in a test) and the tokens that end them. It ends in two steps:
/// first those that serve, then the stores' own, so that what is in flight can still be finished.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// Connections, requests, consumers.
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
    /// What keeps the stores connected.
    pub store_tasks: TaskTracker,
    pub stores_stop: CancellationToken,
}

impl Lifecycle {
    /// Spawns a task that shutdown waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits for SIGTERM or Ctrl-C, or for the token, then drains. Also ends when a store turns out not to fit at
    /// the start: a process that can never serve says so and goes.
    ///
    /// # Errors
    /// The store's, or when the signals cannot be listened to.
    pub async fn run_to_end<E>(&self, health: &Health) -> Result<(), E>
    where
        E: From<std::io::Error> + From<StoreError>,
    {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let unfit = async {
            match health.fits().await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        let end = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            () = self.shutdown.cancelled() => Ok(()),
            error = unfit => Err(error),
        };
        tracing::info!("draining");
        self.drain().await;
        Ok(end?)
    }

    /// Tells every task to end and waits for all of them, each step under a deadline.
    pub async fn drain(&self) {
        self.shutdown.cancel();
        // Connections are cut at DRAIN_DEADLINE; what is left has TASKS_DEADLINE to notice.
        ended(&self.tasks, DRAIN_DEADLINE + TASKS_DEADLINE).await;
        self.stores_stop.cancel();
        ended(&self.store_tasks, TASKS_DEADLINE).await;
    }
}

async fn ended(tasks: &TaskTracker, deadline: Duration) {
    tasks.close();
    if tokio::time::timeout(deadline, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "the drain deadline passed; leaving tasks behind");
    }
}
