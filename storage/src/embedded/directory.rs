//! The directory of a store: who may use it, what lies in it, how it is opened, and the one gate through which
//! everything is written. It knows no event and no view.
//!
//! ```text
//! DIR/lock     held as long as the store lives, so that no second process opens it
//! DIR/mark     up to where the log was acknowledged (see the `mark` module)
//! DIR/db       fjall: journals and the keyspaces log and state
//! DIR/views    fjall: journals and the keyspace views_1, all of it made from the log (see the `place` module)
//! DIR/torn-*   only after damage: the end of a journal of `db`, from its first damaged byte
//! ```
//!
//! Two databases, as a journal is one queue: beside the views, whose commits are large and not synced, an append
//! would wait for them, and for the sync of the journal whenever the views are flushed. `views` may be removed
//! from a closed directory: the views are then made again.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Snapshot,
};
use shared::clock::Clock;
use shared::limits::{
    BACKGROUND_NICENESS, BLOCKS_CACHED_BYTES_MAX, DISK_FREE_BYTES_MIN, JOURNALS_BYTES_MAX, MEMTABLE_BYTES_MAX,
};
use shared::ports::StoreError;

use super::mark::Mark;
use super::place::{self, Place};
use super::verify::{self, Last};
use super::{STORE, damaged, journal, manifest, read_error, unavailable};

/// Of generation 1.
const VIEWS: &str = "views_1";
/// log, state, and fjall's own.
const LOG_KEYSPACES: u64 = 3;

pub(super) struct Directory {
    log_database: Database,
    views_database: Database,
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
pub(super) fn open(path: &Path, place: Place, clock: &Clock) -> Result<Opened, StoreError> {
    std::fs::create_dir_all(path).map_err(|error| in_directory(path, error))?;
    let lock = lock(path)?;
    let mark = Mark::open(&path.join("mark"))?;
    let kept = examine_log(path, mark.is_some(), clock)?;
    let views = place::prepare(path, place)?;
    let acknowledged = mark.as_ref().map(|(_, offset)| *offset);
    let directory = open_databases(path, &views, lock).map_err(|error| {
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
    let mut mark = match mark {
        Some((mark, _)) => mark,
        None => Mark::create(&path.join("mark"), last.offset).map_err(unavailable)?,
    };
    directory.drop_old_views(&mut mark, last)?;
    Ok(Opened { directory, mark, last })
}

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// For so many rows of `log` and `state`.
    pub(super) fn log_batch(&self, rows: usize) -> OwnedWriteBatch {
        OwnedWriteBatch::with_capacity(self.log_database.clone(), rows)
    }

    /// For so many rows of `views`.
    pub(super) fn views_batch(&self, rows: usize) -> OwnedWriteBatch {
        OwnedWriteBatch::with_capacity(self.views_database.clone(), rows)
    }

    /// One state of the views, in which a batch is there as a whole or not at all.
    pub(super) fn views_snapshot(&self) -> Snapshot {
        self.views_database.snapshot()
    }

    /// Writes all of a batch or nothing. `Buffer` survives the process, `SyncData` a power cut; batches of a
    /// database survive in the order of their commits.
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
        let databases = [&self.log_database, &self.views_database];
        databases
            .into_iter()
            .try_for_each(|database| database.persist(PersistMode::Buffer).map_err(|_| refused(self.path())))
    }

    /// For a clean end: nothing is left to the kernel.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let databases = [&self.log_database, &self.views_database];
        databases
            .into_iter()
            .try_for_each(|database| database.persist(PersistMode::SyncAll))
            .map_err(read_error)
    }

    /// The views were a keyspace beside the log once. Those are given up: the ones in their own place are made
    /// from the log.
    fn drop_old_views(&self, mark: &mut Mark, last: Last) -> Result<(), StoreError> {
        let database = &self.log_database;
        if database.keyspace_exists(VIEWS) {
            // First, so that a program which looks for them there refuses the directory.
            mark.renew(last.offset).map_err(unavailable)?;
            let views = keyspace(database, VIEWS).map_err(read_error)?;
            database.delete_keyspace(views).map_err(read_error)?;
            tracing::info!("the views have a place of their own now; they are made again from the log");
        }
        Ok(())
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

pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
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
fn examine_log(path: &Path, was_complete: bool, clock: &Clock) -> Result<Option<PathBuf>, StoreError> {
    let database = path.join("db");
    if was_complete {
        manifest::examine(&database, LOG_KEYSPACES)?;
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
    tail.keep(&copy).map_err(unavailable)?;
    tail.cut().map_err(unavailable)?;
    Ok(Some(copy))
}

fn open_databases(path: &Path, views: &Path, lock: File) -> Result<Directory, StoreError> {
    let open = || {
        let log_database = open_database(&path.join("db"))?;
        let (log, state) = (keyspace(&log_database, "log")?, keyspace(&log_database, "state")?);
        let (views_database, views) = open_views(views)?;
        Ok((log_database, views_database, log, state, views))
    };
    let on_its_own = || {
        yield_to_requests();
        open()
    };
    // fjall asserts much of what it reads; and its threads, which flush and compact, are as urgent as the one that starts
    // them.
    let opened = thread::scope(|scope| scope.spawn(on_its_own).join());
    let opened = opened.unwrap_or(Err(fjall::Error::Unrecoverable));
    let (log_database, views_database, log, state, views) = opened.map_err(read_error)?;
    Ok(Directory { log_database, views_database, log, state, views, path: path.to_owned(), lock })
}

/// This thread and those that it starts leave the cores to whoever answers a request. Where a thread has no priority of
/// its own, or may not change it, all are alike.
fn yield_to_requests() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(BACKGROUND_NICENESS) {
        tracing::debug!(%error, "flushes and compactions are as urgent as requests");
    }
}

pub(super) fn open_views(path: &Path) -> fjall::Result<(Database, Keyspace)> {
    let database = open_database(path)?;
    let views = keyspace(&database, VIEWS)?;
    Ok((database, views))
}

/// Without compression, so that the framing of a journal can be read without unpacking its items.
fn open_database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .journal_compression(CompressionType::None)
        .max_journaling_size(JOURNALS_BYTES_MAX)
        .cache_size(BLOCKS_CACHED_BYTES_MAX)
        .open()
}

fn keyspace(database: &Database, name: &str) -> fjall::Result<Keyspace> {
    database.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX))
}

fn in_directory(path: &Path, error: io::Error) -> StoreError {
    unavailable(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Says more about damage.
pub(super) fn with(error: StoreError, say: impl FnOnce(&str) -> String) -> StoreError {
    if let StoreError::Damaged { what, .. } = &error { damaged(say(what)) } else { error }
}
