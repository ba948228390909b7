//! A user's conversations: one row each, overwritten in place, never ordered by a column that changes.

use crate::ids::{Seq, Username};
use crate::message::Message;

/// The caller's side of one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxRow {
    pub peer: Username,
    /// The last message that the view has seen. `None`: only a mark has arrived so far.
    pub last: Option<Message>,
    /// `seq` of the owner's own last message; 0 when there is none.
    pub own_seq: Seq,
    /// The highest mark that the owner set; 0 when there is none.
    pub read_mark: Seq,
}

impl InboxRow {
    /// Nothing has arrived yet.
    #[must_use]
    pub fn empty(peer: Username) -> Self {
        Self { peer, last: None, own_seq: 0, read_mark: 0 }
    }

    #[must_use]
    pub fn head_seq(&self) -> Seq {
        self.last.as_ref().map_or(0, |message| message.seq)
    }

    /// Who answers has read: the higher of the mark and the owner's own last message.
    #[must_use]
    pub fn read_seq(&self) -> Seq {
        self.own_seq.max(self.read_mark)
    }

    #[must_use]
    pub fn unread(&self) -> u64 {
        self.head_seq().saturating_sub(self.read_seq())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxChange {
    /// The message with the highest `seq` stays as `last`; if `owner` sent it, it also raises `own_seq`.
    PutMessage { owner: Username, message: Message },
    /// The highest mark stays.
    PutReadMark { owner: Username, peer: Username, seq: Seq },
}
