//! `projector run`: consumers of every generation that is filled, and the archiver, until SIGTERM.

use std::sync::Arc;

use anyhow::Result;
use projector::{
    ArchiveCounters, Archiver, Counters, Filler, Makes, Paced, Progress, Projector, Reapplier, StormGuard,
    Watched, keep_archive, retire,
};
use shared::Clock;
use shared::generation::{Generation, State};
use shared::limits::CONSUMERS_PER_PROJECTOR;
use shared::process::health::Health;
use shared::process::shutdown::{Lifecycle, Signals};
use shared::process::{http, telemetry};
use storage::archive;
use storage::cassandra::Cassandra;
use storage::redis::{self, Redis};

use super::generations::rebuild_of;
use super::stores::{connect, monitor};
use crate::config::Run;

pub(crate) async fn run(options: Run) -> Result<()> {
    let (lifecycle, metrics) = (Lifecycle::default(), telemetry::Metrics::default());
    let signals = Signals::listen()?;
    telemetry::init_log(&options.process, "projector", &lifecycle)?;
    let operations = http::bind(options.metrics_listen).await?;
    let (redis, cassandra) = connect(&redis::Options::of(&options.log)?, &options.views, &lifecycle)?;
    redis.register_feed_metrics(&metrics);
    let progress = Progress::new(&metrics);
    let health =
        Health::new(vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())], lifecycle.shutdown.clone())
            .watching(Arc::new(progress.clone()));
    http::serve(operations, telemetry::operations(metrics.clone(), health.clone()), &lifecycle);
    let (of_redis, name) = (redis.clone(), options.name.clone());
    let archiver = Archiver {
        log: Arc::new(redis.hot()),
        archive: Arc::new(cassandra.archive()),
        views: cassandra.origin(),
        generations: Arc::new(cassandra.generations()),
        monitor: Box::new(move |generation| Arc::new(of_redis.monitor(generation))),
        name,
        window: options.hot.window(),
        starts: cassandra.starts(),
        counters: ArchiveCounters::new(&metrics),
        progress: progress.clone(),
    };
    lifecycle.spawn(keep_archive(archiver, lifecycle.shutdown.clone()));
    let retiring = retire(rebuild_of(&redis, &cassandra), Clock::system(), lifecycle.shutdown.clone());
    lifecycle.spawn(retiring);
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
        let Generation { number, state, rate, .. } = generation;
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

    fn reapplier(&self, generation: u32) -> Reapplier {
        Reapplier {
            recent: Box::new(self.redis.recent(generation)),
            backlog: Box::new(self.redis.backlog(generation, &self.name)),
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
