//! Every key of the `state` and `views` keyspaces (the key of a log entry is its offset). Keys are built from
//! typed ids only; a zero byte, which no name holds, ends a name where something follows it.

use shared::event::MessageSent;
use shared::ids::{Conversation, Position, Seq, Subject, Username};
use shared::ports::{OnceKey, SessionKey};
use shared::{EventId, Timestamp};

/// In `state`: up to which offset it holds what the log says.
pub(super) const SEEN: &[u8] = b"o";
/// In `views`: which offsets the views hold.
pub(super) const ACKNOWLEDGED: &[u8] = b"p";

/// The last `seq` of a subject.
pub(super) fn head(subject: &Subject) -> Vec<u8> {
    match subject {
        Subject::User(name) => join(b'h', &[b"u:", name.as_str().as_bytes()]),
        Subject::Conversation(pair) => {
            join(b'h', &[b"c:", pair.low().as_str().as_bytes(), b":", pair.high().as_str().as_bytes()])
        }
    }
}

/// The password hash of a user.
pub(super) fn user(name: &Username) -> Vec<u8> {
    join(b'u', &[name.as_str().as_bytes()])
}

/// The highest mark that a reader set for a peer.
pub(super) fn read_mark(reader: &Username, peer: &Username) -> Vec<u8> {
    join(b'm', &[reader.as_str().as_bytes(), &[0], peer.as_str().as_bytes()])
}

/// The record of a send that is made once.
pub(super) fn once(sent: &MessageSent, key: &OnceKey, id: EventId) -> Vec<u8> {
    let scope = [sent.sender.as_str().as_bytes(), &[0], sent.recipient.as_str().as_bytes(), &[0]].concat();
    match key {
        OnceKey::Header(key) => join(b'i', &[&scope, b"h", key.as_bytes()]),
        OnceKey::Id => join(b'i', &[&scope, b"i", &id.0.0.to_be_bytes()]),
    }
}

pub(super) fn session(key: &SessionKey) -> Vec<u8> {
    join(SESSION, &[&key.0])
}

pub(super) const SESSION: u8 = b's';

/// The keys of a user's sessions.
pub(super) fn sessions(user: &Username) -> Vec<u8> {
    join(b'S', &[user.as_str().as_bytes()])
}

/// Orders what expires by when it does; the key of the expiring row is its end.
pub(super) fn expiry(at: Timestamp, row: &[u8]) -> Vec<u8> {
    join(b'x', &[&at.0.to_be_bytes(), row])
}

/// When, and the row's key.
pub(super) fn expiring(key: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (at, row) = key.strip_prefix(b"x")?.split_first_chunk()?;
    Some((Timestamp(u64::from_be_bytes(*at)), row))
}

/// The kinds of keys of the views' tables.
pub(super) const TIMELINE: u8 = b't';
pub(super) const INBOX: u8 = b'i';
pub(super) const USERS: u8 = b'u';

pub(super) fn message(conversation: &Conversation, seq: Seq) -> Vec<u8> {
    let (low, high) = (conversation.low().as_str(), conversation.high().as_str());
    join(TIMELINE, &[low.as_bytes(), b":", high.as_bytes(), &[0], &seq.to_be_bytes()])
}

/// All rows of an owner begin with it; the peer is the rest.
pub(super) fn inbox_of(owner: &Username) -> Vec<u8> {
    join(INBOX, &[owner.as_str().as_bytes(), &[0]])
}

/// Behind all of them.
pub(super) fn inbox_end(owner: &Username) -> Vec<u8> {
    join(INBOX, &[owner.as_str().as_bytes(), &[1]])
}

pub(super) fn inbox(owner: &Username, peer: &Username) -> Vec<u8> {
    join(INBOX, &[owner.as_str().as_bytes(), &[0], peer.as_str().as_bytes()])
}

pub(super) fn user_row(name: &Username) -> Vec<u8> {
    join(USERS, &[name.as_str().as_bytes()])
}

pub(super) const PARKED: &[u8] = b"k";
/// Behind all of them.
pub(super) const PARKED_END: &[u8] = b"l";

pub(super) fn parked(position: Position) -> Vec<u8> {
    let Position { partition, ms, counter } = position;
    [PARKED, &partition.to_be_bytes(), &ms.to_be_bytes(), &counter.to_be_bytes()].concat()
}

/// How many events a consumer acknowledged; its name is the rest.
pub(super) const APPLIED: &[u8] = b"a";

pub(super) fn applied(consumer: &str) -> Vec<u8> {
    [APPLIED, consumer.as_bytes()].concat()
}

fn join(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut key = Vec::with_capacity(1 + bytes);
    key.push(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories are full of them.
    #[test]
    fn keys_stay_what_they_are() {
        let (lena, samer): (Username, Username) = ("lena".parse().unwrap(), "samer".parse().unwrap());
        let pair = Conversation::between(&samer, &lena).unwrap();
        assert_eq!(message(&pair, 258), b"tlena:samer\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(head(&Subject::Conversation(pair)), b"hc:lena:samer");
        assert_eq!(head(&Subject::User(lena.clone())), b"hu:lena");
        assert_eq!(inbox(&samer, &lena), b"isamer\0lena");
        assert!(inbox(&samer, &lena).starts_with(&inbox_of(&samer)));
    }
}
