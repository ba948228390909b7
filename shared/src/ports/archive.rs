//! The archive: every entry of the log again, in blocks, so that the log itself may be short. A block has a fixed
//! place: block k of a partition holds its entries 128·k + 1 to 128·(k + 1), counted from the first that ever was. So
//! whoever archives writes the same blocks, any number of times; the last one grows, and the longer one wins.

use async_trait::async_trait;

use super::{Delivery, Epoch, LogPlace, Loss, StoreError};
use crate::ids::Position;
use crate::limits::{ARCHIVE_BLOCK_ENTRIES, ENTRY_BYTES_MAX};

/// An entry of the log as it lies there, readable or not: it can be put back exactly so. Of a field that is larger than
/// any event's there are the first [`crate::limits::ARCHIVED_FIELD_BYTES_MAX`] bytes, and of an entry the first
/// [`crate::limits::ENTRY_BYTES_MAX`].
#[derive(Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub position: Position,
    /// Name, value, name, value, …
    pub fields: Vec<Vec<u8>>,
}

/// Without the fields: they hold what users wrote, and password hashes.
impl std::fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogEntry").field("position", &self.position).finish_non_exhaustive()
    }
}

impl LogEntry {
    /// Whether it may hold an event: what is larger than any is not copied to be read.
    #[must_use]
    pub fn may_hold_event(&self) -> bool {
        let bytes = |field: &Vec<u8>| size_of::<Vec<u8>>() + field.len();
        self.fields.iter().map(bytes).sum::<usize>() <= ENTRY_BYTES_MAX
    }
}

/// Consecutive entries of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub partition: u16,
    /// From 0, without gaps.
    pub number: u64,
    /// In log order; at most [`ARCHIVE_BLOCK_ENTRIES`], and fewer only in the last block.
    pub entries: Vec<LogEntry>,
}

impl Block {
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() as u64 >= ARCHIVE_BLOCK_ENTRIES
    }

    /// How many entries of the partition there are up to and with its last one.
    #[must_use]
    pub fn reach(&self) -> u64 {
        self.number * ARCHIVE_BLOCK_ENTRIES + self.entries.len() as u64
    }
}

/// How much of a partition is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// All from the first on. 0: none.
    pub entries: u64,
    /// How often the log had been repaired (see [`super::Epoch`]) when the last of them was archived.
    pub repairs: u32,
}

/// Why a block is [`StoreError::Unavailable`] although the store is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block of the archive is being written")]
pub struct BeingWritten;

impl BeingWritten {
    #[must_use]
    pub fn is_why(error: &StoreError) -> bool {
        matches!(error, StoreError::Unavailable { source, .. } if source.is::<Self>())
    }
}

/// The blocks, and how far they reach.
#[async_trait]
pub trait Archive: Send + Sync {
    async fn reach(&self, partition: u16) -> Result<Reach, StoreError>;

    /// `None`: there is no such block. One that is not what was written is [`StoreError::Damaged`], by its name; one
    /// that is being written just now, or was when its writer died, is [`StoreError::Unavailable`] as [`BeingWritten`].
    async fn block(&self, partition: u16, number: u64) -> Result<Option<Block>, StoreError>;

    /// Writes it, and then has [`Archive::reach`] tell of it: all blocks before it are there. A shorter version of
    /// the same block changes nothing, nor does one of a log with fewer `repairs`: what that one had is not the log.
    async fn put(&self, block: &Block, repairs: u32) -> Result<(), StoreError>;

    /// Puts a full block in the place of one that is damaged, whatever that says of itself.
    async fn replace(&self, block: &Block, repairs: u32) -> Result<(), StoreError>;
}

/// The log as the archive needs it: entries as they are, and the end of what it may forget.
#[async_trait]
pub trait HotLog: Send + Sync {
    async fn standing(&self) -> Result<HotStanding, StoreError>;

    /// The entries behind `after` (`None`: from the first that is there), at most `entries_max`, in log order.
    async fn entries(
        &self,
        partition: u16,
        after: Option<Position>,
        entries_max: usize,
    ) -> Result<Vec<LogEntry>, StoreError>;

    /// What the entry says.
    fn read(&self, entry: LogEntry) -> Delivery;

    /// Of each of these places, which the archive has, whether the log holds it no more though it did not forget it.
    async fn losses(&self, archived: &[LogPlace]) -> Result<Vec<Option<Loss>>, StoreError>;

    /// Forgets the entries of the partition up to and with `last`, which ends the block before block `blocks`. In the
    /// same step it looks whether it may: no group has any of them still to acknowledge, or has acknowledged them only
    /// just now (see [`super::RecentEvents`]), and an entry stays.
    async fn trim(&self, last: Position, blocks: u64) -> Result<Trimmed, StoreError>;
}

/// What the log holds, all at one moment.
#[derive(Debug, Clone)]
pub struct HotStanding {
    /// Which log it is. `None`: there is none.
    pub epoch: Option<Epoch>,
    /// In their order.
    pub partitions: Vec<HotPartition>,
    /// `None`: it has no bound, or does not tell.
    pub memory: Option<LogMemory>,
}

/// Memory that the log's store takes for all that it keeps, in bytes. At `max` it refuses to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogMemory {
    pub used: u64,
    pub max: u64,
}

impl LogMemory {
    /// Of `max`.
    #[must_use]
    pub fn percent(self) -> u64 {
        self.used.saturating_mul(100) / self.max.max(1)
    }
}

/// What the log holds of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotPartition {
    pub partition: u16,
    /// The log's clock, in ms.
    pub now_ms: u64,
    /// Entries that are there.
    pub entries: u64,
    /// Memory that they take.
    pub bytes: u64,
    /// Blocks that were trimmed: they are in the archive alone.
    pub blocks_trimmed: u64,
    /// How often the log was repaired.
    pub repairs: u32,
}

/// What became of a trim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trimmed {
    Done,
    /// This group has not acknowledged all of it, or only just now. Nothing was done.
    Held {
        group: String,
        /// The one that it fills, if it is a generation's.
        generation: Option<u32>,
    },
}

/// What a generation has yet to read from the archive: what was trimmed before its group was made.
#[async_trait]
pub trait Backlog: Send + Sync {
    /// Blocks for this caller to apply, all of one partition, at most `blocks_max`; none: nobody has any left to
    /// give. They are another's after [`crate::limits::REPLAY_LEASE`], unless they are done by then.
    async fn take(&self, blocks_max: usize) -> Result<Vec<(u16, u64)>, StoreError>;

    /// The views hold these blocks of the partition. Those that somebody else has done since count no more.
    async fn done(&self, partition: u16, blocks: &[u64]) -> Result<(), StoreError>;

    /// What was done lately, as [`super::RecentEvents`] counts it, is to be done again, as the views' store may have lost
    /// it. Returns how many blocks; those that somebody else has put back count no more.
    async fn owe_again(&self) -> Result<u64, StoreError>;
}
