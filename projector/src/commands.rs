//! What `projector status` and `projector verify` print, and when they fail: on standard output what was asked for, an
//! error for what is unknown or could not be done.

use std::io::{IsTerminal, Write};

use anyhow::{Result, ensure};
use projector::{Bar, Comparison, Report, Verifier, print};
use shared::limits::PROGRESS_CHECK_INTERVAL;
use tokio::time::MissedTickBehavior;

/// Fails if the views differ.
pub(crate) async fn verify(verifier: &Verifier, json: bool) -> Result<()> {
    let bar = Bar::new();
    let compared = projector::verify(verifier, &|step| bar.step(step)).await;
    bar.finish();
    let comparison = compared?;
    print(json, &comparison, Comparison::lines)?;
    ensure!(comparison.is_clean(), "generation {} is not what the log says", comparison.generation);
    Ok(())
}

/// Looks once a second, for as long as it is let. A look that fails is said and made again: it is when something
/// is wrong that somebody watches.
pub(crate) async fn watch(json: bool, look: impl AsyncFn() -> Result<Report>) -> Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut looks = tokio::time::interval(PROGRESS_CHECK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let report = look().await;
        if is_terminal && !json {
            // From the upper left corner, on an empty screen.
            write!(std::io::stdout(), "\x1b[H\x1b[2J")?;
        }
        match report {
            Ok(report) => print(json, &report, if is_terminal { Report::table } else { Report::line })?,
            Err(error) => writeln!(std::io::stderr(), "{error:#}")?,
        }
    }
}
