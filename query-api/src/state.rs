//! What every handler may use.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use shared::ports::{Heads, Notices, Sessions, ViewReader};
use shared::process::auth::Access;
use shared::process::limits::InFlight;
use shared::process::sessions::RecentSessions;
use shared::process::telemetry::Metrics;

use crate::freshness::Waits;
use crate::heads::SharedHeads;
use crate::live::Live;
use crate::metrics::ReadMetrics;
use crate::pages::Pages;

/// Shared: axum clones the state for every request and every extractor.
#[derive(Clone)]
pub struct AppState(Arc<State>);

/// What it is made of.
pub struct Parts {
    pub views: Arc<dyn ViewReader>,
    pub heads: Arc<dyn Heads>,
    pub sessions: Arc<RecentSessions>,
    pub notices: Arc<dyn Notices>,
    pub in_flight: InFlight,
    pub live: Live,
    pub access: Access,
}

pub struct State {
    parts: Parts,
    pub(crate) shared_heads: SharedHeads,
    pub(crate) pages: Pages,
    pub(crate) waits: Waits,
    pub(crate) metrics: ReadMetrics,
}

impl AppState {
    #[must_use]
    pub fn new(parts: Parts, metrics: &Metrics) -> Self {
        let metrics = ReadMetrics::new(metrics);
        let (pages, waits) = (Pages::new(parts.views.clone(), metrics.clone()), Waits::new(metrics.clone()));
        let shared_heads = SharedHeads::new(parts.heads.clone());
        Self(Arc::new(State { parts, shared_heads, pages, waits, metrics }))
    }

    /// Whether any conversation may be read without a token of one of the two.
    pub(crate) fn trusts_names(&self) -> bool {
        self.access == Access::Open
    }
}

impl Deref for AppState {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl Deref for State {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
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
