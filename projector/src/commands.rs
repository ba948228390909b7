//! What `projector parked`, `projector status` and `projector verify` print, and when they fail: on standard output what was asked for,
//! an error for what is unknown or could not be done.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail, ensure};
use projector::{Bar, Comparison, Listing, Parked, Report, Retried, Shown, Verifier, Which};
use serde::Serialize;
use shared::limits::PROGRESS_CHECK_INTERVAL;
use tokio::time::MissedTickBehavior;

use crate::config::{self, Of, ParkedDiscard, ParkedList, ParkedRetry, ParkedShow};

impl config::Parked {
    pub(crate) fn of(&self) -> &Of {
        match self {
            Self::List(ParkedList { of, .. })
            | Self::Show(ParkedShow { of, .. })
            | Self::Retry(ParkedRetry { of, .. })
            | Self::Discard(ParkedDiscard { of, .. }) => of,
        }
    }

    pub(crate) async fn run(self, parked: &Parked) -> Result<()> {
        match self {
            Self::List(command) => list(command, parked).await,
            Self::Show(command) => show(command, parked).await,
            Self::Retry(command) => retry(command, parked).await,
            Self::Discard(command) => discard(command, parked).await,
        }
    }
}

async fn list(command: ParkedList, parked: &Parked) -> Result<()> {
    let which = command.cause.map_or(Which::All, Which::Cause);
    let limit = usize::try_from(command.limit).context("--limit")?;
    let listing = parked.list(&which, command.after, limit).await?;
    print(command.of.asked.json, &listing, Listing::table)
}

async fn show(command: ParkedShow, parked: &Parked) -> Result<()> {
    let shown = parked.show(command.position).await?;
    let shown = shown.with_context(|| unknown(&Which::One(command.position), parked))?;
    print(command.of.asked.json, &shown, Shown::lines)
}

async fn retry(command: ParkedRetry, parked: &Parked) -> Result<()> {
    let which = command.which.which();
    let retried = parked.retry(&which).await?;
    let Retried { applied, parked: still } = retried;
    ensure!(applied + still > 0, unknown(&which, parked));
    print(command.of.asked.json, &retried, |_| format!("applied {applied}, still parked {still}"))?;
    ensure!(still == 0, "{still} cannot be applied still: `projector parked list` says why");
    Ok(())
}

async fn discard(command: ParkedDiscard, parked: &Parked) -> Result<()> {
    let which = command.which.which();
    let count = parked.count(&which).await?;
    ensure!(count > 0, unknown(&which, parked));
    if !command.yes {
        bail!("{count} would be given up for good: --yes does it");
    }
    let discarded = Discarded { discarded: parked.discard(&which).await? };
    print(command.of.asked.json, &discarded, |done| format!("discarded {}", done.discarded))
}

#[derive(Serialize)]
struct Discarded {
    discarded: usize,
}

fn unknown(which: &Which, parked: &Parked) -> String {
    let generation = parked.generation;
    match which {
        Which::One(position) => format!("no event is parked at {position} in generation {generation}"),
        Which::Cause(text) => format!("no event is parked in generation {generation} for {text:?}"),
        Which::All => format!("no event is parked in generation {generation}"),
    }
}

pub(crate) fn print<T: Serialize>(json: bool, what: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
    let text = if json { serde_json::to_string(what)? } else { text(what) };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

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
