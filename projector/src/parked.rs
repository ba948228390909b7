//! What becomes of parked events: shows what could not be applied, has it tried again by this program, or gives it up.
//! A retry reads the log, not the bytes that were kept: those are for people, and may be cut short.

use std::sync::Arc;

use serde::Serialize;
use shared::Position;
use shared::limits::PARKED_RETRIED_MAX;
use shared::ports::{Delivery, LogReader, ParkedEvents, StoreError, ViewWriter};
use shared::view::{ParkedChange, ParkedEvent, ParkedRow, ViewChange};

mod command;
mod shown;

pub use command::{ParkedCommand, ParkedError};
pub use shown::{Listing, Shown};

use crate::parking;
use crate::projections::project;
use shown::Event;

/// The parked events of one generation.
pub struct Parked {
    pub generation: u32,
    pub events: Arc<dyn ParkedEvents>,
    pub log: Arc<dyn LogReader>,
    pub views: Arc<dyn ViewWriter>,
}

/// Which of them a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    One(Position),
    /// Whose cause holds this text.
    Cause(String),
    All,
}

impl Which {
    fn matches(&self, event: &ParkedEvent) -> bool {
        match self {
            Self::One(position) => event.position == *position,
            Self::Cause(text) => event.cause.contains(text),
            Self::All => true,
        }
    }
}

/// What became of a retry.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retried {
    pub applied: usize,
    /// Still cannot be applied.
    pub parked: usize,
}

impl Parked {
    /// Those behind `after`, at most `events_max`.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(
        &self,
        which: &Which,
        after: Option<Position>,
        events_max: usize,
    ) -> Result<Listing, StoreError> {
        let (mut parked, mut after) = (Vec::new(), after);
        // One more than is shown, to know whether there are more.
        while parked.len() <= events_max {
            let page = self.events.parked(after, PAGE_EVENTS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.position);
            parked.extend(page.into_iter().filter(|event| which.matches(event)));
        }
        let more = parked.len() > events_max;
        parked.truncate(events_max);
        let more_after = parked.last().filter(|_| more).map(|event| event.position.to_string());
        let parked = parked.into_iter().map(Event).collect();
        Ok(Listing { generation: self.generation, parked, more_after })
    }

    /// `None`: no event is parked there.
    ///
    /// # Errors
    /// The store's.
    pub async fn show(&self, position: Position) -> Result<Option<Shown>, StoreError> {
        let row = self.events.parked_row(position).await?;
        Ok(row.map(|ParkedRow { event, bytes }| Shown {
            generation: self.generation,
            event: Event(event),
            bytes: bytes.escape_ascii().to_string(),
            bytes_kept: bytes.len(),
        }))
    }

    /// Reads them from the log again, and applies those that this program can.
    ///
    /// # Errors
    /// The store's. What was applied until then stays so; the same call again goes on.
    pub async fn retry(&self, which: &Which) -> Result<Retried, StoreError> {
        let (mut retried, mut walk) = (Retried::default(), Walk::of(which));
        while let Some(events) = walk.next(&*self.events).await? {
            let page = self.retry_page(&events).await?;
            retried.applied += page.applied;
            retried.parked += page.parked;
        }
        Ok(retried)
    }

    async fn retry_page(&self, events: &[ParkedEvent]) -> Result<Retried, StoreError> {
        let positions: Vec<_> = events.iter().map(|event| event.position).collect();
        let entries = self.log.entries_at(&positions).await?;
        let (mut effects, mut outcomes, mut retried) = (Vec::new(), Vec::new(), Retried::default());
        for (event, entry) in events.iter().zip(&entries) {
            match entry {
                Some(Delivery { content: Ok(recorded), .. }) => {
                    project(recorded, &mut effects);
                    outcomes.push(settled(event));
                    retried.applied += 1;
                }
                Some(Delivery { position, content: Err(unreadable) }) => {
                    let row = parking::row(*position, unreadable, event.attempts + 1, event.parked_at);
                    parking::put(row, &mut outcomes);
                    retried.parked += 1;
                }
                // Nothing is trimmed that is not applied everywhere, so somebody deleted it by hand. What was
                // kept of it stays.
                None => {
                    let kept = self.events.parked_row(event.position).await?;
                    outcomes.extend(kept.map(tried_again));
                    retried.parked += 1;
                }
            }
        }
        let read: Vec<_> = entries.into_iter().flatten().collect();
        self.views.apply(effects, &read).await?;
        // Only now: an event that is settled is applied for certain, whatever happens in between.
        self.views.apply(outcomes, &[]).await?;
        Ok(retried)
    }

    /// Gives them up: their markers stay, so that the numbering is whole, and they are parked no longer.
    ///
    /// # Errors
    /// The store's. What was given up until then stays so.
    pub async fn discard(&self, which: &Which) -> Result<usize, StoreError> {
        let (mut discarded, mut walk) = (0, Walk::of(which));
        while let Some(events) = walk.next(&*self.events).await? {
            let outcomes: Vec<_> = events.iter().map(settled).collect();
            for ParkedEvent { position, cause, attempts, .. } in &events {
                let generation = self.generation;
                tracing::warn!(%position, generation, cause, attempts, "a parked event is discarded");
            }
            self.views.apply(outcomes, &[]).await?;
            discarded += events.len();
        }
        Ok(discarded)
    }

    /// How many a command would be about.
    ///
    /// # Errors
    /// The store's.
    pub async fn count(&self, which: &Which) -> Result<usize, StoreError> {
        let (mut count, mut walk) = (0, Walk::of(which));
        while let Some(events) = walk.next(&*self.events).await? {
            count += events.len();
        }
        Ok(count)
    }
}

const PAGE_EVENTS: usize = 500;

fn settled(event: &ParkedEvent) -> ViewChange {
    ViewChange::Parked(ParkedChange::Settle { position: event.position })
}

fn tried_again(mut row: ParkedRow) -> ViewChange {
    row.event.attempts += 1;
    ViewChange::Parked(ParkedChange::PutParked(row))
}

/// Once past all that are parked.
struct Walk<'a> {
    which: &'a Which,
    after: Option<Position>,
    ended: bool,
}

impl<'a> Walk<'a> {
    fn of(which: &'a Which) -> Self {
        Self { which, after: None, ended: false }
    }

    /// The next that match, maybe none; `None`: that was all.
    async fn next(&mut self, events: &dyn ParkedEvents) -> Result<Option<Vec<ParkedEvent>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let page = match self.which {
            Which::One(position) => {
                self.ended = true;
                events.parked_row(*position).await?.map(|row| row.event).into_iter().collect()
            }
            Which::Cause(_) | Which::All => events.parked(self.after, PARKED_RETRIED_MAX).await?,
        };
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.position);
        Ok(Some(page.into_iter().filter(|event| self.which.matches(event)).collect()))
    }
}
