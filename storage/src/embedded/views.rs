//! The ports `ViewWriter`, `ViewReader` and `ParkedEvents`: which file holds which view. The rows of a batch go into one
//! commit, but for those of inboxes, which are written later, and with them the cursor (see [`super::unwritten`]). None is
//! synced: the views can be made again from the log, and fjall's journal keeps the order of commits, so that a crash takes
//! the same last ones from rows and cursor (they are one keyspace, flushed as one; fjall syncs the journal before it
//! flushes, so no table is ever ahead of it). What was taken is delivered again. Nor are they ever ahead of the log, which
//! is synced before the feed gives of it.
//!
//! A row is merged with what stands there and written, which needs one writer at a time: the lock in
//! [`Applying`]. What stands there is read only where the merge needs it, as a read costs as much as a write.
//!
//! Reads of one row or page go straight to fjall from the calling task: measured, 2 µs a row and less than 0.1 ms
//! a page of 50 from the tables, and they seldom wait for the disk, while moving one to a blocking thread costs
//! 20 µs alone. Reads without such a bound, and writes, are moved.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use fjall::{PersistMode, Readable, Slice};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use shared::ids::{Conversation, Position, Seq, Username};
use shared::limits::INBOX_ROWS_PER_REQUEST;
use shared::ports::{Delivery, InboxRows, ParkedEvents, StoreError, ViewReader, ViewWriter};
use shared::view::{ParkedEvent, ParkedRow, TimelineEntry, UserRow, ViewChange};

use super::directory::Directory;
use super::feed::Progress;
use super::inbox::Numbers;
use super::recent::Recent;
use super::rows::Rows;
use super::unwritten::Unwritten;
use super::{Embedded, inbox, keys, parked, read_error, timeline, users};

/// The only one: see [`super::directory`].
const GENERATION: u32 = 1;

#[async_trait]
impl ViewWriter for Embedded {
    async fn apply(&self, changes: Vec<ViewChange>, read: &[Delivery]) -> Result<(), StoreError> {
        let offsets: Vec<_> = read.iter().map(|delivery| delivery.position.counter).collect();
        self.blocking(move |store| {
            let stage = |rows: &mut Rows<'_>, recent: &mut Recent<Numbers>| {
                changes.iter().try_for_each(|change| put(rows, recent, change))
            };
            store.commit_views(stage, &offsets)
        })
        .await
    }
}

/// What is known of the views beside their tables.
#[derive(Default)]
pub(super) struct Applying {
    /// Whoever holds its lock is the one that reads, merges and writes rows.
    recent: Mutex<Recent<Numbers>>,
    unwritten: Unwritten,
}

impl Applying {
    /// Writes what the tables do not have yet.
    pub(super) fn catch_up(&self, directory: &Directory, progress: &Progress) -> Result<(), StoreError> {
        let _only = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        write_unwritten(&self.unwritten, directory, progress)
    }
}

impl Embedded {
    /// Writes what is still in memory of the views: in a moment without traffic, and for whoever has to know that it is
    /// done.
    ///
    /// # Errors
    /// Those of a write. What was not written stays in memory, and is tried again with the next batch and at the end.
    pub async fn write_views(&self) -> Result<(), StoreError> {
        self.blocking(|store| store.applying().catch_up(store.directory(), store.progress())).await
    }

    /// Runs `stage` as the only writer and commits what it put. From then on the views hold these offsets; rows of inboxes
    /// and the cursor are written later. What comes without offsets nobody would give again: it is written at once, behind
    /// all that came before it.
    pub(super) fn commit_views(
        &self,
        stage: impl FnOnce(&mut Rows<'_>, &mut Recent<Numbers>) -> Result<(), StoreError>,
        offsets: &[u64],
    ) -> Result<(), StoreError> {
        let (directory, progress) = (self.directory(), self.progress());
        let Applying { recent: lock, unwritten } = self.applying();
        let mut held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_given_again = !offsets.is_empty();
        if !is_given_again {
            write_unwritten(unwritten, directory, progress)?;
        }
        // Taken out: if the rows are not written, what it says of them is forgotten.
        let mut recent = std::mem::take(&mut *held);
        let mut rows = Rows::under(&directory.views, unwritten);
        stage(&mut rows, &mut recent)?;
        let later = is_given_again.then(|| rows.take(keys::INBOX));
        commit(directory, rows)?;
        *held = recent;
        let Some(inboxes) = later else { return Ok(()) };
        let now = Instant::now();
        unwritten.put(inboxes, now);
        progress.insert(offsets);
        if unwritten.is_due(now) { write_unwritten(unwritten, directory, progress) } else { Ok(()) }
    }

    /// The first rows of a range of keys, at most so many.
    pub(super) fn view_rows(
        &self,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
        rows_max: usize,
    ) -> Result<Vec<(Slice, Slice)>, StoreError> {
        // First: what is written meanwhile is in the tables by then.
        let newer = self.applying().unwritten.range(&range, rows_max);
        let rows = self.directory().views_snapshot().range(&self.directory().views, range);
        let rows = rows.take(rows_max).map(|row| row.into_inner().map_err(read_error));
        let mut rows = rows.collect::<Result<BTreeMap<Slice, Slice>, StoreError>>()?;
        rows.extend(newer.into_iter().map(|(key, value)| (key.into(), value)));
        Ok(rows.into_iter().take(rows_max).collect())
    }
}

/// For the only writer.
fn write_unwritten(
    unwritten: &Unwritten,
    directory: &Directory,
    progress: &Progress,
) -> Result<(), StoreError> {
    if !unwritten.is_any() {
        return Ok(());
    }
    let mut rows = Rows::of(&directory.views);
    unwritten.rows().into_iter().for_each(|(key, value)| rows.put(key, value));
    progress.put(&mut rows);
    commit(directory, rows)?;
    unwritten.clear();
    Ok(())
}

fn commit(directory: &Directory, rows: Rows<'_>) -> Result<(), StoreError> {
    if rows.len() == 0 {
        return Ok(());
    }
    let mut batch = directory.views_batch(rows.len());
    rows.stage(&mut batch);
    directory.commit(batch, PersistMode::Buffer)
}

fn put(rows: &mut Rows<'_>, recent: &mut Recent<Numbers>, change: &ViewChange) -> Result<(), StoreError> {
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
                let page =
                    move |store: &Self| inbox::page(store, &owner, after.as_ref(), INBOX_ROWS_PER_REQUEST);
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
