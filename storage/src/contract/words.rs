//! Short names for what the views' tests do over and over: a message and all changes that it makes, a call and its
//! success.

#![expect(clippy::unwrap_used, reason = "these are tests, though they live in the library")]

use futures_util::TryStreamExt;
use shared::clock::Timestamp;
use shared::ids::{Conversation, EventId, Seq, Ulid, Username};
use shared::message::Message;
use shared::view::{InboxChange, InboxRow, TimelineChange, TimelineEntry, ViewChange};

use super::{ViewStores, name};

impl ViewStores {
    pub(super) async fn apply(&self, changes: &[ViewChange]) {
        self.writer.apply(changes.to_vec(), &[]).await.unwrap();
    }

    pub(super) async fn page(
        &self,
        conversation: &Conversation,
        first: Seq,
        last: Seq,
    ) -> Vec<TimelineEntry> {
        self.reader.timeline(conversation, first, last).await.unwrap()
    }

    /// By peer: the port gives no order.
    pub(super) async fn inbox(&self, owner: &str) -> Vec<InboxRow> {
        let mut rows: Vec<_> = self.reader.inbox(&name(owner)).try_collect().await.unwrap();
        rows.sort_by(|one, other| one.peer.cmp(&other.peer));
        rows
    }
}

pub(super) fn message(sender: &str, recipient: &str, seq: Seq, content: &str) -> Message {
    Message {
        id: EventId(Ulid::from_parts(1_795_339_800_000 + seq, u128::from(seq) << 40)),
        seq,
        sender: name(sender),
        recipient: name(recipient),
        content: content.to_owned(),
        timestamp: Timestamp(1_795_339_800_125 + seq),
    }
}

pub(super) fn entry(message: &Message) -> TimelineEntry {
    TimelineEntry::Message(message.clone())
}

/// All changes of one sent message.
pub(super) fn sent(message: &Message) -> [ViewChange; 3] {
    let to = |owner: &Username| {
        ViewChange::Inbox(InboxChange::PutMessage { owner: owner.clone(), message: message.clone() })
    };
    let timeline = ViewChange::Timeline(TimelineChange::PutMessage(message.clone()));
    [timeline, to(&message.sender), to(&message.recipient)]
}

pub(super) fn marker(conversation: &Conversation, seq: Seq) -> ViewChange {
    ViewChange::Timeline(TimelineChange::PutMarker { conversation: conversation.clone(), seq })
}

pub(super) fn mark(owner: &str, peer: &str, seq: Seq) -> ViewChange {
    ViewChange::Inbox(InboxChange::PutReadMark { owner: name(owner), peer: name(peer), seq })
}
