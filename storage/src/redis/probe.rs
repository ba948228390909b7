//! What `/readyz` asks of Redis: whether it is there, whether the log fits, and what an acknowledged append
//! survives. It reports the server's settings; it changes none.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use shared::ports::{self, StoreError};

use super::STORE;
use super::link::Link;
use super::server::{Server, unavailable};

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
        let mut question = self.server.question();
        // A read that is refused as a write would be, when the disk is full.
        question.cmd("PING");
        let mut answers = self.link.read_each(&question).await?;
        let serves = answers.pop().map_or(Ok(()), |pong| pong.extract_error().map(drop)).map_err(unavailable);
        let (profile, fits) = self.server.is_as_before(answers);
        // While it loads its data it says less than it will keep.
        if !matches!(fits, Err(StoreError::Unavailable { .. })) {
            let text = profile.text(self.server.replicas());
            *self.durability.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
        if fits.is_err() {
            // It was set otherwise while it ran: what it would refuse a new connection, it refuses this one.
            self.link.doubt();
            self.appends.doubt();
        }
        fits.and(serves)
    }

    /// As of the last check.
    fn durability(&self) -> Option<String> {
        self.durability.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
