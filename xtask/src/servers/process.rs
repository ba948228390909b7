//! A child process that does not outlive its owner, unless it is told to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::identity::{Identity, Signal};

const POLL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 15;

/// Waits until its input ends, which happens when the owner lets go of it or dies, and then ends the process.
/// It compares the start time for the same reason as `Identity`.
const GUARD: &str = r#"
pid=$0 started=$1
cat >/dev/null
same() {
    set -- $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null)
    [ "${20:-}" = "$started" ] && [ "$1" != Z ]
}
same && kill -s TERM "$pid"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    same || exit 0
    sleep 0.5
done
same && kill -s KILL -- "-$pid"
"#;

/// A running child in a session of its own, so that the terminal's signals do not reach it. Dropping it kills
/// it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    identity: Identity,
    guard: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// A command to give to `spawn`.
    pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
        // Run by exec, so the pid is the program's own.
        let mut command = Command::new("setsid");
        command.arg(program);
        command
    }

    /// Starts `command` without input; its output is appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child =
            command.spawn().with_context(|| format!("{name}: cannot start {:?}", command.get_program()))?;
        let Some(identity) = Identity::of(child.id()) else {
            child.wait()?;
            bail!("{name} ended at once\n{}", tail(log));
        };
        let mut process = Self { name: name.to_owned(), child, identity, guard: None, log: log.to_owned() };
        process.guard = Some(
            Self::command("sh")
                .args(["-c", GUARD, &identity.pid.to_string(), &identity.started.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("sh")?,
        );
        Ok(process)
    }

    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks every few milliseconds until `ready` says yes. An error with the end of the log if the process
    /// ends or time runs out.
    pub fn wait_until(&mut self, patience: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status})\n{}", self.name, tail(&self.log));
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {} s\n{}", self.name, patience.as_secs(), tail(&self.log));
            }
            std::thread::sleep(POLL);
        }
    }

    /// For a program that ends by itself: an error with the end of the log unless it succeeds.
    pub fn wait(mut self) -> Result<()> {
        let status = self.child.wait()?;
        self.reap()?;
        if !status.success() {
            bail!("{} failed ({status})\n{}", self.name, tail(&self.log));
        }
        Ok(())
    }

    /// Ends it in good order: `polite` first, KILL if that is not enough.
    pub fn stop_with(&mut self, polite: Signal) -> Result<()> {
        if self.is_running() {
            self.identity.signal(Signal::Continue)?;
            self.identity.end(polite)?;
        }
        self.reap()
    }

    pub fn stop(&mut self) -> Result<()> {
        self.stop_with(Signal::Term)
    }

    /// As a crash would: nothing is flushed, nobody is told.
    pub fn kill(&mut self) -> Result<()> {
        self.identity.signal(Signal::Kill)?;
        self.reap()
    }

    /// It keeps its connections and says nothing until `resume`.
    pub fn pause(&self) -> Result<()> {
        self.identity.signal(Signal::Stop)
    }

    pub fn resume(&self) -> Result<()> {
        self.identity.signal(Signal::Continue)
    }

    /// Leaves it running without an owner.
    pub fn detach(mut self) -> Result<Identity> {
        if let Some(mut guard) = self.guard.take() {
            guard.kill()?;
            guard.wait()?;
        }
        Ok(self.identity)
    }

    fn reap(&mut self) -> Result<()> {
        self.child.wait()?;
        if let Some(mut guard) = self.guard.take() {
            // Its input ends here; it finds nobody to end.
            drop(guard.stdin.take());
            guard.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.guard.is_some() {
            // Nothing can be done about an error here, and the guard is a second try.
            let _ = self.kill();
        }
    }
}

/// The last lines of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    format!("{}\n(log: {})", last.join("\n"), log.display())
}
