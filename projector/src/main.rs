//! The program `projector`: settings, adapters, and one function per subcommand.

mod commands;
mod config;
mod generations;

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use config::{Asked, Command, Config, Migrate, Numbered, Of, Run, Status};
use projector::{
    ArchiveCounters, Archived, Archiver, Bar, Counters, Filler, Lost, Makes, Paced, PacedScan, Parked,
    ParkedCommand, Progress, Projector, Rebuild, Refill, Refilled, Repair, Report, Restorer, StormGuard,
    Verifier, Watched, keep_archive,
};
use shared::Clock;
use shared::generation::{Generation, Generations, State};
use shared::limits::{COMMAND_DEADLINE, CONSUMERS_PER_PROJECTOR, PARKED_COUNTED_MAX};
use shared::ports::{FeedMonitor, ParkedEvents, Probe, SeenLog, StoreError};
use shared::process::{
    config::ViewOptions,
    health::Health,
    http,
    shutdown::{Lifecycle, Signals},
    telemetry,
};
use storage::archive;
use storage::cassandra::{self, Cassandra, Migrator};
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
        Command::Rebuild(command) => {
            administer(&command.asked, async |rebuild| generations::rebuild(&command, rebuild).await).await
        }
        Command::Repair(options) => repair(options).await,
        Command::Restore(options) => restore(options).await,
        Command::Generations(asked) => {
            administer(&asked, async |rebuild| generations::list(asked.json, rebuild).await).await
        }
        Command::Serve(Numbered { number, asked }) => {
            administer(&asked, async |rebuild| generations::serve(number, asked.json, rebuild).await).await
        }
        Command::Drop(Numbered { number, asked }) => {
            administer(&asked, async |rebuild| generations::drop(number, asked.json, rebuild).await).await
        }
        Command::Migrate(options) => migrate(options).await,
    }
}

async fn run(options: Run) -> Result<()> {
    let (lifecycle, metrics) = (Lifecycle::default(), telemetry::Metrics::default());
    let signals = Signals::listen()?;
    telemetry::init_log(&options.process, "projector", &lifecycle)?;
    let (redis, cassandra) = connect(&redis::Options::of(&options.log)?, &options.views, &lifecycle)?;
    redis.register_feed_metrics(&metrics);
    let progress = Progress::new(&metrics);
    let health =
        Health::new(vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())], lifecycle.shutdown.clone())
            .watching(Arc::new(progress.clone()));
    let operations = http::bind(options.metrics_listen).await?;
    http::serve(operations, telemetry::operations(metrics.clone(), health.clone()), &lifecycle);
    let (of_redis, name) = (redis.clone(), options.name.clone());
    let archiver = Archiver {
        log: Arc::new(redis.hot()),
        archive: Arc::new(cassandra.archive()),
        generations: Arc::new(cassandra.generations()),
        monitor: Box::new(move |generation| Arc::new(of_redis.monitor(generation))),
        name,
        window: options.hot.window(),
        starts: cassandra.starts(),
        counters: ArchiveCounters::new(&metrics),
        progress: progress.clone(),
    };
    lifecycle.spawn(keep_archive(archiver, lifecycle.shutdown.clone()));
    let filler = Filler {
        generations: Arc::new(cassandra.generations()),
        makes: Box::new(Consumers {
            redis,
            cassandra,
            name: options.name,
            park_storms: options.park_storms,
            counters: Counters::new(&metrics),
            progress: progress.clone(),
        }),
        progress,
        clock: Clock::system(),
    };
    lifecycle.spawn(filler.run(lifecycle.shutdown.clone()));
    Ok(lifecycle.run_to_end(&health, signals).await?)
}

/// Both stores, there or not yet.
fn connect(log: &redis::Options, views: &ViewOptions, lifecycle: &Lifecycle) -> Result<(Redis, Cassandra)> {
    let Lifecycle { store_tasks, stores_stop, .. } = lifecycle;
    let redis = redis::connect(log, Clock::system(), store_tasks, stores_stop.clone())?;
    let cassandra = Cassandra::connect(&cassandra::Options::of(views), store_tasks, stores_stop.clone())?;
    Ok((redis, cassandra))
}

/// What all consumers of this process are told, and what they tell.
struct Consumers {
    redis: Redis,
    cassandra: Cassandra,
    name: String,
    park_storms: bool,
    counters: Counters,
    progress: Progress,
}

