//! A connection that is made in the background, doubted when calls fail, and made anew when the doubt proves
//! right. The driver reconnects by itself too, but waits up to 10 s between two attempts; service has to be back
//! within 2 s. It repeats no call: callers do.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use shared::generation::{Generation, State};
use shared::limits::{
    GENERATION_CHECK_INTERVAL, VIEW_CONNECTIONS_PER_NODE, VIEWS_CONNECT_TIMEOUT, VIEWS_OUTDATED_MAX,
    VIEWS_RECONNECT_PAUSE, VIEWS_TIMEOUT,
};
use shared::ports::{Chain, Epoch, Origin, Seen, StoreError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio::try_join;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::starts::{self, Starts};
use super::{Options, STORE, archive, generations, inbox, parked, schema, seen, timeline, users};

pub(super) struct Connection {
    /// The store, or why there is none.
    store: watch::Receiver<Found>,
    doubt: Arc<Notify>,
    /// Of the last store that was there; 0 before the first.
    serving: Arc<AtomicU32>,
    /// How many starts of nodes were seen.
    pub(super) starts: watch::Receiver<u64>,
    /// Partitions of the log of which the serving generation is told so.
    pub(super) lost: watch::Receiver<BTreeSet<u16>>,
    /// Of the serving generation.
    pub(super) origin: watch::Receiver<Origin>,
}

/// The store, or why there is none.
type Found = Result<Arc<Store>, StoreError>;

/// What others are told of the serving generation.
struct Told {
    lost: watch::Sender<BTreeSet<u16>>,
    origin: watch::Sender<Origin>,
}

/// A session with every statement prepared.
pub(super) struct Store {
    pub(super) session: Session,
    pub(super) generations: generations::Table,
    pub(super) parked: parked::Table,
    pub(super) archive: archive::Table,
    pub(super) seen: seen::Table,
    starts: starts::Table,
    pub(super) serving: u32,
    listed: Vec<Generation>,
    views: BTreeMap<u32, Views>,
    /// Of the generation that this store serves, whichever one does by now.
    origin: watch::Sender<Origin>,
}

/// The tables of one generation.
pub(super) struct Views {
    pub(super) timeline: timeline::Table,
    pub(super) inbox: inbox::Table,
    pub(super) users: users::Table,
}

impl Connection {
    pub(super) fn open(options: Options, tracker: &TaskTracker, shutdown: CancellationToken) -> Arc<Self> {
        let (sender, store) = watch::channel(Err(StoreError::unavailable(STORE, "not connected yet")));
        let doubt = Arc::new(Notify::new());
        let doubted = doubt.clone();
        let (seen, starts) = Starts::new();
        let told = Told { lost: watch::Sender::default(), origin: watch::Sender::new(Origin::Unknown) };
        let (lost, origin) = (told.lost.subscribe(), told.origin.subscribe());
        let serving = Arc::new(AtomicU32::new(0));
        let served = serving.clone();
        tracker.spawn(async move {
            let keeping = keep(&options, (&sender, &served, &told), &doubted, seen);
            shutdown.run_until_cancelled(keeping).await
        });
        Arc::new(Self { store, doubt, serving, starts, lost, origin })
    }

    pub(super) fn serving(&self) -> u32 {
        self.serving.load(Ordering::Acquire)
    }

    /// # Errors
    /// At once, while there is no store.
    pub(super) fn current(&self) -> Result<Arc<Store>, StoreError> {
        self.store.borrow().clone()
    }

    /// Waits for a store, or for the certainty that it does not fit.
    pub(super) async fn connected(&self) -> Result<(), StoreError> {
        let settled =
            |store: &Result<_, StoreError>| store.as_ref().err().is_none_or(|error| !error.is_retryable());
        match self.store.clone().wait_for(settled).await {
            Ok(store) => store.as_ref().map(|_| ()).map_err(Clone::clone),
            Err(closed) => Err(StoreError::unavailable(STORE, closed)),
        }
    }

    /// Waits until the tables of a generation that was made just now can be used, for no longer than it takes to connect.
    pub(super) async fn learns_of(&self, generation: u32) {
        // It is looked at without waiting for the next look.
        self.doubt.notify_one();
        let knows = |store: &Found| store.as_ref().is_ok_and(|store| store.views.contains_key(&generation));
        let _ = timeout(VIEWS_CONNECT_TIMEOUT, self.store.clone().wait_for(knows)).await;
    }

    /// Passes a call's result on. One that may be the connection's fault has the connection looked at.
    pub(super) fn heed<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| {
            if error.is_retryable() {
                self.doubt.notify_one();
            }
        })
    }
}

