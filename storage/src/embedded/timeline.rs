//! The view `timeline`: one row per message, under its conversation and `seq`. There are no buckets: an LSM
//! tree has no partitions that could grow too large.

use fjall::Readable;
use shared::clock::Timestamp;
use shared::ids::{Conversation, EventId, Seq, Ulid};
use shared::message::Message;
use shared::ports::StoreError;
use shared::view::{TimelineChange, TimelineEntry, version};

use super::directory::Directory;
use super::encoding::{self, Decoder, Encoder};
use super::rows::Rows;
use super::{damaged, keys, read_error};

const VERSION: u8 = 1;
const PARKED: u8 = 0;
const MESSAGE: u8 = 1;

/// A message is the last word on its number, so it is written without a look at what stands there; a marker
/// takes an empty place only.
pub(super) fn put(rows: &mut Rows<'_>, change: &TimelineChange) -> Result<(), StoreError> {
    match change {
        TimelineChange::PutMessage(message) => {
            let conversation = message.conversation();
            let encoder = Encoder::new(VERSION).u64(version::effect(message.seq)).u8(MESSAGE);
            let value = encode_message(encoder, message, *conversation.low() == message.sender);
            rows.put(keys::message(&conversation, message.seq), value.finish());
        }
        TimelineChange::PutMarker { conversation, seq } => {
            let key = keys::message(conversation, *seq);
            if rows.get(&key)?.is_none() {
                rows.put(key, Encoder::new(VERSION).u64(version::marker(*seq)).u8(PARKED).finish());
            }
        }
    }
    Ok(())
}

/// From one snapshot, so that a page never shows a part of a batch.
pub(super) fn range(
    directory: &Directory,
    conversation: &Conversation,
    first: Seq,
    last: Seq,
) -> Result<Vec<TimelineEntry>, StoreError> {
    if first > last {
        return Ok(Vec::new());
    }
    let keys = keys::message(conversation, first)..=keys::message(conversation, last);
    let rows = directory.views_snapshot().range(&directory.views, keys);
    rows.map(|row| {
        let (key, bytes) = row.into_inner().map_err(read_error)?;
        read(conversation, seq_of(&key)?, &bytes)
    })
    .collect()
}

pub(super) fn head(directory: &Directory, conversation: &Conversation) -> Result<Seq, StoreError> {
    let keys = keys::message(conversation, 0)..=keys::message(conversation, Seq::MAX);
    match directory.views.range(keys).next_back() {
        Some(row) => seq_of(&row.key().map_err(read_error)?),
        None => Ok(0),
    }
}

fn seq_of(key: &[u8]) -> Result<Seq, StoreError> {
    let seq = key.split_last_chunk::<8>().and_then(|(_, seq)| encoding::number(seq));
    seq.ok_or_else(|| damaged("a key of the timeline cannot be read".to_owned()))
}

pub(super) fn read(conversation: &Conversation, seq: Seq, bytes: &[u8]) -> Result<TimelineEntry, StoreError> {
    decode(conversation, seq, bytes)
        .ok_or_else(|| damaged(format!("the timeline row {seq} of {conversation} cannot be read")))
}

fn decode(conversation: &Conversation, seq: Seq, bytes: &[u8]) -> Option<TimelineEntry> {
    let mut decoder = Decoder::new(VERSION, bytes)?;
    let (_version, kind) = (decoder.u64()?, decoder.u8()?);
    let entry = match kind {
        PARKED => TimelineEntry::Parked { seq },
        MESSAGE => {
            let (low, high) = (conversation.low(), conversation.high());
            TimelineEntry::Message(decode_message(&mut decoder, seq, low, high)?)
        }
        _ => return None,
    };
    decoder.end()?;
    Some(entry)
}

/// Of a message's two names the key has both; the value tells which of them sent it.
pub(super) fn encode_message(encoder: Encoder, message: &Message, first_sent: bool) -> Encoder {
    encoder
        .u8(u8::from(first_sent))
        .array(&message.id.0.0.to_be_bytes())
        .u64(message.timestamp.0)
        .bytes(message.content.as_bytes())
}

pub(super) fn decode_message(
    decoder: &mut Decoder<'_>,
    seq: Seq,
    first: &shared::Username,
    second: &shared::Username,
) -> Option<Message> {
    let (sender, recipient) = match decoder.u8()? {
        1 => (first, second),
        0 => (second, first),
        _ => return None,
    };
    Some(Message {
        id: EventId(Ulid(u128::from_be_bytes(decoder.array()?))),
        seq,
        sender: sender.clone(),
        recipient: recipient.clone(),
        timestamp: Timestamp(decoder.u64()?),
        content: decoder.text()?,
    })
}
