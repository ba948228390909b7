//! What clients did of late: one string per subject that ends by itself, changed by two small scripts
//! (`take.lua`, `login.lua`) in one round trip each. Time is Redis' own, so all processes count alike.
//!
//! A subject's partition follows from its own hash: users and addresses spread over the slots of a cluster.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::Script;
use shared::limits::{LOGIN_DELAY_MAX, LOGIN_DELAY_MIN, LOGIN_FAILURES_FREE, LOGIN_FAILURES_REMEMBERED};
use shared::ports::{self, StoreError};
use shared::rate::{Counted, LoginKey, Rate, Taken};

use super::command::millis;
use super::link::Link;
use super::server::Server;

/// On the shared connection.
#[derive(Clone)]
pub struct RateLimits {
    server: Arc<Server>,
    link: Link,
    take: Arc<Script>,
    try_login: Arc<Script>,
}

impl RateLimits {
    pub(super) fn new(server: Arc<Server>, link: Link) -> Self {
        let take = Arc::new(Script::new(include_str!("take.lua")));
        let try_login = Arc::new(Script::new(include_str!("login.lua")));
        Self { server, link, take, try_login }
    }
}

#[async_trait]
impl ports::RateLimits for RateLimits {
    async fn take(&self, counted: &Counted, rate: Rate, wanted: u32) -> Result<Taken, StoreError> {
        let mut take = self.take.key(self.server.keys.rate(counted));
        take.arg(rate.spacing_us()).arg(rate.burst()).arg(wanted);
        let (granted, remaining, next_us) = self.link.call(&take).await?;
        Ok(Taken { granted, remaining, next: Duration::from_micros(next_us) })
    }

    async fn try_login(&self, login: &LoginKey) -> Result<Duration, StoreError> {
        let mut count = self.try_login.key(self.server.keys.failed_logins(login));
        count.arg(LOGIN_FAILURES_FREE).arg(millis(LOGIN_DELAY_MIN)).arg(millis(LOGIN_DELAY_MAX));
        count.arg(millis(LOGIN_FAILURES_REMEMBERED));
        let wait_ms = self.link.call(&count).await?;
        Ok(Duration::from_millis(wait_ms))
    }

    async fn forget_failures(&self, login: &LoginKey) -> Result<(), StoreError> {
        let mut forget = redis::pipe();
        forget.cmd("DEL").arg(self.server.keys.failed_logins(login)).ignore();
        self.link.write(&forget).await
    }
}
