//! What a directory must be before it is served: a log without holes in which every entry has its checksum,
//! that reaches as far as it was acknowledged, and state that has seen all of it. It repairs nothing.
//!
//! Why that is enough: a group of events is one batch, over all keyspaces. What fjall may lose is the end of
//! the last journal (see [`super::journal`] for the others), so each keyspace lacks at most its latest batches.
//! For the log the mark says how far it must reach; for the others it is the log that says it.

use fjall::Keyspace;
use shared::ports::StoreError;

use super::directory::Directory;
use super::entry::Entry;
use super::acknowledged::Acknowledged;
use super::{damaged, encoding, keys, read_error};

/// The end of the log; zeros when it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) offset: u64,
    pub(super) ms: u64,
}

/// `mark` is the offset up to which the log was acknowledged, `None` when that was never written down.
///
/// # Errors
/// [`StoreError::Damaged`] with the directory and the first log entry concerned.
pub(super) fn verify(directory: &Directory, mark: Option<u64>) -> Result<Last, StoreError> {
    let place = directory.path().display();
    let last = entries(directory)?;
    let missing = |why: &str| Err(damaged(format!("log entry {} in {place} is missing: {why}", last.offset + 1)));
    match mark {
        Some(mark) if mark > last.offset => return missing(&format!("all up to {mark} were acknowledged")),
        None if last.offset > 0 => return Err(damaged(format!("the mark file of {place} is missing"))),
        _ => {}
    }
    let seen = number_at(&directory.state, keys::SEEN)?;
    if seen > last.offset {
        return missing(&format!("heads and accounts have seen {seen}"));
    }
    if seen < last.offset {
        let entry = seen + 1;
        return Err(damaged(format!("heads and accounts in {place} lack log entry {entry} and what follows")));
    }
    let shown = Acknowledged::load(&directory.views)?.highest();
    if shown > last.offset {
        return missing(&format!("the views have seen {shown}"));
    }
    Ok(last)
}

fn entries(directory: &Directory) -> Result<Last, StoreError> {
    let mut last = Last::default();
    for row in directory.log.iter() {
        let offset = last.offset + 1;
        let refuse = |why: String| {
            Err(damaged(format!("log entry {offset} in {}: {why}", directory.path().display())))
        };
        let (key, value) = match row.into_inner() {
            Ok(row) => row,
            Err(error) => return refuse(error.to_string()),
        };
        if encoding::number(&key) != Some(offset) {
            return refuse("it is missing".to_owned());
        }
        match Entry::decode(&value) {
            Some(entry) if !entry.is_whole(offset) => return refuse("its checksum is wrong".to_owned()),
            Some(entry) if entry.ms < last.ms => return refuse("its time is before the last one's".to_owned()),
            Some(entry) => last = Last { offset, ms: entry.ms },
            None => return refuse("it cannot be read".to_owned()),
        }
    }
    Ok(last)
}

fn number_at(keyspace: &Keyspace, key: &[u8]) -> Result<u64, StoreError> {
    match keyspace.get(key).map_err(read_error)? {
        Some(value) => encoding::number(&value).ok_or_else(|| damaged("a number cannot be read".to_owned())),
        None => Ok(0),
    }
}
