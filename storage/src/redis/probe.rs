//! What `/readyz` asks of Redis: whether it is there, whether the log fits, and what an acknowledged append
//! survives. It reports the server's settings; it changes none.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use shared::ports::{self, StoreError};

use super::STORE;
use super::durability::Profile;
use super::link::Link;
use super::server::Server;

/// On the shared connection. Clones share what the last check learnt.
#[derive(Clone)]
pub struct Probe {
    server: Arc<Server>,
    link: Link,
    /// The one that appends go through.
    appends: Link,
    durability: Arc<Mutex<Option<String>>>,
}

impl Probe {
    pub(super) fn new(server: Arc<Server>, link: Link, appends: Link) -> Self {
        Self { server, link, appends, durability: Arc::default() }
    }
}

#[async_trait]
impl ports::Probe for Probe {
    fn name(&self) -> &'static str {
        STORE
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.appends.check()?;
        let mut ask = redis::pipe();
        ask.cmd("PING").ignore();
        self.server.ask_epoch(&mut ask);
        let (epoch,): (Option<String>,) = self.link.read(&ask).await?;
        let is_right = self.server.right.check_again(epoch);
        let profile = Profile::of(self.link.read_each(&Profile::question()).await?);
        let text = profile.text(self.server.replicas());
        *self.durability.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        let fits = is_right.and_then(|_| self.server.accepts(&profile));
        if fits.is_err() {
            // It was set otherwise while it ran: what it would refuse a new connection, it refuses this one.
            self.link.doubt();
            self.appends.doubt();
        }
        fits
    }

    /// As of the last check.
    fn durability(&self) -> Option<String> {
        self.durability.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
