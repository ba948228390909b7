//! The messages of a conversation, by `seq`. Partitioned by (conversation, bucket), so that no partition grows
//! for ever.

use crate::ids::{Conversation, Seq};
use crate::limits::BUCKET_MESSAGES;
use crate::message::Message;

/// What stands at a `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineEntry {
    Message(Message),
    /// An event that could not be applied holds this number; readers pass over it.
    Parked {
        seq: Seq,
    },
}

impl TimelineEntry {
    #[must_use]
    pub fn seq(&self) -> Seq {
        match self {
            Self::Message(message) => message.seq,
            Self::Parked { seq } => *seq,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineChange {
    /// At [`super::version::effect`] of the message's `seq`.
    PutMessage(Message),
    /// At [`super::version::marker`] of `seq`: never replaces a message.
    PutMarker { conversation: Conversation, seq: Seq },
}

/// The bucket that holds `seq`.
#[must_use]
pub fn bucket(seq: Seq) -> u64 {
    seq / BUCKET_MESSAGES
}
