//! What a row of the views claims, and what an event says: the same words for both, so that one explains the other.

use shared::Seq;
use shared::ids::{EventId, Username};
use shared::message::Message;
use shared::view::TimelineEntry;
use shared::{Conversation, Timestamp};
use xxhash_rust::xxh3::xxh3_128;

/// 128 bits of something, or the sum of such: sums do not depend on any order. In two halves, as a number of 128 bits
/// would be padded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Digest([u64; 2]);

impl Digest {
    fn of(number: u128) -> Self {
        Self([(number >> 64) as u64, number as u64])
    }

    fn number(self) -> u128 {
        u128::from(self.0[0]) << 64 | u128::from(self.0[1])
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self::of(self.number().wrapping_add(other.number()))
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self::of(self.number().wrapping_sub(other.number()))
    }
}

/// What stands at a number of a conversation, as log and table both tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nothing that can be read.
    Marker,
    Message {
        id: EventId,
        /// Of the two the lower name.
        low_sent: bool,
        at: Timestamp,
        /// Of the bytes.
        content: Digest,
    },
}

impl Entry {
    pub(super) fn new(id: EventId, sender: &Username, low: &Username, at: Timestamp, content: &str) -> Self {
        Self::Message { id, low_sent: sender == low, at, content: Digest::of(xxh3_128(content.as_bytes())) }
    }

    pub(super) fn of(message: &Message, conversation: &Conversation) -> Self {
        let Message { id, sender, content, timestamp, .. } = message;
        Self::new(*id, sender, conversation.low(), *timestamp, content)
    }

    pub(super) fn in_view(entry: &TimelineEntry, conversation: &Conversation) -> Self {
        match entry {
            TimelineEntry::Message(message) => Self::of(message, conversation),
            TimelineEntry::Parked { .. } => Self::Marker,
        }
    }

    /// Of all of it and its number.
    pub(super) fn digest(self, seq: Seq) -> Digest {
        let mut bytes = [0; 49];
        bytes[..8].copy_from_slice(&seq.to_be_bytes());
        match self {
            Self::Marker => {}
            Self::Message { id, low_sent, at, content } => {
                bytes[8] = 1 + u8::from(low_sent);
                bytes[9..25].copy_from_slice(&id.0.0.to_be_bytes());
                bytes[25..33].copy_from_slice(&at.0.to_be_bytes());
                bytes[33..].copy_from_slice(&content.number().to_be_bytes());
            }
        }
        Digest::of(xxh3_128(&bytes))
    }
}

/// One of the two of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Party {
    Low,
    High,
}

impl Party {
    pub(super) const BOTH: [Self; 2] = [Self::Low, Self::High];

    pub(super) fn of(user: &Username, conversation: &Conversation) -> Self {
        if user == conversation.low() { Self::Low } else { Self::High }
    }
}

/// Conversations and users by their numbers in this comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fact {
    /// The timeline has this at `seq`.
    Row {
        conversation: u32,
        seq: Seq,
        digest: Digest,
    },
    /// It is the last message in an inbox.
    Last {
        conversation: u32,
        owner: Party,
        seq: Seq,
        digest: Digest,
    },
    /// The owner of an inbox sent it.
    Own {
        conversation: u32,
        owner: Party,
        seq: Seq,
    },
    /// The owner of an inbox has read up to it.
    Mark {
        conversation: u32,
        owner: Party,
        seq: Seq,
    },
    /// A parked event has this number.
    ParkedSeq {
        conversation: u32,
        seq: Seq,
    },
    User {
        user: u32,
        at: Timestamp,
    },
}

impl Fact {
    /// That its place was a parked event's.
    pub(super) fn as_parked(self) -> Option<Self> {
        match self {
            Self::Row { conversation, seq, .. } => Some(Self::ParkedSeq { conversation, seq }),
            Self::Last { .. }
            | Self::Own { .. }
            | Self::Mark { .. }
            | Self::ParkedSeq { .. }
            | Self::User { .. } => None,
        }
    }
}