/// Publishes a store, and the next one when it is lost.
async fn keep(
    options: &Options,
    (published, serving, told): (&watch::Sender<Found>, &AtomicU32, &Told),
    doubt: &Notify,
    mut starts: Starts,
) {
    // The register has changed, and the store from before is used until then.
    let mut used_until = None;
    loop {
        let attempt = Instant::now() + VIEWS_CONNECT_TIMEOUT;
        let deadline = used_until.map_or(attempt, |used_until| attempt.min(used_until));
        match Store::open(options, &mut starts, deadline).await {
            Ok(store) => {
                let store = Arc::new(store);
                tracing::info!(
                    keyspace = options.keyspace,
                    serving = store.serving,
                    "connected to cassandra"
                );
                published.send_modify(|last| *last = Ok(store.clone()));
                // Afterwards: who knows of the new generation reads no other.
                serving.store(store.serving, Ordering::Release);
                store.tell_what_was_seen(told).await;
                let keyspace = &options.keyspace;
                used_until = match store.outlived(doubt, &mut starts, told).await {
                    Outlived::Changed => {
                        tracing::info!(
                            keyspace,
                            "the generations have changed; connecting to cassandra anew"
                        );
                        Some(Instant::now() + VIEWS_OUTDATED_MAX)
                    }
                    Outlived::Silent => {
                        tracing::warn!(keyspace, "connecting to cassandra anew");
                        None
                    }
                };
            }
            // It answered just now, and what it knows is there still: a generation that is dropped is left alone for so long.
            Err(error) if error.is_retryable() && used_until.is_some_and(|until| Instant::now() < until) => {
                let keyspace = &options.keyspace;
                tracing::info!(keyspace, error = %Chain(&error), "cannot connect to cassandra anew yet");
                sleep(VIEWS_RECONNECT_PAUSE).await;
            }
            Err(error) => {
                let why = Chain(&error).to_string();
                let is_news =
                    published.borrow().as_ref().err().is_none_or(|last| Chain(last).to_string() != why);
                if is_news {
                    tracing::warn!(keyspace = options.keyspace, error = why, "cannot use cassandra");
                }
                used_until = None;
                // Until the store is back calls fail at once, instead of each waiting for its own deadline.
                published.send_modify(|last| *last = Err(error));
                sleep(VIEWS_RECONNECT_PAUSE).await;
            }
        }
    }
}

/// Why a store is replaced.
enum Outlived {
    /// The register is another one, as when a generation is made, served or dropped.
    Changed,
    /// It did not answer, twice.
    Silent,
}

impl Store {
    /// One attempt.
    async fn open(options: &Options, starts: &mut Starts, deadline: Instant) -> Result<Self, StoreError> {
        let opened = timeout_at(deadline, async {
            let store = Self::connect(options).await?;
            // Before anything of these views is read.
            store.origin.send_replace(Origin::of(&store.seen().await?));
            starts.note(store.starts.read(&store.session).await?);
            Ok(store)
        });
        opened.await.map_err(|elapsed| StoreError::unavailable(STORE, elapsed))?
    }

    async fn connect(options: &Options) -> Result<Self, StoreError> {
        let session = session(&options.nodes, VIEWS_TIMEOUT).await?;
        schema::check(&session, &options.keyspace).await?;
        let (generations, parked, archive, seen, starts) = try_join!(
            generations::Table::prepare(&session, &options.keyspace),
            parked::Table::prepare(&session, &options.keyspace),
            archive::Table::prepare(&session, &options.keyspace),
            seen::Table::prepare(&session, &options.keyspace),
            starts::Table::prepare(&session),
        )?;
        let listed = generations.list(&session).await?;
        let serving = listed.iter().find(|generation| generation.state == State::Serving);
        let Some(serving) = serving.map(|generation| generation.number) else {
            return Err(schema::unfinished(&options.keyspace, "no generation of views is serving"));
        };
        let views = listed.iter().filter(|generation| generation.state.has_views());
        let views = views.map(async |&Generation { number, .. }| {
            let keyspace = generations::keyspace(&options.keyspace, number);
            Ok::<_, StoreError>((number, Views::prepare(&session, &keyspace).await?))
        });
        let views = try_join_all(views).await?.into_iter().collect();
        // Again: a generation that was made for a schema of which the first look knew nothing is not this program's.
        schema::check(&session, &options.keyspace).await?;
        let origin = watch::Sender::new(Origin::Unknown);
        Ok(Self { session, generations, parked, archive, seen, starts, serving, listed, views, origin })
    }

