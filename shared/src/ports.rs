//! What a service may ask of a store, one trait per role: command-api holds [`EventLog`], [`Accounts`], [`Sessions`],
//! [`Heads`] and [`RateLimits`]; the projector [`EventFeed`] and [`ViewWriter`], and for its operator [`FeedMonitor`],
//! [`SeenLog`], [`ParkedEvents`], [`LogReader`], [`LogScan`], [`ViewScan`] and, to repair the log, [`LogEpoch`] and
//! [`EventLog`], to restore it [`EmptyLog`], and for the archive [`Archive`], [`HotLog`] and [`Backlog`]; query-api
//! [`ViewReader`], [`Heads`], [`Sessions`], [`Notices`] and [`LogTail`]. `storage::contract` checks what they say.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::broadcast;

use crate::clock::Timestamp;
use crate::event::{Event, Malformed, RecordedEvent};
use crate::ids::{Conversation, EventId, Position, Seq, Subject, Trace, Username};
use crate::rate::{Counted, LoginKey, Rate, Taken};
use crate::view::{InboxRow, ParkedEvent, ParkedRow, TimelineEntry, UserRow, ViewChange};

mod archive;
mod empty;
mod error;
mod monitor;
mod origin;
mod scan;
mod seen;

pub use archive::{
    Archive, Backlog, BeingWritten, Block, HotLog, HotPartition, HotStanding, LogEntry, LogMemory, Reach,
    Trimmed,
};
pub use empty::{EmptyLog, LogNumbers, TrimmedBlocks};
pub use error::{Chain, StoreError};
pub use monitor::{ConsumerStatus, FeedMonitor, FeedStatus, PartitionStatus};
pub use origin::Origin;
pub use scan::{LogScan, ScanCursor, ScanPage, ScannedRow, ScannedTable, ViewScan};
pub use seen::{Epoch, LogEpoch, LogPlace, Loss, Seen, SeenLog};

/// Appends events. One atomic step decides everything that depends on what was appended before.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// `Ok` means: the event is in the log, as durable as [`Probe::durability`] says, with the next number of
    /// its subject. Every other outcome leaves the log as it was, but for [`StoreError::Unknown`] and
    /// [`StoreError::Unreplicated`].
    ///
    /// - `UserRegistered`: refused as [`Refusal::UsernameTaken`] when the name has one.
    /// - `ConversationRead`: [`Appended::Unchanged`] unless the mark is higher than every one before.
    /// - `MessageSent` with [`Append::once`]: see [`Once`].
    ///
    /// Waits in a bounded queue; full is [`StoreError::Busy`] at once. Dropping the future does not undo it.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;
}

/// A decided event, not yet numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub id: EventId,
    pub event: Event,
    /// Only for `MessageSent`.
    pub once: Option<Once>,
    /// Stored with the event; it decides nothing.
    pub trace: Option<Trace>,
}

/// Makes repetitions of a send one message. The record is kept for the window (and, for [`OnceKey::Id`], long
/// enough that no id can be accepted again after it). Its scope is sender and recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    pub key: OnceKey,
    /// Of what must be the same in a repetition. Same: [`Appended::Replayed`] with the first receipt.
    /// Other: [`Refusal::IdempotencyConflict`].
    pub fingerprint: [u8; 16],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnceKey {
    /// Visible ASCII, at most [`crate::limits::IDEMPOTENCY_KEY_CHARS_MAX`].
    Header(String),
    /// The event's own id, made by the client. The time inside it must lie within the window before the log's
    /// time and at most [`crate::limits::ID_AHEAD_MAX`] ahead of it, else [`Refusal::IdOutOfWindow`].
    Id,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    New(Receipt),
    Replayed(Receipt),
    /// There was nothing to append: the mark was already there.
    Unchanged,
}

/// What the log gave to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Of a replay: the first one's.
    pub id: EventId,
    pub seq: Seq,
    pub at: Timestamp,
    pub position: Position,
}

/// Why the log did not take an event. Nothing was appended and nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the name is taken")]
    UsernameTaken,
    #[error("the key was used for another body")]
    IdempotencyConflict,
    #[error("the time inside the id is outside the window")]
    IdOutOfWindow,
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Users and their sessions, beside the log.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// The PHC string of the user's password; `None`: no such user. Sees every registration that was answered.
    async fn password_hash(&self, user: &Username) -> Result<Option<String>, StoreError>;

    async fn exists(&self, user: &Username) -> Result<bool, StoreError>;

    /// Puts `new` where `old` stands; if something else stands there by now, that stays. Both are of the same
    /// password, so this is no event: the log keeps the first hash, which is as good for whoever rebuilds the
    /// accounts from it.
    async fn replace_password_hash(&self, user: &Username, old: &str, new: &str) -> Result<(), StoreError>;

    /// Ends [`crate::limits::SESSION_LIFETIME`] from now. Beyond
    /// [`crate::limits::SESSIONS_PER_USER_MAX`] the user's oldest session ends.
    async fn open_session(&self, user: &Username, key: &SessionKey) -> Result<(), StoreError>;

    /// Ending a session that does not exist is no error.
    async fn close_session(&self, key: &SessionKey) -> Result<(), StoreError>;

    /// Ends all that were open when the call began.
    async fn close_all_sessions(&self, user: &Username) -> Result<(), StoreError>;
}

