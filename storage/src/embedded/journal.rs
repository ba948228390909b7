//! Reads fjall's journals before fjall does, and decides what of them it will see. fjall itself cuts a journal
//! at the first byte that it cannot parse and goes on, which is right for a torn tail (a batch that was never
//! acknowledged) and wrong for a damaged byte, as what follows was acknowledged and goes with it. A tail torn by
//! a power cut, on the other hand, may have lost a page in its middle, which fjall takes for damage.
//!
//! So: whatever is wrong in a journal before the last is damage, as it was synced whole before the next was
//! begun. What is wrong in the last one begins its tail, which is cut, and of the log kept in a file of its own;
//! whether something acknowledged was in it is for [`super::verify`] to judge.
//!
//! The format is that of fjall 3.1, and this file knows no more of it than batches, their numbers and their
//! checksums. A version of fjall that writes another one does not pass the tests of damage.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use shared::ports::StoreError;
use xxhash_rust::xxh3::Xxh3Default;

use super::{damaged, unavailable};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

const CHUNK_BYTES: usize = 64 * 1024;
/// fjall begins a journal as 64 MiB of zeros, so zeros behind the last batch are a clean end.
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// The end of the last journal, from its first byte that is not of a whole batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    journal: PathBuf,
    from: u64,
}

impl Tail {
    /// Copies it, durably.
    pub(super) fn keep(&self, copy: &Path) -> io::Result<()> {
        let mut journal = File::open(&self.journal)?;
        journal.seek(SeekFrom::Start(self.from))?;
        let mut copy = File::create_new(copy)?;
        io::copy(&mut journal, &mut copy)?;
        copy.sync_all()
    }

    pub(super) fn cut(&self) -> io::Result<()> {
        let journal = OpenOptions::new().write(true).open(&self.journal)?;
        journal.set_len(self.from)?;
        journal.sync_all()
    }
}

/// Goes through the journals of a closed database, oldest first. `None`: all end cleanly.
///
/// # Errors
/// [`StoreError::Damaged`] when one before the last is not whole, when batches are out of order, or when a
/// journal between others is gone.
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

/// Whether nothing was ever written: creating the database may have been interrupted.
pub(super) fn is_blank(database: &Path) -> Result<bool, StoreError> {
    let mut last_batch = None;
    for (_, path) in list(database)? {
        if walk(&path, &mut last_batch)?.is_some() || last_batch.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
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
    let mut journal = Journal::open(path).map_err(unavailable)?;
    let mut end = 0;
    while let Some(batch) = journal.next_batch().map_err(unavailable)? {
        // This number is not under the batch's checksum, and a wrong one lets old rows shadow new ones.
        if last_batch.is_some_and(|last| batch <= last) {
            return Err(damaged(format!("{}: a batch at byte {end} is out of order", path.display())));
        }
        *last_batch = Some(batch);
        end = journal.at;
    }
    let blank = journal.has_only_zeros_from(end).map_err(unavailable)?;
    Ok((!blank).then(|| Tail { journal: path.to_owned(), from: end }))
}

struct Journal {
    reader: BufReader<File>,
    length: u64,
    /// How far it was read.
    at: u64,
    /// The entry that was read last, as it stands in the file.
    entry: Vec<u8>,
}

impl Journal {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { reader: BufReader::with_capacity(CHUNK_BYTES, file), length, at: 0, entry: Vec::new() })
    }

    /// Reads one batch and returns its number; `None` where there is no whole one.
    fn next_batch(&mut self) -> io::Result<Option<u64>> {
        self.entry.clear();
        let Some([START, _, _, _, _, number @ ..]) = self.read::<13>()? else { return Ok(None) };
        let mut checksum = Xxh3Default::new();
        loop {
            self.entry.clear();
            let Some([tag]) = self.read()? else { return Ok(None) };
            let whole = match tag {
                ITEM => self.read_item()?,
                CLEAR => self.read::<8>()?.is_some(),
                END => {
                    let end = self.read::<12>()?;
                    let expected = [&checksum.digest().to_le_bytes()[..], &TRAILER].concat();
                    let whole = end.is_some_and(|end| end[..] == expected);
                    return Ok(whole.then_some(u64::from_le_bytes(number)));
                }
                _ => false,
            };
            if !whole {
                return Ok(None);
            }
            checksum.update(&self.entry);
        }
    }

    /// Value type, compression (none, see [`super::directory`]), keyspace, three lengths, key, value.
    fn read_item(&mut self) -> io::Result<bool> {
        let Some([kind, compression, lengths @ ..]) = self.read::<20>()? else { return Ok(false) };
        let [_, _, _, _, _, _, _, _, k0, k1, v0, v1, v2, v3, s0, s1, s2, s3] = lengths;
        let key = u16::from_le_bytes([k0, k1]);
        let (value, stored) = (u32::from_le_bytes([v0, v1, v2, v3]), u32::from_le_bytes([s0, s1, s2, s3]));
        let fits = kind <= 2 && compression == 0 && value == stored;
        Ok(fits && self.read_more(u64::from(key) + u64::from(stored))?)
    }

    /// The next bytes of the entry; `None` where the file ends before.
    fn read<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let whole = self.read_more(N as u64)?;
        Ok(self.entry.last_chunk().copied().filter(|_| whole))
    }

    /// A length may be damaged, so it is compared with what there is before anything is made room for.
    fn read_more(&mut self, bytes: u64) -> io::Result<bool> {
        if bytes > self.length - self.at {
            return Ok(false);
        }
        let read = (&mut self.reader).take(bytes).read_to_end(&mut self.entry)? as u64;
        self.at += read;
        Ok(read == bytes)
    }

    fn has_only_zeros_from(&mut self, start: u64) -> io::Result<bool> {
        self.reader.seek(SeekFrom::Start(start))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match self.reader.read(&mut chunk)? {
                0 => return Ok(true),
                // One comparison of slices, as a loop over the bytes of 64 MiB would take a while.
                read if chunk[..read] != ZEROS[..read] => return Ok(false),
                _ => {}
            }
        }
    }
}
