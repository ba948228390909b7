//! What `projector parked` prints, and when it fails: on standard output what was asked for, an error for what is
//! unknown or could not be done.

use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use projector::{Parked, Retried, Which};
use serde::Serialize;

use crate::config::{self, ParkedDiscard, ParkedList, ParkedOf, ParkedRetry, ParkedShow};

impl config::Parked {
    pub(crate) fn of(&self) -> &ParkedOf {
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
    print(&command.of, &listing, &listing.table())
}

async fn show(command: ParkedShow, parked: &Parked) -> Result<()> {
    let shown = parked.show(command.position).await?;
    let shown = shown.with_context(|| unknown(&Which::One(command.position), parked))?;
    print(&command.of, &shown, &shown.lines())
}

async fn retry(command: ParkedRetry, parked: &Parked) -> Result<()> {
    let which = command.which.which();
    let retried = parked.retry(&which).await?;
    let Retried { applied, parked: still } = retried;
    ensure!(applied + still > 0, unknown(&which, parked));
    print(&command.of, &retried, &format!("applied {applied}, still parked {still}"))?;
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
    print(&command.of, &discarded, &format!("discarded {}", discarded.discarded))
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

fn print(of: &ParkedOf, json: &impl Serialize, text: &str) -> Result<()> {
    let text = if of.json { serde_json::to_string(json)? } else { text.trim_end().to_owned() };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
