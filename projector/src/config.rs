//! The settings of the program `projector`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use projector::{HotWindow, ParkedCommand};
use shared::limits::{HOT_WINDOW_BYTES_MIN, HOT_WINDOW_MAX, LOG_RATE_MAX, ROLLBACK_WINDOW_MAX};
use shared::process::config::{
    self, ConfigError, IdempotencyOptions, LogOptions, ProcessOptions, ViewOptions,
};

/// Reads the log, projects every event and writes the views
#[derive(Debug, Parser)]
#[command(name = "projector", version)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Project until SIGTERM; any number of them share the work
    #[command(after_help = "Example: projector run --name projector-1 --redis-url redis://10.0.0.5/")]
    Run(Run),
    /// Show how far the views are, per partition and per consumer
    #[command(after_help = "Example: projector status --watch")]
    Status(Status),
    /// List, show, retry or discard the events that could not be applied
    #[command(subcommand, after_help = "Example: projector parked list --cause 'unknown event type'")]
    Parked(ParkedCommand<Of>),
    /// Compare all views with the log, while both go on; 1 if they differ, or not all was compared
    #[command(after_help = "Example: projector verify --generation 2 --json")]
    Verify(Verify),
    /// Build a new generation of views from the whole log, beside the one that is read
    #[command(after_help = "Example: projector rebuild && projector serve 2")]
    Rebuild(Rebuild),
    /// Give the log back what it has lost and views or archive have; without --apply it only says what that is
    #[command(after_help = "Example: projector repair && projector repair --apply && projector rebuild")]
    Repair(Repair),
    /// Fill a log that has lost everything from the archive
    #[command(after_help = "Example: projector restore && projector repair")]
    Restore(Restore),
    /// List the generations of views
    #[command(after_help = "Example: projector generations --json")]
    Generations(Asked),
    /// Read from this generation from now on; it has to be complete
    #[command(after_help = "Example: projector serve 2 --keep 72h")]
    Serve(Serve),
    /// Remove a generation that is not read, in some 20 s; safe to repeat and to interrupt
    #[command(after_help = "Example: projector drop 1")]
    Drop(Numbered),
    /// Bring the schema up to date; safe to repeat and to interrupt
    #[command(
        after_help = "Example: projector migrate --cassandra-nodes 10.0.0.6:9042 --replication-factor 3"
    )]
    Migrate(Migrate),
}

impl Command {
    /// It ends by itself, and somebody waits for it.
    pub(crate) fn is_of_operator(&self) -> bool {
        match self {
            Self::Run(_) | Self::Migrate(_) => false,
            Self::Status(_)
            | Self::Parked(_)
            | Self::Verify(_)
            | Self::Rebuild(_)
            | Self::Repair(_)
            | Self::Restore(_)
            | Self::Generations(_)
            | Self::Serve(_)
            | Self::Drop(_) => true,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Its own among all projectors, and the same after a restart
    #[arg(long, env = "CHAT_NAME", default_value_t = host_name(), value_name = "NAME")]
    pub(crate) name: String,

    /// Where /metrics and the probes are shown
    #[arg(long, env = "CHAT_METRICS_LISTEN", default_value = "127.0.0.1:9084", value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: SocketAddr,

    /// Park whatever cannot be applied, even if that is most of what is read
    #[arg(long, env = "CHAT_PARK_STORMS")]
    pub(crate) park_storms: bool,

    #[command(flatten)]
    pub(crate) hot: Hot,

    #[command(flatten)]
    pub(crate) log: LogOptions,

    #[command(flatten)]
    pub(crate) views: ViewOptions,

    #[command(flatten)]
    pub(crate) process: ProcessOptions,
}

/// What stays in Redis of what the archive has. Without either nothing is trimmed.
#[derive(Debug, Args)]
pub(crate) struct Hot {
    /// Trim events that are older than this, such as `24h`, once the archive has them and every generation has applied
    /// them
    #[arg(long, env = "CHAT_HOT_WINDOW", value_name = "TIME", value_parser = hot_window)]
    pub(crate) hot_window: Option<Duration>,

    /// Likewise, the oldest events while the streams of all partitions together take more memory than this
    #[arg(long, env = "CHAT_HOT_WINDOW_BYTES", value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(HOT_WINDOW_BYTES_MIN..))]
    pub(crate) hot_window_bytes: Option<u64>,
}

impl Hot {
    pub(crate) fn window(&self) -> Option<HotWindow> {
        let Self { hot_window: time, hot_window_bytes: bytes } = *self;
        (time.is_some() || bytes.is_some()).then_some(HotWindow { time, bytes })
    }
}

fn hot_window(text: &str) -> Result<Duration, ConfigError> {
    config::time(text, HOT_WINDOW_MAX)
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Look again every second, until Ctrl-C or SIGTERM; a line for each look where there is no terminal
    #[arg(long)]
    pub(crate) watch: bool,

    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// One generation.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// These views; the serving ones, unless told otherwise
    #[arg(long, value_name = "N")]
    pub(crate) generation: Option<u32>,

    #[command(flatten)]
    pub(crate) asked: Asked,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Events of the log, and then rows, that it reads per second at most; as many as leave those who use the system
    /// alone, unless told otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LOG_RATE_MAX)))]
    pub(crate) rate: Option<u32>,

    #[command(flatten)]
    pub(crate) of: Of,
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Events per second that each projector applies to it at most, and that are compared; as many as leave those who
    /// use the system alone, unless told otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LOG_RATE_MAX)))]
    pub(crate) rate: Option<u32>,

    #[command(flatten)]
    pub(crate) instead: Instead,

    #[command(flatten)]
    pub(crate) asked: Asked,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Append what is lost, and begin a new epoch of the log
    #[arg(long)]
    pub(crate) apply: bool,

    #[command(flatten)]
    pub(crate) idempotency: IdempotencyOptions,

    #[command(flatten)]
    pub(crate) asked: Asked,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) idempotency: IdempotencyOptions,

    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// What is done with the generation that is being built, instead of building it to its end.
#[derive(Debug, Args)]
#[group(multiple = false, conflicts_with = "rate")]
pub(crate) struct Instead {
    /// Stop filling it for now
    #[arg(long)]
    pub(crate) pause: bool,

    /// Go on filling it, and return at once
    #[arg(long)]
    pub(crate) resume: bool,

    /// Give it up and remove it
    #[arg(long)]
    pub(crate) cancel: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Numbered {
    /// As `generations` shows it
    pub(crate) number: u32,

    #[command(flatten)]
    pub(crate) asked: Asked,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// How long the one that served until now is kept up to date, such as 72h, so that readers can go back to it; then
    /// projectors drop it
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = rollback_window)]
    pub(crate) keep: Duration,

    #[command(flatten)]
    pub(crate) numbered: Numbered,
}

fn rollback_window(text: &str) -> Result<Duration, ConfigError> {
    config::time(text, ROLLBACK_WINDOW_MAX)
}

/// Where the stores are, and how the answer is shown.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) log: LogOptions,

    #[command(flatten)]
    pub(crate) views: ViewOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub(crate) process: ProcessOptions,

    #[command(flatten)]
    pub(crate) views: ViewOptions,
}

/// A container's host name is its id: it stays while the container does.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "projector".to_owned() } else { name }
}