/// SHA-256 of a token: all that a store ever sees of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(pub [u8; 32]);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

#[async_trait]
pub trait Sessions: Send + Sync {
    /// Whose session it is; `None`: never opened, ended or expired. Using a session renews it: its end moves to
    /// [`crate::limits::SESSION_LIFETIME`] from now, at most once per
    /// [`crate::limits::SESSION_RENEWAL_AFTER`].
    async fn find(&self, key: &SessionKey) -> Result<Option<Username>, StoreError>;
}

/// What clients did of late, counted for all processes together by the store's own clock. A subject that has all
/// its permits again is forgotten.
#[async_trait]
pub trait RateLimits: Send + Sync {
    /// Takes as many permits as are free, at most `wanted` (see [`Rate::take`]). After
    /// [`StoreError::Unknown`] they may have been taken.
    async fn take(&self, counted: &Counted, rate: Rate, wanted: u32) -> Result<Taken, StoreError>;

    /// Zero: the login may be tried, and counts as failed until [`RateLimits::forget_failures`], so that of many
    /// at once no more are tried than one after the other. Otherwise how long it has to wait (see
    /// [`crate::rate::login_delay`]), and nothing is counted. Failures are forgotten
    /// [`crate::limits::LOGIN_FAILURES_REMEMBERED`] after the last.
    async fn try_login(&self, login: &LoginKey) -> Result<Duration, StoreError>;

    /// The login succeeded: all failures before it are forgotten.
    async fn forget_failures(&self, login: &LoginKey) -> Result<(), StoreError>;
}

#[async_trait]
pub trait Heads: Send + Sync {
    /// `seq` of the last acknowledged message; 0: no conversation yet.
    async fn head(&self, conversation: &Conversation) -> Result<Seq, StoreError>;

    /// Why [`Heads::head`] would fail now without asking anybody: the log is known to be away, or to have lost events
    /// that may be of this conversation.
    ///
    /// # Errors
    /// As `head`.
    fn answers(&self, conversation: &Conversation) -> Result<(), StoreError>;
}

/// One consumer of a generation's group. Its name is its own: soon after another one has begun under it,
/// [`EventFeed::next_batch`] refuses this one as [`StoreError::Unfit`].
#[async_trait]
pub trait EventFeed: Send {
    /// Waits for an event, at most [`crate::limits::FEED_WAIT_MAX`] (then the batch is empty), and returns about
    /// `events_max` at most, in log order within each partition. What this consumer was given before and did not
    /// acknowledge comes first, then what a dead consumer left, then new events. Every event is delivered to some
    /// consumer until it is acknowledged. May be dropped at any await: what was read is delivered again.
    ///
    /// A consumer lives as long as it exists in a running process, however slow it is, and keeps what it was given;
    /// but one that makes no call for [`crate::limits::CONSUMER_CALLS_APART_MAX`] counts as dead. The dead are taken
    /// over from after [`crate::limits::CONSUMER_SILENCE_MAX`].
    ///
    /// A partition that has lost events stands still: nothing of it is returned until it has them again.
    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError>;

    /// The views hold the batch: it is not delivered again, and readers are told (see [`Notices`]).
    async fn ack(&mut self, batch: &[Delivery]) -> Result<(), StoreError>;
}

/// What a generation acknowledged last, for when its store may have lost it.
#[async_trait]
pub trait RecentEvents: Send + Sync {
    /// Per partition from the first to the last event that was acknowledged within the last
    /// [`crate::limits::ACK_TRAIL_SPANS`] times [`crate::limits::ACK_TRAIL_SPAN`] in which any was.
    async fn spans(&self) -> Result<Vec<Span>, StoreError>;

    /// At most `events_max` from the beginning of the span, in log order. Changes nothing.
    async fn read(&self, span: &Span, events_max: usize) -> Result<Vec<Delivery>, StoreError>;
}

/// Entries of one partition, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: Position,
    pub last: Position,
}

impl Span {
    /// What is left of it behind `position`.
    #[must_use]
    pub fn behind(self, position: Position) -> Option<Self> {
        let counter = position.counter.checked_add(1)?;
        let first = Position { counter, ..position };
        (first <= self.last).then_some(Self { first, ..self })
    }
}

/// One entry of the log, readable or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub position: Position,
    pub content: Result<RecordedEvent, Unreadable>,
}

/// An entry that cannot be applied, with what could be made out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub cause: Malformed,
    /// Where a marker belongs, if that can be told: the conversation and the number that the entry holds.
    pub place: Option<(Conversation, Seq)>,
    /// The entry, at most the first [`crate::limits::PARKED_BYTES_MAX`] bytes of it.
    pub bytes: Vec<u8>,
    /// How many bytes it has.
    pub length: usize,
}

