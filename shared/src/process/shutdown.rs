//! The life of a process: its tasks, the signal that ends it, and the deadline by which it is gone.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
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

/// SIGTERM and Ctrl-C. Listened to before the process serves: whoever sees it serve may end it in good order.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// When the system does not let us.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The first of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Lifecycle {
    /// Spawns a task that shutdown waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits for a signal or for the token, then drains. Also ends when a store turns out not to fit at
    /// the start: a process that can never serve says so and goes.
    ///
    /// # Errors
    /// The store's.
    pub async fn run_to_end(&self, health: &Health, mut signals: Signals) -> Result<(), StoreError> {
        let unfit = async {
            match health.fits().await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        let end = tokio::select! {
            () = signals.received() => Ok(()),
            () = self.shutdown.cancelled() => Ok(()),
            error = unfit => Err(error),
        };
        tracing::info!("draining");
        self.drain().await;
        end
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
