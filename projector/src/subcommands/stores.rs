//! The stores of a subcommand, and what is made of both.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use projector::{SeenLogs, Verifier};
use shared::Clock;
use shared::generation::{Generation, Generations, State};
use shared::limits::COMMAND_DEADLINE;
use shared::ports::{Probe, SeenLog, StoreError};
use shared::process::config::ViewOptions;
use shared::process::health::Health;
use shared::process::shutdown::Lifecycle;
use storage::archive;
use storage::cassandra::{self, Cassandra};
use storage::redis::{self, Redis};

use crate::config::Asked;

/// The stores, for a command that ends by itself.
pub(super) struct Stores {
    pub(super) redis: Redis,
    pub(super) cassandra: Cassandra,
    pub(super) lifecycle: Lifecycle,
}

impl Stores {
    /// As soon as both are there, which is soon or never.
    pub(super) async fn open(asked: &Asked) -> Result<Self> {
        Self::of(&redis::Options::of(&asked.log)?, &asked.views).await
    }

    /// As [`Stores::open`], with these options of the log.
    pub(super) async fn of(log: &redis::Options, views: &ViewOptions) -> Result<Self> {
        let lifecycle = Lifecycle::default();
        let (redis, cassandra) = connect(log, views, &lifecycle)?;
        all_fit(vec![Arc::new(redis.probe()), Arc::new(cassandra.probe())], &lifecycle).await?;
        Ok(Self { redis, cassandra, lifecycle })
    }

    pub(super) async fn serving(&self) -> Result<u32> {
        serving(&self.cassandra).await
    }

    /// The one that was asked for, or the serving one.
    pub(super) async fn known(&self, asked: Option<u32>) -> Result<u32> {
        let Some(number) = asked else { return self.serving().await };
        let known = with_views(&self.cassandra).await?;
        ensure!(known.iter().any(|known| known.number == number), "there is no generation {number}");
        Ok(number)
    }
}

/// As soon as these stores are there.
pub(super) async fn all_fit(stores: Vec<Arc<dyn Probe>>, lifecycle: &Lifecycle) -> Result<()> {
    let names = stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(" or ");
    let health = Health::new(stores, lifecycle.shutdown.clone());
    let fits = tokio::time::timeout(COMMAND_DEADLINE, health.fits()).await;
    Ok(fits.with_context(|| format!("{names} did not answer in time"))??)
}

/// Both stores, there or not yet.
pub(super) fn connect(
    log: &redis::Options,
    views: &ViewOptions,
    lifecycle: &Lifecycle,
) -> Result<(Redis, Cassandra)> {
    let Lifecycle { store_tasks, stores_stop, .. } = lifecycle;
    let redis = redis::connect(log, Clock::system(), store_tasks, stores_stop.clone())?;
    let cassandra = Cassandra::connect(&cassandra::Options::of(views), store_tasks, stores_stop.clone())?;
    Ok((redis, cassandra))
}

pub(super) fn monitor(redis: &Redis, cassandra: &Cassandra, generation: u32) -> redis::Monitor {
    redis.monitor(generation).guarded(Arc::new(cassandra.seen(generation)))
}

pub(super) async fn serving(cassandra: &Cassandra) -> Result<u32> {
    let generations = cassandra.generations().list().await?;
    let serving = generations.iter().find(|generation| generation.state == State::Serving);
    Ok(serving.context("no generation of views is serving")?.number)
}

pub(super) async fn seen_logs(cassandra: &Cassandra, serving: u32) -> Result<SeenLogs, StoreError> {
    let seen = |number| -> Arc<dyn SeenLog> { Arc::new(cassandra.seen(number)) };
    let numbers = with_views(cassandra).await?.into_iter().map(|generation| generation.number);
    let others = numbers.filter(|number| *number != serving).map(seen).collect();
    Ok(SeenLogs { serving: seen(serving), others })
}

/// Those that have views.
pub(super) async fn with_views(cassandra: &Cassandra) -> Result<Vec<Generation>, StoreError> {
    cassandra.connected().await?;
    let generations = cassandra.generations().list().await?;
    Ok(generations.into_iter().filter(|generation| generation.state.has_views()).collect())
}

/// Archive and stream.
pub(super) fn whole_log(redis: &Redis, cassandra: &Cassandra) -> archive::Scan {
    archive::Scan::new(redis.scan(), redis.hot(), Arc::new(cassandra.archive()))
}

pub(super) fn verifier(redis: &Redis, cassandra: &Cassandra, generation: u32) -> Verifier {
    Verifier {
        generation,
        log: Arc::new(whole_log(redis, cassandra)),
        views: Arc::new(cassandra.scan(generation)),
        monitor: Arc::new(monitor(redis, cassandra, generation)),
    }
}
