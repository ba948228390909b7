//! What every handler may use.

use std::sync::Arc;

use axum::extract::FromRef;
use shared::ports::{Heads, Notices, Sessions, ViewReader};
use shared::process::auth::Access;
use shared::process::limits::InFlight;
use shared::process::sessions::RecentSessions;

#[derive(Clone)]
pub struct AppState {
    pub views: Arc<dyn ViewReader>,
    pub heads: Arc<dyn Heads>,
    pub sessions: Arc<RecentSessions>,
    pub notices: Arc<dyn Notices>,
    pub in_flight: InFlight,
    pub access: Access,
}

impl AppState {
    /// Whether any conversation may be read without a token of one of the two.
    pub(crate) fn trusts_names(&self) -> bool {
        self.access == Access::Open
    }
}

impl FromRef<AppState> for Arc<dyn Sessions> {
    fn from_ref(state: &AppState) -> Self {
        state.sessions.clone()
    }
}

impl FromRef<AppState> for Access {
    fn from_ref(state: &AppState) -> Self {
        state.access
    }
}
