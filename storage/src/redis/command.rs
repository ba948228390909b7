//! One append on its way to `append.lua` and back: its arguments, the key it keeps something under, and what the answer says.

use std::io;
use std::time::Duration;

use redis::Cmd;
use shared::Timestamp;
use shared::event::{ConversationRead, Envelope, Event};
use shared::ids::EventId;
use shared::ports::{Append, AppendError, Appended, Once, OnceKey, Receipt, Refusal, StoreError};

use super::keys::Keys;
use super::{STORE, entry};

/// One append as the script takes it.
pub(super) struct Command {
    pub(super) partition: u16,
    id: EventId,
    subject: String,
    header: String,
    payload: String,
    checksum: u32,
    what: What,
}

enum What {
    Plain,
    /// `receipt` is how the record begins: fingerprint and id.
    Once {
        kind: &'static str,
        record: String,
        receipt: Vec<u8>,
        ms: u64,
    },
    Register {
        users: String,
        name: String,
        password_hash: String,
    },
    Mark {
        marks: String,
        pair: String,
        seq: u64,
    },
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How a record begins; the script adds what it gives: seq and entry.
pub(super) fn receipt(fingerprint: &[u8; 16], id: EventId) -> Vec<u8> {
    [fingerprint.as_slice(), id.to_string().as_bytes()].concat()
}

/// The field of a read mark.
pub(super) fn pair(read: &ConversationRead) -> String {
    format!("{}:{}", read.reader, read.peer)
}

impl Command {
    pub(super) fn new(keys: &Keys, append: Append) -> Self {
        let Append { id, event, once, trace } = append;
        let partition = keys.partition_of(&event.subject());
        let envelope = Envelope::seal(id, &event, trace);
        let what = match event {
            Event::MessageSent(message) => match once {
                None => What::Plain,
                Some(Once { key, fingerprint }) => {
                    let record = keys.once(partition, &message, &key, id);
                    let kind = match key {
                        OnceKey::Header(_) => "header",
                        OnceKey::Id => "id",
                    };
                    let receipt = receipt(&fingerprint, id);
                    What::Once { kind, record, receipt, ms: id.timestamp_ms() }
                }
            },
            Event::UserRegistered(event) => {
                let (users, name) = (keys.users(partition), event.username.into());
                What::Register { users, name, password_hash: event.password_hash }
            }
            Event::ConversationRead(event) => {
                let (marks, pair) = (keys.marks(partition), pair(&event));
                What::Mark { marks, pair, seq: event.seq }
            }
        };
        let (header, checksum) = (entry::header(&envelope), envelope.body_checksum());
        let Envelope { subject, payload, .. } = envelope;
        Self { partition, id, subject, header, payload, checksum, what }
    }

    /// Of its record, of users or of marks.
    pub(super) fn kept(&self) -> Option<&str> {
        match &self.what {
            What::Plain => None,
            What::Once { record, .. } => Some(record),
            What::Register { users, .. } => Some(users),
            What::Mark { marks, .. } => Some(marks),
        }
    }

    /// The arguments of `append.lua`.
    pub(super) fn write(&self, command: &mut Cmd) {
        let kind = match &self.what {
            What::Plain => "plain",
            What::Once { kind, .. } => kind,
            What::Register { .. } => "register",
            What::Mark { .. } => "mark",
        };
        command.arg(kind).arg(&self.subject).arg(&self.header).arg(&self.payload).arg(self.checksum);
        match &self.what {
            What::Plain => command.arg("").arg(""),
            What::Once { receipt, ms, .. } => command.arg(receipt).arg(ms),
            What::Register { name, password_hash, .. } => command.arg(name).arg(password_hash),
            What::Mark { pair, seq, .. } => command.arg(pair).arg(seq),
        };
    }

    /// Reads the script's answer.
    pub(super) fn outcome(&self, text: &str) -> Result<Appended, AppendError> {
        let mut words = text.split(' ');
        let outcome = match words.next() {
            Some("N") => self.receipt(Some(self.id), words).map(Appended::New),
            Some("R") => {
                let id = words.next().and_then(|id| id.parse().ok());
                self.receipt(id, words).map(Appended::Replayed)
            }
            Some("U") => Some(Appended::Unchanged),
            Some("T") => return Err(Refusal::UsernameTaken.into()),
            Some("C") => return Err(Refusal::IdempotencyConflict.into()),
            Some("W") => return Err(Refusal::IdOutOfWindow.into()),
            Some("E") => {
                let what = words.collect::<Vec<_>>().join(" ");
                return Err(StoreError::Damaged { store: STORE, what }.into());
            }
            _ => None,
        };
        outcome.ok_or_else(|| {
            let unreadable =
                io::Error::new(io::ErrorKind::InvalidData, format!("unreadable answer {text:?}"));
            StoreError::unknown(STORE, unreadable).into()
        })
    }

    /// From `seq ms-counter`.
    fn receipt<'a>(&self, id: Option<EventId>, mut words: impl Iterator<Item = &'a str>) -> Option<Receipt> {
        let seq = words.next()?.parse().ok()?;
        let position = entry::position(self.partition, words.next()?)?;
        Some(Receipt { id: id?, seq, at: Timestamp(position.ms), position })
    }
}

#[cfg(test)]
mod tests {
    use shared::event::MessageSent;
    use shared::ids::Position;

    use super::*;

    #[test]
    fn answers_of_the_script() {
        let id: EventId = "01JD0000000000000000000000".parse().unwrap();
        let names = ("anna".parse().unwrap(), "ben".parse().unwrap());
        let event = MessageSent { sender: names.0, recipient: names.1, content: "hi".into() };
        let append = Append { id, event: Event::MessageSent(event), once: None, trace: None };
        let command = Command::new(&Keys::new(String::new(), 1), append);
        let position = Position { partition: 0, ms: 1_700_000_000_000, counter: 3 };
        let receipt = Receipt { id, seq: 42, at: Timestamp(position.ms), position };

        let read = |text| command.outcome(text);
        assert_eq!(read("N 42 1700000000000-3").unwrap(), Appended::New(receipt));
        let first = Receipt { id: "01JD0000000000000000000001".parse().unwrap(), ..receipt };
        let replayed = "R 01JD0000000000000000000001 42 1700000000000-3";
        assert_eq!(read(replayed).unwrap(), Appended::Replayed(first));
        assert_eq!(read("U").unwrap(), Appended::Unchanged);
        assert!(matches!(read("C"), Err(AppendError::Refused(Refusal::IdempotencyConflict))));
        assert!(
            matches!(read("E no"), Err(AppendError::Store(StoreError::Damaged { what, .. })) if what == "no")
        );
        for text in ["", "N", "N x 1-1", "N 1 1", "R x 1 1-1", "?"] {
            assert!(matches!(read(text), Err(AppendError::Store(StoreError::Unknown { .. }))), "{text:?}");
        }
    }
}
