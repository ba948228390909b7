//! What scenarios act on: the servers they start, each with a directory and a port of its own below one directory
//! that is gone at the end. Everything that is started ends with its handle, and with this process.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shared::Clock;
use tempfile::TempDir;
use xtask::servers::{self, Process, Redis};

use crate::connection::Connection;
use crate::findings::{Findings, Found};
use crate::load::{self, Load, Pace, Timing};
use crate::population;
use crate::progress::Progress;
use crate::sends::{self, Population, SENDERS, Sends, Source};
use crate::usage::{self, Part};

const READY_TIME_MAX: Duration = Duration::from_secs(30);
/// Arguments that every measured service gets besides addresses and places. Its limits are counted as ever, so that
/// their cost is measured, but refuse nobody.
const SERVICE_ARGUMENTS: [&str; 10] = [
    "--log",
    "warn",
    "--send-limit",
    "1000000/s:1000000",
    "--login-limit",
    "1000000/s:1000000",
    "--register-limit",
    "1000000/s:1000000",
    "--in-flight-limit",
    "1000000",
];
/// The characters of a token: a baseline reads as many as the system does.
const TOKEN_CHARS: usize = 43;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// The whole system in one process, on its embedded store
    Standalone,
    /// command-api on a real Redis that syncs before each answer
    Real,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Real => "real",
        }
    }

    /// The program that takes sends.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Real => "command-api",
        }
    }
}

/// How much is measured.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Settings {
    pub(crate) target: Target,
    pub(crate) timing: Timing,
    pub(crate) rounds: usize,
    /// Fewer of everything: to see that it runs, not for figures.
    pub(crate) quick: bool,
    /// In a backlog.
    pub(crate) events: u64,
    /// Whether each send carries an `Idempotency-Key`, and so leaves a record beside its event.
    pub(crate) keyed: bool,
    /// Given to the measured service as they are.
    pub(crate) service_arguments: Vec<String>,
}

/// What answers requests in a measurement: the system or a baseline. Its process ends with it.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// What answers, then what else takes part; the load client is the last.
    pub(crate) parts: Vec<Part>,
    pub(crate) sends: Arc<dyn Source>,
    /// Of its senders, in their order.
    pub(crate) tokens: Vec<String>,
    /// Of all that it keeps in Redis; empty for a baseline and on standalone.
    pub(crate) key_prefix: String,
    _process: Process,
}

impl Contender {
    /// All parts but the load client.
    pub(crate) fn servers(&self) -> &[Part] {
        &self.parts[..self.parts.len() - 1]
    }
}

/// In reports, the system that is measured, whichever the target.
pub(crate) const SYSTEM: &str = "system";

pub(crate) struct Stage {
    pub(crate) settings: Settings,
    pub(crate) progress: Progress,
    redis: Option<Redis>,
    started: Cell<u32>,
    /// The last field: what runs in it ends first.
    dir: TempDir,
}

