//! What `/readyz` asks of Redis: whether it is there, whether the log fits, and what an acknowledged append
//! survives. It reports the server's settings; it changes none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use shared::ports::{self, StoreError};

use super::STORE;
use super::link::Link;

/// On the shared connection. Clones share what the last check learnt.
#[derive(Clone)]
pub struct Probe {
    link: Link,
    durability: Arc<Mutex<Option<String>>>,
}

impl Probe {
    pub(super) fn new(link: Link) -> Self {
        Self { link, durability: Arc::default() }
    }
}

#[async_trait]
impl ports::Probe for Probe {
    fn name(&self) -> &'static str {
        STORE
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut ping = redis::pipe();
        ping.cmd("PING").ignore();
        self.link.read::<()>(&ping).await?;
        let mut config = redis::pipe();
        config.cmd("CONFIG").arg("GET").arg("appendonly").arg("appendfsync").arg("maxmemory-policy");
        // A hosted Redis may keep its settings to itself; it is ready all the same.
        let settings = self.link.read::<(HashMap<String, String>,)>(&config).await.ok();
        let text = durability(settings.map(|(settings,)| settings).as_ref());
        *self.durability.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        Ok(())
    }

    /// As of the last check.
    fn durability(&self) -> Option<String> {
        self.durability.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn durability(settings: Option<&HashMap<String, String>>) -> String {
    let Some(settings) = settings else {
        return format!("{STORE}: unknown (it does not tell its settings)");
    };
    let setting = |name| settings.get(name).map_or("", String::as_str);
    let kept = match (setting("appendonly"), setting("appendfsync")) {
        ("yes", "always") => "append-only file, fsync always (an acknowledged event survives a power cut)",
        ("yes", "everysec") => {
            "append-only file, fsync every second (an acknowledged event survives a crash of Redis; a power cut \
             loses the last seconds)"
        }
        ("yes", _) => {
            "append-only file, fsync left to the system (an acknowledged event survives a crash of Redis; a \
             power cut loses what the system had not written)"
        }
        _ => "no append-only file (an acknowledged event does not survive a restart of Redis)",
    };
    match setting("maxmemory-policy") {
        "noeviction" => format!("{STORE}: {kept}"),
        policy => {
            format!("{STORE}: {kept}; maxmemory-policy {policy} may evict acknowledged data: set noeviction")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_survives() {
        let text = |aof: &str, fsync: &str, policy: &str| {
            let settings = [("appendonly", aof), ("appendfsync", fsync), ("maxmemory-policy", policy)];
            durability(Some(&settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()))
        };
        assert_eq!(
            text("yes", "always", "noeviction"),
            "redis: append-only file, fsync always (an acknowledged event survives a power cut)"
        );
        assert!(text("yes", "everysec", "noeviction").contains("loses the last seconds)"));
        assert!(text("no", "always", "noeviction").starts_with("redis: no append-only file"));
        assert!(text("yes", "always", "allkeys-lru").ends_with("set noeviction"));
        assert!(durability(None).contains("unknown"));
    }
}
