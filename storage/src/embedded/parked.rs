//! Events that could not be applied, by their position, and which of them are settled.

use std::ops::Bound;

use fjall::Readable;
use shared::clock::Timestamp;
use shared::ids::Position;
use shared::ports::StoreError;
use shared::view::{ParkedChange, ParkedEvent, ParkedRow, version};

use super::directory::Directory;
use super::encoding::{Decoder, Encoder};
use super::rows::Rows;
use super::{damaged, keys, read_error};

/// A cause and bytes, and nothing else: of the first attempt.
const BARE: u8 = 1;
const VERSION: u8 = 2;

pub(super) fn put(rows: &mut Rows<'_>, change: &ParkedChange) -> Result<(), StoreError> {
    let position = match change {
        ParkedChange::PutParked(row) => row.event.position,
        ParkedChange::Settle { position } => *position,
    };
    let key = keys::parked(position);
    let stands = rows.get(&key)?.map(|bytes| read(&key, &bytes)).transpose()?;
    match change {
        ParkedChange::PutParked(row) => {
            let is_later = |stands: Option<ParkedRow>| {
                let rank = |event: &ParkedEvent| (event.attempts, event.parked_at);
                stands.is_some_and(|stands| rank(&stands.event) < rank(&row.event))
            };
            if stands.is_none_or(is_later) {
                rows.put(key, encode(row));
            }
        }
        ParkedChange::Settle { .. } => {
            rows.put(key, Encoder::new(VERSION).u64(version::SETTLED).finish());
        }
    }
    Ok(())
}

pub(super) fn list(
    directory: &Directory,
    after: Option<Position>,
    events_max: usize,
) -> Result<Vec<ParkedEvent>, StoreError> {
    let first =
        after.map_or(Bound::Included(keys::PARKED.to_vec()), |after| Bound::Excluded(keys::parked(after)));
    let range = (first, Bound::Excluded(keys::PARKED_END.to_vec()));
    let rows = directory.views_snapshot().range(&directory.views, range);
    let events = rows.filter_map(|row| {
        let (key, bytes) = match row.into_inner() {
            Ok(row) => row,
            Err(error) => return Some(Err(read_error(error))),
        };
        read(&key, &bytes).map(|row| row.map(|row| row.event)).transpose()
    });
    events.take(events_max).collect()
}

pub(super) fn find(directory: &Directory, position: Position) -> Result<Option<ParkedRow>, StoreError> {
    let key = keys::parked(position);
    let bytes = directory.views.get(&key).map_err(read_error)?;
    Ok(bytes.map(|bytes| read(&key, &bytes)).transpose()?.flatten())
}

fn encode(row: &ParkedRow) -> Vec<u8> {
    let ParkedEvent { position: _, cause, attempts, parked_at, place } = &row.event;
    let (conversation, seq) =
        place.as_ref().map_or_else(Default::default, |(pair, seq)| (pair.to_string(), *seq));
    Encoder::new(VERSION)
        .u64(version::tried(*attempts))
        .u64(parked_at.0)
        .bytes(conversation.as_bytes())
        .u64(seq)
        .bytes(cause.as_bytes())
        .bytes(&row.bytes)
        .finish()
}

/// `None`: it is settled.
pub(super) fn read(key: &[u8], bytes: &[u8]) -> Result<Option<ParkedRow>, StoreError> {
    let row = position(key).and_then(|position| decode(position, bytes));
    row.ok_or_else(|| damaged("a parked event cannot be read".to_owned()))
}

pub(super) fn position(key: &[u8]) -> Option<Position> {
    let (partition, rest) = key.strip_prefix(keys::PARKED)?.split_first_chunk()?;
    let (ms, counter) = rest.split_first_chunk()?;
    Some(Position {
        partition: u16::from_be_bytes(*partition),
        ms: u64::from_be_bytes(*ms),
        counter: u64::from_be_bytes(counter.try_into().ok()?),
    })
}

fn decode(position: Position, bytes: &[u8]) -> Option<Option<ParkedRow>> {
    if let Some(mut decoder) = Decoder::new(BARE, bytes) {
        let (cause, bytes) = (decoder.text()?, decoder.bytes()?.to_vec());
        decoder.end()?;
        let parked_at = Timestamp(position.ms);
        let event = ParkedEvent { position, cause, attempts: 1, parked_at, place: None };
        return Some(Some(ParkedRow { event, bytes }));
    }
    let mut decoder = Decoder::new(VERSION, bytes)?;
    let version = decoder.u64()?;
    if version == version::SETTLED {
        decoder.end()?;
        return Some(None);
    }
    let attempts = u32::try_from(version).ok()?;
    let parked_at = Timestamp(decoder.u64()?);
    let (conversation, seq) = (decoder.text()?, decoder.u64()?);
    let place = if conversation.is_empty() { None } else { Some((conversation.parse().ok()?, seq)) };
    let event = ParkedEvent { position, cause: decoder.text()?, attempts, parked_at, place };
    let row = ParkedRow { event, bytes: decoder.bytes()?.to_vec() };
    decoder.end()?;
    Some(Some(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_from_before_there_were_attempts_opens() {
        let position = Position { partition: 0, ms: 1_234, counter: 5 };
        let bytes = Encoder::new(BARE).bytes(b"broken").bytes(b"x").finish();
        let row = decode(position, &bytes).flatten().unwrap();
        let event = ParkedEvent {
            position,
            cause: "broken".to_owned(),
            attempts: 1,
            parked_at: Timestamp(1_234),
            place: None,
        };
        assert_eq!(row, ParkedRow { event, bytes: b"x".to_vec() });
    }
}