impl Stage {
    /// Builds what is measured and, for the real target, starts Redis.
    pub(crate) fn set_up(settings: Settings, measured: &[&str]) -> Result<Self> {
        let programs = programs()?;
        build(measured, &programs)?;
        // Below cargo's directory, not in /tmp: that may be in memory, where a sync costs nothing.
        let below = programs.parent().context("a directory of programs has a parent")?;
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(below)?;
        let redis = match settings.target {
            Target::Standalone => None,
            Target::Real => Some(start_redis(dir.path())?),
        };
        Ok(Self { settings, progress: Progress::new(), redis, started: Cell::new(0), dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An error for a scenario that only the real target has.
    pub(crate) fn redis(&self) -> Result<&Redis> {
        self.redis.as_ref().context("this needs --target real")
    }

    pub(crate) fn redis_part(&self) -> Option<Part> {
        self.redis.as_ref().map(|redis| Part { name: "redis", pid: redis.pid() })
    }

    /// The measured system, with a state of its own and its senders logged in.
    pub(crate) async fn start_system(&self, population: Population) -> Result<Contender> {
        let key_prefix = match self.settings.target {
            Target::Standalone => String::new(),
            Target::Real => format!("{}:", self.new_name("s")),
        };
        self.start_system_on(key_prefix, population).await
    }

    /// On the log under this prefix, which may be there already.
    pub(crate) async fn start_system_on(
        &self,
        key_prefix: String,
        population: Population,
    ) -> Result<Contender> {
        let place = self.new_place("system")?;
        let listen = free_address()?;
        let mut command = Process::command(programs()?.join(self.settings.target.program()));
        command.args(["--listen", &listen.to_string(), "--metrics-listen", &free_address()?.to_string()]);
        command.args(SERVICE_ARGUMENTS).args(&self.settings.service_arguments);
        match self.settings.target {
            Target::Standalone => {
                population::fill_directory(&place, population).await?;
                command.arg("--data-dir").arg(&place);
            }
            Target::Real => {
                let url = self.redis()?.url();
                population::fill_redis(&url, &key_prefix, population)?;
                command.args(["--redis-url", &url, "--key-prefix", &key_prefix]);
            }
        }
        let process = start(SYSTEM, command, &place, listen)?;
        let tokens = log_in(listen).await.context("logging the senders in")?;
        let sends: Arc<dyn Source> = Sends::new(population, tokens.clone(), self.settings.keyed, new_run());
        let answer = Connection::open(listen).await?.exchange(sends.requests(0).next()).await?;
        ensure!(answer == 201, "a send was answered {answer}: has the format of what is stored changed?");
        Ok(Contender { tokens, key_prefix, ..self.contender(SYSTEM, listen, process, sends) })
    }

    /// A baseline, by the name of its subcommand.
    pub(crate) fn start_baseline(&self, name: &'static str) -> Result<Contender> {
        let place = self.new_place(name)?;
        let listen = free_address()?;
        let mut command = Process::command(std::env::current_exe()?);
        command.args(["baseline", name, "--listen", &listen.to_string()]);
        match name {
            "script" => command.args(["--redis-url", &self.redis()?.url()]),
            "fjall" => command.arg("--dir").arg(place.join("fjall")),
            _ => &mut command,
        };
        let process = start(name, command, &place, listen)?;
        let tokens = vec!["x".repeat(TOKEN_CHARS); usize::try_from(SENDERS)?];
        let sends = Sends::new(Population::USUAL, tokens, self.settings.keyed, new_run());
        Ok(self.contender(name, listen, process, sends))
    }

    fn contender(
        &self,
        name: &'static str,
        address: SocketAddr,
        process: Process,
        sends: Arc<dyn Source>,
    ) -> Contender {
        let api = Part { name: "api", pid: process.pid() };
        let parts = [Some(api), self.redis_part(), Some(Part::client())].into_iter().flatten().collect();
        let (tokens, key_prefix) = (Vec::new(), String::new());
        Contender { name, address, parts, sends, tokens, key_prefix, _process: process }
    }

    /// Of its own in this run: letters, and a number.
    pub(crate) fn new_name(&self, name: &str) -> String {
        self.started.set(self.started.get() + 1);
        format!("{name}{}", self.started.get())
    }

    pub(crate) fn new_place(&self, name: &str) -> Result<PathBuf> {
        let place = self.dir().join(self.new_name(&format!("{name}-")));
        std::fs::create_dir(&place)?;
        Ok(place)
    }

    /// Measures sends once the servers rest, and records what it found.
    pub(crate) async fn measure(
        &self,
        contender: &Contender,
        (connections, pace): (usize, Pace),
        (round, label): (usize, &str),
        findings: &mut Findings,
    ) -> Result<Found> {
        usage::settle(contender.servers()).await?;
        let load = self.load(contender, connections, pace);
        let found = Found::of(&load::measure(&load, &contender.sends, &contender.parts).await?);
        self.progress.step(&format!("{label}, {}: {}", contender.name, found.line()));
        findings.record(round, label, contender.name, found.clone());
        Ok(found)
    }

    pub(crate) fn load(&self, contender: &Contender, connections: usize, pace: Pace) -> Load {
        Load { address: contender.address, connections, pace, timing: self.settings.timing, yields: false }
    }
}

/// Where cargo puts release builds: where this program is.
pub(crate) fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let programs = own.parent().context("a program lies in a directory")?.to_owned();
    if !programs.ends_with("release") {
        bail!("figures of a debug build say nothing: cargo run --release -p bench");
    }
    Ok(programs)
}

/// Programs are called as their packages are.
fn build(measured: &[&str], programs: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(["build", "--release"]);
    command.args(measured.iter().flat_map(|program| ["--package", program, "--bin", program]));
    let status = command.arg("--target-dir").arg(programs.join("..")).status().context("cargo")?;
    ensure!(status.success(), "cargo could not build {}", measured.join(", "));
    Ok(())
}

fn start_redis(dir: &Path) -> Result<Redis> {
    let options = servers::Options { dir: dir.join("redis"), port: servers::free_port()? };
    let redis = Redis::start(&options)?;
    let mut connection = redis::Client::open(redis.url())?.get_connection()?;
    // A rewrite of the append-only file takes a core, for whoever is measured just then.
    redis::cmd("CONFIG").arg("SET").arg("auto-aof-rewrite-percentage").arg(0).exec(&mut connection)?;
    Ok(redis)
}

pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, servers::free_port()?)))
}

pub(crate) fn start(name: &str, command: Command, place: &Path, listen: SocketAddr) -> Result<Process> {
    let mut process = Process::spawn(name, command, &place.join("log"))?;
    process.wait_until(READY_TIME_MAX, || servers::http_status(listen, "/readyz") == Some(200))?;
    Ok(process)
}

/// The tokens of the senders, in their order.
async fn log_in(address: SocketAddr) -> Result<Vec<String>> {
    let mut connection = Connection::open(address).await?;
    let mut tokens = Vec::new();
    for sender in 0..SENDERS {
        let status = connection.exchange(&sends::login(&sends::name(sender))).await?;
        let body = String::from_utf8_lossy(connection.body());
        ensure!(status == 200, "login was answered {status}: {body}");
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        tokens.push(answer["token"].as_str().context("an answer without a token")?.to_owned());
    }
    Ok(tokens)
}

/// Random, of a fixed length.
fn new_run() -> String {
    Clock::system().new_id().to_string().split_off(16)
}
