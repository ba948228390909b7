//! Where the views of a directory lie: made, checked, and replaced by others that were made beside them. All of it
//! while the directory is locked.
//!
//! ```text
//! DIR/views          the views; DIR/views/shape says of which shape (see `shared::view::SHAPE`)
//! DIR/views-new      others, not complete: whoever opens the directory removes them
//! DIR/views-rebuilt  others, complete: whoever opens the directory puts them in the place of `views`
//! ```
//!
//! So whoever is killed while he makes others leaves the views as they were, and whoever is killed while he replaces
//! them leaves the rest of it to the next.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use shared::ports::StoreError;
use shared::view::SHAPE;

use super::{STORE, directory, journal, manifest, read_error, unavailable};

const VIEWS: &str = "views";
const NEW: &str = "views-new";
const REBUILT: &str = "views-rebuilt";
const SHAPE_FILE: &str = "shape";
/// Of views from before it was written down.
const FIRST_SHAPE: u32 = 1;
/// The views, and fjall's own.
const KEYSPACES: u64 = 2;

/// Which views a store opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Those that are read.
    Served,
    /// Empty ones, beside them.
    Beside,
}

/// The database to be opened: of this program's shape, and whole or empty. Of the views nothing was acknowledged: what
/// is cut of their journal is made again from the log.
pub(super) fn prepare(dir: &Path, place: Place) -> Result<PathBuf, StoreError> {
    settle(dir).map_err(unavailable)?;
    let (views, new) = (dir.join(VIEWS), dir.join(NEW));
    match place {
        Place::Beside => {
            create(&new)?;
            Ok(new)
        }
        Place::Served if views.exists() => {
            check_shape(&views)?;
            examine(&views)?;
            Ok(views)
        }
        Place::Served => {
            create(&new)?;
            // So what has its name is complete.
            fs::rename(&new, &views).map_err(unavailable)?;
            Ok(views)
        }
    }
}

/// Views that were made beside those of the directory take their place. Nobody may have opened it since.
///
/// # Errors
/// [`StoreError::Unavailable`]: the directory is in use, or there are none. The views are what they were, or these.
pub fn replace_views(dir: &Path) -> Result<(), StoreError> {
    let _lock = directory::lock(dir)?;
    let replace = || {
        fs::rename(dir.join(NEW), dir.join(REBUILT))?;
        File::open(dir)?.sync_all()?;
        settle(dir)
    };
    replace().map_err(unavailable)
}

/// Whether there are views, and of another shape than this program's, so that [`super::Embedded::open`] refuses them.
#[must_use]
pub fn has_views_of_another_shape(dir: &Path) -> bool {
    let views = dir.join(VIEWS);
    views.exists() && shape(&views) != Some(SHAPE)
}

fn settle(dir: &Path) -> io::Result<()> {
    let [views, new, rebuilt] = [VIEWS, NEW, REBUILT].map(|name| dir.join(name));
    if rebuilt.exists() {
        if views.exists() {
            fs::remove_dir_all(&views)?;
        }
        fs::rename(rebuilt, views)?;
    }
    if new.exists() { fs::remove_dir_all(new) } else { Ok(()) }
}

fn create(database: &Path) -> Result<(), StoreError> {
    directory::open_views(database).map(drop).map_err(read_error)?;
    fs::write(database.join(SHAPE_FILE), SHAPE.to_string()).map_err(unavailable)
}

/// `None`: it cannot be read.
fn shape(database: &Path) -> Option<u32> {
    match fs::read_to_string(database.join(SHAPE_FILE)) {
        Ok(text) => text.parse().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(FIRST_SHAPE),
        Err(_) => None,
    }
}

fn check_shape(database: &Path) -> Result<(), StoreError> {
    if shape(database) == Some(SHAPE) {
        return Ok(());
    }
    let what =
        format!("{} is of another shape than this program's: a rebuild makes it anew", database.display());
    Err(StoreError::Unfit { store: STORE, what })
}

fn examine(database: &Path) -> Result<(), StoreError> {
    let examine = || {
        manifest::examine(database, KEYSPACES)?;
        let tail = journal::examine(database)?;
        tail.map_or(Ok(()), |tail| tail.cut().map_err(unavailable))
    };
    examine().map_err(|error| directory::with(error, |what| format!("{what}; {REMOVABLE}")))
}

const REMOVABLE: &str = "the views are made again from the log if their directory is removed";
