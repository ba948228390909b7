//! The stores of a subcommand, and what is made of both.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use projector::{SeenLogs, Verifier};
use shared::Clock;
use shared::generation::{Generation, Generations, State};
use shared::limits::IDEMPOTENCY_WINDOW;
use shared::ports::{SeenLog, StoreError};
use shared::process::config::ViewOptions;
use shared::process::shutdown::Lifecycle;
use storage::archive;
use storage::cassandra::{self, Cassandra};
use storage::redis::{self, Redis};

use super::place::Place;
use crate::config::Asked;

/// The stores, for a command that ends by itself.
pub(super) struct Stores {
    pub(super) redis: Redis,
    pub(super) cassandra: Cassandra,
    pub(super) lifecycle: Lifecycle,
}

impl Stores {
    /// As soon as both are there.
    pub(super) async fn open(asked: &Asked) -> Result<Self> {
        Self::recognising(asked, IDEMPOTENCY_WINDOW).await
    }

    /// As [`Stores::open`], where a repeated send is recognised for this long.
    pub(super) async fn recognising(asked: &Asked, idempotency_window: Duration) -> Result<Self> {
        let (log_place, views_place) = looked_for(asked).await?;
        let log = redis::Options { idempotency_window, ..redis::Options::of(&asked.log)? };
        let lifecycle = Lifecycle::default();
        let (redis, cassandra) = connect(&log, &asked.views, &lifecycle)?;
        let ready = tokio::try_join!(log_place.ready(redis.probe()), views_place.ready(cassandra.probe()));
        if let Err(error) = ready {
            // While Cassandra's driver connects, the end of the program would be a panic to it.
            lifecycle.drain().await;
            return Err(error);
        }
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

/// Where log and views are said to be, and somebody may be there.
pub(super) async fn looked_for(asked: &Asked) -> Result<(Place, Place)> {
    let places = (Place::of_log(&asked.log)?, Place::of_views(&asked.views));
    tokio::try_join!(places.0.look(), places.1.look())?;
    Ok(places)
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
