//! The ports `ViewWriter`, `ViewReader` and `ParkedEvents`: which file holds which view. Rows and cursor of a batch go into one
//! commit. It is not synced: the views can be made again from the log, and fjall's journal keeps the order of
//! commits, so that a crash takes the same last batches from rows and cursor (they are one keyspace, flushed as
//! one; fjall syncs the journal before it flushes, so no table is ever ahead of it). What was taken is
//! delivered again. Nor are they ever ahead of the log, which is synced before the feed gives of it.
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
use shared::limits::INBOX_ROWS_PER_REQUEST;
use shared::ports::{Delivery, InboxRows, ParkedEvents, StoreError, ViewReader, ViewWriter};
use shared::view::{ParkedEvent, ParkedRow, TimelineEntry, UserRow, ViewChange};

use super::directory::Directory;
use super::feed::Progress;
use super::inbox::Recent;
use super::rows::Rows;
use super::{Embedded, inbox, parked, timeline, users};

/// The only one: see [`super::directory`].
const GENERATION: u32 = 1;

#[async_trait]
impl ViewWriter for Embedded {
    async fn apply(&self, changes: &[ViewChange], read: &[Delivery]) -> Result<(), StoreError> {
        let changes = changes.to_vec();
        let read: Vec<_> = read.iter().map(|delivery| delivery.position).collect();
        self.blocking(move |store| {
            store.applying().apply(store.directory(), store.progress(), &changes, &read)
        })
        .await
    }
}

/// Whoever holds its lock is the one that reads, merges and writes rows.
#[derive(Default)]
pub(super) struct Applying(Mutex<Recent>);

impl Applying {
    fn apply(
        &self,
        directory: &Directory,
        progress: &Progress,
        changes: &[ViewChange],
        read: &[Position],
    ) -> Result<(), StoreError> {
        self.commit(directory, |rows, recent| {
            for change in changes {
                put(rows, recent, change)?;
            }
            progress.stage(rows, read.iter().map(|position| position.counter))
        })
        .map(|acknowledged| progress.acknowledged(acknowledged))
    }

    /// Runs `stage` as the only writer and commits what it put.
    pub(super) fn commit<T>(
        &self,
        directory: &Directory,
        stage: impl FnOnce(&mut Rows<'_>, &mut Recent) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Rows::of(&directory.views);
        // Taken out: if the rows are not written, what it says of them is forgotten.
        let mut recent = std::mem::take(&mut *held);
        let staged = stage(&mut rows, &mut recent)?;
        if rows.len() > 0 {
            let mut batch = directory.views_batch(rows.len());
            rows.stage(&mut batch);
            directory.commit(batch, PersistMode::Buffer)?;
        }
        *held = recent;
        Ok(staged)
    }
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
