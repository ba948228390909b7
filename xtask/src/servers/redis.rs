//! One Redis with the project's durability: append-only file, fsync before each answer, nothing evicted.

use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Context, Result};

use super::identity::Identity;
use super::process::Process;
use super::{Options, ask, check_free, localhost, packages};

/// Loading a large append-only file takes most of it.
const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// A running Redis. Its data survives `stop`, `kill` and drop: start again with the same options.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    /// Returns when it answers PING with the data loaded.
    pub fn start(options: &Options) -> Result<Self> {
        let addr = localhost(options.port);
        check_free(addr)?;
        let program = packages::require("redis-server", "redis-server")?;
        fs::create_dir_all(&options.dir).with_context(|| format!("{}", options.dir.display()))?;
        let mut command = Process::command(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &options.port.to_string()])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .args(["--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", ""])
            // A small hash is searched from end to end: with 512 heads (the default) that is a fifth of an append.
            .args(["--hash-max-listpack-entries", "32"])
            .arg("--dir")
            .arg(&options.dir);
        let process = Process::spawn("redis", command, &options.dir.join("redis.log"))?;
        let mut redis = Self { process, port: options.port };
        redis.answers(READY_TIME_MAX)?;
        Ok(redis)
    }

    /// Waits for an answer to PING; an error with the end of its log if it ends or time runs out.
    pub fn answers(&mut self, patience: Duration) -> Result<()> {
        let addr = self.addr();
        self.process.wait_until(patience, || {
            ask(addr, b"PING\r\n", b"+PONG".len()).is_some_and(|answer| answer == b"+PONG")
        })
    }

    pub fn addr(&self) -> SocketAddr {
        localhost(self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn detach(self) -> Result<Identity> {
        self.process.detach()
    }
}

impl Deref for Redis {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Redis {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