    /// # Errors
    /// [`StoreError::Unfit`] for a generation that is not registered.
    pub(super) fn views(&self, generation: u32) -> Result<&Views, StoreError> {
        let unknown =
            || StoreError::Unfit { store: STORE, what: format!("there is no generation {generation}") };
        self.views.get(&generation).ok_or_else(unknown)
    }

    pub(super) fn serving(&self) -> &Views {
        &self.views[&self.serving]
    }

    /// Whether the views that it serves may be shown beside this log.
    pub(super) fn admits(&self, log: &Epoch) -> Result<(), StoreError> {
        self.origin.borrow().admits(log)
    }

    async fn seen(&self) -> Result<Vec<Seen>, StoreError> {
        self.seen.list(&self.session, self.serving).await
    }

    /// Returns when this store should be replaced.
    async fn outlived(&self, doubt: &Notify, starts: &mut Starts, told: &Told) -> Outlived {
        loop {
            // Without any doubt it is looked at now and then, for the register's sake.
            let _ = timeout(GENERATION_CHECK_INTERVAL, doubt.notified()).await;
            let mut listed = self.generations.list(&self.session).await;
            if listed.is_err() {
                sleep(VIEWS_RECONNECT_PAUSE).await;
                listed = self.generations.list(&self.session).await;
            }
            match listed {
                Ok(listed) if listed == self.listed => {}
                Ok(_) => return Outlived::Changed,
                Err(_) => return Outlived::Silent,
            }
            if let Ok(start) = self.starts.read(&self.session).await {
                starts.note(start);
            }
            self.tell_what_was_seen(told).await;
        }
    }

    /// What is not known stays as it was.
    async fn tell_what_was_seen(&self, told: &Told) {
        let Ok(seen) = self.seen().await else { return };
        let origin = Origin::of(&seen);
        self.origin.send_replace(origin.clone());
        told.origin.send_if_modified(|known| std::mem::replace(known, origin) != *known);
        let lost = seen.into_iter().filter(|seen| seen.is_told_lost).map(|seen| seen.partition).collect();
        told.lost.send_if_modified(|known| std::mem::replace(known, lost) != *known);
    }
}

impl Views {
    async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let (timeline, inbox, users) = try_join!(
            timeline::Table::prepare(session, keyspace),
            inbox::Table::prepare(session, keyspace),
            users::Table::prepare(session, keyspace),
        )?;
        Ok(Self { timeline, inbox, users })
    }
}

/// A session with this project's settings; `request_timeout` holds for a request with all its attempts.
pub(super) async fn session(nodes: &[String], request_timeout: Duration) -> Result<Session, StoreError> {
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::Quorum)
        .request_timeout(Some(request_timeout))
        .build();
    let connections = NonZeroUsize::new(VIEW_CONNECTIONS_PER_NODE).expect("a constant above 0");
    SessionBuilder::new()
        .known_nodes(nodes)
        .default_execution_profile_handle(profile.into_handle())
        .pool_size(PoolSize::PerHost(connections))
        .connection_timeout(VIEWS_TIMEOUT)
        // Columns and types come with each prepared statement; routing needs the names only.
        .fetch_full_schema_metadata(false)
        // A migration is the only one to change the schema, and it asks for nothing else afterwards.
        .refresh_metadata_on_auto_schema_agreement(false)
        .schema_agreement_interval(SCHEMA_AGREEMENT_INTERVAL)
        .schema_agreement_timeout(request_timeout)
        .build()
        .await
        .map_err(|error| StoreError::unavailable(STORE, error))
}

/// One node agrees with itself at once; a ring needs some ms.
const SCHEMA_AGREEMENT_INTERVAL: Duration = Duration::from_millis(20);
