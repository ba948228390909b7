//! What every handler may use.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use shared::Clock;
use shared::ports::{Accounts, EventLog, Heads, Sessions};
use shared::process::auth::Access;
use shared::process::client::TrustedProxies;
use shared::process::limits::{InFlight, Limits};
use shared::process::sessions::RecentSessions;

use crate::blocklist::Blocklist;
use crate::known_users::KnownUsers;
use crate::passwords::Passwords;

/// Shared: axum clones the state for every request and every extractor.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

pub struct Parts {
    pub log: Arc<dyn EventLog>,
    pub accounts: Arc<dyn Accounts>,
    pub known: KnownUsers,
    pub sessions: Arc<RecentSessions>,
    pub heads: Arc<dyn Heads>,
    pub passwords: Passwords,
    pub blocklist: Blocklist,
    pub limits: Limits,
    pub in_flight: InFlight,
    pub trusted_proxies: TrustedProxies,
    pub clock: Clock,
    pub access: Access,
    /// How long a repeated send is recognised.
    pub idempotency_window: std::time::Duration,
}

impl From<Parts> for AppState {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Parts {
    /// Whether `sender` is taken as given.
    pub(crate) fn trusts_names(&self) -> bool {
        self.access == Access::Open
    }
}

impl FromRef<AppState> for Arc<dyn Sessions> {
    fn from_ref(state: &AppState) -> Self {
        state.sessions.clone()
    }
}

impl FromRef<AppState> for TrustedProxies {
    fn from_ref(state: &AppState) -> Self {
        state.trusted_proxies.clone()
    }
}

impl FromRef<AppState> for Access {
    fn from_ref(state: &AppState) -> Self {
        state.access
    }
}
