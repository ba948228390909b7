//! The ports `EventLog`, `Heads` and `LogReader`, and what decides an append: uniqueness of names, marks that only
//! rise, sends that are made once. It checks nothing else of an event; commands have done that.

use std::time::Duration;

use async_trait::async_trait;
use shared::clock::Timestamp;
use shared::event::{ConversationRead, Envelope, Event, MessageSent, UserRegistered};
use shared::ids::{Conversation, EventId, Position, Seq, Subject, Ulid};
use shared::limits::ID_AHEAD_MAX;
use shared::ports::{
    Append, AppendError, Appended, Delivery, EventLog, Heads, LogReader, Once, OnceKey, Receipt, Refusal,
    StoreError,
};

use super::encoding::{self, Decoder, Encoder};
use super::entry::Entry;
use super::writer::{Command, Group};
use super::{Embedded, damaged, entry, keys, read_error};

#[async_trait]
impl EventLog for Embedded {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let ask = async { self.ask(|answer| Command::Append(append, answer)).await? };
        self.metrics().watch(ask).await
    }
}

#[async_trait]
impl Heads for Embedded {
    async fn head(&self, conversation: &Conversation) -> Result<Seq, StoreError> {
        let key = keys::head(&Subject::Conversation(conversation.clone()));
        let Some(value) = self.directory().state.get(key).map_err(read_error)? else { return Ok(0) };
        encoding::number(&value).ok_or_else(|| damaged(format!("the head of {conversation} cannot be read")))
    }

    fn answers(&self, _conversation: &Conversation) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl LogReader for Embedded {
    async fn entries_at(&self, positions: &[Position]) -> Result<Vec<Option<Delivery>>, StoreError> {
        let positions = positions.to_vec();
        self.blocking(move |store| positions.iter().map(|position| store.entry_at(position)).collect()).await
    }
}

impl Embedded {
    fn entry_at(&self, position: &Position) -> Result<Option<Delivery>, StoreError> {
        let offset = position.counter;
        let Some(bytes) = self.directory().log.get(offset.to_be_bytes()).map_err(read_error)? else {
            return Ok(None);
        };
        let entry = Entry::decode(&bytes);
        let entry = entry.ok_or_else(|| damaged(format!("log entry {offset} cannot be read")))?;
        Ok(Some(entry.deliver(offset, &bytes)).filter(|delivery| delivery.position == *position))
    }
}

/// Reads all that it needs before it writes, so that a read that fails leaves the group as it was.
pub(super) fn decide(group: &mut Group<'_>, append: &Append) -> Result<Appended, AppendError> {
    match &append.event {
        Event::UserRegistered(registered) => register(group, append, registered),
        Event::MessageSent(sent) => send(group, append, sent),
        Event::ConversationRead(read) => mark(group, append, read),
    }
}

fn register(
    group: &mut Group<'_>,
    append: &Append,
    registered: &UserRegistered,
) -> Result<Appended, AppendError> {
    let user = keys::user(&registered.username);
    if group.rows.get(&user)?.is_some() {
        return Err(Refusal::UsernameTaken.into());
    }
    let receipt = put(group, append)?;
    group.rows.put(user, registered.password_hash.clone().into_bytes());
    Ok(Appended::New(receipt))
}

fn mark(group: &mut Group<'_>, append: &Append, read: &ConversationRead) -> Result<Appended, AppendError> {
    let mark = keys::read_mark(&read.reader, &read.peer);
    if read.seq <= group.number(&mark)? {
        return Ok(Appended::Unchanged);
    }
    let receipt = put(group, append)?;
    group.put_number(mark, read.seq);
    Ok(Appended::New(receipt))
}

fn send(group: &mut Group<'_>, append: &Append, sent: &MessageSent) -> Result<Appended, AppendError> {
    let Some(once) = &append.once else { return Ok(Appended::New(put(group, append)?)) };
    let key = keys::once(sent, &once.key, append.id);
    if let Some(record) = Record::find(group, &key)? {
        return if record.fingerprint == once.fingerprint {
            Ok(Appended::Replayed(record.receipt))
        } else {
            Err(Refusal::IdempotencyConflict.into())
        };
    }
    let kept_for = match &once.key {
        OnceKey::Header(_) => group.idempotency_window,
        OnceKey::Id if !is_in_window(append.id, group.now, group.idempotency_window) => {
            return Err(Refusal::IdOutOfWindow.into());
        }
        // Once the record is gone the id is out of the window: it was at most this far ahead when it came.
        OnceKey::Id => group.idempotency_window + 2 * ID_AHEAD_MAX,
    };
    let receipt = put(group, append)?;
    Record::put(group, key, once, receipt, kept_for);
    Ok(Appended::New(receipt))
}

fn put(group: &mut Group<'_>, append: &Append) -> Result<Receipt, StoreError> {
    let subject = append.event.subject();
    let seq = group.next_seq(&subject)?;
    let envelope = Envelope::seal(append.id, &append.event, append.trace);
    Ok(group.append(append.id, &subject, envelope, seq))
}

/// By the clock as it is, not by the time of the last event: after a jump ahead and back of the clock, ids of
/// the right time must not be refused until that time has come.
fn is_in_window(id: EventId, now: Timestamp, window: Duration) -> bool {
    (now.minus(window).0..=now.plus(ID_AHEAD_MAX).0).contains(&id.timestamp_ms())
}

const RECORD_VERSION: u8 = 1;

/// What is remembered of a send that is made once.
struct Record {
    expires: Timestamp,
    fingerprint: [u8; 16],
    receipt: Receipt,
}

impl Record {
    fn find(group: &Group<'_>, key: &[u8]) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = group.rows.get(key)? else { return Ok(None) };
        let record = Self::decode(&bytes);
        let record = record.ok_or_else(|| damaged("an idempotency record cannot be read".to_owned()))?;
        Ok((group.now < record.expires).then_some(record))
    }

    fn put(group: &mut Group<'_>, key: Vec<u8>, once: &Once, receipt: Receipt, kept_for: Duration) {
        let expires = group.now.plus(kept_for);
        group.expiry.note(&mut group.rows, expires, &key);
        group.rows.put(key, Self { expires, fingerprint: once.fingerprint, receipt }.encode());
    }

    /// Whatever expires has its expiry first, see [`super::expiry`].
    fn encode(&self) -> Vec<u8> {
        let Receipt { id, seq, at, position } = self.receipt;
        Encoder::new(RECORD_VERSION)
            .u64(self.expires.0)
            .array(&self.fingerprint)
            .array(&id.0.0.to_be_bytes())
            .u64(seq)
            .u64(at.0)
            .u64(position.counter)
            .finish()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(RECORD_VERSION, bytes)?;
        let (expires, fingerprint) = (Timestamp(decoder.u64()?), decoder.array()?);
        let id = EventId(Ulid(u128::from_be_bytes(decoder.array()?)));
        let (seq, at, offset) = (decoder.u64()?, decoder.u64()?, decoder.u64()?);
        decoder.end()?;
        let receipt = Receipt { id, seq, at: Timestamp(at), position: entry::position(at, offset) };
        Some(Self { expires, fingerprint, receipt })
    }
}
