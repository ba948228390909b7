//! `standalone verify`: compares the views in a directory with its log, while nothing runs on it. What a start would
//! apply first, because the last end was not a clean one, is applied first here too.

use std::sync::Arc;

use anyhow::{Context, ensure};
use projector::{Bar, Comparison, Counters, Progress, Projector, StormGuard, Verifier};
use shared::Clock;
use shared::ports::StoreError;
use shared::process::shutdown::Lifecycle;
use storage::embedded::{Embedded, Options};

use crate::Config;

/// The embedded store has one generation.
pub(crate) const GENERATION: u32 = 1;

/// Prints what it finds.
///
/// # Errors
/// When the directory is damaged or in use, or the views differ.
pub async fn verify(config: &Config, json: bool) -> anyhow::Result<()> {
    let store = open(&existing(config)?, Embedded::open, Clock::system()).await?;
    print(json, &compare(store, Clock::system()).await?)
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
pub(crate) async fn compare(store: Arc<Embedded>, clock: Clock) -> anyhow::Result<Comparison> {
    let lifecycle = Lifecycle::default();
    let projector = Projector {
        feed: Box::new(store.feed("standalone")),
        views: store.clone(),
        counters: Counters::default(),
        clock,
        guard: Some(StormGuard::default()),
        progress: Progress::default(),
    };
    lifecycle.spawn(projector::run(projector, lifecycle.shutdown.clone()));
    let verifier =
        Verifier { generation: GENERATION, log: store.clone(), views: store.clone(), monitor: store };
    let bar = Bar::new();
    let compared = projector::verify(&verifier, &|step| bar.step(step)).await;
    bar.finish();
    lifecycle.drain().await;
    Ok(compared?)
}

pub(crate) fn print(json: bool, comparison: &Comparison) -> anyhow::Result<()> {
    projector::print(json, comparison, Comparison::lines)?;
    ensure!(comparison.is_clean(), "the views are not what the log says");
    Ok(())
}
