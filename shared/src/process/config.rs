//! Settings: a flag and an environment variable of the same name each. Read and cross-checked before anything
//! is connected. Secrets also come from files and are never shown.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::limits::{IDEMPOTENCY_WINDOW, PARTITIONS_DEFAULT, PARTITIONS_MAX, REPLICAS_MAX};

/// A text that is never shown: `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// A setting, or a combination of settings, that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// What every process takes.
#[derive(Debug, Clone, Args)]
pub struct ProcessOptions {
    /// Which log lines are written, such as `info` or `info,storage=debug`
    #[arg(long, env = "CHAT_LOG", default_value = "info,scylla=off", value_name = "FILTER")]
    pub log: String,
}

/// Where the log is: for the processes that use Redis.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// Redis; a password in it is better given by --redis-url-file
    #[arg(long, env = "CHAT_REDIS_URL", hide_env_values = true, value_name = "URL", value_parser = secret,
          default_value = "redis://127.0.0.1:6379/", hide_default_value = false)]
    redis_url: Secret,

    /// A file that holds the URL of Redis; it wins over --redis-url
    #[arg(long, env = "CHAT_REDIS_URL_FILE", value_name = "FILE")]
    redis_url_file: Option<PathBuf>,

    /// Partitions of the log: fixed when the log is created
    #[arg(long, env = "CHAT_PARTITIONS", default_value_t = PARTITIONS_DEFAULT, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(PARTITIONS_MAX)))]
    pub partitions: u16,

    /// Put before every key, so that several systems can share one Redis
    #[arg(long, env = "CHAT_KEY_PREFIX", default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub key_prefix: String,
}

impl LogOptions {
    /// # Errors
    /// When the file cannot be read or the URL is not one of Redis.
    pub fn redis_url(&self) -> Result<Secret, ConfigError> {
        let url = match &self.redis_url_file {
            None => self.redis_url.clone(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| ConfigError(format!("--redis-url-file {}: {error}", file.display())))?;
                Secret::new(text.trim())
            }
        };
        if url.reveal().starts_with("redis://") {
            Ok(url)
        } else {
            Err(ConfigError("--redis-url: the URL starts with redis://".to_owned()))
        }
    }
}

/// What an acknowledged event must survive: for the process that acknowledges events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct DurabilityOptions {
    /// Use a Redis that may lose acknowledged events: one without append-only file, or one that may evict
    #[arg(long, env = "CHAT_ALLOW_DATA_LOSS")]
    pub allow_data_loss: bool,

    /// Replicas of Redis that must have an event before it is acknowledged
    #[arg(long, env = "CHAT_LOG_REPLICAS", default_value_t = 0, value_name = "N",
          value_parser = clap::value_parser!(u8).range(0..=i64::from(REPLICAS_MAX)))]
    pub log_replicas: u8,
}

/// How long a repeated send is recognised.
#[derive(Debug, Clone, Args)]
pub struct IdempotencyOptions {
    /// How long a repeated send is answered as the first one was, such as `90s`, `30m` or `1h`
    #[arg(long, env = "CHAT_IDEMPOTENCY_WINDOW", default_value = "1h", value_name = "TIME", value_parser = window)]
    pub idempotency_window: Duration,
}

impl Default for IdempotencyOptions {
    fn default() -> Self {
        Self { idempotency_window: IDEMPOTENCY_WINDOW }
    }
}

/// Which passwords may be chosen.
#[derive(Debug, Clone, Default, Args)]
pub struct PasswordOptions {
    /// A file of passwords that nobody may choose, one per line
    #[arg(long, env = "CHAT_PASSWORD_BLOCKLIST", value_name = "FILE")]
    pub password_blocklist: Option<PathBuf>,
}

/// Where the views are: for the processes that use Cassandra.
#[derive(Debug, Clone, Args)]
pub struct ViewOptions {
    /// Nodes of Cassandra to start from
    #[arg(
        long,
        env = "CHAT_CASSANDRA_NODES",
        default_value = "127.0.0.1:9042",
        value_name = "HOST:PORT,…",
        value_delimiter = ','
    )]
    pub cassandra_nodes: Vec<String>,

    /// The keyspace of the generation register; the views' keyspaces are named after it
    #[arg(long, env = "CHAT_KEYSPACE", default_value = "chat", value_name = "NAME", value_parser = keyspace)]
    pub keyspace: String,

    /// Copies of each row; with more than one, reads and writes ask a quorum
    #[arg(long, env = "CHAT_REPLICATION_FACTOR", default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..=9))]
    pub replication_factor: u8,
}

/// Keyspaces are named in statements, where nothing can be bound: letters, digits and `_` only.
fn keyspace(text: &str) -> Result<String, ConfigError> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if begins && text.len() <= 40 && text.bytes().all(word) {
        Ok(text.to_owned())
    } else {
        Err(ConfigError("at most 40 of a-z 0-9 _, beginning with a letter".to_owned()))
    }
}

/// Whole seconds, minutes or hours.
fn window(text: &str) -> Result<Duration, ConfigError> {
    let wrong = || {
        ConfigError("a whole number with s, m or h, such as 90s or 1h; at least 1s, at most 24h".to_owned())
    };
    let units = [('s', 1), ('m', 60), ('h', 3_600)];
    let (number, seconds_per_unit) = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let seconds = u64::from(number) * seconds_per_unit;
    if (1..=24 * 3_600).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("30m", 1_800), ("1h", 3_600), ("24h", 86_400)] {
            assert_eq!(window(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "1", "h", "0s", "25h", "-1s", "1.5h", "1d", "é"] {
            assert!(window(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keyspaces() {
        assert!(keyspace("chat").is_ok() && keyspace("chat_2").is_ok());
        for text in ["", "Chat", "2chat", "a-b", "a b", "a;drop", &"a".repeat(41)] {
            assert!(keyspace(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("redis://:hunter2@h/")), "Secret(..)");
    }
}
