//! The conversations of a user: a message changes both sides, a mark only the reader's.

use shared::event::{Event, RecordedEvent};
use shared::message::Message;
use shared::view::{InboxChange, ViewChange};

pub(super) fn project(recorded: &RecordedEvent, changes: &mut Vec<ViewChange>) {
    match &recorded.event {
        Event::MessageSent(sent) => {
            for owner in [&sent.sender, &sent.recipient] {
                let message = Message::new(recorded, sent);
                changes.push(ViewChange::Inbox(InboxChange::PutMessage { owner: owner.clone(), message }));
            }
        }
        Event::ConversationRead(read) => changes.push(ViewChange::Inbox(InboxChange::PutReadMark {
            owner: read.reader.clone(),
            peer: read.peer.clone(),
            seq: read.seq,
        })),
        Event::UserRegistered(_) => {}
    }
}
