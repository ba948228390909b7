//! The log on Redis Streams, with accounts, sessions and heads beside it and publish/subscribe for notices.
//! It knows nothing of views.
//!
//! | what | commands | why these |
//! |---|---|---|
//! | append | EVALSHA `append.lua`: XADD, HSET, SET PX; SET, WAIT | one atomic step numbers, checks and records; calls of many partitions go in one pipeline, and wait for replicas together |
//! | accounts, heads | HGET, HEXISTS | written by the script in the same slot, read in one round trip |
//! | sessions | GET and PTTL; SET PX, GETDEL, DEL; a sorted set per user | a session ends by itself; the index bounds and closes them |
//! | limits | EVALSHA `take.lua`, `login.lua`: GET, SET PX | one round trip by Redis' clock; what is full again ends by itself |
//! | feed | XREADGROUP, XGROUP CREATE … 0 MKSTREAM; `ack.lua`: XACK, HSET | any number of consumers, nothing lost with one; what was acknowledged last can be found; never XDEL |
//! | heartbeat | XREADGROUP behind the last possible id | Redis notes when it heard of a consumer; nothing is written |
//! | takeover | XINFO CONSUMERS, then XPENDING, XCLAIM, XGROUP DELCONSUMER in a script | check and act are one step, so nothing is taken from the living and nothing is lost with the dead |
//! | notices | PUBLISH, SUBSCRIBE | a hint that may be lost |
//! | monitor | XINFO, XRANGE in a script | numbers of one moment |
//! | inspection | HGET, EXISTS, XREVRANGE, XRANGE | whether the log has what was seen of it, from the entries around the last |
//! | reader | XRANGE | an entry that was read before, by its id |
//! | tail | XREVRANGE, XINFO STREAM; XREAD | all that is appended, without a group: nothing is noted |
//! | scan | XRANGE, XREVRANGE | all of the log, page by page, beside every group |
//! | hot end | XRANGE, XLEN, MEMORY USAGE, INFO; `trim.lua`: XTRIM MINID | what the archive has and nobody waits for goes, whole blocks at a time |
//! | backlog | `EVAL`: HSET, HDEL | who reads which block of the archive, and which are done |
//! | empty log | HSET, CLIENT KILL; XADD with ids, HSET, SET PXAT | closed to all others, filled from the archive, opened |
//! | durability | INFO, CONFIG GET | what the server keeps, asked at every connect |
//!
//! Redis 7.0 is enough. Its clock gives the events their time; ids, not times, decide the order. [`connect`]
//! waits for nothing: while Redis is away every call is refused at once as unavailable, [`Probe`] says so, and the
//! connection is made in the background. A log that does not fit (another number of partitions, another layout, a server
//! that may lose what is acknowledged), and one that is another than before, or than the views have seen that a process
//! shows, has every call refused.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use shared::Clock;
use shared::limits::{
    FEED_TIMEOUT, IDEMPOTENCY_WINDOW, IDEMPOTENCY_WINDOW_MAX, LOG_TIMEOUT, PARTITIONS_DEFAULT, PARTITIONS_MAX,
};
use shared::ports::{self, Origin, StoreError};
use shared::process::config::{ConfigError, DurabilityOptions, LogOptions};
use shared::process::telemetry::Metrics;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod accounts;
mod backlog;
mod command;
mod durability;
mod empty;
pub(crate) mod entry;
mod epoch;
mod feed;
mod groups;
mod heartbeat;
mod hot;
mod inspection;
mod keys;
mod limits;
mod link;
mod log;
mod monitor;
mod notices;
mod probe;
mod reader;
mod recent;
mod replicas;
mod right;
mod scan;
mod server;
mod tail;

