//! The settings of the program `command-api`.

use std::net::SocketAddr;

use clap::Parser;
use shared::process::config::{
    CorsOptions, DurabilityOptions, IdempotencyOptions, LimitOptions, LogOptions, PasswordOptions,
    ProcessOptions,
};

/// Takes commands, decides, and appends events to the log
#[derive(Debug, Parser)]
#[command(
    name = "command-api",
    version,
    after_help = "Example: command-api --redis-url redis://10.0.0.5/ --listen 0.0.0.0:8082"
)]
pub(crate) struct Config {
    /// Where clients connect
    #[arg(long, env = "CHAT_LISTEN", default_value = "127.0.0.1:8082", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,

    /// Where /metrics and the probes are shown
    #[arg(long, env = "CHAT_METRICS_LISTEN", default_value = "127.0.0.1:9082", value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: SocketAddr,

    #[command(flatten)]
    pub(crate) log: LogOptions,

    #[command(flatten)]
    pub(crate) durability: DurabilityOptions,

    #[command(flatten)]
    pub(crate) idempotency: IdempotencyOptions,

    #[command(flatten)]
    pub(crate) passwords: PasswordOptions,

    #[command(flatten)]
    pub(crate) limits: LimitOptions,

    #[command(flatten)]
    pub(crate) cors: CorsOptions,

    #[command(flatten)]
    pub(crate) process: ProcessOptions,
}
