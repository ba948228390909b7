//! The messages of a conversation.

use shared::event::{Event, RecordedEvent};
use shared::message::Message;
use shared::view::{TimelineChange, ViewChange};

pub(super) fn project(recorded: &RecordedEvent, changes: &mut Vec<ViewChange>) {
    match &recorded.event {
        Event::MessageSent(sent) => {
            changes.push(ViewChange::Timeline(TimelineChange::PutMessage(Message::new(recorded, sent))));
        }
        Event::UserRegistered(_) | Event::ConversationRead(_) => {}
    }
}
