//! `standalone verify`: compares the views in a directory with its log, while nothing runs on it. What a start would
//! apply first, because the last end was not a clean one, is applied first here too.

use std::sync::Arc;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use projector::{Bar, Comparison, Counters, Progress, Projector, StormGuard, Verifier, VerifyError};
use shared::Clock;
use shared::ports::{Delivery, StoreError, ViewWriter};
use shared::process::shutdown::Lifecycle;
use shared::view::ViewChange;
use storage::embedded::{Embedded, Options};
use tokio::sync::mpsc;

use crate::Config;

/// The embedded store has one generation.
pub(crate) const GENERATION: u32 = 1;

/// Prints what it finds.
///
/// # Errors
/// When the directory is damaged or in use, or the views differ.
pub async fn verify(config: &Config, json: bool) -> anyhow::Result<()> {
    let store = open(&existing(config)?, Embedded::open, Clock::system()).await?;
    let compared = compare(store, Clock::system()).await.map_err(|error| match error {
        VerifyError::Store(StoreError::Damaged { .. }) => {
            anyhow::Error::new(error).context("the views cannot be read: `standalone rebuild` makes others")
        }
        error => error.into(),
    });
    print(json, &compared?)
}

/// Of a directory that is there.
pub(crate) fn existing(config: &Config) -> anyhow::Result<Options> {
    let options = config.store();
    ensure!(options.dir.join("db").exists(), "there is no store in {}", options.dir.display());
    Ok(options)
}

pub(crate) async fn open(
    options: &Options,
    open: fn(&Options, Clock) -> Result<Embedded, StoreError>,
    clock: Clock,
) -> anyhow::Result<Arc<Embedded>> {
    let options = options.clone();
    let opened = tokio::task::spawn_blocking(move || open(&options, clock));
    Ok(Arc::new(opened.await.context("opening the store")??))
}

/// Applies what the views have not, compares, and closes the store.
///
/// # Errors
/// The first one, and then the store is still open: nobody mends a directory meanwhile.
pub(crate) async fn compare(store: Arc<Embedded>, clock: Clock) -> Result<Comparison, VerifyError> {
    let lifecycle = Lifecycle::default();
    let (tell, mut failed) = mpsc::channel(1);
    let projector = Projector {
        feed: Box::new(store.feed("standalone")),
        views: Arc::new(Told { views: store.clone(), failed: tell }),
        counters: Counters::default(),
        clock,
        guard: Some(StormGuard::default()),
        progress: Progress::default(),
    };
    lifecycle.spawn(projector::run(projector, lifecycle.shutdown.clone()));
    let (log, views) = (store.clone(), store.clone());
    let verifier = Verifier { generation: GENERATION, log, views, monitor: store.clone() };
    let bar = Bar::new();
    let tell = |step| bar.step(step);
    let compared = tokio::select! {
        compared = projector::verify(&verifier, &tell) => compared,
        Some(error) = failed.recv() => Err(VerifyError::Store(error)),
    };
    bar.finish();
    let compared = compared?;
    lifecycle.drain().await;
    store.write_views().await?;
    Ok(compared)
}

/// Tells the first error of the views to whoever would wait for them else.
struct Told {
    views: Arc<Embedded>,
    failed: mpsc::Sender<StoreError>,
}

#[async_trait]
impl ViewWriter for Told {
    async fn apply(&self, changes: Vec<ViewChange>, read: &[Delivery]) -> Result<(), StoreError> {
        self.views.apply(changes, read).await.inspect_err(|error| {
            // Full: the first one was told.
            let _ = self.failed.try_send(error.clone());
        })
    }
}

pub(crate) fn print(json: bool, comparison: &Comparison) -> anyhow::Result<()> {
    projector::print(json, comparison, Comparison::lines)?;
    ensure!(comparison.is_clean(), "the views are not what the log says");
    ensure!(comparison.is_proof(), "the views are not proved as a whole");
    Ok(())
}