pub use accounts::Accounts;
pub use backlog::Backlog;
pub use empty::EmptyLog;
pub use epoch::Epoch;
pub use feed::Feed;
pub use groups::Groups;
pub use hot::Hot;
pub use limits::RateLimits;
pub use log::Log;
pub use monitor::Monitor;
pub use notices::Notices;
pub use probe::Probe;
pub use reader::Reader;
pub use recent::Recent;
pub use scan::Scan;
pub use tail::Tail;

use keys::Keys;
use link::Link;
use server::Server;

/// The name under which errors and probes speak of this store.
const STORE: &str = "redis";

/// Where the log is and what it is like.
#[derive(Clone)]
pub struct Options {
    /// `redis://[[user]:password@]host[:port][/db]`. May hold a password: never logged, never printed.
    pub url: String,
    /// Before every key and channel; several logs may share one Redis. No braces.
    pub prefix: String,
    /// Fixed when the log is made.
    pub partitions: u16,
    /// How long a repetition of a send is recognised.
    pub idempotency_window: Duration,
    /// How long a call waits for its answer; not for the feed, whose reads block.
    pub answer_timeout: Duration,
    /// `None`: this process acknowledges no event, so it may use a log that loses some.
    pub durability: Option<DurabilityOptions>,
    /// Of which log views are that this process shows: it uses no other. `None`: it shows none.
    pub views: Option<watch::Receiver<Origin>>,
}

