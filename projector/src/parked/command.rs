//! `projector parked` and `standalone parked`: what they take and print, and when they fail. On standard output is what
//! was asked for; what is unknown or could not be done is an error.

use std::io;

use clap::{Args, Subcommand};
use serde::Serialize;
use shared::Position;
use shared::limits::{PARKED_LISTED_DEFAULT, PARKED_LISTED_MAX};
use shared::ports::StoreError;

use super::{Listing, Parked, Retried, Shown, Which};
use crate::answer::print;

#[derive(Debug, Clone, Subcommand)]
pub enum ParkedCommand<A: Args> {
    /// List them, in the order of their positions in the log
    #[command(after_help = "Example: parked list --cause 'unknown event type' --limit 20")]
    List(ParkedList<A>),
    /// Show one with all that is kept of it
    #[command(after_help = "Example: parked show 3/1795339800125-0")]
    Show(ParkedShow<A>),
    /// Read them from the log again and apply those that this program can; 1 if some stay parked
    #[command(after_help = "Example: parked retry --cause 'unknown event type'")]
    Retry(ParkedRetry<A>),
    /// Give them up for good: their numbers stay taken, and nobody is told of them any more
    #[command(after_help = "Example: parked discard 3/1795339800125-0 --yes")]
    Discard(ParkedDiscard<A>),
}

#[derive(Debug, thiserror::Error)]
pub enum ParkedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Standard output is gone.
    #[error(transparent)]
    Print(#[from] io::Error),
    #[error("no event is parked at {position} in generation {generation}")]
    NoneAt { position: Position, generation: u32 },
    #[error("no event is parked in generation {generation} for {cause:?}")]
    NoneFor { cause: String, generation: u32 },
    #[error("{0} cannot be applied still: `parked list` says why")]
    StillParked(usize),
    #[error("{0} would be given up for good: --yes does it")]
    Unconfirmed(usize),
}

#[derive(Debug, Clone, Args)]
pub struct ParkedList<A: Args> {
    /// Only those whose cause holds this text
    #[arg(long, value_name = "TEXT")]
    cause: Option<String>,

    /// Only those behind this position
    #[arg(long, value_name = "POSITION")]
    after: Option<Position>,

    /// At most so many; the last line says if there are more
    #[arg(long, default_value_t = PARKED_LISTED_DEFAULT, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(PARKED_LISTED_MAX)))]
    limit: u32,

    #[command(flatten)]
    asked: A,
}

#[derive(Debug, Clone, Args)]
pub struct ParkedShow<A: Args> {
    /// As `list` shows it, such as 3/1795339800125-0
    position: Position,

    #[command(flatten)]
    asked: A,
}

#[derive(Debug, Clone, Args)]
pub struct ParkedRetry<A: Args> {
    #[command(flatten)]
    which: ParkedWhich,

    #[command(flatten)]
    asked: A,
}

#[derive(Debug, Clone, Args)]
pub struct ParkedDiscard<A: Args> {
    #[command(flatten)]
    which: ParkedWhich,

    /// Do it; without this it only says how many it would be
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    asked: A,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct ParkedWhich {
    /// As `list` shows it, such as 3/1795339800125-0
    position: Option<Position>,

    /// All whose cause holds this text
    #[arg(long, value_name = "TEXT")]
    cause: Option<String>,

    /// All of the generation
    #[arg(long)]
    all: bool,
}

impl ParkedWhich {
    fn which(self) -> Which {
        match (self.position, self.cause) {
            (Some(position), _) => Which::One(position),
            (None, Some(cause)) => Which::Cause(cause),
            (None, None) => Which::All,
        }
    }
}

impl<A: Args> ParkedCommand<A> {
    #[must_use]
    pub fn asked(&self) -> &A {
        match self {
            Self::List(ParkedList { asked, .. })
            | Self::Show(ParkedShow { asked, .. })
            | Self::Retry(ParkedRetry { asked, .. })
            | Self::Discard(ParkedDiscard { asked, .. }) => asked,
        }
    }

    /// # Errors
    /// The store's; and when nothing is parked there, something could not be applied, or `--yes` is missing.
    pub async fn run(self, json: bool, parked: &Parked) -> Result<(), ParkedError> {
        match self {
            Self::List(command) => list(command, json, parked).await,
            Self::Show(command) => show(command, json, parked).await,
            Self::Retry(command) => retry(command, json, parked).await,
            Self::Discard(command) => discard(command, json, parked).await,
        }
    }
}

async fn list(command: ParkedList<impl Args>, json: bool, parked: &Parked) -> Result<(), ParkedError> {
    let which = command.cause.map_or(Which::All, Which::Cause);
    let limit = usize::try_from(command.limit).unwrap_or(usize::MAX);
    let listing = parked.list(&which, command.after, limit).await?;
    Ok(print(json, &listing, Listing::table)?)
}

async fn show(command: ParkedShow<impl Args>, json: bool, parked: &Parked) -> Result<(), ParkedError> {
    let (position, generation) = (command.position, parked.generation);
    let shown = parked.show(position).await?.ok_or(ParkedError::NoneAt { position, generation })?;
    Ok(print(json, &shown, Shown::lines)?)
}

async fn retry(command: ParkedRetry<impl Args>, json: bool, parked: &Parked) -> Result<(), ParkedError> {
    let which = command.which.which();
    let retried = parked.retry(&which).await?;
    let Retried { applied, parked: still } = retried;
    if applied + still == 0 {
        expect_none(which, parked)?;
        return Ok(print(json, &retried, |_| NOTHING.to_owned())?);
    }
    print(json, &retried, |_| format!("applied {applied}, still parked {still}"))?;
    if still == 0 { Ok(()) } else { Err(ParkedError::StillParked(still)) }
}

async fn discard(command: ParkedDiscard<impl Args>, json: bool, parked: &Parked) -> Result<(), ParkedError> {
    let which = command.which.which();
    let count = parked.count(&which).await?;
    if count == 0 {
        expect_none(which, parked)?;
        return Ok(print(json, &Discarded { discarded: 0 }, |_| NOTHING.to_owned())?);
    }
    if !command.yes {
        return Err(ParkedError::Unconfirmed(count));
    }
    let discarded = Discarded { discarded: parked.discard(&which).await? };
    Ok(print(json, &discarded, |done| format!("discarded {}", done.discarded))?)
}

const NOTHING: &str = "nothing is parked";

#[derive(Serialize)]
struct Discarded {
    discarded: usize,
}

/// There is none of them. Whoever named some is mistaken; of all there may be none.
fn expect_none(which: Which, parked: &Parked) -> Result<(), ParkedError> {
    let generation = parked.generation;
    match which {
        Which::One(position) => Err(ParkedError::NoneAt { position, generation }),
        Which::Cause(cause) => Err(ParkedError::NoneFor { cause, generation }),
        Which::All => Ok(()),
    }
}
