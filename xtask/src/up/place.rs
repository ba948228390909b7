//! The directory of a running system, and its records: which process is which part.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use xtask::servers::{Identity, check_free};

use crate::{output, workspace};

pub(super) struct Place {
    dir: PathBuf,
}

/// A part that was started, as its file says. It may have ended since.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) identity: Identity,
}

impl Place {
    pub(super) fn open() -> Result<Self> {
        let dir = workspace::target_dir()?.join("xtask/up");
        for part in ["logs", "processes"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("{}", path.display()))?;
        }
        Ok(Self { dir })
    }

    pub(super) fn path(&self, part: impl AsRef<Path>) -> PathBuf {
        self.dir.join(part)
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// Starts a part unless it runs, and says so. An error if somebody else has its address.
    pub(super) fn ensure(
        &self,
        name: &str,
        addr: SocketAddr,
        start: impl FnOnce() -> Result<Identity>,
    ) -> Result<()> {
        let since = Instant::now();
        if let Some(identity) = self.running(name)? {
            output::part(name, format!("{addr} runs already, pid {}", identity.pid), since);
            return Ok(());
        }
        check_free(addr).with_context(|| format!("cannot start {name}"))?;
        let identity = start().with_context(|| format!("cannot start {name}"))?;
        let file = self.record_file(name);
        fs::write(&file, identity.to_string()).with_context(|| format!("{}", file.display()))?;
        output::part(name, format!("{addr} pid {}", identity.pid), since);
        Ok(())
    }

    /// The process of a part, if it was started and is still there.
    pub(super) fn running(&self, name: &str) -> Result<Option<Identity>> {
        let file = self.record_file(name);
        if !file.exists() {
            return Ok(None);
        }
        let identity: Identity =
            fs::read_to_string(&file)?.parse().with_context(|| format!("{}", file.display()))?;
        Ok(identity.is_alive().then_some(identity))
    }

    /// All parts that were ever started and not forgotten, by name.
    pub(super) fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.path("processes"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let file = self.record_file(&name);
            let identity =
                fs::read_to_string(&file)?.parse().with_context(|| format!("{}", file.display()))?;
            records.push(Record { name, identity });
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    pub(super) fn forget(&self, name: &str) -> Result<()> {
        let file = self.record_file(name);
        fs::remove_file(&file).with_context(|| format!("{}", file.display()))
    }

    /// Deletes data and logs.
    pub(super) fn purge(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("{}", self.dir.display()))
    }

    fn record_file(&self, name: &str) -> PathBuf {
        self.dir.join("processes").join(name)
    }
}