impl Makes for Consumers {
    fn projectors(&self, generation: Generation) -> Vec<Projector> {
        let Generation { number, state, rate } = generation;
        let guard = (!self.park_storms).then(StormGuard::default);
        let projector = |consumer| {
            let consumer = format!("{}/{consumer}", self.name);
            let stream = self.redis.feed(number, &consumer).guarded(Arc::new(self.cassandra.seen(number)));
            let backlog = self.redis.backlog(number, &consumer);
            let feed = Box::new(archive::Feed::new(stream, backlog, Arc::new(self.cassandra.archive())));
            Projector {
                feed: match state {
                    State::Building => Box::new(Paced::new(feed, self.progress.clone(), rate)),
                    State::Projecting | State::Serving | State::Paused | State::Dropping | State::Dropped => {
                        feed
                    }
                },
                views: Arc::new(self.cassandra.writer(number)),
                counters: self.counters.clone(),
                clock: Clock::system(),
                guard: guard.clone(),
                progress: self.progress.clone(),
            }
        };
        (1..=CONSUMERS_PER_PROJECTOR).map(projector).collect()
    }

    fn restorer(&self, generation: u32) -> Restorer {
        Restorer {
            recent: Box::new(self.redis.recent(generation)),
            views: Arc::new(self.cassandra.writer(generation)),
            starts: self.cassandra.starts(),
            counters: self.counters.clone(),
            clock: Clock::system(),
        }
    }

    fn watched(&self, generation: u32) -> Watched {
        Watched {
            monitor: Arc::new(monitor(&self.redis, &self.cassandra, generation)),
            parked: Arc::new(self.cassandra.parked(generation)),
        }
    }
}

fn monitor(redis: &Redis, cassandra: &Cassandra, generation: u32) -> redis::Monitor {
    redis.monitor(generation).guarded(Arc::new(cassandra.seen(generation)))
}

/// Those that have views.
async fn with_views(cassandra: &Cassandra) -> Result<Vec<Generation>, StoreError> {
    cassandra.connected().await?;
    let generations = cassandra.generations().list().await?;
    Ok(generations.into_iter().filter(|generation| generation.state.has_views()).collect())
}

/// The stores, for a command that ends by itself.
struct Stores {
    redis: Redis,
    cassandra: Cassandra,
    lifecycle: Lifecycle,
}

impl Stores {
    /// As soon as both are there, which is soon or never.
    async fn open(asked: &Asked) -> Result<Self> {
        Self::of(&redis::Options::of(&asked.log)?, &asked.views).await
    }

    /// As [`Stores::open`], with these options of the log.
    async fn of(log: &redis::Options, views: &ViewOptions) -> Result<Self> {
        let lifecycle = Lifecycle::default();
        let (redis, cassandra) = connect(log, views, &lifecycle)?;
        all_fit(vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())], &lifecycle).await?;
        Ok(Self { redis, cassandra, lifecycle })
    }

    async fn serving(&self) -> Result<u32> {
        let generations = self.cassandra.generations().list().await?;
        let serving = generations.iter().find(|generation| generation.state == State::Serving);
        Ok(serving.context("no generation of views is serving")?.number)
    }

    /// The one that was asked for, or the serving one.
    async fn known(&self, asked: Option<u32>) -> Result<u32> {
        let Some(number) = asked else { return self.serving().await };
        let known = with_views(&self.cassandra).await?;
        ensure!(known.iter().any(|known| known.number == number), "there is no generation {number}");
        Ok(number)
    }
}

/// As soon as these stores are there.
async fn all_fit(stores: Vec<Arc<dyn Probe>>, lifecycle: &Lifecycle) -> Result<()> {
    let names = stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(" or ");
    let health = Health::new(stores, lifecycle.shutdown.clone());
    let fits = tokio::time::timeout(COMMAND_DEADLINE, health.fits()).await;
    Ok(fits.with_context(|| format!("{names} did not answer in time"))??)
}

