//! What a directory must be before it is served: a log without holes in which every entry has its checksum,
//! that reaches as far as it was acknowledged, and state that has seen all of it. It repairs nothing.
//!
//! Why that is enough: a group of events is one batch, over log and state. What fjall may lose is the end of
//! the last journal (see [`super::journal`] for the others), so each keyspace lacks at most its latest batches.
//! For the log the mark says how far it must reach; for the state it is the log that says it. The views may lack
//! any of it, as they are made from the log.

use fjall::Keyspace;
use shared::ports::StoreError;

use super::acknowledged::Acknowledged;
use super::directory::Directory;
use super::entry::Entry;
use super::{damaged, encoding, keys, read_error, unavailable};

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
    let missing =
        |why: &str| Err(damaged(format!("log entry {} in {place} is missing: {why}", last.offset + 1)));
    match mark {
        Some(mark) if mark > last.offset => return missing(&format!("all up to {mark} were acknowledged")),
        None if last.offset > 0 => return Err(damaged(format!("{place}/mark is missing"))),
        _ => {}
    }
    let seen = number_at(&directory.state, keys::SEEN)?;
    if seen > last.offset {
        return missing(&format!("heads and accounts have seen {seen}"));
    }
    if seen < last.offset {
        let entry = seen + 1;
        return Err(damaged(format!(
            "heads and accounts in {place} lack log entry {entry} and what follows"
        )));
    }
    let shown = Acknowledged::load(&directory.views)?.highest();
    if shown > last.offset {
        return missing(&format!("the views have seen {shown}"));
    }
    Ok(last)
}

/// In as many parts as there are cores: it is nearly all that a start costs.
fn entries(directory: &Directory) -> Result<Last, StoreError> {
    let end = match directory.log.last_key_value() {
        Some(row) => row.key().ok().and_then(|key| encoding::number(&key)),
        None => Some(0),
    };
    let end = end.ok_or_else(|| refuse(directory, 1, "is somewhere before an end that cannot be read"))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let part = end.div_ceil(cores).max(1);
    let firsts = (0..cores).map(|core| core * part + 1).take_while(|first| *first <= end);
    std::thread::scope(|scope| {
        let check = |first| {
            let thread = std::thread::Builder::new().name("store-verify".to_owned());
            let part = move || entries_of(directory, first, end.min(first + part - 1));
            Ok((first, thread.spawn_scoped(scope, part).map_err(unavailable)?))
        };
        let parts = firsts.map(check).collect::<Result<Vec<_>, StoreError>>()?;
        let mut last = Last::default();
        for (first, part) in parts {
            // fjall asserts much of what it reads.
            let checked = part.join().unwrap_or_else(|_| Err(refuse(directory, first, UNREADABLE)));
            let (first_ms, end) = checked?;
            if first_ms < last.ms {
                return Err(refuse(directory, first, TOO_EARLY));
            }
            last = end;
        }
        Ok(last)
    })
}

const UNREADABLE: &str = "or one after it cannot be read";
const TOO_EARLY: &str = "is dated before the one before it";

/// The time of the first, and the end.
fn entries_of(directory: &Directory, first: u64, end: u64) -> Result<(u64, Last), StoreError> {
    let mut rows = directory.log.range(first.to_be_bytes()..=end.to_be_bytes());
    let mut first_ms = None;
    let mut last = Last::default();
    for offset in first..=end {
        let refuse = |why: &str| refuse(directory, offset, why);
        let row = rows.next().ok_or_else(|| refuse("is missing"))?;
        let (key, value) = row.into_inner().map_err(|error| refuse(&format!("cannot be read: {error}")))?;
        if encoding::number(&key) != Some(offset) {
            return Err(refuse("is missing"));
        }
        let entry = Entry::decode(&value).ok_or_else(|| refuse("cannot be read"))?;
        if !entry.is_whole(offset) {
            return Err(refuse("does not match its checksum"));
        }
        if entry.ms < last.ms {
            return Err(refuse(TOO_EARLY));
        }
        last = Last { offset, ms: entry.ms };
        first_ms.get_or_insert(entry.ms);
    }
    Ok((first_ms.unwrap_or(0), last))
}

fn refuse(directory: &Directory, offset: u64, why: &str) -> StoreError {
    damaged(format!("log entry {offset} in {} {why}", directory.path().display()))
}

fn number_at(keyspace: &Keyspace, key: &[u8]) -> Result<u64, StoreError> {
    match keyspace.get(key).map_err(read_error)? {
        Some(value) => encoding::number(&value).ok_or_else(|| damaged("a number cannot be read".to_owned())),
        None => Ok(0),
    }
}
