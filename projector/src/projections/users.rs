//! Who is registered.

use shared::event::{Event, RecordedEvent};
use shared::view::{UserRow, UsersChange, ViewChange};

pub(super) fn project(recorded: &RecordedEvent, changes: &mut Vec<ViewChange>) {
    match &recorded.event {
        Event::UserRegistered(registered) => {
            let user = UserRow { username: registered.username.clone(), registered_at: recorded.at };
            changes.push(ViewChange::Users(UsersChange::PutUser { user, seq: recorded.seq }));
        }
        Event::MessageSent(_) | Event::ConversationRead(_) => {}
    }
}
