//! Liveness and readiness. `/healthz`: the process lives. `/readyz`: it can serve, or what it waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::join_all;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::problem::scattered_seconds;
use crate::ports::{Probe, StoreError};

/// A probe that has not answered by then is waited for no longer.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// How often a process that is starting looks whether its stores are there.
const PROBE_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What a process needs in order to serve.
#[derive(Clone)]
pub struct Health {
    probes: Arc<[Arc<dyn Probe>]>,
    watched: Option<Arc<dyn Probe>>,
    shutdown: CancellationToken,
    started: Arc<AtomicBool>,
}

/// The body of both probes.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthReport {
    /// `ok`, `waiting` or `draining`.
    pub status: &'static str,
    /// What is not there yet.
    pub waiting_for: Vec<String>,
    /// What an acknowledged write survives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
}

impl Health {
    #[must_use]
    pub fn new(probes: Vec<Arc<dyn Probe>>, shutdown: CancellationToken) -> Self {
        Self { probes: probes.into(), watched: None, shutdown, started: Arc::default() }
    }

    /// `/readyz` asks this too. What it says ends no process: it does not have to be there at the start.
    #[must_use]
    pub fn watching(self, watched: Arc<dyn Probe>) -> Self {
        Self { watched: Some(watched), ..self }
    }

    /// Of a process that would not be there without its stores.
    #[must_use]
    pub fn started(self) -> Self {
        self.started.store(true, Ordering::Relaxed);
        self
    }

    /// Whether every store has been there once: from then on, one that is not there is away.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Ends when every store has been there once, or with what one of them says that will not change by waiting:
    /// it was set up otherwise, or is damaged.
    ///
    /// # Errors
    /// The store's, if it cannot be retried.
    pub async fn fits(&self) -> Result<(), StoreError> {
        loop {
            let mut waiting = false;
            for probe in self.probes.iter() {
                match probe.check().await {
                    Ok(()) => {}
                    Err(error) if error.is_retryable() => waiting = true,
                    Err(error) => return Err(error),
                }
            }
            if !waiting {
                self.started.store(true, Ordering::Relaxed);
                return Ok(());
            }
            tokio::time::sleep(PROBE_AGAIN_AFTER).await;
        }
    }

    /// `/healthz` and `/readyz`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/healthz", get(Self::healthz))
            .route("/readyz", get(move || async move { self.readyz().await }))
    }

    /// 200 while the process lives.
    pub async fn healthz() -> Response {
        Json(HealthReport { status: "ok", waiting_for: Vec::new(), durability: None }).into_response()
    }

    /// 200, or 503 with what it waits for. Draining is not ready: who still has a connection sees it.
    pub async fn readyz(&self) -> Response {
        let probes = || self.probes.iter().chain(&self.watched);
        let checks = probes().map(|probe| tokio::time::timeout(PROBE_DEADLINE, probe.check()));
        let results = join_all(checks).await;
        let waiting_for: Vec<String> = probes()
            .zip(results)
            .filter_map(|(probe, result)| match result {
                Ok(Ok(())) => None,
                // Somebody has to do something: say what is wrong, so that whoever looks knows what.
                Ok(Err(
                    error
                    @ (StoreError::Other { .. } | StoreError::Unfit { .. } | StoreError::Damaged { .. }),
                )) => Some(error.to_string()),
                Ok(Err(_)) | Err(_) => Some(probe.name().to_owned()),
            })
            .collect();
        if waiting_for.is_empty() {
            self.started.store(true, Ordering::Relaxed);
        }
        let durability = self.probes.iter().find_map(|probe| probe.durability());
        let (code, status) = if self.shutdown.is_cancelled() {
            (StatusCode::SERVICE_UNAVAILABLE, "draining")
        } else if waiting_for.is_empty() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "waiting")
        };
        let mut answer = (code, Json(HealthReport { status, waiting_for, durability })).into_response();
        if code == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, scattered_seconds().into());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RETRY_SECONDS_MAX;

    #[tokio::test]
    async fn who_is_not_ready_says_when_to_ask_again() {
        let shutdown = CancellationToken::new();
        let health = Health::new(Vec::new(), shutdown.clone());
        let retry_after = |answer: &Response| answer.headers().get(header::RETRY_AFTER).cloned();
        let ready = health.readyz().await;
        assert_eq!((ready.status(), retry_after(&ready)), (StatusCode::OK, None));
        shutdown.cancel();
        let draining = health.readyz().await;
        assert_eq!(draining.status(), StatusCode::SERVICE_UNAVAILABLE);
        let seconds: u32 = retry_after(&draining).unwrap().to_str().unwrap().parse().unwrap();
        assert!((1..=RETRY_SECONDS_MAX).contains(&seconds), "{seconds}");
    }
}
