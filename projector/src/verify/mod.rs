//! Compares a generation with the log, row by row and cell by cell, while both go on. It shares nothing with the
//! projections: what the log says is folded here anew, and what the tables say is read by a scan of its own. It
//! changes nothing, and repairs nothing.
//!
//! 1. The cut: where the log ends now. Wait until the generation has acknowledged all of it.
//! 2. Fold the log up to the cut, scan the tables, and read what was appended meanwhile, to explain rows that are
//!    newer than the cut (`ledger.rs`).
//! 3. Only if a timeline differs: the same again for such conversations, row by row, to name what differs (`rows.rs`).

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use shared::Position;
use shared::limits::{VERIFY_NEWER_ROWS_MAX, VERIFY_POLL, VERIFY_ROWS_HELD_MAX, VERIFY_STANDSTILL_MAX};
use shared::ports::{Delivery, FeedMonitor, LogScan, ScannedRow, ScannedTable, Span, StoreError, ViewScan};
use tokio::time::Instant;

use crate::reading;

mod compare;
mod facts;
mod fold;
mod ledger;
mod names;
mod offsets;
mod pace;
mod report;
mod rows;
#[cfg(test)]
mod tests;

pub use report::{Comparison, Difference, Differences};

use ledger::Ledger;
use rows::Rows;

/// A generation, and the log that it is made from.
pub struct Verifier {
    pub generation: u32,
    pub log: Arc<dyn LogScan>,
    pub views: Arc<dyn ViewScan>,
    pub monitor: Arc<dyn FeedMonitor>,
}

/// How far a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub phase: Phase,
    pub done: u64,
    pub of: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Events of the log, until the generation has acknowledged what it held at first.
    Waiting,
    /// Events.
    Log,
    /// Parts of the tables.
    Views,
    /// Events again, of timelines that differ.
    LogAgain,
    /// Parts of the timeline again.
    ViewsAgain,
}

impl Phase {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "events applied",
            Self::Log => "events folded",
            Self::Views => "parts of the tables compared",
            Self::LogAgain => "events folded again, to name the differences",
            Self::ViewsAgain => "parts of the timeline compared again",
        }
    }
}

/// Who is told how far it is, often.
pub type Tell<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "generation {generation} has not got as far as the log was, and applies nothing: do projectors run?"
    )]
    Standstill { generation: u32 },
}

/// Compares all that the log held when it began with what the views hold. May be dropped at any await: it changes
/// nothing.
///
/// # Errors
/// When a store does not answer for longer than [`shared::limits::SCAN_PATIENCE`], or the generation does not get as
/// far as the log was within [`VERIFY_STANDSTILL_MAX`] without applying anything. Differences are no error.
pub async fn verify(verifier: &Verifier, tell: Tell<'_>) -> Result<Comparison, VerifyError> {
    let Verifier { generation, log, views, .. } = verifier;
    let cut = reading::retrying(|| log.extent()).await?;
    acknowledged(verifier, &cut, tell).await?;
    let begun = Instant::now();
    let mut ledger = Ledger::default();
    let note = |rows: Vec<ScannedRow>, _, _| rows.iter().for_each(|row| ledger.note_parked(row));
    reading::tables(&**views, &[ScannedTable::Parked], note).await?;
    let tables = [ScannedTable::Timeline, ScannedTable::Inbox, ScannedTable::Users];
    verifier.pass(&mut ledger, &cut, &tables, [Phase::Log, Phase::Views], tell).await?;
    let differ = ledger.finish();
    name_differences(verifier, &mut ledger, &cut, &differ, tell).await?;
    let (conversations, users) = ledger.counted();
    Ok(Comparison {
        generation: *generation,
        events: ledger.events,
        conversations,
        users,
        rows: ledger.rows,
        rows_left_out: ledger.rows_left_out,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        differences: ledger.differences.sorted(),
    })
}

