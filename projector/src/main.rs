//! The program `projector`: settings, adapters, and one function per subcommand.

mod config;

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use config::{Command, Config, Migrate, Run, Status};
use projector::{Counters, Projector, Report, Restorer};
use shared::Clock;
use shared::limits::{BACKOFF_MAX, COMMAND_DEADLINE};
use shared::ports::{FeedMonitor, StoreError, ViewReader};
use shared::process::{
    health::Health,
    http,
    shutdown::{Lifecycle, Signals},
    telemetry,
};
use storage::cassandra::{self, Cassandra, Migrator};
use storage::redis::{self, Redis};

#[tokio::main]
async fn main() -> Result<()> {
    match Config::parse().command {
        Command::Run(options) => run(options).await,
        Command::Status(options) => tokio::time::timeout(COMMAND_DEADLINE, status(options))
            .await
            .context("redis or cassandra did not answer in time")?,
        Command::Migrate(options) => migrate(options).await,
    }
}

async fn run(options: Run) -> Result<()> {
    let (lifecycle, metrics) = (Lifecycle::default(), telemetry::Metrics::default());
    let signals = Signals::listen()?;
    telemetry::init_log(&options.process, "projector", &lifecycle)?;
    let Lifecycle { store_tasks, stores_stop, .. } = &lifecycle;
    let redis = redis::connect(
        &redis::Options::of(&options.log)?,
        Clock::system(),
        store_tasks,
        stores_stop.clone(),
    )?;
    let cassandra =
        Cassandra::connect(&cassandra::Options::of(&options.views), store_tasks, stores_stop.clone())?;
    let health =
        Health::new(vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())], lifecycle.shutdown.clone());
    let operations = http::bind(options.metrics_listen).await?;
    http::serve(operations, telemetry::operations(metrics.clone(), health.clone()), &lifecycle);
    let project = project(redis, cassandra, options.name, Counters::new(&metrics), lifecycle.clone());
    lifecycle.spawn(project);
    Ok(lifecycle.run_to_end(&health, signals).await?)
}

/// One consumer per generation, as soon as the register of generations can be read.
async fn project(redis: Redis, cassandra: Cassandra, name: String, counters: Counters, lifecycle: Lifecycle) {
    let Some(generations) = lifecycle.shutdown.run_until_cancelled(registered(&cassandra)).await else {
        return;
    };
    for generation in generations {
        let (feed, recent) = (Box::new(redis.feed(generation, &name)), Box::new(redis.recent(generation)));
        let (views, starts) = (Arc::new(cassandra.writer(generation)), cassandra.starts());
        let restorer = Restorer { recent, views: views.clone(), starts, counters: counters.clone() };
        lifecycle.spawn(projector::restore(restorer, lifecycle.shutdown.clone()));
        let projector = Projector { feed, views, counters: counters.clone() };
        lifecycle.spawn(projector::run(projector, lifecycle.shutdown.clone()));
    }
}

/// As soon as Cassandra is there and answers. If the schema does not fit, the process ends by its health.
async fn registered(cassandra: &Cassandra) -> Vec<u32> {
    loop {
        match generations(cassandra).await {
            Ok(generations) => return generations,
            Err(_) => tokio::time::sleep(BACKOFF_MAX).await,
        }
    }
}

async fn generations(cassandra: &Cassandra) -> Result<Vec<u32>, StoreError> {
    cassandra.connected().await?;
    let generations = cassandra.generations().list().await?;
    Ok(generations.into_iter().map(|generation| generation.number).collect())
}

async fn status(options: Status) -> Result<()> {
    let lifecycle = Lifecycle::default();
    let Lifecycle { store_tasks, stores_stop, .. } = &lifecycle;
    let redis = redis::connect(
        &redis::Options::of(&options.log)?,
        Clock::system(),
        store_tasks,
        stores_stop.clone(),
    )?;
    let cassandra =
        Cassandra::connect(&cassandra::Options::of(&options.views), store_tasks, stores_stop.clone())?;
    let health =
        Health::new(vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())], lifecycle.shutdown.clone());
    health.fits().await?;
    let mut report = Report::default();
    for generation in generations(&cassandra).await? {
        let feed = redis.monitor(generation).status().await?;
        report.add(generation, feed);
    }
    report.parked = cassandra.reader().parked(Report::PARKED_MAX).await?.len();
    let text = if options.json { serde_json::to_string(&report)? } else { report.table() };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    lifecycle.drain().await;
    Ok(())
}

async fn migrate(options: Migrate) -> Result<()> {
    telemetry::init_log(&options.process, "projector", &Lifecycle::default())?;
    let migrated = Migrator::new(&cassandra::Options::of(&options.views))?.migrate().await?;
    let files = if migrated.files.is_empty() { "nothing".to_owned() } else { migrated.files.join(", ") };
    writeln!(std::io::stdout(), "schema version {}; applied now: {files}", migrated.version)?;
    Ok(())
}