async fn status(options: Status) -> Result<()> {
    let mut signals = Signals::listen()?;
    let ended = async {
        let stores = Stores::open(&options.asked).await?;
        if options.watch {
            commands::watch(options.asked.json, async || report(&stores).await).await?;
        } else {
            projector::print(options.asked.json, &report(&stores).await?, Report::table)?;
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
    for generation in with_views(&stores.cassandra).await? {
        report.add(
            generation.number,
            monitor(&stores.redis, &stores.cassandra, generation.number).status().await?,
        );
    }
    report.add_archive(Archived::all(&stores.redis.hot(), &stores.cassandra.archive()).await?);
    let parked = stores.cassandra.parked(stores.serving().await?);
    report.add_parked(&parked.parked(None, PARKED_COUNTED_MAX).await?);
    Ok(report)
}

async fn parked(command: ParkedCommand<Of>) -> Result<()> {
    if let Some(process) = command.process() {
        telemetry::init_log(process, "projector", &Lifecycle::default())?;
    }
    let Of { generation, asked } = command.asked();
    let (json, stores) = (asked.json, Stores::open(asked).await?);
    let generation = stores.known(*generation).await?;
    let parked = Parked {
        generation,
        events: Arc::new(stores.cassandra.parked(generation)),
        log: Arc::new(archive::Reader::new(
            stores.redis.reader(),
            stores.redis.hot(),
            Arc::new(stores.cassandra.archive()),
        )),
        views: Arc::new(stores.cassandra.writer(generation)),
    };
    let done = command.run(json, &parked).await;
    stores.lifecycle.drain().await;
    done
}

async fn verify(options: config::Verify) -> Result<()> {
    let Of { generation, asked } = options.of;
    let stores = Stores::open(&asked).await?;
    let generation = stores.known(generation).await?;
    let mut verifier = verifier(&stores.redis, &stores.cassandra, generation);
    if let Some(rate) = options.rate {
        verifier.log = Arc::new(PacedScan::new(verifier.log.clone(), rate));
    }
    let done = commands::verify(&verifier, asked.json).await;
    stores.lifecycle.drain().await;
    done
}

/// Archive and stream.
fn whole_log(redis: &Redis, cassandra: &Cassandra) -> archive::Scan {
    archive::Scan::new(redis.scan(), redis.hot(), Arc::new(cassandra.archive()))
}

fn verifier(redis: &Redis, cassandra: &Cassandra, generation: u32) -> Verifier {
    Verifier {
        generation,
        log: Arc::new(whole_log(redis, cassandra)),
        views: Arc::new(cassandra.scan(generation)),
        monitor: Arc::new(monitor(redis, cassandra, generation)),
    }
}

async fn repair(options: config::Repair) -> Result<()> {
    let config::Repair { apply, idempotency, asked } = options;
    let idempotency_window = idempotency.idempotency_window;
    let log = redis::Options { idempotency_window, ..redis::Options::of(&asked.log)? };
    let stores = Stores::of(&log, &asked.views).await?;
    let (redis, cassandra, generation) = (&stores.redis, &stores.cassandra, stores.serving().await?);
    let others = with_views(cassandra).await?.into_iter().filter(|other| other.number != generation);
    let repair = Repair {
        generation,
        log: Arc::new(whole_log(redis, cassandra)),
        hot: Arc::new(redis.hot()),
        archive: Arc::new(cassandra.archive()),
        appends: Arc::new(redis.log()),
        epoch: Arc::new(redis.epoch()),
        monitor: Arc::new(monitor(redis, cassandra, generation)),
        views: Arc::new(cassandra.scan(generation)),
        seen: Arc::new(cassandra.seen(generation)),
        others: others.map(|other| -> Arc<dyn SeenLog> { Arc::new(cassandra.seen(other.number)) }).collect(),
        clock: Clock::system(),
    };
    let lost = if apply { repair.apply().await? } else { repair.look().await? };
    projector::print(asked.json, &lost, Lost::lines)?;
    stores.lifecycle.drain().await;
    Ok(())
}

/// Redis is not connected to as usual: to an empty one that would begin a new log.
async fn restore(options: config::Restore) -> Result<()> {
    let config::Restore { idempotency, asked } = options;
    let lifecycle = Lifecycle::default();
    let Lifecycle { store_tasks, stores_stop, .. } = &lifecycle;
    let cassandra =
        Cassandra::connect(&cassandra::Options::of(&asked.views), store_tasks, stores_stop.clone())?;
    all_fit(vec![Arc::new(cassandra.probe())], &lifecycle).await?;
    let log = redis::EmptyLog::connect(&redis::Options::of(&asked.log)?, Clock::system()).await?;
    let generations = with_views(&cassandra).await?;
    let (serving, others): (Vec<_>, Vec<_>) =
        generations.into_iter().partition(|generation| generation.state == State::Serving);
    let serving = serving.first().context("no generation of views is serving")?;
    let seen = |generation: &Generation| -> Arc<dyn SeenLog> { Arc::new(cassandra.seen(generation.number)) };
    let refill = Refill {
        log: Box::new(log),
        archive: Arc::new(cassandra.archive()),
        seen: seen(serving),
        others: others.iter().map(seen).collect(),
        window: idempotency.idempotency_window,
    };
    let bar = Bar::new();
    let refilled = refill.run(|done, of| bar.show("events restored", (done, of), "")).await;
    bar.finish();
    projector::print(asked.json, &refilled?, Refilled::lines)?;
    lifecycle.drain().await;
    Ok(())
}

async fn administer(asked: &Asked, act: impl AsyncFnOnce(&Rebuild) -> Result<()>) -> Result<()> {
    let stores = Stores::open(asked).await?;
    let (redis, cassandra) = (stores.redis.clone(), stores.cassandra.clone());
    let rebuild = Rebuild {
        generations: Arc::new(stores.cassandra.generations()),
        groups: Arc::new(redis.groups()),
        verifier: Box::new(move |generation| verifier(&redis, &cassandra, generation)),
        holder: Clock::system().new_id().to_string(),
    };
    let done = act(&rebuild).await;
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
