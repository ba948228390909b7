//! A child process under test: its output goes to a file, it can be killed, paused and restarted, and it never
//! outlives its handle. It stays in the test's process group, so Ctrl-C ends it too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, WaitId, WaitIdOptions, kill_process, prlimit, waitid};

pub use rustix::process::Signal;

/// From SIGTERM to the exit, for every service (docs/faults.md).
pub const EXIT_TIME_MAX: Duration = Duration::from_secs(10);
/// What a command says when Redis has not answered it in time.
pub const TIMED_OUT: &str = "unavailable: timed out";
const POLL: Duration = Duration::from_millis(5);
const LOG_TAIL_LINES: usize = 25;

#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
    killed: bool,
}

impl Process {
    /// Starts `program`; what it writes is appended to `dir/name.log`.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn start(name: &str, program: &Path, arguments: Vec<String>, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let child = spawn(program, &arguments, &log)?;
        Ok(Self { name: name.to_owned(), program: program.to_owned(), arguments, log, child, killed: false })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything it has written so far, over all its starts.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines that it wrote, under its name.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.name, &self.output())
    }

    /// `None` while it runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| self.name.clone())
    }

    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("{}: signal {signal:?}", self.name))
    }

    /// As a crash would: nothing is flushed, nobody is told.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(
            self.exit_status()?.is_none(),
            "{} has ended before it was killed\n{}",
            self.name,
            self.tail()
        );
        self.child.kill()?;
        self.child.wait()?;
        self.killed = true;
        Ok(())
    }

    /// And was not restarted since.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.killed
    }

    /// It keeps its connections and does nothing until [`Process::resume`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // The signal is sent; on a busy machine the last thread stops a good while later. Nothing is taken from
        // `Child`, which waits for the exit.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), stopped).with_context(|| self.name.clone())?;
        Ok(())
    }

    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// File descriptors that it has open.
    ///
    /// # Errors
    /// When it has ended.
    pub fn open_files(&self) -> Result<u64> {
        let files =
            fs::read_dir(format!("/proc/{}/fd", self.child.id())).with_context(|| self.name.clone())?;
        Ok(files.count() as u64)
    }

    /// The most memory that it has had, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory_peak(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{}: no peak in {status}", self.name))? * 1024)
    }

    /// From now on it can open no more than this.
    ///
    /// # Errors
    /// When it has ended.
    pub fn limit_files(&self, files: u64) -> Result<()> {
        let limit = Rlimit { current: Some(files), maximum: Some(files) };
        let changed = prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit);
        changed.map(drop).with_context(|| format!("{}: a limit of {files} files", self.name))
    }

    /// The same program with the same arguments again.
    ///
    /// # Errors
    /// When it still runs.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.exit_status()?.is_some(), "{} still runs", self.name);
        self.child = spawn(&self.program, &self.arguments, &self.log)?;
        self.killed = false;
        Ok(())
    }

    /// The same program, told this too from now on.
    ///
    /// # Errors
    /// When it still runs.
    pub fn restart_with(&mut self, argument: &str) -> Result<()> {
        self.arguments.push(argument.to_owned());
        self.restart()
    }

    /// Another program in its place, with the same arguments.
    ///
    /// # Errors
    /// When it still runs.
    pub fn replace(&mut self, program: &Path) -> Result<()> {
        program.clone_into(&mut self.program);
        self.restart()
    }

    /// Waits for the exit that `signal`, sent before, asks for.
    ///
    /// # Errors
    /// When it has not ended within [`EXIT_TIME_MAX`], or not with status 0.
    pub async fn ended(&mut self) -> Result<()> {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.exit_status()? {
                break status;
            }
            ensure!(begun.elapsed() < EXIT_TIME_MAX, "{} has not ended after {EXIT_TIME_MAX:?}", self.name);
            tokio::time::sleep(POLL).await;
        };
        ensure!(status.success(), "{}: {status}\n{}", self.name, self.tail());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already in every test that went well; about an error nothing can be done here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Child> {
    let output =
        File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
    let mut command = command(program);
    command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// A command that sees none of the settings of a developer's shell.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("CHAT_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn tail(name: &str, output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    format!("---- {name} ----\n{}\n", last.join("\n"))
}
