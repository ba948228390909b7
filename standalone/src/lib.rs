//! All three roles in one process, on an embedded store: the same routers and the same projector as the real
//! system, composed differently. No servers are needed.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use command_api::{Blocklist, KnownUsers, Passwords};
use projector::{Counters, Progress, Projector, StormGuard, Watched};
use query_api::Live;
use shared::Clock;
use shared::process::client::TrustedProxies;
use shared::process::cors::Cors;
use shared::process::health::Health;
use shared::process::http::{Listeners, Service};
use shared::process::limits::{InFlight, LimitMetrics, Limits};
use shared::process::sessions::RecentSessions;
use shared::process::shutdown::Lifecycle;
use shared::process::telemetry::Metrics;
use storage::embedded::Embedded;

mod config;
mod description;
mod parked;
mod rebuild;
mod verify;

pub use config::{Command, Config};
pub use description::describe;
pub use parked::parked;
pub use rebuild::rebuild;
pub use verify::verify;

/// A running system.
pub struct Standalone {
    pub address: SocketAddr,
    pub health: Health,
    /// For tests: the store behind every port.
    pub store: Arc<Embedded>,
}

impl Standalone {
    /// Opens the directory, binds, and serves until shutdown. When this returns, requests are answered. Views of
    /// another shape are built anew before anybody can connect.
    ///
    /// # Errors
    /// When the settings contradict each other, the directory is damaged or in use, or an address cannot be bound.
    pub async fn start(config: &Config, clock: Clock, lifecycle: &Lifecycle) -> anyhow::Result<Self> {
        config.check()?;
        let options = config.store();
        rebuild::rebuild_if_other(&options, clock.clone()).await?;
        let store = verify::open(&options, Embedded::open, clock.clone()).await?;

        let metrics = Metrics::default();
        store.register_metrics(&metrics);
        let progress = Progress::new(&metrics);
        let projector = Projector {
            feed: Box::new(store.feed("standalone")),
            views: store.clone(),
            counters: Counters::new(&metrics),
            clock: clock.clone(),
            guard: Some(StormGuard::default()),
            progress: progress.clone(),
        };
        lifecycle.spawn(projector::run(projector, lifecycle.shutdown.clone()));
        let watched = vec![Watched { monitor: store.clone(), parked: store.clone() }];
        lifecycle.spawn(progress.clone().watch(watched, clock.clone(), lifecycle.shutdown.clone()));

        let health = Health::new(vec![store.clone()], lifecycle.shutdown.clone())
            .watching(Arc::new(progress))
            .started();
        let service = Service {
            router: router(config, &store, (&clock, &metrics), lifecycle)?.merge(description::routes()?),
            metrics,
            health: health.clone(),
            cors: Cors::new(&config.cors.cors_origins),
            clock,
        };
        let listeners = Listeners::bind(config.listen, config.metrics_listen).await?;
        let address = service.start(listeners, lifecycle)?;
        Ok(Self { address, health, store })
    }
}

/// Where it listens, and how to try it.
///
/// # Errors
/// When standard output is gone.
pub fn greet(running: &Standalone, config: &Config) -> std::io::Result<()> {
    let url = format!("http://{}", running.address);
    let json = "-H 'Content-Type: application/json'";
    let user = r#"-d '{"username":"samer","password":"password123"}'"#;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "Chat System listens on {url} (data in {}, API at {url}/docs). Try:",
        config.data_dir.display()
    )?;
    writeln!(out, "  curl {url}/register {json} {user}")?;
    writeln!(out, "  curl {url}/login {json} {user}")?;
    writeln!(out, "  curl '{url}/messages?sender=samer&recipient=lena' -H 'Authorization: Bearer TOKEN'")
}

fn router(
    config: &Config,
    store: &Arc<Embedded>,
    (clock, metrics): (&Clock, &Metrics),
    lifecycle: &Lifecycle,
) -> anyhow::Result<Router> {
    let passwords = Passwords::for_this_machine();
    passwords.register_metrics(metrics);
    // One for both sides: a logout holds for reads at once, and a user's requests are counted together.
    let sessions = Arc::new(RecentSessions::new(store.clone()));
    let limit_metrics = LimitMetrics::new(metrics);
    let in_flight = InFlight::new(&config.limits.in_flight, &limit_metrics);
    let commands = command_api::routes().with_state(command_api::AppState::from(command_api::Parts {
        log: store.clone(),
        accounts: store.clone(),
        known: KnownUsers::default(),
        sessions: sessions.clone(),
        heads: store.clone(),
        passwords,
        blocklist: Blocklist::read(config.passwords.password_blocklist.as_deref())?,
        limits: Limits::new(&config.limits, store.clone(), &limit_metrics),
        in_flight: in_flight.clone(),
        trusted_proxies: TrustedProxies::new(&config.limits.trusted_proxies),
        clock: clock.clone(),
        access: config.auth,
        idempotency_window: config.idempotency.idempotency_window,
    }));
    let streams = InFlight::of_streams(config.limits.in_flight.rate_limits, &config.streams, &limit_metrics);
    let (tail, seen) = (Box::new(store.tail()), sessions.clone());
    let parts = query_api::Parts {
        views: store.clone(),
        heads: store.clone(),
        sessions,
        notices: store.clone(),
        in_flight,
        live: Live::start(tail, seen, streams, (clock.clone(), metrics), lifecycle),
        access: config.auth,
    };
    let queries = query_api::routes().with_state(query_api::AppState::new(parts, metrics));
    Ok(commands.merge(queries).into())
}
