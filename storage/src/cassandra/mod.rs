//! The views on Cassandra: [`Writer`] for projectors, [`Reader`] for queries, [`Generations`] for whoever
//! administers them, [`Migrator`] for the schema (`cql/`). It decides nothing: what a change is and which of two
//! wins is said in `shared::view`.
//!
//! **Writes** are `INSERT … USING TIMESTAMP`, the timestamp being the version of the change: Cassandra's own
//! last-writer-wins does the merging, so nothing is read before it is written, and a write may be repeated,
//! delayed or overtaken. They travel in UNLOGGED batches (`batch.rs`), which promise nothing as a whole and cost
//! nothing for it. No statement makes a tombstone: there are no deletes and no nulls. Every statement is prepared
//! once, at connect, and idempotent.
//!
//! **Reads** are single-partition `SELECT`s by full key or by a range of `seq`; only an operator's commands look at
//! more than one partition: the list of parked events, and the scan of all tables (`scan.rs`). The archive of the
//! log (`archive.rs`) is read block by block.
//!
//! **Consistency** is QUORUM for both, so that a read sees every answered write; of a single replica QUORUM is
//! that one. The driver never repeats a write that timed out: the caller does, with a pause, as it does for every
//! retryable error.
//!
//! **Connection**: [`Cassandra::connect`] does not wait for the store. Until it is there, calls fail as
//! `Unavailable` at once (`connection.rs`).

#![deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::response::PagingState;
use shared::ids::{Conversation, Position, Seq, Username};
use shared::ports::{
    self, Delivery, Epoch, InboxRows, Origin, ParkedEvents, Probe, Seen, StoreError, ViewReader, ViewWriter,
};
use shared::process::config::ViewOptions;
use shared::view::{ParkedEvent, ParkedRow, TimelineEntry, UserRow, ViewChange};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use connection::{Connection, Store};

mod archive;
mod batch;
mod connection;
mod error;
mod generations;
mod inbox;
mod locks;
mod parked;
mod scan;
mod schema;
mod seen;
mod starts;
mod statement;
mod timeline;
mod users;

pub use archive::Archive;
pub use generations::Generations;
pub use scan::Scan;
pub use schema::{Migrated, Migrator};

/// The name in errors and probes.
const STORE: &str = "cassandra";

#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` of some nodes of the ring; one that answers is enough.
    pub nodes: Vec<String>,
    /// Holds the register; the views of generation n are in `<keyspace>_gn`. Lower case letters, digits and `_`,
    /// starting with a letter.
    pub keyspace: String,
    /// Copies of each row. Only a migration uses it, when it makes a keyspace.
    pub replication_factor: u16,
}

impl Options {
    #[must_use]
    pub fn of(settings: &ViewOptions) -> Self {
        let ViewOptions { cassandra_nodes, keyspace, replication_factor } = settings.clone();
        Self { nodes: cassandra_nodes, keyspace, replication_factor: replication_factor.into() }
    }
}

/// A handle to the store, connected or not yet. Cheap to clone.
#[derive(Clone)]
pub struct Cassandra {
    connection: Arc<Connection>,
    options: Options,
}

impl Cassandra {
    /// Returns at once and connects in the background, on `tracker`, until `shutdown`: the order in which
    /// processes start does not matter.
    ///
    /// # Errors
    /// Only for options that cannot work.
    pub fn connect(
        options: &Options,
        tracker: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, StoreError> {
        schema::check_options(options)?;
        let connection = Connection::open(options.clone(), tracker, shutdown);
        Ok(Self { connection, options: options.clone() })
    }

    /// Waits until the store can be used. Waits for ever while it is away; what to do meanwhile is the caller's
    /// choice.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] as soon as it is clear that the schema is not this program's.
    pub async fn connected(&self) -> Result<(), StoreError> {
        self.connection.connected().await
    }

    /// Writes into this generation.
    #[must_use]
    pub fn writer(&self, generation: u32) -> Writer {
        Writer { connection: self.connection.clone(), generation }
    }

    /// Reads the serving generation; follows a change of it within
    /// [`shared::limits::GENERATION_CHECK_INTERVAL`].
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { connection: self.connection.clone(), log: None }
    }

    /// What could not be applied to this generation.
    #[must_use]
    pub fn parked(&self, generation: u32) -> Parked {
        Parked { connection: self.connection.clone(), generation }
    }

    /// How far this generation has seen the log.
    #[must_use]
    pub fn seen(&self, generation: u32) -> SeenLog {
        SeenLog { connection: self.connection.clone(), generation }
    }

    /// Reads all of this generation.
    #[must_use]
    pub fn scan(&self, generation: u32) -> Scan {
        Scan::new(self.connection.clone(), &self.options.keyspace, generation)
    }

    /// The log's entries, as long as there have been any.
    #[must_use]
    pub fn archive(&self) -> Archive {
        Archive { connection: self.connection.clone() }
    }

    #[must_use]
    pub fn generations(&self) -> Generations {
        Generations::new(self.connection.clone(), self.options.clone())
    }

    /// How many starts of nodes were seen. After each, the last seconds of what was acknowledged may be gone.
    #[must_use]
    pub fn starts(&self) -> watch::Receiver<u64> {
        self.connection.starts.clone()
    }

    /// The partitions of the log that have lost events which the serving generation has seen, as projectors found it.
    #[must_use]
    pub fn lost(&self) -> watch::Receiver<BTreeSet<u16>> {
        self.connection.lost.clone()
    }

