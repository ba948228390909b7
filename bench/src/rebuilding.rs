//! Views that are built anew: a projector that has caught up with a copy of a log builds another generation of them,
//! beside what it does already, and `projector rebuild` proves it.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::time::Instant;
use xtask::servers::Process;

use crate::drain::{Basin, DRAIN_TIME_MAX, LOOK_FOR_END_EVERY, Source, reached};
use crate::log::{Drained, Log};
use crate::usage::Part;

/// Of the one that is filled from the beginning, and of those that are built anew here.
const GENERATIONS_MAX: u32 = 3;

pub(crate) struct Rebuilding<'a> {
    basin: &'a Basin<'a>,
    key_prefix: String,
    keyspace: String,
    log: Log,
    pub(crate) projector: Process,
}

/// A command that builds views anew and compares them with the log, under way.
pub(crate) struct Rebuild {
    process: Process,
    output: PathBuf,
    begun: Instant,
}

/// One that has ended well.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    pub(crate) generation: u32,
    /// From the command to its end.
    pub(crate) seconds: f64,
    /// Of these, how long it compared.
    pub(crate) verify_seconds: f64,
    pub(crate) events: u64,
    /// Of the command's process.
    pub(crate) memory_peak_bytes: u64,
}

impl<'a> Rebuilding<'a> {
    /// Returns when the first generation has everything.
    pub(crate) async fn start(basin: &'a Basin<'a>, source: &Source) -> Result<Self> {
        let Basin { stage, views, node } = basin;
        let keyspace = stage.new_name("rebuild");
        let key_prefix = format!("{keyspace}:");
        let mut log = Log::copy(&stage.redis()?.url(), &source.key_prefix, &key_prefix)?;
        views.make(&keyspace)?;
        let arguments = &stage.settings.service_arguments;
        let projector = views.start_projector("projector", (&key_prefix, &keyspace), *node, arguments)?;
        let mut processes = [projector];
        reached(&mut log, &mut processes, Drained::All, LOOK_FOR_END_EVERY).await?;
        let [projector] = processes;
        Ok(Self { basin, key_prefix, keyspace, log, projector })
    }

    /// Returns when the new generation has its first events.
    pub(crate) async fn begin(&mut self) -> Result<Rebuild> {
        let filled = self.log.groups_begun()?;
        let mut rebuild = Rebuild::begin(|| self.basin.views.start_command(&["rebuild"], self.place()))?;
        while self.log.groups_begun()? == filled {
            rebuild.goes_on()?;
            tokio::time::sleep(LOOK_FOR_END_EVERY).await;
        }
        Ok(rebuild)
    }

    /// Compares it with the log, again and again until dropped, as a rebuild does at its end.
    pub(crate) async fn compare(&self, number: u32) -> Result<Infallible> {
        let words = ["verify", "--generation", &number.to_string()];
        loop {
            Rebuild::begin(|| self.basin.views.start_command(&words, self.place()))?.end().await?;
        }
    }

    /// Its views are gone when this returns.
    pub(crate) fn drop_generation(&self, number: u32) -> Result<()> {
        let (process, _) = self.basin.views.start_command(&["drop", &number.to_string()], self.place())?;
        process.wait()
    }

    pub(crate) fn place(&self) -> (&str, &str) {
        (&self.key_prefix, &self.keyspace)
    }

    pub(crate) fn projector_part(&self) -> Part {
        Part { name: "projector", pid: self.projector.pid() }
    }

    /// All that works on a rebuild.
    pub(crate) fn parts(&self) -> Result<[Part; 3]> {
        let redis = self.basin.stage.redis_part().context("a log needs Redis")?;
        Ok([self.projector_part(), redis, self.basin.views.part()])
    }

    pub(crate) async fn remove(self) -> Result<()> {
        drop(self.projector);
        self.basin.views.remove(&self.keyspace, GENERATIONS_MAX).await?;
        self.log.remove()
    }
}

impl Rebuild {
    /// `start` gives the process and where its output goes, which is one object of JSON, and how far it is.
    pub(crate) fn begin(start: impl FnOnce() -> Result<(Process, PathBuf)>) -> Result<Self> {
        let begun = Instant::now();
        let (process, output) = start()?;
        Ok(Self { process, output, begun })
    }

    /// An error if it has ended.
    pub(crate) fn goes_on(&mut self) -> Result<()> {
        self.process.wait_until(Duration::ZERO, || true).context("the rebuild ended before it was measured")
    }

    /// Waits for its end: an error unless the new generation is what the log says.
    pub(crate) async fn end(mut self) -> Result<Rebuilt> {
        let (part, mut memory_peak_bytes) = (Part { name: "rebuild", pid: self.process.pid() }, 0);
        while self.process.is_running() {
            // One that ends meanwhile has none to tell.
            memory_peak_bytes = part.memory_peak_bytes().unwrap_or(memory_peak_bytes);
            ensure!(self.begun.elapsed() < DRAIN_TIME_MAX, "no end after {} s", DRAIN_TIME_MAX.as_secs());
            tokio::time::sleep(LOOK_FOR_END_EVERY).await;
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        self.process.wait()?;
        let Comparison { generation, events, took_ms } = printed(&self.output)?;
        Ok(Rebuilt { generation, seconds, verify_seconds: took_ms as f64 / 1e3, events, memory_peak_bytes })
    }
}

#[derive(Deserialize)]
struct Comparison {
    generation: u32,
    events: u64,
    took_ms: u64,
}

/// Among lines that say how far it was, and what it logs.
fn printed(output: &Path) -> Result<Comparison> {
    let text = fs::read_to_string(output)?;
    let result = text.lines().find_map(|line| serde_json::from_str(line).ok());
    result.with_context(|| format!("the rebuild has printed no result:\n{text}"))
}
