//! The settings of the program `query-api`.

use std::net::SocketAddr;

use clap::Parser;
use shared::process::config::{
    CorsOptions, InFlightOptions, LogOptions, ProcessOptions, StreamOptions, ViewOptions,
};

/// Serves conversations and inboxes from the views
#[derive(Debug, Parser)]
#[command(
    name = "query-api",
    version,
    after_help = "Example: query-api --redis-url redis://10.0.0.5/ --cassandra-nodes 10.0.0.6:9042,10.0.0.7:9042"
)]
pub(crate) struct Config {
    /// Where clients connect
    #[arg(long, env = "CHAT_LISTEN", default_value = "127.0.0.1:8083", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,

    /// Where /metrics and the probes are shown
    #[arg(long, env = "CHAT_METRICS_LISTEN", default_value = "127.0.0.1:9083", value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: SocketAddr,

    #[command(flatten)]
    pub(crate) log: LogOptions,

    #[command(flatten)]
    pub(crate) views: ViewOptions,

    #[command(flatten)]
    pub(crate) in_flight: InFlightOptions,

    #[command(flatten)]
    pub(crate) streams: StreamOptions,

    #[command(flatten)]
    pub(crate) cors: CorsOptions,

    #[command(flatten)]
    pub(crate) process: ProcessOptions,
}
