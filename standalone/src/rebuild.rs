//! `standalone rebuild`, and what a start does first with views of another shape: builds the views anew from the log,
//! beside those that are there, and puts them in their place once they are what the log says. Killed before that it
//! leaves the views as they were.

use anyhow::ensure;
use projector::Comparison;
use shared::Clock;
use storage::embedded::{self, Embedded, Options};

use crate::Config;
use crate::verify::{compare, existing, open, print};

/// Prints what it finds.
///
/// # Errors
/// When the directory is damaged or in use, or the new views are not what the log says.
pub async fn rebuild(config: &Config, json: bool) -> anyhow::Result<()> {
    let options = existing(config)?;
    let comparison = build(&options, Clock::system()).await?;
    print(json, &comparison)
}

/// Views that are of another shape than this program's are built anew.
pub(crate) async fn rebuild_if_other(options: &Options, clock: Clock) -> anyhow::Result<()> {
    if embedded::has_views_of_another_shape(&options.dir) {
        tracing::info!("the views are of another shape; they are built anew from the log first");
        let comparison = build(options, clock).await?;
        let lines = comparison.lines();
        ensure!(comparison.is_proof(), "the new views are not what the log says\n{lines}");
        tracing::info!(events = comparison.events, took_ms = comparison.took_ms, "the views are built anew");
    }
    Ok(())
}

/// If they differ from the log, the views stay as they were.
async fn build(options: &Options, clock: Clock) -> anyhow::Result<Comparison> {
    let store = open(options, Embedded::open_beside_views, clock.clone()).await?;
    // It has closed the store when it returns.
    let comparison = compare(store, clock).await?;
    if comparison.is_proof() {
        embedded::replace_views(&options.dir)?;
    }
    Ok(comparison)
}
