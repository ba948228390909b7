//! Log, accounts and views on one directory, in one process, without servers: what `cargo run --release`
//! starts, and the test double of every service. The semantics are those of Redis and Cassandra; one contract
//! suite says so.
//!
//! Storage is fjall, an LSM tree with a journal. One thread writes log and accounts (`writer`), in groups that
//! are synced before they are answered; views are written by whoever applies a batch (`views`) to a
//! database of their own, not synced, and some of their rows later (`unwritten`). [`Embedded::open`] refuses what is damaged: fjall's own recovery drops what it cannot read, so what
//! must be there is verified against numbers, checksums and a high-water mark (`verify`, `journal`, `manifest`,
//! `mark`).
//!
//! It decides nothing about messages and users, keeps one partition, and serves one consumer of its feed at a
//! time.

#![deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]

mod accounts;
mod acknowledged;
mod directory;
mod encoding;
mod entry;
mod expiry;
mod feed;
mod inbox;
mod journal;
mod keys;
mod limits;
mod log;
mod manifest;
mod mark;
mod parked;
mod place;
mod recent;
mod rows;
mod scan;
mod tail;
#[cfg(test)]
mod tests;
mod timeline;
mod unwritten;
mod users;
mod verify;
mod views;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use shared::clock::{Clock, Timestamp};
use shared::limits::{COMMIT_TIMEOUT, NOTICES_QUEUED_MAX};
use shared::ports::{Applied, Probe, StoreError};
use shared::process::telemetry::Metrics;
use tokio::sync::{broadcast, oneshot, watch};

use directory::Directory;
pub use feed::Feed;
use feed::Progress;
use place::Place;
pub use place::{has_views_of_another_shape, replace_views};
pub use tail::Tail;
use views::Applying;
use writer::{Command, Writer};

use crate::metrics::Appends;

/// What the store is called in errors and by `/readyz`.
const STORE: &str = "store";

#[derive(Debug, Clone)]
pub struct Options {
    /// Made if it is not there. No other process may use it.
    pub dir: PathBuf,
    /// How long a repeated send is answered with the first receipt.
    pub idempotency_window: Duration,
}

/// The store: every port but `EventFeed` and `LogTail`, which [`Embedded::feed`] and [`Embedded::tail`] give. Clones are the same store; it ends
/// with the last of them, of its feeds and of what these read ahead.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    /// `None` while it ends.
    queue: Option<SyncSender<Command>>,
    writer: Option<JoinHandle<()>>,
    directory: Arc<Directory>,
    head: watch::Receiver<u64>,
    applying: Applying,
    progress: Progress,
    notices: broadcast::Sender<Applied>,
    limits: limits::Limits,
    clock: Clock,
    metrics: Appends,
}

impl Embedded {
    /// Opens the directory and verifies every entry of its log (a second of one core per million). Blocks.
    ///
    /// # Errors
    /// - [`StoreError::Unavailable`]: the directory is in use by another process, or cannot be read or written.
    /// - [`StoreError::Damaged`]: something that was acknowledged is missing or altered. It says what.
    /// - [`StoreError::Unfit`]: the directory was made by another version, or its views are of another shape (see
    ///   [`has_views_of_another_shape`]).
    pub fn open(options: &Options, clock: Clock) -> Result<Self, StoreError> {
        Self::open_views(options, Place::Served, clock)
    }

    /// The same with empty views beside those of the directory, which stay as they are. Once all of the feed was
    /// applied and the store is closed, [`replace_views`] puts them in their place; opened in any other way before, the
    /// directory has them no more.
    ///
    /// # Errors
    /// Those of [`Embedded::open`].
    pub fn open_beside_views(options: &Options, clock: Clock) -> Result<Self, StoreError> {
        Self::open_views(options, Place::Beside, clock)
    }

    fn open_views(options: &Options, place: Place, clock: Clock) -> Result<Self, StoreError> {
        let opened = directory::open(&options.dir, place, &clock)?;
        let progress = Progress::load(&opened.directory.views)?;
        let writer = Writer::new(opened, clock.clone(), options.idempotency_window);
        let (directory, head) = (Arc::clone(writer.directory()), writer.head());
        let metrics = writer.metrics().clone();
        let (queue, writer) = writer.start().map_err(unavailable)?;
        Ok(Self(Arc::new(Inner {
            queue: Some(queue),
            writer: Some(writer),
            directory,
            head,
            applying: Applying::default(),
            progress,
            notices: broadcast::Sender::new(NOTICES_QUEUED_MAX),
            limits: limits::Limits::default(),
            clock,
            metrics,
        })))
    }

