//! From an event to what it changes. Pure: no clock, no I/O, nothing read before. This is the only list of
//! projections; a new event or view is asked for by the compiler in each of them.
#![deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]

use shared::event::RecordedEvent;
use shared::view::ViewChange;

mod inbox;
mod timeline;
mod users;

/// Appends what `recorded` changes in every view. Applying the changes in any order, any number of times, gives
/// the same views (see `shared::view`).
pub fn project(recorded: &RecordedEvent, changes: &mut Vec<ViewChange>) {
    timeline::project(recorded, changes);
    inbox::project(recorded, changes);
    users::project(recorded, changes);
}

#[cfg(test)]
mod tests {
    use shared::event::{ConversationRead, Event, MessageSent, UserRegistered};
    use shared::message::Message;
    use shared::view::{InboxChange, TimelineChange, UserRow, UsersChange};
    use shared::{EventId, Position, Timestamp, Username, ids::Ulid};

    use super::*;

    fn name(text: &str) -> Username {
        text.parse().expect("a name")
    }

    fn given(event: Event) -> Vec<ViewChange> {
        let position = Position { partition: 0, ms: 1_000, counter: 0 };
        let id = EventId(Ulid::from_parts(1_000, 1));
        let mut changes = Vec::new();
        project(
            &RecordedEvent { position, offset: 9, seq: 7, id, at: Timestamp(1_000), trace: None, event },
            &mut changes,
        );
        changes
    }

    #[test]
    fn a_message_reaches_the_timeline_and_both_inboxes() {
        let (sender, recipient, content) = (name("samer"), name("lena"), "hi".to_owned());
        let message = Message {
            id: EventId(Ulid::from_parts(1_000, 1)),
            seq: 7,
            sender: sender.clone(),
            recipient: recipient.clone(),
            content: content.clone(),
            timestamp: Timestamp(1_000),
        };
        let changes = given(Event::MessageSent(MessageSent { sender, recipient, content }));
        let in_inbox_of = |owner| {
            ViewChange::Inbox(InboxChange::PutMessage { owner: name(owner), message: message.clone() })
        };
        let timeline = ViewChange::Timeline(TimelineChange::PutMessage(message.clone()));
        assert_eq!(changes, [timeline, in_inbox_of("samer"), in_inbox_of("lena")]);
    }

    #[test]
    fn a_mark_reaches_the_readers_inbox() {
        let (reader, peer) = (name("samer"), name("lena"));
        let changes = given(Event::ConversationRead(ConversationRead { reader, peer, seq: 3 }));
        let mark = InboxChange::PutReadMark { owner: name("samer"), peer: name("lena"), seq: 3 };
        assert_eq!(changes, [ViewChange::Inbox(mark)]);
    }

    #[test]
    fn a_registration_reaches_the_users() {
        let event = UserRegistered { username: name("samer"), password_hash: "$argon2id$".to_owned() };
        let user = UserRow { username: name("samer"), registered_at: Timestamp(1_000) };
        let put = UsersChange::PutUser { user, seq: 7 };
        assert_eq!(given(Event::UserRegistered(event)), [ViewChange::Users(put)]);
    }
}
