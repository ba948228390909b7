//! Settings: a flag and an environment variable of the same name each. Read and cross-checked before anything
//! is connected. Secrets also come from files and are never shown.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::cors::WebOrigin;
use crate::limits::{
    IDEMPOTENCY_WINDOW, IDEMPOTENCY_WINDOW_MAX, LOGIN_RATE, PARTITIONS_DEFAULT, PARTITIONS_MAX,
    REGISTER_RATE, REPLICAS_MAX, REQUESTS_IN_FLIGHT_PER_USER, SEND_RATE, STREAMS_PER_USER,
};
use crate::network::Network;
use crate::rate::Rate;

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

    /// Where spans of traces are sent, as OTLP over HTTP, such as `http://127.0.0.1:4318`
    #[cfg(feature = "otel")]
    #[arg(long, env = "CHAT_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

impl ProcessOptions {
    /// The defaults, but for the log.
    #[must_use]
    pub fn logging(log: &str) -> Self {
        Self {
            log: log.to_owned(),
            #[cfg(feature = "otel")]
            otlp_endpoint: None,
        }
    }
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
    /// The setting that says where it is.
    #[must_use]
    pub fn redis_url_setting(&self) -> &'static str {
        if self.redis_url_file.is_some() { "--redis-url-file" } else { "--redis-url" }
    }

    /// # Errors
    /// When the file cannot be read or the URL is not one of Redis.
    pub fn redis_url(&self) -> Result<Secret, ConfigError> {
        let url = match &self.redis_url_file {
            None => self.redis_url.clone(),
            Some(file) => {
                let wrong = |error| ConfigError(format!("--redis-url-file {}: {error}", file.display()));
                let text = std::fs::read_to_string(file).map_err(wrong)?;
                Secret::new(text.trim())
            }
        };
        if url.reveal().starts_with("redis://") {
            Ok(url)
        } else {
            Err(ConfigError(format!("{}: the URL starts with redis://", self.redis_url_setting())))
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// What a user may have in flight: for every process that serves users.
#[derive(Debug, Clone, Args)]
pub struct InFlightOptions {
    /// `off` lifts every limit: rates, waits after failed logins, requests in flight
    #[arg(long, env = "CHAT_RATE_LIMITS", value_enum, default_value = "on")]
    pub rate_limits: Switch,

    /// Requests of one user that this process serves at once
    #[arg(long, env = "CHAT_IN_FLIGHT_LIMIT", default_value_t = REQUESTS_IN_FLIGHT_PER_USER, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight_limit: u32,
}

impl Default for InFlightOptions {
    fn default() -> Self {
        Self { rate_limits: Switch::On, in_flight_limit: REQUESTS_IN_FLIGHT_PER_USER }
    }
}

/// Event streams: for the processes that serve reads.
#[derive(Debug, Clone, Args)]
pub struct StreamOptions {
    /// Event streams of one user that this process keeps open at once
    #[arg(long, env = "CHAT_STREAM_LIMIT", default_value_t = STREAMS_PER_USER, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub stream_limit: u32,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { stream_limit: STREAMS_PER_USER }
    }
}

/// What clients may do: for the processes that take commands.
#[derive(Debug, Clone, Args)]
pub struct LimitOptions {
    #[command(flatten)]
    pub in_flight: InFlightOptions,

    /// Sends of one user: per s, min or h, and how many at once
    #[arg(long, env = "CHAT_SEND_LIMIT", default_value_t = SEND_RATE, value_name = "N/s:BURST")]
    pub send_limit: Rate,

    /// Logins from one address
    #[arg(long, env = "CHAT_LOGIN_LIMIT", default_value_t = LOGIN_RATE, value_name = "N/min:BURST")]
    pub login_limit: Rate,

    /// Registrations from one address
    #[arg(long, env = "CHAT_REGISTER_LIMIT", default_value_t = REGISTER_RATE, value_name = "N/min:BURST")]
    pub register_limit: Rate,

    /// Addresses or networks whose X-Forwarded-For is believed, such as 127.0.0.1 or 10.0.0.0/8
    #[arg(long, env = "CHAT_TRUSTED_PROXIES", value_name = "NETWORK,…", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            in_flight: InFlightOptions::default(),
            send_limit: SEND_RATE,
            login_limit: LOGIN_RATE,
            register_limit: REGISTER_RATE,
            trusted_proxies: Vec::new(),
        }
    }
}

/// For the processes that answer clients.
#[derive(Debug, Clone, Default, Args)]
pub struct CorsOptions {
    /// Origins whose pages may use the API in a browser, such as `https://chat.example.com`
    #[arg(long, env = "CHAT_CORS_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
    pub cors_origins: Vec<WebOrigin>,
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
    time(text, IDEMPOTENCY_WINDOW_MAX)
}

/// A time as settings have it, at most `longest`, which is whole hours.
///
/// # Errors
/// For anything else, saying what is expected.
pub fn time(text: &str, longest: Duration) -> Result<Duration, ConfigError> {
    let hours_max = longest.as_secs() / 3_600;
    let wrong = || {
        let expected = "a whole number with s, m or h, such as 90s or 1h; at least 1s, at most";
        ConfigError(format!("{expected} {hours_max}h"))
    };
    let units = [('s', 1), ('m', 60), ('h', 3_600)];
    let (number, seconds_per_unit) = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let seconds = u64::from(number) * seconds_per_unit;
    if (1..=hours_max * 3_600).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(wrong()) }
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
    fn limits() {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            limits: LimitOptions,
        }
        let parse = |arguments: &[&str]| {
            <Program as clap::Parser>::try_parse_from(std::iter::once(&"program").chain(arguments))
                .map(|program| program.limits)
        };
        let default = parse(&[]).unwrap();
        assert_eq!(format!("{default:?}"), format!("{:?}", LimitOptions::default()));
        let set = parse(&["--rate-limits", "off", "--trusted-proxies", "127.0.0.1,10.0.0.0/8"]).unwrap();
        assert_eq!((set.in_flight.rate_limits, set.trusted_proxies.len()), (Switch::Off, 2));
        for wrong in [
            ["--rate-limits", "no"],
            ["--send-limit", "20"],
            ["--in-flight-limit", "0"],
            ["--trusted-proxies", "localhost"],
            ["--trusted-proxies", "10.0.0.1/8"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
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
