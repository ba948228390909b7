//! Looks at fjall's journals before fjall does. fjall cuts a journal at the first byte that it cannot parse and
//! goes on: right for a torn tail, which is a batch that was never acknowledged; wrong for a damaged byte, as
//! what follows was acknowledged and is cut away as well. So this file finds where fjall would cut, and
//! [`examine`] tells damage from a tail where that can be told; what it cannot tell it lets [`set_aside`] keep,
//! for [`super::verify`] to judge.
//!
//! It reads the framing only (fjall 3: `Start`, items, `End` with a trailer), not the content: that has
//! checksums, on which fjall itself stops without cutting anything.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use shared::ports::StoreError;

use super::{damaged, unavailable};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Bytes of an item before its key: value type, compression, keyspace, three lengths.
const ITEM_HEAD_BYTES: usize = 20;
const CHUNK_BYTES: usize = 64 * 1024;
/// fjall begins a journal as 64 MiB of zeros, so zeros behind the last batch are a clean end.
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// The end of a journal that fjall would cut away, and which is not empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    journal: PathBuf,
    /// The first byte after the last whole batch.
    from: u64,
}

/// Goes through the journals of a closed database, oldest first. `None`: all end cleanly.
///
/// # Errors
/// [`StoreError::Damaged`]
/// - when a journal before the last is cut short: it was synced whole before the next was begun;
/// - when batches are out of order, or a journal between others is gone.
pub(super) fn examine(database: &Path) -> Result<Option<Tail>, StoreError> {
    let journals = list(database)?;
    let mut last_batch = None;
    let mut tail = None;
    for (at, (id, path)) in journals.iter().enumerate() {
        if let Some(Tail { journal, from }) = tail {
            return Err(damaged(format!("{} cannot be read from byte {from} on", journal.display())));
        }
        if at > 0 && journals[at - 1].0 + 1 != *id {
            return Err(damaged(format!("the journal before {} is missing", path.display())));
        }
        tail = walk(path, &mut last_batch)?;
    }
    Ok(tail)
}

/// Whether no batch was ever written: creating the database may have been interrupted.
pub(super) fn is_blank(database: &Path) -> Result<bool, StoreError> {
    let mut last_batch = None;
    for (_, path) in list(database)? {
        if walk(&path, &mut last_batch)?.is_some() || last_batch.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies the tail to `copy`, durably. fjall will cut it off; should it turn out that acknowledged events were
/// in it, they are still there for a human.
pub(super) fn set_aside(tail: &Tail, copy: &Path) -> io::Result<()> {
    let mut journal = File::open(&tail.journal)?;
    journal.seek(SeekFrom::Start(tail.from))?;
    let mut copy = File::create_new(copy)?;
    io::copy(&mut journal, &mut copy)?;
    copy.flush()?;
    copy.sync_all()
}

/// By their ids, oldest first.
fn list(database: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut journals = Vec::new();
    for file in std::fs::read_dir(database).map_err(unavailable)? {
        let path = file.map_err(unavailable)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let id = id.ok_or_else(|| damaged(format!("{} is no journal's name", path.display())))?;
            journals.push((id, path));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

fn walk(path: &Path, last_batch: &mut Option<u64>) -> Result<Option<Tail>, StoreError> {
    let file = File::open(path).map_err(unavailable)?;
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, file);
    let mut end = 0;
    while let Some(batch) = read_batch(&mut reader).map_err(unavailable)? {
        // fjall does not cover this number with its checksum, and a wrong one lets old rows shadow new ones.
        if last_batch.is_some_and(|last| batch <= last) {
            return Err(damaged(format!("{}: a batch at byte {end} is out of order", path.display())));
        }
        *last_batch = Some(batch);
        end = reader.stream_position().map_err(unavailable)?;
    }
    let blank = is_zero_from(reader.into_inner(), end).map_err(unavailable)?;
    Ok((!blank).then(|| Tail { journal: path.to_owned(), from: end }))
}

/// Reads over one batch and returns its number; `None` where there is no whole one.
fn read_batch(reader: &mut BufReader<File>) -> io::Result<Option<u64>> {
    let Some([START, _, _, _, _, number @ ..]) = read_array::<13>(reader)? else { return Ok(None) };
    loop {
        let Some([tag]) = read_array(reader)? else { return Ok(None) };
        let whole = match tag {
            ITEM => skip_item(reader)?,
            CLEAR => read_array::<8>(reader)?.is_some(),
            END => {
                let end = read_array::<12>(reader)?;
                let whole = end.is_some_and(|end| end.ends_with(&TRAILER));
                return Ok(whole.then_some(u64::from_le_bytes(number)));
            }
            _ => false,
        };
        if !whole {
            return Ok(None);
        }
    }
}

/// Whether it is an item as this store writes them: not compressed (see [`super::directory`]).
fn skip_item(reader: &mut BufReader<File>) -> io::Result<bool> {
    let Some(head) = read_array::<ITEM_HEAD_BYTES>(reader)? else { return Ok(false) };
    let [kind, compression, _, _, _, _, _, _, _, _, k0, k1, v @ ..] = head;
    let [v0, v1, v2, v3, d0, d1, d2, d3] = v;
    let key = u16::from_le_bytes([k0, k1]);
    let (value, on_disk) = (u32::from_le_bytes([v0, v1, v2, v3]), u32::from_le_bytes([d0, d1, d2, d3]));
    // Past the end of the file the next read finds nothing.
    reader.seek_relative(i64::from(key) + i64::from(on_disk))?;
    Ok(kind <= 2 && compression == 0 && value == on_disk)
}

/// `None` at the end of the file.
fn read_array<const N: usize>(reader: &mut BufReader<File>) -> io::Result<Option<[u8; N]>> {
    let mut array = [0; N];
    match reader.read_exact(&mut array) {
        Ok(()) => Ok(Some(array)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_zero_from(mut file: File, start: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(start))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(true),
            // A comparison of slices is one call, where a loop over bytes would take a while for 64 MiB.
            read if chunk[..read] != ZEROS[..read] => return Ok(false),
            _ => {}
        }
    }
}
