//! The system in this process, on a directory of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use projector::Parked;
use shared::Clock;
use shared::limits::PARKED_COUNTED_MAX;
use shared::ports::{FeedMonitor, ParkedEvents};
use shared::process::config::{
    IdempotencyOptions, InFlightOptions, LimitOptions, PasswordOptions, ProcessOptions, StreamOptions, Switch,
};
use shared::process::shutdown::Lifecycle;
use standalone::{Config, Standalone};
use storage::embedded::Embedded;
use tempfile::TempDir;

use crate::app::{Settings, Standing};
use crate::ports::free_address;

pub(crate) struct System {
    running: Standalone,
    lifecycle: Lifecycle,
    metrics: SocketAddr,
    _dir: TempDir,
}

impl System {
    pub(crate) async fn start(settings: &Settings) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lifecycle = Lifecycle::default();
        let metrics = free_address();
        let config = config(dir.path(), metrics, settings);
        let running = Standalone::start(&config, Clock::system(), &lifecycle).await.expect("it starts");
        Self { running, lifecycle, metrics, _dir: dir }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address
    }

    pub(crate) fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    pub(crate) async fn standing(&self) -> Standing {
        let status = self.running.store.status().await.expect("the store answers");
        let parked =
            self.running.store.parked(None, PARKED_COUNTED_MAX).await.expect("the store answers").len();
        let pending = status.partitions.iter().map(|partition| partition.pending).sum();
        Standing { lag: status.lag(), pending, parked: parked as u64, consumers: status.consumers.len() }
    }

    pub(crate) fn store(&self) -> &Embedded {
        &self.running.store
    }

    pub(crate) fn parked(&self) -> Parked {
        let Standalone { store, .. } = &self.running;
        Parked { generation: 1, events: store.clone(), log: store.clone(), views: store.clone() }
    }

    pub(crate) async fn stop(&self) {
        self.lifecycle.drain().await;
        let left = self.lifecycle.tasks.len() + self.lifecycle.store_tasks.len();
        assert_eq!(left, 0, "tasks outlive the drain");
    }

    /// When there is no time for good order.
    pub(crate) fn abandon(&self) {
        self.lifecycle.shutdown.cancel();
    }
}

fn config(dir: &Path, metrics: SocketAddr, settings: &Settings) -> Config {
    let mut idempotency = IdempotencyOptions::default();
    if let Some(window) = settings.idempotency_window {
        idempotency.idempotency_window = window;
    }
    Config {
        command: None,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        metrics_listen: metrics,
        data_dir: dir.join("data"),
        auth: settings.access,
        idempotency,
        passwords: PasswordOptions { password_blocklist: settings.password_blocklist.clone() },
        limits: settings.limits.clone().unwrap_or_else(unlimited),
        streams: StreamOptions::default(),
        cors: settings.cors.clone(),
        process: ProcessOptions::logging("warn"),
    }
}

fn unlimited() -> LimitOptions {
    let in_flight = InFlightOptions { rate_limits: Switch::Off, ..InFlightOptions::default() };
    LimitOptions { in_flight, ..LimitOptions::default() }
}