    /// The consumer of the feed. It takes over from the one before, which is refused from then on.
    #[must_use]
    pub fn feed(&self, consumer: &str) -> Feed {
        Feed::new(self.clone(), consumer)
    }

    /// Reads the log as it grows.
    #[must_use]
    pub fn tail(&self) -> Tail {
        Tail::new(self.clone())
    }

    /// Shows what is appended, and how.
    pub fn register_metrics(&self, metrics: &Metrics) {
        self.0.metrics.register(metrics);
    }

    /// For tests: an entry as a broken disk or another program may have left it.
    #[cfg(feature = "contract")]
    pub async fn put_raw(&self, entry: crate::contract::RawEntry) -> Result<(), StoreError> {
        self.ask(|answer| Command::PutRaw(entry, answer)).await?
    }

    /// For tests: the entry at this position as somebody may have repaired it.
    #[cfg(feature = "contract")]
    pub async fn repair_raw(
        &self,
        position: shared::Position,
        raw: crate::contract::RawEntry,
    ) -> Result<(), StoreError> {
        self.blocking(move |store| {
            let offset = position.counter;
            let entry = entry::Entry::seal(raw.envelope, raw.seq, offset, position.ms);
            let (directory, mut batch) = (store.directory(), store.directory().log_batch(1));
            batch.insert(&directory.log, offset.to_be_bytes(), entry.encode());
            directory.commit(batch, fjall::PersistMode::SyncData)
        })
        .await
    }

    /// Queues a command and waits for its answer. Dropping the future leaves the command queued.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let queue = self.0.queue.as_ref().expect("the queue is there until the last handle is gone");
        self.0.metrics.queue();
        queue.try_send(command(answer)).map_err(|error| {
            self.0.metrics.dequeue(1);
            match error {
                TrySendError::Full(_) => StoreError::Busy { queue: "the store's queue" },
                TrySendError::Disconnected(_) => StoreError::unavailable(STORE, "its writer has stopped"),
            }
        })?;
        match tokio::time::timeout(COMMIT_TIMEOUT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(stopped)) => Err(StoreError::unknown(STORE, stopped)),
            Err(elapsed) => Err(StoreError::unknown(STORE, elapsed)),
        }
    }

    /// Runs what may take longer than a task may. It runs to its end even if nobody waits for it any more.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|error| StoreError::unknown(STORE, error))?
    }

    fn directory(&self) -> &Directory {
        &self.0.directory
    }

    fn log_end(&self) -> watch::Receiver<u64> {
        self.0.head.clone()
    }

    fn applying(&self) -> &Applying {
        &self.0.applying
    }

    fn progress(&self) -> &Progress {
        &self.0.progress
    }

    fn notices(&self) -> &broadcast::Sender<Applied> {
        &self.0.notices
    }

    fn limits(&self) -> &limits::Limits {
        &self.0.limits
    }

    fn metrics(&self) -> &Appends {
        &self.0.metrics
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

impl Drop for Inner {
    /// What is queued is still written; then the directory is free for the next one who opens it.
    fn drop(&mut self) {
        if let Err(error) = self.applying.catch_up(&self.directory, &self.progress) {
            tracing::warn!(%error, "the views are given their last events again at the next start");
        }
        self.queue = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the store panicked");
        }
    }
}

#[async_trait]
impl Probe for Embedded {
    fn name(&self) -> &'static str {
        STORE
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.blocking(|store| {
            if store.0.writer.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(StoreError::unavailable(STORE, "its writer has stopped"));
            }
            store.directory().check()
        })
        .await
    }

    fn durability(&self) -> Option<String> {
        let text =
            "embedded: fdatasync before every acknowledgement (an acknowledged event survives a power cut)";
        Some(text.to_owned())
    }
}

fn damaged(what: String) -> StoreError {
    StoreError::Damaged { store: STORE, what }
}

fn unavailable(error: io::Error) -> StoreError {
    StoreError::unavailable(STORE, error)
}

/// Of a read, which changes nothing. A file that ends too early or is gone is damage; a disk that does not
/// answer may answer later.
fn read_error(error: fjall::Error) -> StoreError {
    let may_answer_later = |error: &io::Error| {
        let kind = error.kind();
        !matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
    };
    let unavailable = if let fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) = &error {
        may_answer_later(io)
    } else {
        matches!(error, fjall::Error::Poisoned | fjall::Error::Locked)
    };
    if unavailable { StoreError::unavailable(STORE, error) } else { damaged(error.to_string()) }
}
