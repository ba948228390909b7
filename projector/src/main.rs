//! The program `projector`: settings, adapters, and one function per subcommand.

mod commands;
mod config;

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use config::{Command, Config, Migrate, ParkedOf, Run, Status, Verify};
use projector::{Counters, Parked, Progress, Projector, Report, Restorer, StormGuard, Verifier, Watched};
use shared::Clock;
use shared::limits::{BACKOFF_MAX, COMMAND_DEADLINE, CONSUMERS_PER_PROJECTOR, PARKED_COUNTED_MAX};
use shared::ports::{FeedMonitor, ParkedEvents, Probe, StoreError};
use shared::process::{
    config::{LogOptions, ViewOptions},
    health::Health,
    http,
    shutdown::{Lifecycle, Signals},
    telemetry,
};
use storage::cassandra::{self, Cassandra, Migrator, State};
use storage::redis::{self, Redis};

// An event makes many small allocations on its way: this saves a fifth to a third of its CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    match Config::parse().command {
        Command::Run(options) => run(options).await,
        Command::Status(options) => status(options).await,
        Command::Parked(command) => parked(command).await,
        Command::Verify(options) => verify(options).await,
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
    redis.register_feed_metrics(&metrics);
    let progress = Progress::new(&metrics);
    let health =
        Health::new(vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())], lifecycle.shutdown.clone())
            .watching(Arc::new(progress.clone()));
    let operations = http::bind(options.metrics_listen).await?;
    http::serve(operations, telemetry::operations(metrics.clone(), health.clone()), &lifecycle);
    let consumers = Consumers {
        name: options.name,
        park_storms: options.park_storms,
        counters: Counters::new(&metrics),
        progress,
    };
    lifecycle.spawn(project(redis, cassandra, consumers, lifecycle.clone()));
    Ok(lifecycle.run_to_end(&health, signals).await?)
}

/// What all consumers of this process are told, and what they tell.
struct Consumers {
    name: String,
    park_storms: bool,
    counters: Counters,
    progress: Progress,
}

/// Some consumers per generation, as soon as the register of generations can be read.
async fn project(redis: Redis, cassandra: Cassandra, consumers: Consumers, lifecycle: Lifecycle) {
    let Some(generations) = lifecycle.shutdown.run_until_cancelled(registered(&cassandra)).await else {
        return;
    };
    let mut watched = Vec::new();
    for generation in generations {
        let (monitor, parked) = (redis.monitor(generation), cassandra.parked(generation));
        watched.push(Watched { monitor: Arc::new(monitor), parked: Arc::new(parked) });
        let (views, clock) = (Arc::new(cassandra.writer(generation)), Clock::system());
        let restorer = Restorer {
            recent: Box::new(redis.recent(generation)),
            views: views.clone(),
            starts: cassandra.starts(),
            counters: consumers.counters.clone(),
            clock: clock.clone(),
        };
        lifecycle.spawn(projector::restore(restorer, lifecycle.shutdown.clone()));
        let guard = (!consumers.park_storms).then(StormGuard::default);
        for number in 1..=CONSUMERS_PER_PROJECTOR {
            let projector = Projector {
                feed: Box::new(redis.feed(generation, &format!("{}/{number}", consumers.name))),
                views: views.clone(),
                counters: consumers.counters.clone(),
                clock: clock.clone(),
                guard: guard.clone(),
                progress: consumers.progress.clone(),
            };
            lifecycle.spawn(projector::run(projector, lifecycle.shutdown.clone()));
        }
    }
    lifecycle.spawn(consumers.progress.watch(watched, Clock::system(), lifecycle.shutdown.clone()));
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

/// The stores, for a command that ends by itself.
struct Stores {
    redis: Redis,
    cassandra: Cassandra,
    lifecycle: Lifecycle,
}

impl Stores {
    /// As soon as both are there, which is soon or never.
    async fn open(log: &LogOptions, views: &ViewOptions) -> Result<Self> {
        let lifecycle = Lifecycle::default();
        let Lifecycle { store_tasks, stores_stop, .. } = &lifecycle;
        let redis =
            redis::connect(&redis::Options::of(log)?, Clock::system(), store_tasks, stores_stop.clone())?;
        let cassandra = Cassandra::connect(&cassandra::Options::of(views), store_tasks, stores_stop.clone())?;
        let probes: Vec<Arc<dyn Probe>> = vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())];
        let health = Health::new(probes, lifecycle.shutdown.clone());
        let fits = tokio::time::timeout(COMMAND_DEADLINE, health.fits()).await;
        fits.context("redis or cassandra did not answer in time")??;
        Ok(Self { redis, cassandra, lifecycle })
    }

    async fn serving(&self) -> Result<u32> {
        let generations = self.cassandra.generations().list().await?;
        let serving = generations.iter().find(|generation| generation.state == State::Serving);
        Ok(serving.context("no generation of views is serving")?.number)
    }
}

