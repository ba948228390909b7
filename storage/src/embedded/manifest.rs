//! Checks the manifest of each keyspace before fjall uses it. It says which tables there are and how their rows
//! rank; a flipped bit in it can let old rows shadow new ones. fjall stores a checksum of it but does not look
//! at it. It also deletes a keyspace without a manifest, and makes room for as many parts of a table as the
//! table says that it has. What is in the tables has checksums that fjall checks whenever it reads.
//!
//! The formats are those of fjall 3.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use shared::ports::StoreError;
use xxhash_rust::xxh3::xxh3_128;

use super::{damaged, unavailable};

/// Of a closed database that was made completely. fjall numbers its keyspaces from 0.
///
/// # Errors
/// [`StoreError::Damaged`]
pub(super) fn examine(database: &Path, keyspaces: u64) -> Result<(), StoreError> {
    // Without it fjall begins anew.
    let version = database.join("version");
    if !version.exists() {
        return Err(missing(&version));
    }
    for number in 0..keyspaces {
        let folder = database.join("keyspaces").join(number.to_string());
        let manifest = manifest(&folder)?;
        let tables = tables(&manifest);
        let tables = tables.ok_or_else(|| damaged(format!("{} has an unknown form", folder.display())))?;
        tables.iter().try_for_each(|table| examine_table(&folder.join("tables").join(table.to_string())))?;
    }
    Ok(())
}

/// `current` is the number of the manifest, its checksum, and a zero for the kind of checksum.
fn manifest(folder: &Path) -> Result<Vec<u8>, StoreError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| of_file(path, error));
    let current = folder.join("current");
    let content = read(&current)?;
    let Some((number, checksum)) = content.split_first_chunk::<8>() else {
        return Err(mismatch(&current));
    };
    let path = folder.join(format!("v{}", u64::from_le_bytes(*number)));
    let manifest = read(&path)?;
    let expected = [&xxh3_128(&manifest).to_le_bytes()[..], &[0]].concat();
    if checksum == expected { Ok(manifest) } else { Err(mismatch(&path)) }
}

/// The ids of its tables: levels of runs of tables.
fn tables(manifest: &[u8]) -> Option<Vec<u64>> {
    let contents = contents(manifest.len() as u64, |bytes, at| {
        let at = usize::try_from(at).ok()?;
        bytes.copy_from_slice(manifest.get(at..at.checked_add(bytes.len())?)?);
        Some(())
    })?;
    let mut contents = Reader(contents.get(8..)?);
    let section = loop {
        let (from, length, name) = (contents.u64()?, contents.u64()?, contents.u16()?);
        if contents.take(name.into())? == b"tables" {
            break manifest.get(usize::try_from(from).ok()?..usize::try_from(from + length).ok()?)?;
        }
    };
    let (mut section, mut tables) = (Reader(section), Vec::new());
    for _ in 0..section.u8()? {
        for _ in 0..section.u8()? {
            for _ in 0..section.u32()? {
                tables.push(section.u64()?);
                // The kind of the table's checksum, that, and an offset of its ranks.
                section.take(1 + 16 + 8)?;
            }
        }
    }
    Some(tables)
}

fn examine_table(path: &Path) -> Result<(), StoreError> {
    let file = File::open(path).map_err(|error| of_file(path, error))?;
    let length = file.metadata().map_err(|error| of_file(path, error))?.len();
    let contents = contents(length, |bytes, at| file.read_exact_at(bytes, at).ok());
    contents.map(drop).ok_or_else(|| mismatch(path))
}

const TRAILER_BYTES: u64 = 38;

/// The table of contents at the end of a file, if it has its checksum. The trailer behind it: a magic word,
/// version and kind of checksum, the checksum, where the table begins, and its length.
fn contents(length: u64, read: impl Fn(&mut [u8], u64) -> Option<()>) -> Option<Vec<u8>> {
    let end = length.checked_sub(TRAILER_BYTES)?;
    let mut trailer = [0; TRAILER_BYTES as usize];
    read(&mut trailer, end)?;
    let mut trailer = Reader(trailer.strip_prefix(b"SFA!\x01\x00")?);
    let (checksum, from) = (trailer.take(16)?, trailer.u64()?);
    let mut contents = vec![0; usize::try_from(end.checked_sub(from)?).ok()?];
    read(&mut contents, from)?;
    (xxh3_128(&contents).to_le_bytes() == checksum).then_some(contents)
}

/// Little endian, unlike this store's own values.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

fn of_file(path: &Path, error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::NotFound { missing(path) } else { unavailable(error) }
}

fn missing(path: &Path) -> StoreError {
    damaged(format!("{} is missing", path.display()))
}

fn mismatch(path: &Path) -> StoreError {
    damaged(format!("{} does not match its checksum", path.display()))
}