impl Options {
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: String::new(),
            partitions: PARTITIONS_DEFAULT,
            idempotency_window: IDEMPOTENCY_WINDOW,
            answer_timeout: LOG_TIMEOUT,
            durability: Some(DurabilityOptions::default()),
            views: None,
        }
    }

    /// For a process that acknowledges no event.
    ///
    /// # Errors
    /// When the file that holds the URL cannot be read.
    pub fn of(settings: &LogOptions) -> Result<Self, ConfigError> {
        let url = settings.redis_url()?.reveal().to_owned();
        let LogOptions { key_prefix, partitions, .. } = settings;
        let prefix = key_prefix.clone();
        Ok(Self { prefix, partitions: *partitions, durability: None, ..Self::new(url) })
    }

    /// Where Redis is, as `host:port`: what may be shown of the URL.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] for a URL that is none.
    pub fn address(&self) -> Result<String, StoreError> {
        let (host, port, _) = server::parse(&self.url)?;
        Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("prefix", &self.prefix)
            .field("partitions", &self.partitions)
            .field("idempotency_window", &self.idempotency_window)
            .field("answer_timeout", &self.answer_timeout)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// One log. Hands out cheap handles; clones share everything.
#[derive(Clone)]
pub struct Redis {
    server: Arc<Server>,
    link: Link,
    log: Log,
    probe: Probe,
    notices: Arc<OnceLock<Notices>>,
    redeliveries: feed::Redeliveries,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Starts connecting, on tasks of `tasks` that end with `stop`, and returns at once.
///
/// # Errors
/// [`StoreError::Unfit`] for options that can never work.
pub fn connect(
    options: &Options,
    clock: Clock,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<Redis, StoreError> {
    possible(options)?;
    let keys = Keys::new(options.prefix.clone(), options.partitions);
    let server = Arc::new(Server::new(options, keys, clock)?);
    let new_link = || Link::keep(Arc::clone(&server), options.answer_timeout, tasks, stop.clone());
    let link = new_link();
    // Whoever waits for replicas holds up what is behind him: reads and sessions must not be.
    let appends = if server.replicas() > 0 { new_link() } else { link.clone() };
    let log = Log::start(Arc::clone(&server), appends.clone(), options, tasks, stop.clone());
    let probe = Probe::new(Arc::clone(&server), link.clone(), appends);
    let (notices, redeliveries, tasks) = (Arc::default(), feed::Redeliveries::default(), tasks.clone());
    Ok(Redis { server, link, log, probe, notices, redeliveries, tasks, stop })
}

fn possible(options: &Options) -> Result<(), StoreError> {
    let unfit = |what: String| Err(StoreError::Unfit { store: STORE, what });
    let Options { prefix, partitions, .. } = options;
    if !(1..=PARTITIONS_MAX).contains(partitions) {
        return unfit(format!(
            "it was set up for {partitions} partitions; 1 to {PARTITIONS_MAX} are possible"
        ));
    }
    if prefix.contains(['{', '}']) {
        return unfit(format!("the prefix {prefix:?} has a brace, which would part the keys of a partition"));
    }
    let window = options.idempotency_window;
    if !(Duration::from_secs(1)..=IDEMPOTENCY_WINDOW_MAX).contains(&window) {
        // Redis would refuse the record after the event was appended.
        return unfit(format!("the window of {window:?} is not between 1 s and {IDEMPOTENCY_WINDOW_MAX:?}"));
    }
    Ok(())
}

impl Redis {
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Accounts, sessions and heads.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        let (_, lost) = watch::channel(BTreeSet::new());
        Accounts { server: Arc::clone(&self.server), link: self.link.clone(), lost }
    }

    #[must_use]
    pub fn rate_limits(&self) -> RateLimits {
        RateLimits::new(Arc::clone(&self.server), self.link.clone())
    }

    /// A consumer of the generation's group, alive from now on. Its name must be its own among all that run, and
    /// the same after a restart.
    #[must_use]
    pub fn feed(&self, generation: u32, consumer: &str) -> Feed {
        let (server, redeliveries) = (Arc::clone(&self.server), self.redeliveries.clone());
        Feed::start(server, generation, consumer, redeliveries, (&self.tasks, &self.stop))
    }

    /// Of all feeds.
    pub fn register_feed_metrics(&self, metrics: &Metrics) {
        self.redeliveries.register(metrics);
    }

    #[must_use]
    pub fn monitor(&self, generation: u32) -> Monitor {
        let (server, group) = (Arc::clone(&self.server), feed::group(generation));
        let known = Arc::new(Mutex::new(inspection::unknown(server.keys.partitions)));
        Monitor { server, link: self.link.clone(), group, seen: None, known }
    }

    #[must_use]
    pub fn recent(&self, generation: u32) -> Recent {
        let group = feed::group(generation);
        Recent { server: Arc::clone(&self.server), link: self.link.clone(), group }
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch { server: Arc::clone(&self.server), link: self.link.clone() }
    }

    /// The log as it was when it was found to be the right one last.
    #[must_use]
    pub fn found(&self) -> watch::Receiver<Option<ports::Epoch>> {
        self.server.right.found()
    }

    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups { server: Arc::clone(&self.server), link: self.link.clone() }
    }

    /// Reads the log again where it was read before.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { server: Arc::clone(&self.server), link: self.link.clone() }
    }

    /// Reads the log as it grows.
    #[must_use]
    pub fn tail(&self) -> Tail {
        Tail::new(Arc::clone(&self.server))
    }

    /// Reads the log from its first event on, over a connection that is made in the background.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let link = Link::keep(Arc::clone(&self.server), FEED_TIMEOUT, &self.tasks, self.stop.clone());
        Scan { server: Arc::clone(&self.server), link }
    }

    /// Entries as they are, and their end.
    #[must_use]
    pub fn hot(&self) -> Hot {
        Hot { server: Arc::clone(&self.server), link: self.link.clone() }
    }

    /// What this consumer may take of what the generation has yet to read from the archive.
    #[must_use]
    pub fn backlog(&self, generation: u32, consumer: &str) -> Backlog {
        Backlog::new(Arc::clone(&self.server), self.link.clone(), feed::group(generation), consumer)
    }

    /// Subscribes when first asked.
    #[must_use]
    pub fn notices(&self) -> Notices {
        let start = || Notices::start(Arc::clone(&self.server), &self.tasks, self.stop.clone());
        self.notices.get_or_init(start).clone()
    }

    #[must_use]
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }
}
