//! What happened, as it is stored. A stored shape never changes: a new shape is a new version with a golden
//! file in `shared/tests/events` and a reader for the old one.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::ids::{Conversation, EventId, Position, Seq, Subject, Trace, Username};
use crate::limits::EVENT_BYTES_MAX;

/// A fact, in the past tense. It carries all that a view needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    UserRegistered(UserRegistered),
    MessageSent(MessageSent),
    ConversationRead(ConversationRead),
}

/// Numbered in the user. The hash is part of the event, so that accounts can be rebuilt from the log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRegistered {
    pub username: Username,
    /// A PHC string (`$argon2id$…`).
    pub password_hash: String,
}

impl std::fmt::Debug for UserRegistered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserRegistered").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Numbered in the conversation: its `seq` is the message's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSent {
    pub sender: Username,
    pub recipient: Username,
    pub content: String,
}

/// Numbered in the reader: a mark takes no number of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationRead {
    pub reader: Username,
    pub peer: Username,
    /// The reader has seen every message up to this one.
    pub seq: Seq,
}

/// The version that this code writes. It reads this one and all before it.
pub const SCHEMA_VERSION: u32 = 1;

impl Event {
    /// The name under which the event is stored.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UserRegistered(_) => "UserRegistered",
            Self::MessageSent(_) => "MessageSent",
            Self::ConversationRead(_) => "ConversationRead",
        }
    }

    /// # Panics
    /// On a message from a user to himself: commands refuse it and [`Envelope::open`] does not let it in.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::UserRegistered(event) => Subject::User(event.username.clone()),
            Self::MessageSent(event) => Subject::Conversation(event.conversation()),
            Self::ConversationRead(event) => Subject::User(event.reader.clone()),
        }
    }
}

impl MessageSent {
    /// # Panics
    /// On a message from a user to himself (see [`Event::subject`]).
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        Conversation::between(&self.sender, &self.recipient).expect("a message has two parties")
    }

    /// Of what must be the same in a repetition of the send. The names are in the record's key, so the content is all
    /// that may differ.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        let digest: [u8; 32] = Sha256::digest(self.content.as_bytes()).into();
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&digest[..16]);
        fingerprint
    }
}

/// An event as read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    pub position: Position,
    /// Dense within the partition: 1, 2, 3, …
    pub offset: u64,
    /// Dense within the subject.
    pub seq: Seq,
    pub id: EventId,
    /// Given by the log, never falling within a partition.
    pub at: Timestamp,
    /// Of the request that caused it, if its client gave one.
    pub trace: Option<Trace>,
    pub event: Event,
}

/// The stored form of an event, before the log has given it numbers. `body` is opaque to the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    pub version: u32,
    pub kind: String,
    pub subject: String,
    pub id: String,
    /// JSON.
    pub payload: String,
    /// Entries from before there were traces have none; those without one are still written in that shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// Why a stored entry cannot be applied. Its bytes and position are kept by whoever meets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("checksum is {found:08x}, the content's is {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("schema version {0} is newer than this program")]
    FutureVersion(u32),
    #[error("unknown event type {0:?}")]
    UnknownKind(String),
    #[error("field {0} is missing or unreadable")]
    Field(&'static str),
    #[error("payload: {0}")]
    Payload(String),
    #[error("the subject is {found:?}, the payload's is {expected:?}")]
    Subject { found: String, expected: String },
}

impl Envelope {
    #[must_use]
    pub fn seal(id: EventId, event: &Event, trace: Option<Trace>) -> Self {
        let payload = match event {
            Event::UserRegistered(event) => serde_json::to_string(event),
            Event::MessageSent(event) => serde_json::to_string(event),
            Event::ConversationRead(event) => serde_json::to_string(event),
        };
        Self {
            version: SCHEMA_VERSION,
            kind: event.kind().to_owned(),
            subject: event.subject().to_string(),
            id: id.to_string(),
            payload: payload.expect("an event of strings and numbers is always JSON"),
            trace,
        }
    }

    /// Of everything but the numbers that the log gives (CRC-32, IEEE). A zero byte ends each field, so that
    /// no two envelopes share their bytes. A trace takes part where there is one, and that it is sampled
    /// where it is: without, the checksum is what it was before either was stored.
    #[must_use]
    pub fn body_checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.version.to_string().as_bytes());
        for field in [&self.kind, &self.subject, &self.id, &self.payload] {
            hasher.update(&[0]);
            hasher.update(field.as_bytes());
        }
        if let Some(trace) = self.trace {
            hasher.update(&[0]);
            hasher.update(&trace.id.to_bytes());
            if trace.is_sampled {
                hasher.update(&[1]);
            }
        }
        hasher.finalize()
    }

    /// The stored checksum. The log gives the numbers inside its atomic step, where a CRC would be slow, so
    /// they are mixed in by exclusive or: any single flipped bit, in them or in the body, shows.
    #[must_use]
    pub fn checksum(&self, seq: Seq, offset: u64) -> u32 {
        self.body_checksum() ^ low_bits(seq) ^ low_bits(offset).rotate_left(16)
    }

    /// Checks and decodes.
    ///
    /// # Errors
    /// [`Malformed`]: the entry cannot be applied by this program.
    pub fn open(
        &self,
        position: Position,
        offset: u64,
        seq: Seq,
        checksum: u32,
    ) -> Result<RecordedEvent, Malformed> {
        let expected = self.checksum(seq, offset);
        if checksum != expected {
            return Err(Malformed::Checksum { found: checksum, expected });
        }
        if self.version > SCHEMA_VERSION {
            return Err(Malformed::FutureVersion(self.version));
        }
        let id = self.id.parse().map_err(|_| Malformed::Field("id"))?;
        let event = self.event()?;
        let expected = event.subject().to_string();
        if expected != self.subject {
            return Err(Malformed::Subject { found: self.subject.clone(), expected });
        }
        Ok(RecordedEvent { position, offset, seq, id, at: Timestamp(position.ms), trace: self.trace, event })
    }

    fn event(&self) -> Result<Event, Malformed> {
        let payload = self.payload.as_str();
        if payload.len() > EVENT_BYTES_MAX {
            let found = payload.len();
            return Err(Malformed::Payload(format!("it has {found} bytes, {EVENT_BYTES_MAX} is the most")));
        }
        let event = match self.kind.as_str() {
            "UserRegistered" => Event::UserRegistered(read(payload)?),
            "MessageSent" => Event::MessageSent(read(payload)?),
            "ConversationRead" => Event::ConversationRead(read(payload)?),
            _ => return Err(Malformed::UnknownKind(self.kind.clone())),
        };
        match &event {
            Event::MessageSent(message) if message.sender == message.recipient => {
                Err(Malformed::Payload("sender and recipient are the same".to_owned()))
            }
            Event::MessageSent(_) | Event::UserRegistered(_) | Event::ConversationRead(_) => Ok(event),
        }
    }
}

/// Unknown fields are let in: a newer program of the same version may have added one.
fn read<'a, T: Deserialize<'a>>(payload: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(payload).map_err(|error| Malformed::Payload(error.to_string()))
}

fn low_bits(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}
