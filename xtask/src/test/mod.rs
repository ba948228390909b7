//! `cargo xtask test`: the same suites on every backend, and a count that shows that they ran.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use xtask::servers::{Cassandra, Keeping, Options, Redis, free_port};

use crate::{output, workspace};

mod binaries;
mod changed_view;
mod report;

use binaries::Binaries;
use report::Report;

pub(crate) const REAL_FEATURES: &str = "storage/real-tests,e2e/real,standalone/otel";

/// Of a server that all tests are done with: longer than a busy machine takes.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Runs all tests: on the embedded store, and on one Redis and one Cassandra started for this run. Nothing is
/// skipped in silence: a backend that ran no test is an error.
#[derive(Debug, Default, Args)]
pub(crate) struct Test {
    /// Only what needs no servers.
    #[arg(long)]
    embedded_only: bool,
    /// Run only tests whose path contains one of these.
    filter: Vec<String>,
}

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        let binaries = self.build()?;
        let changed = self.build_changed();
        // Ended when this function is left, by whatever way; by their guards if the process itself is ended.
        let mut servers = if self.embedded_only { None } else { Some(Servers::start()?) };
        let mut command = self.cargo("test")?;
        command.args(["--no-fail-fast", "--"]).args(&self.filter);
        if let Some(changed) = changed {
            command.env("CHAT_TEST_CHANGED_BIN_DIR", changed);
        }
        if let Some(servers) = &servers {
            command
                .env("CHAT_TEST_REDIS_URL", servers.redis.url())
                .env("CHAT_TEST_CASSANDRA", servers.cassandra.addr().to_string())
                .env("CHAT_TEST_BIN_DIR", workspace::target_dir()?.join("debug"));
        }
        let mut report = Report::new(binaries);
        let status = stream(&mut command, &mut report)?;
        let lasted = servers.as_mut().map_or(Ok(()), Servers::answer);
        drop(servers);
        if !status.success() && report.failed == 0 {
            // A test binary that crashed reports nothing; it is a failure all the same.
            report.failed = 1;
        }
        let judged = self.judge(&report);
        // A server that is gone is why tests failed: it is what to say last.
        lasted.and(judged)
    }

    /// The services' binaries, which some tests start, and the tests themselves.
    fn build(&self) -> Result<Binaries> {
        let since = Instant::now();
        let mut command = self.cargo("build")?;
        let output = command
            .args(["--bins", "--tests", "--message-format", "json-render-diagnostics"])
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cargo")?;
        if !output.status.success() {
            bail!("the build failed");
        }
        output::part("build", "services and tests", since);
        Ok(Binaries::from_messages(&String::from_utf8_lossy(&output.stdout)))
    }

    /// What those tests need that change a view. `None` where no test does; where they cannot be built, such a test
    /// fails, and all others run.
    fn build_changed(&self) -> Option<PathBuf> {
        if self.embedded_only || !changed_view::is_needed(&self.filter) {
            return None;
        }
        changed_view::build().inspect_err(|error| output::line(format!("error: {error:#}"))).ok()
    }

    fn cargo(&self, subcommand: &str) -> Result<Command> {
        let mut command = workspace::cargo()?;
        command.args([subcommand, "--workspace"]);
        if !self.embedded_only {
            command.args(["--features", REAL_FEATURES]);
        }
        Ok(command)
    }

    fn judge(&self, report: &Report) -> Result<()> {
        for line in report.lines(self.embedded_only) {
            output::line(line);
        }
        if report.failed > 0 {
            bail!("tests failed");
        }
        if report.passed == 0 {
            bail!("no test ran");
        }
        let missing = report.missing(self.embedded_only);
        if self.filter.is_empty() && !missing.is_empty() {
            bail!("no test ran on: {}", missing.join(", "));
        }
        Ok(())
    }
}

/// One of each for the whole run; tests keep apart by key prefix and keyspace.
struct Servers {
    redis: Redis,
    cassandra: Cassandra,
    dir: PathBuf,
}

impl Servers {
    fn start() -> Result<Self> {
        let base = workspace::target_dir()?.join("xtask/test");
        remove_leftovers(&base)?;
        let dir = base.join(std::process::id().to_string());
        let since = Instant::now();
        let redis = Redis::start(&Options { dir: dir.join("redis"), port: free_port()? })?;
        output::part("redis", redis.addr(), since);
        let since = Instant::now();
        let options = Options { dir: dir.join("cassandra"), port: free_port()? };
        let cassandra = Cassandra::start(&options, Keeping::Nothing)?;
        output::part("cassandra", cassandra.addr(), since);
        Ok(Self { redis, cassandra, dir })
    }

    fn answer(&mut self) -> Result<()> {
        self.redis.answers(ANSWER_TIME_MAX)?;
        self.cassandra.answers(ANSWER_TIME_MAX)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Ended before their files go. What cannot be ended or deleted here, the guards end and the next run
        // deletes.
        let _ = self.redis.kill();
        let _ = self.cassandra.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Deletes what runs left that were ended from outside: directories named after a process that is no more.
fn remove_leftovers(base: &Path) -> Result<()> {
    fs::create_dir_all(base).with_context(|| format!("{}", base.display()))?;
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if !Path::new("/proc").join(entry.file_name()).exists() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Runs the tests, passing their output on line by line while counting. Both streams share one pipe: cargo
/// names the test binary on one, and the binary its tests on the other, and only together do they have an
/// order.
fn stream(command: &mut Command, report: &mut Report) -> Result<ExitStatus> {
    let (reader, writer) = std::io::pipe().context("no pipe")?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cargo")?;
    // The command holds the pipe's other end; without this, reading would never end.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut out = std::io::stdout().lock();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        out.write_all(&line)?;
        out.flush()?;
        report.read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(child.wait()?)
}