/// Until everything up to the cut is acknowledged.
async fn acknowledged(verifier: &Verifier, cut: &[Span], tell: Tell<'_>) -> Result<(), VerifyError> {
    let Verifier { generation, monitor, .. } = verifier;
    let (mut applied, mut since) = (0, Instant::now());
    loop {
        let first = reading::retrying(|| monitor.first_unacknowledged()).await?;
        let first: HashMap<u16, Position> =
            first.into_iter().map(|position| (position.partition, position)).collect();
        let is_behind =
            |span: &Span| first.get(&span.last.partition).is_some_and(|first| *first <= span.last);
        if !cut.iter().any(is_behind) {
            return Ok(());
        }
        let status = reading::retrying(|| monitor.status()).await?;
        let (lag, of) = (status.lag(), status.head());
        tell(Step { phase: Phase::Waiting, done: of - lag.min(of), of });
        let now_applied = status.applied();
        if now_applied != applied {
            (applied, since) = (now_applied, Instant::now());
        }
        if since.elapsed() > VERIFY_STANDSTILL_MAX {
            return Err(VerifyError::Standstill { generation: *generation });
        }
        tokio::time::sleep(VERIFY_POLL).await;
    }
}

/// Of the timelines that differ: row by row, until enough is listed.
async fn name_differences(
    verifier: &Verifier,
    ledger: &mut Ledger,
    cut: &[Span],
    differ: &[u32],
    tell: Tell<'_>,
) -> Result<(), VerifyError> {
    let rounds = rows::windows(ledger, differ, VERIFY_ROWS_HELD_MAX);
    for windows in rounds {
        if ledger.differences.is_full() {
            windows.iter().for_each(|_| ledger.differences.add_unlisted());
            continue;
        }
        let mut rows = Rows::new(ledger, windows);
        let phases = [Phase::LogAgain, Phase::ViewsAgain];
        verifier.pass(&mut rows, cut, &[ScannedTable::Timeline], phases, tell).await?;
        rows.finish();
    }
    Ok(())
}

/// What is done with all of log and tables.
trait Pass: Send {
    /// An entry up to the cut. All of them come before the first row.
    fn fold(&mut self, delivery: &Delivery);

    fn compare(&mut self, row: ScannedRow);

    /// Rows so far that no entry explains: events behind the cut may.
    fn unexplained(&self) -> usize;

    /// An entry behind the cut. All of them, up to what any row may come from, come after the last row; and before that
    /// as often as rows are too many to be held till then.
    fn explain(&mut self, delivery: &Delivery);
}

impl Verifier {
    async fn pass(
        &self,
        pass: &mut dyn Pass,
        cut: &[Span],
        tables: &[ScannedTable],
        [of_log, of_views]: [Phase; 2],
        tell: Tell<'_>,
    ) -> Result<(), StoreError> {
        let status = reading::retrying(|| self.monitor.status()).await?;
        let (mut done, of) = (0, status.head());
        let fold = |page: Vec<Delivery>| {
            page.iter().for_each(|delivery| pass.fold(delivery));
            done += page.len() as u64;
            tell(Step { phase: of_log, done, of });
        };
        reading::log(&*self.log, cut.to_vec(), fold).await?;
        let mut explained_at = VERIFY_NEWER_ROWS_MAX / 2;
        let mut pages = pin!(reading::pages(&*self.views, tables));
        while let Some((rows, done, of)) = pages.try_next().await? {
            rows.into_iter().for_each(|row| pass.compare(row));
            tell(Step { phase: of_views, done, of });
            if pass.unexplained() >= explained_at {
                self.explain(pass, cut).await?;
                // What is left is not of the log: it is not asked for again and again.
                explained_at = pass.unexplained() + VERIFY_NEWER_ROWS_MAX / 2;
            }
        }
        self.explain(pass, cut).await
    }

    async fn explain(&self, pass: &mut dyn Pass, cut: &[Span]) -> Result<(), StoreError> {
        // Taken after the rows were read: none of them is of a later event.
        let later = behind(cut, &reading::retrying(|| self.log.extent()).await?);
        let explain = |page: Vec<Delivery>| page.iter().for_each(|delivery| pass.explain(delivery));
        reading::log(&*self.log, later, explain).await
    }
}

/// What the log has gained.
fn behind(cut: &[Span], now: &[Span]) -> Vec<Span> {
    let ends: HashMap<u16, Position> = cut.iter().map(|span| (span.last.partition, span.last)).collect();
    let gained = |span: &Span| match ends.get(&span.last.partition) {
        Some(end) => span.behind(*end),
        None => Some(*span),
    };
    now.iter().filter_map(gained).collect()
}
