//! Which process is meant, so that a signal never reaches another one.

use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a process has to end after a polite signal, before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// The signals that are sent here. `Kill`, `Stop` and `Continue`, which a process cannot pass on to its
/// children, go to its whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Term,
    Quit,
    Hup,
    Kill,
    Stop,
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Quit => "QUIT",
            Self::Hup => "HUP",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }

    fn is_for_group(self) -> bool {
        matches!(self, Self::Kill | Self::Stop | Self::Continue)
    }
}

/// One process for ever: a pid is reused, but not together with its start time. Here every process leads a
/// group of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks since boot, as in `/proc/PID/stat`.
    pub started: u64,
}

impl Identity {
    /// The process that has this pid now; nothing if there is none, or it has ended and waits to be reaped.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything, so fields are counted from the last bracket. Field 3 is the
        // state, 22 the start.
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, started })
    }

    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Does nothing if the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let target = if signal.is_for_group() { format!("-{}", self.pid) } else { self.pid.to_string() };
        let status = Command::new("sh")
            .args(["-c", r#"kill -s "$0" -- "$1""#, signal.name(), &target])
            .stderr(Stdio::null())
            .status()
            .context("sh")?;
        if !status.success() && self.is_alive() {
            bail!("pid {} does not take signal {}", self.pid, signal.name());
        }
        Ok(())
    }

    /// Sends `polite`, waits, and kills what is still there. True if the signal was enough.
    pub fn end(&self, polite: Signal) -> Result<bool> {
        self.signal(polite)?;
        self.wait_or_kill()
    }

    /// Waits for a process that was told to end, and kills it if that takes too long. True if it was not
    /// killed.
    pub fn wait_or_kill(&self) -> Result<bool> {
        if self.wait_until_gone(STOP_TIME_MAX) {
            return Ok(true);
        }
        self.signal(Signal::Kill)?;
        if !self.wait_until_gone(STOP_TIME_MAX) {
            bail!("pid {} is still there after KILL", self.pid);
        }
        Ok(false)
    }

    fn wait_until_gone(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.started)
    }
}

impl FromStr for Identity {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (pid, started) = text.trim().split_once(' ').context("not a pid and a start time")?;
        Ok(Self { pid: pid.parse()?, started: started.parse()? })
    }
}
