//! The directory of a store: who may use it, what lies in it, how it is opened, and the one gate through which
//! everything is written. It knows no event and no view.
//!
//! ```text
//! DIR/lock     held as long as the store lives, so that no second process opens it
//! DIR/mark     up to where the log was acknowledged (see the `mark` module)
//! DIR/db       fjall: journals and the keyspaces log, state and views_1
//! DIR/torn-*   only after damage: the end of a journal, from its first damaged byte
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Snapshot,
};
use shared::clock::Clock;
use shared::limits::{DISK_FREE_BYTES_MIN, JOURNALS_BYTES_MAX, MEMTABLE_BYTES_MAX};
use shared::ports::StoreError;

use super::mark::Mark;
use super::verify::{self, Last};
use super::{STORE, damaged, journal, manifest, read_error, unavailable};

pub(super) struct Directory {
    database: Database,
    /// Offset → entry.
    pub(super) log: Keyspace,
    /// What the next append depends on, and sessions: all of it written by the writer thread alone.
    pub(super) state: Keyspace,
    /// The views of generation 1, with its cursor: all of it written under the lock of [`super::views`].
    pub(super) views: Keyspace,
    path: PathBuf,
    /// The last field, so that fjall has closed its files when it is given up. The kernel gives it up as well
    /// when the process is killed.
    lock: File,
}

pub(super) struct Opened {
    pub(super) directory: Directory,
    pub(super) mark: Mark,
    pub(super) last: Last,
}

/// Creates what is not there, verifies what is.
///
/// # Errors
/// - [`StoreError::Unavailable`]: the directory is in use, or the system refused a file.
/// - [`StoreError::Damaged`]: see [`verify`], [`journal`] and [`manifest`]. Nothing was changed; but the end of
///   the last journal may have been moved to a file of its own.
pub(super) fn open(path: &Path, clock: &Clock) -> Result<Opened, StoreError> {
    std::fs::create_dir_all(path).map_err(|error| in_directory(path, error))?;
    let lock = lock(path)?;
    let mark = Mark::open(&path.join("mark"))?;
    let kept = examine(path, mark.is_some(), clock)?;
    let acknowledged = mark.as_ref().map(|(_, offset)| *offset);
    let directory = open_database(path, lock).map_err(|error| {
        let up_to = acknowledged.unwrap_or(0);
        with(error, |what| format!("{what}, in {} (acknowledged up to log entry {up_to})", path.display()))
    })?;
    let verified = verify::verify(&directory, acknowledged);
    let last = match &kept {
        Some(copy) => {
            let cut = |what: &str| format!("{what} (the end of the journal is kept in {})", copy.display());
            let last = verified.map_err(|error| with(error, cut))?;
            std::fs::remove_file(copy).map_err(unavailable)?;
            last
        }
        None => verified?,
    };
    let mark = match mark {
        Some((mark, _)) => mark,
        None => Mark::create(&path.join("mark"), last.offset).map_err(unavailable)?,
    };
    Ok(Opened { directory, mark, last })
}

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.database.batch()
    }

    /// One state of all keyspaces, in which a batch is there as a whole or not at all.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }

    /// Writes all of a batch or nothing. `Buffer` survives the process, `SyncData` a power cut; batches survive
    /// in the order of their commits.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing was written. [`StoreError::Unknown`]: the disk refused in the
    /// middle. fjall takes no more writes then, as only a new start can tell what is on the disk.
    pub(super) fn commit(&self, batch: OwnedWriteBatch, durability: PersistMode) -> Result<(), StoreError> {
        self.check_space()?;
        batch.durability(Some(durability)).commit().map_err(|error| {
            let nothing_written = matches!(error, fjall::Error::Poisoned);
            if nothing_written { refused(self.path()) } else { StoreError::unknown(STORE, error) }
        })
    }

    /// Whether writes are taken.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.check_space()?;
        self.database.persist(PersistMode::Buffer).map_err(|_| refused(self.path()))
    }

    /// For a clean end: nothing is left to the kernel.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(read_error)
    }

    /// A full disk is refused before fjall meets it: so appends go on as soon as there is space again, and
    /// fjall always has room for its own work.
    fn check_space(&self) -> Result<(), StoreError> {
        let disk = rustix::fs::fstatvfs(&self.lock).map_err(|error| unavailable(error.into()))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) >= DISK_FREE_BYTES_MIN {
            return Ok(());
        }
        let what = format!("less than {} MiB are free in {}", DISK_FREE_BYTES_MIN >> 20, self.path.display());
        Err(StoreError::unavailable(STORE, what))
    }
}

fn refused(path: &Path) -> StoreError {
    let what = format!("a write to {} failed; it is taken up again by a restart", path.display());
    StoreError::unavailable(STORE, what)
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = File::options().write(true).create(true).truncate(false).open(path.join("lock"));
    let file = file.map_err(|error| in_directory(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!("the directory {} is in use by another process", path.display());
            Err(StoreError::unavailable(STORE, what))
        }
        Err(TryLockError::Error(error)) => Err(in_directory(path, error)),
    }
}

/// What must be done before fjall opens its files, as it deletes and cuts what it does not understand. Returns
/// the file that holds the end of the last journal, if that had to be cut. `was_complete`: there is a mark.
fn examine(path: &Path, was_complete: bool, clock: &Clock) -> Result<Option<PathBuf>, StoreError> {
    let database = path.join("db");
    if was_complete {
        manifest::examine(&database)?;
    } else if !database.exists() {
        return Ok(None);
    } else if !journal::is_blank(&database)? {
        return Err(damaged(format!("{} is missing", path.join("mark").display())));
    } else if !database.join("version").exists() {
        // It is the last file of a new database, so this one was interrupted while it was made.
        std::fs::remove_dir_all(&database).map_err(unavailable)?;
        return Ok(None);
    }
    let Some(tail) = journal::examine(&database)? else { return Ok(None) };
    let copy = path.join(format!("torn-{}", clock.now().0));
    tail.cut(&copy).map_err(unavailable)?;
    Ok(Some(copy))
}

fn open_database(path: &Path, lock: File) -> Result<Directory, StoreError> {
    let open = || {
        // Without compression, so that the framing of a journal can be read without unpacking its items.
        let database = Database::builder(path.join("db"))
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .open()?;
        let keyspace = |name| {
            database.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX))
        };
        Ok((keyspace("log")?, keyspace("state")?, keyspace("views_1")?, database))
    };
    // fjall asserts much of what it reads.
    let opened = catch_unwind(AssertUnwindSafe(open)).unwrap_or(Err(fjall::Error::Unrecoverable));
    let (log, state, views, database) = opened.map_err(read_error)?;
    Ok(Directory { database, log, state, views, path: path.to_owned(), lock })
}

fn in_directory(path: &Path, error: io::Error) -> StoreError {
    unavailable(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Says more about damage.
fn with(error: StoreError, say: impl FnOnce(&str) -> String) -> StoreError {
    if let StoreError::Damaged { what, .. } = &error { damaged(say(what)) } else { error }
}