    /// Of which log the serving generation is. What is not known stays as it was.
    #[must_use]
    pub fn origin(&self) -> watch::Receiver<Origin> {
        self.connection.origin.clone()
    }

    #[must_use]
    pub fn probe(&self) -> Readiness {
        Readiness { connection: self.connection.clone() }
    }
}

/// Writes into one generation.
#[derive(Clone)]
pub struct Writer {
    connection: Arc<Connection>,
    generation: u32,
}

#[async_trait]
impl ViewWriter for Writer {
    /// The log keeps what its consumers have acknowledged; here is noted how far they have seen it, before anything
    /// that follows from it is in a row: whatever views may hold lies within what was seen.
    async fn apply(&self, changes: Vec<ViewChange>, read: &[Delivery]) -> Result<(), StoreError> {
        let store = self.connection.current()?;
        let applied = async {
            store.seen.note(&store.session, self.generation, read).await?;
            batch::apply(&store, self.generation, &changes).await
        };
        self.connection.heed(applied.await)
    }
}

/// Reads the serving generation.
#[derive(Clone)]
pub struct Reader {
    connection: Arc<Connection>,
    log: Option<watch::Receiver<Option<Epoch>>>,
}

impl Reader {
    /// Reads nothing unless the generation is of the log that was found last: [`StoreError::Other`].
    #[must_use]
    pub fn beside(self, log: watch::Receiver<Option<Epoch>>) -> Self {
        Self { log: Some(log), ..self }
    }

    /// What is read of it is of the generation that was looked at here.
    fn current(&self) -> Result<Arc<Store>, StoreError> {
        let store = self.connection.current()?;
        if let Some(log) = &self.log
            && let Some(log) = &*log.borrow()
        {
            store.admits(log)?;
        }
        Ok(store)
    }
}

#[async_trait]
impl ViewReader for Reader {
    fn generation(&self) -> u32 {
        self.connection.serving()
    }

    async fn timeline(
        &self,
        conversation: &Conversation,
        first: Seq,
        last: Seq,
    ) -> Result<Vec<TimelineEntry>, StoreError> {
        let store = self.current()?;
        let result = store.serving().timeline.read(&store.session, conversation, first, last).await;
        self.connection.heed(result)
    }

    /// From the inbox row of the lower name: every message of the conversation is written there too, so it knows
    /// the highest number without a search for the newest bucket.
    async fn timeline_head(&self, conversation: &Conversation) -> Result<Seq, StoreError> {
        let store = self.current()?;
        let result = store.serving().inbox.head(&store.session, conversation).await;
        self.connection.heed(result)
    }

    fn inbox(&self, owner: &Username) -> InboxRows {
        let (reader, owner) = (self.clone(), owner.clone());
        let reading = async move {
            let store = reader.current()?;
            let first = (reader.connection, store, owner, Some(PagingState::start()));
            let pages = stream::try_unfold(first, async |(connection, store, owner, at)| {
                let Some(at) = at else { return Ok(None) };
                let page = store.serving().inbox.page(&store.session, &owner, at).await;
                let (rows, next) = connection.heed(page)?;
                Ok(Some((stream::iter(rows.into_iter().map(Ok)), (connection, store, owner, next))))
            });
            Ok(pages.try_flatten())
        };
        stream::once(reading).try_flatten().boxed()
    }

    async fn user(&self, user: &Username) -> Result<Option<UserRow>, StoreError> {
        let store = self.current()?;
        let result = store.serving().users.read(&store.session, user).await;
        self.connection.heed(result)
    }
}

/// What could not be applied to one generation.
#[derive(Clone)]
pub struct Parked {
    connection: Arc<Connection>,
    generation: u32,
}

#[async_trait]
impl ParkedEvents for Parked {
    async fn parked(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> Result<Vec<ParkedEvent>, StoreError> {
        let store = self.connection.current()?;
        let result = store.parked.list(&store.session, self.generation, after, events_max).await;
        self.connection.heed(result)
    }

    async fn parked_row(&self, position: Position) -> Result<Option<ParkedRow>, StoreError> {
        let store = self.connection.current()?;
        let result = store.parked.find(&store.session, self.generation, position).await;
        self.connection.heed(result)
    }
}

/// How far one generation has seen the log.
#[derive(Clone)]
pub struct SeenLog {
    connection: Arc<Connection>,
    generation: u32,
}

#[async_trait]
impl ports::SeenLog for SeenLog {
    async fn seen(&self) -> Result<Vec<Seen>, StoreError> {
        let store = self.connection.current()?;
        let result = store.seen.list(&store.session, self.generation).await;
        self.connection.heed(result)
    }

    async fn follow(&self, partitions: &[u16], epoch: &Epoch) -> Result<(), StoreError> {
        let store = self.connection.current()?;
        let result = store.seen.follow(&store.session, self.generation, partitions, epoch).await;
        self.connection.heed(result)
    }

    async fn tell(&self, lost: &[u16], whole: &[u16]) -> Result<(), StoreError> {
        let store = self.connection.current()?;
        let result = store.seen.tell(&store.session, self.generation, (lost, whole)).await;
        self.connection.heed(result)
    }
}

/// Ready when the register can be read: a connection, the schema and a serving generation are there.
#[derive(Clone)]
pub struct Readiness {
    connection: Arc<Connection>,
}

#[async_trait]
impl Probe for Readiness {
    fn name(&self) -> &'static str {
        STORE
    }

    async fn check(&self) -> Result<(), StoreError> {
        let store = self.connection.current()?;
        let result = store.generations.list(&store.session).await.map(drop);
        self.connection.heed(result)
    }
}