impl Unreadable {
    /// The place that an entry names, unless it cannot be right: a subject has at most as many events as its
    /// partition, so a number beyond the entry's offset is damaged, and a marker there would stand ahead of every
    /// message to come.
    #[must_use]
    pub fn place(subject: &str, seq: Seq, offset: u64) -> Option<(Conversation, Seq)> {
        match subject.parse().ok()? {
            Subject::Conversation(conversation) if (1..=offset).contains(&seq) => Some((conversation, seq)),
            Subject::Conversation(_) | Subject::User(_) => None,
        }
    }
}

#[async_trait]
pub trait ViewWriter: Send + Sync {
    /// `Ok` means: the store has answered for every change. Applying twice, or in another order, equals applying
    /// once (see [`crate::view::version`]). After an error any part may have been applied: apply all again.
    ///
    /// `read` are the entries that `changes` come from. A store that is log and views at once records their positions
    /// in the same write, so that rows and cursor cannot part; another one notes how far the log was seen (see
    /// [`SeenLog`]).
    async fn apply(&self, changes: Vec<ViewChange>, read: &[Delivery]) -> Result<(), StoreError>;
}

/// Reads the serving generation.
#[async_trait]
pub trait ViewReader: Send + Sync {
    /// Which one that is. While the store is away: the last that was known.
    fn generation(&self) -> u32;

    /// What stands at `first..=last`, in the order of `seq`; numbers that the view does not have are left out. At
    /// most [`crate::limits::PAGE_MESSAGES_MAX`] wide. One read of the store.
    async fn timeline(
        &self,
        conversation: &Conversation,
        first: Seq,
        last: Seq,
    ) -> Result<Vec<TimelineEntry>, StoreError>;

    /// The highest `seq` that the view has seen; lower ones may be missing still. 0: none. One read.
    async fn timeline_head(&self, conversation: &Conversation) -> Result<Seq, StoreError>;

    /// All conversations of the owner, each once, in no order. They come as they are read: no more than some
    /// [`crate::limits::INBOX_ROWS_PER_REQUEST`] are in memory at once. Ends after an error.
    fn inbox(&self, owner: &Username) -> InboxRows;

    async fn user(&self, user: &Username) -> Result<Option<UserRow>, StoreError>;
}

/// See [`ViewReader::inbox`].
pub type InboxRows = BoxStream<'static, Result<InboxRow, StoreError>>;

/// The events that could not be applied to one generation, for whoever looks after them. Those that are settled
/// (see [`crate::view::ParkedChange::Settle`]) are not among them.
#[async_trait]
pub trait ParkedEvents: Send + Sync {
    /// In the order of their positions: those behind `after`, at most `events_max`.
    async fn parked(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> Result<Vec<ParkedEvent>, StoreError>;

    async fn parked_row(&self, position: Position) -> Result<Option<ParkedRow>, StoreError>;
}

/// Reads the log again, beside every consumer.
#[async_trait]
pub trait LogReader: Send + Sync {
    /// What stands at these positions now, in their order; `None`: nothing.
    async fn entries_at(&self, positions: &[Position]) -> Result<Vec<Option<Delivery>>, StoreError>;
}

/// Reads the log as it grows, all of it, beside every consumer. Changes nothing.
#[async_trait]
pub trait LogTail: Send {
    /// The end of the log: about the last `events_max` entries, an equal share of each partition.
    /// [`LogTail::next_batch`] goes on behind them. `None`: nothing was ever appended.
    async fn end(&mut self, events_max: usize) -> Result<Option<LogEnd>, StoreError>;

    /// Waits for entries behind those returned so far, at most [`crate::limits::FEED_WAIT_MAX`] (then the batch is
    /// empty), and returns at most about `events_max` per partition, in log order within each. An entry that is gone
    /// when its turn comes is passed over. May be dropped at any await, or fail: what was not returned is returned by
    /// the next call; but [`StoreError::Other`] says that another log is there, or the same after a repair, and that it
    /// has to be begun with [`LogTail::end`] again.
    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError>;
}

/// What a [`LogTail`] begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// Says which log this is: another one says something else, also at the same place.
    pub log: String,
    /// One for each partition, in their order: every entry of the log behind it is among the entries. A partition
    /// whose beginning is among them has one before every entry, all zeros.
    pub behind: Vec<Position>,
    /// In log order within each partition.
    pub entries: Vec<Delivery>,
}

/// Tells that views have moved. A hint, never the truth: notices may be lost or repeated, so who waits for one
/// also has a deadline, and reads again.
pub trait Notices: Send + Sync {
    fn subscribe(&self) -> broadcast::Receiver<Applied>;
}

/// The views hold this conversation up to (at least) this event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub conversation: Conversation,
    pub seq: Seq,
}

/// What `/readyz` asks.
#[async_trait]
pub trait Probe: Send + Sync {
    /// What one waits for while it is not ready: `redis`, `cassandra`, `store`.
    fn name(&self) -> &'static str;

    async fn check(&self) -> Result<(), StoreError>;

    /// What an acknowledged append survives; `None` for a store that acknowledges none.
    fn durability(&self) -> Option<String> {
        None
    }
}
