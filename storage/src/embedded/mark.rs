//! The high-water mark: a small file beside the data that says up to which offset the log was acknowledged, so
//! that a log which lost its end is told from one that never had it. It also says which layout the directory
//! has. It knows nothing of what the log holds.
//!
//! It is written after each group was made durable and before it is acknowledged, without an fsync of its own:
//! - It can never raise a false alarm. What it says was durable before it was said; a write of it that a power
//!   cut took back leaves an older mark, which only asks for less.
//! - A killed process loses nothing of it: the write is in the kernel's cache. After a power cut it may be as
//!   old as the kernel's write-back (half a minute at most); the entries past it are still checked one by one,
//!   and against what the other keyspaces have seen of the log.
//! - Two slots, in sectors of their own, are written in turn, so that a write torn in the middle leaves the
//!   other one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use shared::ports::StoreError;

use super::{STORE, damaged, unavailable};

const MAGIC: &[u8; 8] = b"CHATMARK";
/// Of the whole directory: what the keyspaces are, and how keys and values lie in them.
const LAYOUT: u32 = 2;
/// The views lay beside the log. Opening such a directory makes the layout of today of it.
const LAYOUT_BEFORE: u32 = 1;
const SLOT_BYTES: usize = 24;
/// Where the slots begin.
const SLOTS_AT: [u64; 2] = [0, 512];

pub(super) struct Mark {
    file: File,
    /// Which slot is written next.
    next: usize,
}

impl Mark {
    /// `None`: there is no mark, so nothing was ever acknowledged from this directory. Otherwise the mark and
    /// the offset that it holds.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when neither slot can be read, [`StoreError::Unfit`] for another layout.
    pub(super) fn open(path: &Path) -> Result<Option<(Self, u64)>, StoreError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(error)),
        };
        let [first, second] = SLOTS_AT.map(|at| read(&file, at));
        let (offset, next) = match (first, second) {
            (Some(Slot { layout, .. }), _) | (_, Some(Slot { layout, .. }))
                if ![LAYOUT, LAYOUT_BEFORE].contains(&layout) =>
            {
                let what = format!("{} has layout {layout}, this program knows {LAYOUT}", path.display());
                return Err(StoreError::Unfit { store: STORE, what });
            }
            (Some(first), Some(second)) if first.offset > second.offset => (first.offset, 1),
            (Some(_), Some(second)) | (None, Some(second)) => (second.offset, 0),
            (Some(first), None) => (first.offset, 1),
            (None, None) => return Err(damaged(format!("{} cannot be read", path.display()))),
        };
        Ok(Some((Self { file, next }, offset)))
    }

    /// Durable when it returns, together with its directory.
    pub(super) fn create(path: &Path, offset: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut mark = Self { file, next: 0 };
        mark.renew(offset)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(mark)
    }

    /// Both slots, durably: no program that knows only the layout before opens the directory from then on.
    pub(super) fn renew(&mut self, offset: u64) -> io::Result<()> {
        for _ in SLOTS_AT {
            self.set(offset)?;
        }
        self.sync()
    }

    pub(super) fn set(&mut self, offset: u64) -> io::Result<()> {
        self.file.write_all_at(&slot(LAYOUT, offset), SLOTS_AT[self.next])?;
        self.next = (self.next + 1) % SLOTS_AT.len();
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn slot(layout: u32, offset: u64) -> Vec<u8> {
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.extend(MAGIC);
    slot.extend(layout.to_be_bytes());
    slot.extend(offset.to_be_bytes());
    slot.extend(crc32fast::hash(&slot).to_be_bytes());
    slot
}

#[derive(Clone, Copy)]
struct Slot {
    layout: u32,
    offset: u64,
}

fn read(file: &File, at: u64) -> Option<Slot> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, at).ok()?;
    let (content, checksum) = slot.split_last_chunk::<4>()?;
    let (magic, rest) = content.split_first_chunk::<8>()?;
    let (layout, offset) = rest.split_first_chunk::<4>()?;
    let whole = magic == MAGIC && crc32fast::hash(content) == u32::from_be_bytes(*checksum);
    whole.then_some(Slot {
        layout: u32::from_be_bytes(*layout),
        offset: u64::from_be_bytes(offset.try_into().ok()?),
    })
}

/// As a program of the layout before left it.
#[cfg(test)]
pub(super) fn write_layout_before(path: &Path, offset: u64) {
    let file = File::create(path).unwrap();
    SLOTS_AT.into_iter().for_each(|at| file.write_all_at(&slot(LAYOUT_BEFORE, offset), at).unwrap());
}

#[cfg(test)]
pub(super) fn layouts(path: &Path) -> [u32; 2] {
    let file = File::open(path).unwrap();
    SLOTS_AT.map(|at| read(&file, at).unwrap().layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(path: &Path) -> Result<u64, StoreError> {
        Ok(Mark::open(path)?.expect("there is a mark").1)
    }

    #[test]
    fn holds_the_last_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        assert!(Mark::open(&path).unwrap().is_none());
        let mut mark = Mark::create(&path, 0).unwrap();
        for set in [1, 2, 5, 6, 1_000] {
            mark.set(set).unwrap();
            assert_eq!(offset(&path).unwrap(), set);
        }
        let (mut again, _) = Mark::open(&path).unwrap().unwrap();
        again.set(1_001).unwrap();
        again.set(1_002).unwrap();
        assert_eq!(offset(&path).unwrap(), 1_002);
    }

    #[test]
    fn a_torn_slot_leaves_the_other_and_two_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let mut mark = Mark::create(&path, 7).unwrap();
        mark.set(8).unwrap();
        mark.file.write_all_at(b"torn", SLOTS_AT[0] + 14).unwrap();
        assert_eq!(offset(&path).unwrap(), 7);
        mark.file.write_all_at(b"torn", SLOTS_AT[1] + 14).unwrap();
        assert!(matches!(Mark::open(&path), Err(StoreError::Damaged { .. })));
    }
}
