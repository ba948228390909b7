//! The program `query-api`: settings, adapters, serve.

mod config;

use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use clap::Parser;
use query_api::{AppState, Live, Parts};
use shared::Clock;
use shared::process::limits::{InFlight, LimitMetrics};
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
use storage::{cassandra, redis};

// As command-api: a page that is ready is nothing but small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    end::status(run(config::Config::parse()).await)
}

async fn run(config: config::Config) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let (clock, lifecycle) = (Clock::system(), Lifecycle::default());
    telemetry::init_log(&config.process, "query-api", &lifecycle)?;
    let listeners = Listeners::bind(config.listen, config.metrics_listen).await?;
    let Lifecycle { store_tasks, stores_stop, .. } = &lifecycle;
    let cassandra = cassandra::Cassandra::connect(
        &cassandra::Options::of(&config.views),
        store_tasks,
        stores_stop.clone(),
    )?;
    // Each holds only beside the other: whose session is of another log than the views may be somebody else.
    let options = redis::Options { views: Some(cassandra.origin()), ..redis::Options::of(&config.log)? };
    let redis = redis::connect(&options, clock.clone(), store_tasks, stores_stop.clone())?;
    let metrics = telemetry::Metrics::default();
    let accounts = Arc::new(redis.accounts().silent_about(cassandra.lost()));
    let sessions = Arc::new(RecentSessions::new(accounts.clone()).outlasting_the_store());
    let limits = LimitMetrics::new(&metrics);
    let streams = InFlight::of_streams(config.in_flight.rate_limits, &config.streams, &limits);
    let parts = Parts {
        views: Arc::new(cassandra.reader().beside(redis.found())),
        heads: accounts,
        sessions: sessions.clone(),
        notices: Arc::new(redis.notices()),
        in_flight: InFlight::new(&config.in_flight, &limits),
        live: Live::start(Box::new(redis.tail()), sessions, streams, (clock.clone(), &metrics), &lifecycle),
        access: Access::Token,
    };
    let state = AppState::new(parts, &metrics);
    let router = Router::from(query_api::routes().with_state(state));
    let health =
        Health::new(vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())], lifecycle.shutdown.clone());
    let cors = Cors::new(&config.cors.cors_origins);
    let service = Service { router, metrics, health: health.clone(), cors, clock };
    service.start(listeners, &lifecycle)?;
    Ok(lifecycle.run_to_end(&health, signals).await?)
}
