//! Where an operator says that a store is, and whether it is there. A command waits for a store that starts or says
//! nothing, for a while; for one that is not there it does not wait.

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::{Result, bail};
use shared::limits::{COMMAND_DEADLINE, COMMAND_SILENCE_MAX, LOG_CONNECT_TIMEOUT};
use shared::ports::{Chain, Probe, StoreError};
use shared::process::config::{LogOptions, ViewOptions};
use storage::redis;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

/// How soon it is asked again whether it is ready.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Of a node that is named without one, as the driver has it.
const CASSANDRA_PORT: u16 = 9042;

/// Shown with the setting that says so, and without anything that is a secret.
pub(super) struct Place {
    store: &'static str,
    addresses: Vec<String>,
    setting: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.store, self.addresses.join(", "), self.setting)
    }
}

impl Place {
    pub(super) fn of_log(settings: &LogOptions) -> Result<Self> {
        let addresses = vec![redis::Options::of(settings)?.address()?];
        Ok(Self { store: "Redis", addresses, setting: settings.redis_url_setting() })
    }

    pub(super) fn of_views(settings: &ViewOptions) -> Self {
        let addresses = settings.cassandra_nodes.clone();
        Self { store: "Cassandra", addresses, setting: "--cassandra-nodes" }
    }

    /// An error as soon as it is certain that nobody listens there: all refuse, or there are no such hosts. Whoever says
    /// nothing may be there.
    pub(super) async fn look(&self) -> Result<()> {
        let mut why = String::new();
        for address in &self.addresses {
            match timeout(LOG_CONNECT_TIMEOUT, knock(address)).await {
                Ok(Ok(())) | Err(_) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    why = error.kind().to_string();
                }
                Ok(Err(error)) => why = error.to_string(),
            }
        }
        bail!("no {self}: {why}")
    }

    /// Returns when the store can be used, which is soon or never.
    pub(super) async fn ready(&self, probe: impl Probe) -> Result<()> {
        self.opened(|| probe.check()).await
    }

    /// What `open` gives as soon as the store can be used, which is soon or never.
    pub(super) async fn opened<T, F>(&self, open: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let (since, mut is_told) = (Instant::now(), false);
        loop {
            let error = match open().await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            if !error.is_retryable() {
                return Err(error.into());
            }
            let (waited, why) = (since.elapsed(), Chain(&error));
            if waited > COMMAND_DEADLINE {
                bail!("{self} is not ready after {COMMAND_DEADLINE:?}: {why}");
            }
            if waited > COMMAND_SILENCE_MAX && !is_told {
                tracing::warn!(%why, "{self} is not ready yet; waiting");
                is_told = true;
            }
            sleep(ASKED_AGAIN_AFTER).await;
        }
    }
}

async fn knock(address: &str) -> io::Result<()> {
    let found: Vec<_> = match lookup_host(address).await {
        Ok(found) => found.collect(),
        Err(why) => match lookup_host((address, CASSANDRA_PORT)).await {
            Ok(found) => found.collect(),
            Err(_) => return Err(why),
        },
    };
    TcpStream::connect(&found[..]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn place(addresses: &[String]) -> Place {
        Place { store: "Redis", addresses: addresses.to_vec(), setting: "--redis-url" }
    }

    #[tokio::test]
    async fn nobody_is_there_only_if_all_refuse() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let open = listener.local_addr().unwrap().to_string();
        let closing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let closed = closing.local_addr().unwrap().to_string();
        drop(closing);
        assert!(place(&[closed.clone(), open]).look().await.is_ok());
        let refused = place(std::slice::from_ref(&closed)).look().await.unwrap_err();
        assert_eq!(refused.to_string(), format!("no Redis at {closed} (--redis-url): connection refused"));
        let unknown = place(&["nowhere.invalid:6379".to_owned()]).look().await.unwrap_err();
        assert!(
            unknown.to_string().starts_with("no Redis at nowhere.invalid:6379 (--redis-url): "),
            "{unknown}"
        );
    }
}
