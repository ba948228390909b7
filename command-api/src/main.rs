//! The program `command-api`: settings, adapters, serve.

mod config;

use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use clap::Parser;
use command_api::{AppState, Blocklist, KnownUsers, Parts, Passwords};
use shared::Clock;
use shared::process::client::TrustedProxies;
use shared::process::limits::{InFlight, LimitMetrics, Limits};
use shared::process::{
    auth::Access,
    cors::Cors,
    end,
    health::Health,
    http::{Listeners, Service},
    sessions::RecentSessions,
    shutdown::{Lifecycle, Signals},
    telemetry,
};
use storage::redis;

// A send makes some fifty small allocations: this saves a sixth of its CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    end::status(run(config::Config::parse()).await)
}

async fn run(config: config::Config) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let (clock, lifecycle) = (Clock::system(), Lifecycle::default());
    telemetry::init_log(&config.process, "command-api", &lifecycle)?;
    let listeners = Listeners::bind(config.listen, config.metrics_listen).await?;
    let window = config.idempotency.idempotency_window;
    let (log, durability) = (redis::Options::of(&config.log)?, Some(config.durability));
    let options = redis::Options { idempotency_window: window, durability, ..log };
    let redis =
        redis::connect(&options, clock.clone(), &lifecycle.store_tasks, lifecycle.stores_stop.clone())?;
    let metrics = telemetry::Metrics::default();
    let limit_metrics = LimitMetrics::new(&metrics);
    let accounts = Arc::new(redis.accounts());
    let passwords = Passwords::for_this_machine();
    redis.log().register_metrics(&metrics);
    passwords.register_metrics(&metrics);
    let state = AppState::from(Parts {
        log: Arc::new(redis.log()),
        accounts: accounts.clone(),
        known: KnownUsers::default(),
        sessions: Arc::new(RecentSessions::new(accounts.clone())),
        heads: accounts,
        passwords,
        blocklist: Blocklist::read(config.passwords.password_blocklist.as_deref())?,
        limits: Limits::new(&config.limits, Arc::new(redis.rate_limits()), &limit_metrics),
        in_flight: InFlight::new(&config.limits.in_flight, &limit_metrics),
        trusted_proxies: TrustedProxies::new(&config.limits.trusted_proxies),
        clock: clock.clone(),
        access: Access::Token,
        idempotency_window: window,
    });
    let router = Router::from(command_api::routes().with_state(state));
    let health = Health::new(vec![Arc::new(redis.probe())], lifecycle.shutdown.clone());
    let cors = Cors::new(&config.cors.cors_origins);
    let service = Service { router, metrics, health: health.clone(), cors, clock };
    service.start(listeners, &lifecycle)?;
    Ok(lifecycle.run_to_end(&health, signals).await?)
}
