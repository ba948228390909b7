//! Events that could not be applied, by their position.

use fjall::Readable;
use shared::ids::Position;
use shared::ports::StoreError;
use shared::view::{ParkedChange, ParkedRow};

use super::directory::Directory;
use super::encoding::{Decoder, Encoder};
use super::rows::Rows;
use super::{damaged, keys, read_error};

const VERSION: u8 = 1;

/// A position has one entry, and so one row: whoever wrote it wrote the same.
pub(super) fn put(rows: &mut Rows<'_>, change: &ParkedChange) -> Result<(), StoreError> {
    let ParkedChange::PutParked(row) = change;
    let value = Encoder::new(VERSION).bytes(row.cause.as_bytes()).bytes(&row.bytes).finish();
    rows.put(keys::parked(row.position), value);
    Ok(())
}

pub(super) fn list(directory: &Directory, rows_max: usize) -> Result<Vec<ParkedRow>, StoreError> {
    let rows = directory.views_snapshot().prefix(&directory.views, keys::PARKED);
    rows.take(rows_max)
        .map(|row| {
            let (key, bytes) = row.into_inner().map_err(read_error)?;
            read(&key, &bytes).ok_or_else(|| damaged("a parked event cannot be read".to_owned()))
        })
        .collect()
}

fn read(key: &[u8], bytes: &[u8]) -> Option<ParkedRow> {
    let (partition, rest) = key.strip_prefix(keys::PARKED)?.split_first_chunk()?;
    let (ms, rest) = rest.split_first_chunk()?;
    let position = Position {
        partition: u16::from_be_bytes(*partition),
        ms: u64::from_be_bytes(*ms),
        counter: u64::from_be_bytes(rest.try_into().ok()?),
    };
    let mut decoder = Decoder::new(VERSION, bytes)?;
    let row = ParkedRow { position, cause: decoder.text()?, bytes: decoder.bytes()?.to_vec() };
    decoder.end()?;
    Some(row)
}
