//! The settings of the one-process system.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use projector::ParkedCommand;
use shared::process::auth::Access;
use shared::process::config::{
    ConfigError, CorsOptions, IdempotencyOptions, LimitOptions, PasswordOptions, ProcessOptions,
    StreamOptions,
};
use storage::embedded::Options;

use crate::parked::Asked;

/// The whole chat system in one process, on a local directory
#[derive(Debug, Clone, Parser)]
#[command(
    name = "standalone",
    version,
    after_help = "Example: standalone --data-dir /var/lib/chat --listen 0.0.0.0:8080"
)]
pub struct Config {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where clients connect
    #[arg(long, env = "CHAT_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// Where /metrics and the probes are shown
    #[arg(long, env = "CHAT_METRICS_LISTEN", default_value = "127.0.0.1:9080", value_name = "ADDRESS:PORT")]
    pub metrics_listen: SocketAddr,

    /// The directory that holds everything; made if it is missing
    #[arg(long, env = "CHAT_DATA_DIR", default_value = "data", value_name = "DIR", global = true)]
    pub data_dir: PathBuf,

    /// `open` takes the sender field as given, without a token: only on a loopback address
    #[arg(long, env = "CHAT_AUTH", value_enum, default_value = "token")]
    pub auth: Access,

    #[command(flatten)]
    pub idempotency: IdempotencyOptions,

    #[command(flatten)]
    pub passwords: PasswordOptions,

    #[command(flatten)]
    pub limits: LimitOptions,

    #[command(flatten)]
    pub streams: StreamOptions,

    #[command(flatten)]
    pub cors: CorsOptions,

    #[command(flatten)]
    pub process: ProcessOptions,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print the OpenAPI description of the HTTP API
    Openapi,
    /// Compare all views in the directory with its log; 1 if they differ. Nothing may run on it
    #[command(after_help = "Example: standalone verify --data-dir /var/lib/chat")]
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Build all views in the directory anew from its log, and read from those if they are what the log says.
    /// Interrupted, it leaves the views as they were. Nothing may run on it
    #[command(after_help = "Example: standalone rebuild --data-dir /var/lib/chat")]
    Rebuild {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List, show, retry or discard the events that could not be applied. Nothing may run on the directory
    #[command(subcommand, after_help = "Example: standalone parked list --data-dir /var/lib/chat")]
    Parked(ParkedCommand<Asked>),
}

impl Config {
    /// Combinations that cannot be meant.
    ///
    /// # Errors
    /// One clear line.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.auth == Access::Open && !self.listen.ip().is_loopback() {
            let listen = self.listen;
            return Err(ConfigError(format!(
                "--auth open believes every name it is given: it is refused on {listen}, which is not loopback"
            )));
        }
        Ok(())
    }

    pub(crate) fn store(&self) -> Options {
        let idempotency_window = self.idempotency.idempotency_window;
        Options { dir: self.data_dir.clone(), idempotency_window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_believed_on_loopback_only() {
        let check = |arguments: &[&str]| {
            let config = Config::try_parse_from(std::iter::once(&"standalone").chain(arguments)).unwrap();
            config.check().is_ok()
        };
        assert!(check(&[]) && check(&["--listen", "0.0.0.0:80"]));
        assert!(check(&["--auth", "open"]) && check(&["--auth", "open", "--listen", "[::1]:80"]));
        assert!(!check(&["--auth", "open", "--listen", "0.0.0.0:80"]));
        assert!(!check(&["--auth", "open", "--listen", "192.0.2.1:80"]));
    }
}
