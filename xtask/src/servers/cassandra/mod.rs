//! Cassandra nodes, run from the jars of the release.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::identity::Identity;
use super::process::Process;
use super::{Options, ask, check_free};

mod config;
mod install;
mod ring;

pub use ring::Ring;

use config::Node;

const READY_TIME_MAX: Duration = Duration::from_secs(120);
const MAIN_CLASS: &str = "org.apache.cassandra.service.CassandraDaemon";

/// A frame of protocol version 4 without body: version, flags, stream (2), opcode OPTIONS, length (4).
const OPTIONS_FRAME: [u8; 9] = [4, 0, 0, 0, 5, 0, 0, 0, 0];
const FRAME_HEADER_BYTES: usize = 9;
const OPCODE_AT: usize = 4;
const OPCODE_SUPPORTED: u8 = 6;

/// What the node's data is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// As in production: what was acknowledged survives a kill.
    Data,
    /// For the length of a test run: schema changes do not wait for the disk, and a kill may lose them.
    Nothing,
}

#[derive(Debug)]
pub struct Cassandra {
    process: Process,
    addr: SocketAddr,
}

impl Cassandra {
    /// Returns when it answers on the native port. The first time on a machine it downloads the server (66
    /// MB).
    pub fn start(options: &Options, keeping: Keeping) -> Result<Self> {
        fs::create_dir_all(&options.dir).with_context(|| format!("{}", options.dir.display()))?;
        let storage_port = config::storage_port(&options.dir)?;
        let host = Ipv4Addr::LOCALHOST;
        let node = Node { host, port: options.port, ring: vec![host], storage_port, keeping };
        let mut cassandra = Self::launch(&options.dir, &node)?;
        cassandra.answers(READY_TIME_MAX)?;
        Ok(cassandra)
    }

    fn launch(dir: &Path, node: &Node) -> Result<Self> {
        let addr = SocketAddr::from((node.host, node.port));
        check_free(addr)?;
        let java = install::java()?;
        let jars = install::jars()?;
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let arguments = config::write(&dir, node)?;
        let mut command = Process::command(java);
        command.args(arguments).arg("-cp").arg(jars.join("*")).arg(MAIN_CLASS).current_dir(&dir);
        let process = Process::spawn("cassandra", command, &dir.join("cassandra.log"))?;
        Ok(Self { process, addr })
    }

    /// Waits for an answer on the native port; an error with the end of its log if it ends or time runs out.
    pub fn answers(&mut self, patience: Duration) -> Result<()> {
        let addr = self.addr;
        self.process.wait_until(patience, || {
            ask(addr, &OPTIONS_FRAME, FRAME_HEADER_BYTES)
                .is_some_and(|answer| answer[OPCODE_AT] == OPCODE_SUPPORTED)
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn detach(self) -> Result<Identity> {
        self.process.detach()
    }
}

impl Deref for Cassandra {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Cassandra {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