async fn status(options: Status) -> Result<()> {
    let mut signals = Signals::listen()?;
    let ended = async {
        let stores = Stores::open(&options.log, &options.views).await?;
        if options.watch {
            commands::watch(options.json, async || report(&stores).await).await?;
        } else {
            commands::print(options.json, &report(&stores).await?, Report::table)?;
        }
        stores.lifecycle.drain().await;
        Ok(())
    };
    tokio::select! {
        ended = ended => ended,
        () = signals.received() => Ok(()),
    }
}

async fn report(stores: &Stores) -> Result<Report> {
    let mut report = Report::default();
    for generation in generations(&stores.cassandra).await? {
        report.add(generation, stores.redis.monitor(generation).status().await?);
    }
    let parked = stores.cassandra.parked(stores.serving().await?);
    report.add_parked(&parked.parked(None, PARKED_COUNTED_MAX).await?);
    Ok(report)
}

async fn parked(command: config::Parked) -> Result<()> {
    if let config::Parked::Discard(discard) = &command {
        telemetry::init_log(&discard.process, "projector", &Lifecycle::default())?;
    }
    let ParkedOf { generation, log, views, .. } = command.of();
    let stores = Stores::open(log, views).await?;
    let known = generations(&stores.cassandra).await?;
    let generation = match generation {
        Some(number) => *number,
        None => stores.serving().await?,
    };
    ensure!(known.contains(&generation), "there is no generation {generation}");
    let parked = Parked {
        generation,
        events: Arc::new(stores.cassandra.parked(generation)),
        log: Arc::new(stores.redis.reader()),
        views: Arc::new(stores.cassandra.writer(generation)),
    };
    let done = command.run(&parked).await;
    stores.lifecycle.drain().await;
    done
}

async fn verify(options: Verify) -> Result<()> {
    let stores = Stores::open(&options.log, &options.views).await?;
    let known = generations(&stores.cassandra).await?;
    let generation = match options.generation {
        Some(number) => number,
        None => stores.serving().await?,
    };
    ensure!(known.contains(&generation), "there is no generation {generation}");
    let verifier = Verifier {
        generation,
        log: Arc::new(stores.redis.scan()),
        views: Arc::new(stores.cassandra.scan(generation)),
        monitor: Arc::new(stores.redis.monitor(generation)),
    };
    let done = commands::verify(&verifier, options.json).await;
    stores.lifecycle.drain().await;
    done
}

async fn migrate(options: Migrate) -> Result<()> {
    telemetry::init_log(&options.process, "projector", &Lifecycle::default())?;
    let migrated = Migrator::new(&cassandra::Options::of(&options.views))?.migrate().await?;
    let files = if migrated.files.is_empty() { "nothing".to_owned() } else { migrated.files.join(", ") };
    writeln!(std::io::stdout(), "schema version {}; applied now: {files}", migrated.version)?;
    Ok(())
}
