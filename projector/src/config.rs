//! The settings of the program `projector`.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use shared::process::config::{LogOptions, ProcessOptions, ViewOptions};

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
    /// Show how far the views are, per partition and per projector
    #[command(after_help = "Example: projector status --json")]
    Status(Status),
    /// Bring the schema up to date; safe to repeat and to interrupt
    #[command(
        after_help = "Example: projector migrate --cassandra-nodes 10.0.0.6:9042 --replication-factor 3"
    )]
    Migrate(Migrate),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Its own among all projectors, and the same after a restart
    #[arg(long, env = "CHAT_NAME", default_value_t = host_name(), value_name = "NAME")]
    pub(crate) name: String,

    /// Where /metrics and the probes are shown
    #[arg(long, env = "CHAT_METRICS_LISTEN", default_value = "127.0.0.1:9084", value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: SocketAddr,

    #[command(flatten)]
    pub(crate) log: LogOptions,

    #[command(flatten)]
    pub(crate) views: ViewOptions,

    #[command(flatten)]
    pub(crate) process: ProcessOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print JSON instead of a table
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
