//! The read models. Each file is one view: its row and the changes that make it. Every change is keyed by its
//! event and carries the event's `seq`, so changes may be applied in any order and any number of times: for
//! one row or cell the highest [`version`] wins.

pub mod inbox;
pub mod parked;
pub mod timeline;
pub mod users;

use crate::ids::Seq;

pub use inbox::{InboxChange, InboxRow};
pub use parked::{ParkedChange, ParkedEvent, ParkedRow};
pub use timeline::{TimelineChange, TimelineEntry};
pub use users::{UserRow, UsersChange};

/// Raised with every change of what the views hold, or of how a store keeps it. Views of another shape are not changed
/// in place: they are built anew from the log.
pub const SHAPE: u32 = 1;

/// One change to one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewChange {
    Timeline(TimelineChange),
    Inbox(InboxChange),
    Users(UsersChange),
    Parked(ParkedChange),
}

/// What decides between two writes of the same cell: the higher one stays, whichever came first. It is
/// Cassandra's write timestamp.
pub mod version {
    use super::Seq;

    /// The effect of an event, or a read mark up to `seq`.
    #[must_use]
    pub fn effect(seq: Seq) -> u64 {
        2 * seq
    }

    /// The marker of a parked event: the event's own effect replaces it once it can be applied.
    #[must_use]
    pub fn marker(seq: Seq) -> u64 {
        2 * seq - 1
    }

    /// A parked event after so many attempts.
    #[must_use]
    pub fn tried(attempts: u32) -> u64 {
        u64::from(attempts)
    }

    /// The end of a parked event: above any number of attempts.
    pub const SETTLED: u64 = 1 << 32;
}
