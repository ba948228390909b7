//! Entries of a log as they may be, for tests. All are of partition 0, and time and offset are the same number.

use shared::Timestamp;
use shared::event::{ConversationRead, Event, Malformed, MessageSent, RecordedEvent, UserRegistered};
use shared::ids::{Conversation, EventId, Position, Seq, Ulid, Username};
use shared::ports::{Delivery, Unreadable};

pub(crate) fn name(text: &str) -> Username {
    text.parse().unwrap()
}

pub(crate) fn pair(one: &str, other: &str) -> Conversation {
    Conversation::between(&name(one), &name(other)).unwrap()
}

fn delivery(offset: u64, seq: Seq, event: Event) -> Delivery {
    let position = Position { partition: 0, ms: offset, counter: 0 };
    let id = EventId(Ulid::from_parts(offset, 7));
    let at = Timestamp(offset);
    Delivery { position, content: Ok(RecordedEvent { position, offset, seq, id, at, trace: None, event }) }
}

pub(crate) fn registered(user: &str, offset: u64) -> Delivery {
    let event = UserRegistered { username: name(user), password_hash: "$argon2id$".to_owned() };
    delivery(offset, 1, Event::UserRegistered(event))
}

pub(crate) fn sent(sender: &str, recipient: &str, seq: Seq, offset: u64) -> Delivery {
    let (sender, recipient, content) = (name(sender), name(recipient), format!("message {seq}"));
    delivery(offset, seq, Event::MessageSent(MessageSent { sender, recipient, content }))
}

pub(crate) fn read(reader: &str, peer: &str, seq: Seq, offset: u64) -> Delivery {
    delivery(
        offset,
        2,
        Event::ConversationRead(ConversationRead { reader: name(reader), peer: name(peer), seq }),
    )
}

pub(crate) fn unreadable(one: &str, other: &str, seq: Seq, offset: u64) -> Delivery {
    let place = Some((pair(one, other), seq));
    let content = Err(Unreadable { cause: Malformed::FutureVersion(9), place, bytes: Vec::new(), length: 0 });
    Delivery { position: Position { partition: 0, ms: offset, counter: 0 }, content }
}
