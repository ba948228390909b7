//! Events that cannot be applied, kept with their cause until they are applied after all or given up. Nothing is
//! skipped silently.

use crate::clock::Timestamp;
use crate::ids::{Conversation, Position, Seq};

/// What is known of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedEvent {
    pub position: Position,
    /// Of the last try.
    pub cause: String,
    /// How often it was tried: 1 by whoever parked it, and once more by each retry.
    pub attempts: u32,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// What its marker holds, if the entry tells.
    pub place: Option<(Conversation, Seq)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    pub event: ParkedEvent,
    /// The stored entry, field by field, as it was read.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkedChange {
    /// At [`super::version::tried`] of its attempts; of two at the same version the later `parked_at` stays.
    PutParked(ParkedRow),
    /// At [`super::version::SETTLED`]: it was applied after all, or given up. It is parked no longer, and whoever
    /// parks it later, because he is slow, changes nothing.
    Settle { position: Position },
}
