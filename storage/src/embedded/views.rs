//! The ports `ViewWriter`, `ViewReader` and `ParkedEvents`: which file holds which view. Rows and cursor of a batch go
//! into one commit; of views that nobody reads yet, those of several. It is not synced: the views can be made again from
//! the log, and fjall's journal keeps the order of commits, so that a crash takes the same last batches from rows and
//! cursor (they are one keyspace, flushed as one; fjall syncs the journal before it flushes, so no table is ever ahead of
//! it). What was taken is delivered again. Nor are they ever ahead of the log, which is synced before the feed gives of it.
//!
//! A row is merged with what stands there and written, which needs one writer at a time: the lock in
//! [`Applying`]. What stands there is read only where the merge needs it, as a read costs as much as a write.
//!
//! Reads of one row or page go straight to fjall from the calling task: measured, 2 µs a row and less than 0.1 ms
//! a page of 50 from the tables, and they seldom wait for the disk, while moving one to a blocking thread costs
//! 20 µs alone. Reads without such a bound, and writes, are moved.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use fjall::PersistMode;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use shared::ids::{Conversation, Position, Seq, Username};
use shared::limits::{INBOX_ROWS_PER_REQUEST, VIEWS_STAGED_BYTES_MAX};
use shared::ports::{Delivery, InboxRows, ParkedEvents, StoreError, ViewReader, ViewWriter};
use shared::view::{ParkedEvent, ParkedRow, TimelineEntry, UserRow, ViewChange};

use super::directory::Directory;
use super::inbox::Recent;
use super::place::Place;
use super::rows::{Rows, Staged};
use super::{Embedded, STORE, inbox, parked, timeline, users};

/// The only one: see [`super::directory`].
const GENERATION: u32 = 1;

#[async_trait]
impl ViewWriter for Embedded {
    async fn apply(&self, changes: Vec<ViewChange>, read: &[Delivery]) -> Result<(), StoreError> {
        let offsets: Vec<_> = read.iter().map(|delivery| delivery.position.counter).collect();
        self.blocking(move |store| {
            let stage = |rows: &mut Rows<'_>, recent: &mut Recent| {
                changes.iter().try_for_each(|change| put(rows, recent, change))
            };
            store.commit_views(stage, &offsets)
        })
        .await
    }
}

/// Whoever holds its lock is the one that reads, merges and writes rows.
pub(super) struct Applying {
    /// `None`: what was staged is lost, and the views with it.
    held: Mutex<Option<Held>>,
    /// Of views that nobody reads yet, several batches are one commit: what they replace of each other is not written.
    place: Place,
}

#[derive(Default)]
struct Held {
    recent: Recent,
    /// With the cursor that they belong to.
    staged: Staged,
}

impl Applying {
    pub(super) fn new(place: Place) -> Self {
        Self { held: Mutex::new(Some(Held::default())), place }
    }
}

impl Embedded {
    /// Runs `stage` as the only writer, and commits what it put with the cursor as it is with these offsets.
    pub(super) fn commit_views(
        &self,
        stage: impl FnOnce(&mut Rows<'_>, &mut Recent) -> Result<(), StoreError>,
        offsets: &[u64],
    ) -> Result<(), StoreError> {
        let (directory, applying, progress) = (self.directory(), self.applying(), self.progress());
        let mut held = applying.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: if the rows are not written, what it says of them is forgotten.
        let Some(Held { mut recent, staged }) = held.take() else {
            return Err(StoreError::unavailable(STORE, "a batch of these views was lost; they are given up"));
        };
        if applying.place == Place::Served {
            *held = Some(Held::default());
        }
        let mut rows = Rows::behind(&directory.views, staged);
        stage(&mut rows, &mut recent)?;
        let acknowledged = progress.stage(&mut rows, offsets.iter().copied())?;
        let is_last = acknowledged.up_to() >= *self.log_end().borrow();
        let may_wait = applying.place == Place::Beside && !is_last && rows.bytes() < VIEWS_STAGED_BYTES_MAX;
        let staged = if may_wait {
            rows.into_staged()
        } else {
            commit(directory, rows)?;
            Staged::default()
        };
        *held = Some(Held { recent, staged });
        progress.acknowledged(acknowledged);
        Ok(())
    }
}

fn commit(directory: &Directory, rows: Rows<'_>) -> Result<(), StoreError> {
    if rows.len() == 0 {
        return Ok(());
    }
    let mut batch = directory.views_batch(rows.len());
    rows.stage(&mut batch);
    directory.commit(batch, PersistMode::Buffer)
}

fn put(rows: &mut Rows<'_>, recent: &mut Recent, change: &ViewChange) -> Result<(), StoreError> {
    match change {
        ViewChange::Timeline(change) => timeline::put(rows, change),
        ViewChange::Inbox(change) => inbox::put(rows, recent, change),
        ViewChange::Users(change) => users::put(rows, change),
        ViewChange::Parked(change) => parked::put(rows, change),
    }
}

#[async_trait]
impl ViewReader for Embedded {
    fn generation(&self) -> u32 {
        GENERATION
    }

    async fn timeline(
        &self,
        conversation: &Conversation,
        first: Seq,
        last: Seq,
    ) -> Result<Vec<TimelineEntry>, StoreError> {
        timeline::range(self.directory(), conversation, first, last)
    }

    async fn timeline_head(&self, conversation: &Conversation) -> Result<Seq, StoreError> {
        timeline::head(self.directory(), conversation)
    }

    fn inbox(&self, owner: &Username) -> InboxRows {
        let (store, owner) = (self.clone(), owner.clone());
        let pages = stream::try_unfold(Some(None), move |after: Option<Option<Username>>| {
            let (store, owner) = (store.clone(), owner.clone());
            async move {
                let Some(after) = after else { return Ok(None) };
                let page = move |store: &Self| {
                    inbox::page(store.directory(), &owner, after.as_ref(), INBOX_ROWS_PER_REQUEST)
                };
                let rows = store.blocking(page).await?;
                let full = rows.len() == INBOX_ROWS_PER_REQUEST;
                let next = full.then(|| rows.last().map(|row| row.peer.clone()));
                Ok(Some((stream::iter(rows.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn user(&self, user: &Username) -> Result<Option<UserRow>, StoreError> {
        users::find(self.directory(), user)
    }
}

#[async_trait]
impl ParkedEvents for Embedded {
    async fn parked(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> Result<Vec<ParkedEvent>, StoreError> {
        self.blocking(move |store| parked::list(store.directory(), after, events_max)).await
    }

    async fn parked_row(&self, position: Position) -> Result<Option<ParkedRow>, StoreError> {
        self.blocking(move |store| parked::find(store.directory(), position)).await
    }
}
