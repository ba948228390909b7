//! Reading all that there is: the whole log, and every row of a generation, for whoever compares the two. Nothing is
//! changed, nothing is acknowledged, and nobody who works on either is held up.

use async_trait::async_trait;

use super::{Delivery, Span, StoreError};
use crate::ids::{Conversation, Position, Seq, Username};
use crate::view::{InboxRow, TimelineEntry, UserRow};

/// Reads the log from its first event on, beside every consumer.
#[async_trait]
pub trait LogScan: Send + Sync {
    /// From the first to the last event of each partition that has any, as of now.
    async fn extent(&self) -> Result<Vec<Span>, StoreError>;

    /// At most `events_max` from the beginning of the span, in log order; none: there is none in it.
    async fn page(&self, span: &Span, events_max: usize) -> Result<Vec<Delivery>, StoreError>;
}

/// Reads every row of one generation, in no order.
#[async_trait]
pub trait ViewScan: Send + Sync {
    /// Where to begin: parts that together hold the whole table.
    fn parts(&self, table: ScannedTable) -> Vec<ScanCursor>;

    /// Some rows of a part, maybe none, and where it goes on. A row that is there throughout comes once; what is
    /// written meanwhile comes as it was or as it is. A row that cannot be read comes as [`ScannedRow::Broken`]: it
    /// is never left out.
    async fn page(&self, at: &ScanCursor) -> Result<ScanPage, StoreError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScannedTable {
    Timeline,
    Inbox,
    Users,
    Parked,
}

/// A place in the scan of a table. Only the store that made it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanCursor {
    pub table: ScannedTable,
    pub part: u16,
    /// Behind what was read; `None`: the beginning of the part.
    pub place: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    pub rows: Vec<ScannedRow>,
    /// `None`: the part ends here.
    pub next: Option<ScanCursor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScannedRow {
    Timeline {
        conversation: Conversation,
        entry: TimelineEntry,
    },
    Inbox {
        owner: Username,
        row: InboxRow,
        /// The highest number in the conversation that a parked event holds; 0: none. `None`: the store keeps it
        /// elsewhere.
        parked_seq: Option<Seq>,
    },
    User(UserRow),
    /// An event that could not be applied, and whether it is settled since.
    Parked {
        position: Position,
        is_settled: bool,
    },
    /// Which row it is, in words.
    Broken(String),
}
