//! The contract on a real Redis, and what only Redis can get wrong: lost groups, scripts that it forgot, logs that do
//! not fit; below it what is damaged, and connections that break. Every test has a key prefix of its own.

#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncTypedCommands, Value};
use shared::event::{Envelope, Event, MessageSent};
use shared::limits::{ID_AHEAD_MAX, IDEMPOTENCY_WINDOW, LOGIN_FAILURES_REMEMBERED};
use shared::ports::{
    Append, AppendError, Appended, Delivery, EventFeed, EventLog, FeedMonitor, LogScan, Once, OnceKey, Probe,
    RateLimits, Receipt, StoreError,
};
use shared::rate::{Counted, LoginKey, Rate, Unit};
use shared::{Clock, Username};
use storage::contract::{LogStores, RawEntry};
use storage::redis::{Options, Redis, Scan, connect};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::redis_url;

mod archived;
mod batches;
mod beside;
mod damage;
mod durability;
mod empty;
mod outage;
mod recent;
mod server;
mod slow;
mod takeover;
mod trim;

storage::log_contract!(open);
storage::malformed_contract!(open);

const PARTITIONS: u16 = 4;
const GENERATION: u32 = 1;
/// A machine that runs all tests at once is slow; what is not about time must not fail for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A log of its own, and a plain connection beside it.
struct Fresh {
    store: Redis,
    prefix: String,
    _stop: DropGuard,
}

fn options(prefix: &str) -> Options {
    let (prefix, answer_timeout) = (prefix.to_owned(), PATIENCE);
    Options { prefix, partitions: PARTITIONS, answer_timeout, ..Options::new(redis_url()) }
}

async fn fresh() -> Fresh {
    let prefix = format!("test:{}:", Clock::system().new_id());
    start(&options(&prefix)).await
}

async fn start(options: &Options) -> Fresh {
    let stop = CancellationToken::new();
    let store = connect(options, Clock::system(), &TaskTracker::new(), stop.clone()).expect("options");
    let probe = store.probe();
    eventually("Redis is there", || async { probe.check().await.is_ok() }).await;
    Fresh { store, prefix: options.prefix.clone(), _stop: stop.drop_guard() }
}

async fn plain() -> MultiplexedConnection {
    let client = redis::Client::open(redis_url()).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("Redis is there")
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.unwrap_or_else(|_| panic!("not yet: {what}"));
}

async fn open() -> LogStores {
    let fresh = fresh().await;
    let (store, prefix) = (fresh.store.clone(), fresh.prefix.clone());
    LogStores {
        log: Arc::new(store.log()),
        accounts: Arc::new(store.accounts()),
        sessions: Arc::new(store.accounts()),
        heads: Arc::new(store.accounts()),
        notices: Arc::new(store.notices()),
        monitor: Arc::new(store.monitor(GENERATION)),
        reader: Arc::new(store.reader()),
        scan: Arc::new(scan(&store).await),
        limits: Arc::new(store.rate_limits()),
        tail: {
            let store = store.clone();
            Box::new(move || Box::new(store.tail()))
        },
        consumer: Box::new(move |name| {
            let feed = store.feed(GENERATION, name);
            Box::pin(async { Box::new(feed) as _ })
        }),
        several_consumers: true,
        age_sessions: {
            let prefix = prefix.clone();
            Box::new(move |by| Box::pin(age_sessions(prefix.clone(), by)))
        },
        age_limits: {
            let prefix = prefix.clone();
            Box::new(move |by| Box::pin(age_limits(prefix.clone(), by)))
        },
        put_raw: Some(Box::new(move |entry| Box::pin(put_raw(prefix.clone(), entry)))),
        keep: Box::new(fresh),
    }
}

/// As soon as its connection is there.
async fn scan(store: &Redis) -> Scan {
    let scan = store.scan();
    eventually("the scan is connected", || async { scan.extent().await.is_ok() }).await;
    scan
}

/// Sets the ends of all sessions, and what the indexes say of them, back by so much.
async fn age_sessions(prefix: String, by: Duration) {
    let mut redis = plain().await;
    let by_ms = i64::try_from(by.as_millis()).unwrap();
    for key in redis.keys(format!("{prefix}*}}:session:*")).await.unwrap() {
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis).await.unwrap();
        redis.pexpire(&key, left - by_ms).await.unwrap();
    }
    for key in redis.keys(format!("{prefix}*}}:sessions:*")).await.unwrap() {
        let members: Vec<(String, f64)> = redis.zrange_withscores(&key, 0, -1).await.unwrap();
        for (member, _) in members {
            redis.zincr(&key, &member, -(by.as_micros() as f64)).await.unwrap();
        }
    }
}

/// Sets what limits have stored, and its ends, back by so much.
async fn age_limits(prefix: String, by: Duration) {
    let mut redis = plain().await;
    let by_ms = i64::try_from(by.as_millis()).unwrap();
    for (kind, factor) in [("rate", 1_000), ("failed", 1)] {
        for key in redis.keys(format!("{prefix}*}}:{kind}:*")).await.unwrap() {
            let stored = redis.get(&key).await.unwrap().unwrap_or_default();
            let (before, time) = stored
                .rsplit_once(' ')
                .map_or((String::new(), stored.as_str()), |(before, time)| (format!("{before} "), time));
            let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis).await.unwrap();
            let aged = time.parse::<i64>().unwrap() - by_ms * factor;
            redis.set(&key, format!("{before}{aged}")).await.unwrap();
            redis.pexpire(&key, left - by_ms).await.unwrap();
        }
    }
}

async fn put_raw(prefix: String, entry: RawEntry) {
    let mut redis = plain().await;
    let RawEntry { subject, envelope, seq, checksum_flipped } = entry;
    let keys = format!("{prefix}{{{}}}", subject.partition(PARTITIONS));
    let heads = format!("{keys}:heads");
    let offset: u64 =
        redis::cmd("HINCRBY").arg(&heads).arg("#").arg(1).query_async(&mut redis).await.unwrap();
    redis.hset(&heads, subject.to_string(), seq).await.unwrap();
    let checksum = envelope.checksum(seq, offset) ^ checksum_flipped;
    let Envelope { version, kind, subject, id, payload, trace: _ } = envelope;
    let header = format!("{version} {kind} {subject} {id} - {seq} {offset} {checksum:08x}");
    let mut add = redis::cmd("XADD");
    add.arg(format!("{keys}:events")).arg("*").arg("e").arg(header).arg("p").arg(payload);
    add.query_async::<Value>(&mut redis).await.unwrap();
}

fn message(sender: &str, recipient: &str) -> Append {
    let name = |text: &str| text.parse::<Username>().unwrap();
    let event = MessageSent { sender: name(sender), recipient: name(recipient), content: "hi".into() };
    Append { id: Clock::system().new_id(), event: Event::MessageSent(event), once: None, trace: None }
}

fn once(append: Append, key: OnceKey) -> Append {
    Append { once: Some(Once { key, fingerprint: [0xff; 16] }), ..append }
}

async fn put(store: &Redis, append: Append) -> Receipt {
    match store.log().append(append).await {
        Ok(Appended::New(receipt)) => receipt,
        other => panic!("expected a new event, got {other:?}"),
    }
}

/// Reads without acknowledging.
async fn read(feed: &mut impl EventFeed, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        let batch = tokio::time::timeout(Duration::from_secs(20), feed.next_batch(100)).await;
        deliveries.extend(batch.expect("in time").expect("next batch"));
    }
    assert_eq!(deliveries.len(), count);
    deliveries
}

impl Fresh {
    fn keys_of(&self, append: &Append) -> String {
        format!("{}{{{}}}", self.prefix, append.event.subject().partition(PARTITIONS))
    }
}

#[tokio::test]
async fn a_destroyed_group_starts_again_at_the_first_event() {
    let fresh = fresh().await;
    for peer in ["ben", "carl", "dora"] {
        put(&fresh.store, message("anna", peer)).await;
    }
    let mut feed = fresh.store.feed(GENERATION, "one");
    let batch = read(&mut feed, 3).await;
    feed.ack(&batch).await.unwrap();

    let mut redis = plain().await;
    for partition in 0..PARTITIONS {
        let events = format!("{}{{{partition}}}:events", fresh.prefix);
        redis.xgroup_destroy(&events, "g1").await.unwrap();
    }
    assert_eq!(fresh.store.monitor(GENERATION).status().await.unwrap().lag(), 3);
    let mut again = read(&mut feed, 3).await;
    again.sort_by_key(|delivery| delivery.position);
    let mut first = batch;
    first.sort_by_key(|delivery| delivery.position);
    assert_eq!(again, first);
    feed.ack(&again).await.unwrap();
    assert_eq!(fresh.store.monitor(GENERATION).status().await.unwrap().lag(), 0);
}

#[tokio::test]
async fn generations_are_apart() {
    let fresh = fresh().await;
    put(&fresh.store, message("anna", "ben")).await;
    let mut feed = fresh.store.feed(1, "one");
    let batch = read(&mut feed, 1).await;
    feed.ack(&batch).await.unwrap();
    assert_eq!(fresh.store.monitor(2).status().await.unwrap().lag(), 1);
    assert_eq!(read(&mut fresh.store.feed(2, "one"), 1).await, batch);
}

#[tokio::test]
async fn a_script_that_redis_forgot_is_loaded_again() {
    let fresh = fresh().await;
    let (limits, counted) = (fresh.store.rate_limits(), Counted::Sends("anna".parse().unwrap()));
    for seq in 1..=5 {
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut plain().await).await.unwrap();
        assert_eq!(put(&fresh.store, message("anna", "ben")).await.seq, seq);
        let taken = limits.take(&counted, Rate::new(1, Unit::Minute, 10), 1).await.unwrap();
        assert_eq!((taken.granted, u64::from(taken.remaining)), (1, 10 - seq));
    }
}

#[tokio::test]
async fn a_clock_set_back_does_not_turn_time() {
    let fresh = fresh().await;
    let append = message("anna", "ben");
    let before = put(&fresh.store, append.clone()).await;
    // An entry of an hour ahead, as if the clock had been there.
    let ahead = format!("{}-7", before.position.ms + 3_600_000);
    let events = format!("{}:events", fresh.keys_of(&append));
    plain().await.xadd(&events, &ahead, &[("x", "y")]).await.unwrap();
    let after = put(&fresh.store, message("anna", "ben")).await;
    assert_eq!((after.position.ms, after.position.counter), (before.position.ms + 3_600_000, 8));
    assert_eq!(after.seq, 2);
    let by_id = once(message("anna", "ben"), OnceKey::Id);
    assert_eq!(put(&fresh.store, by_id).await.seq, 3, "ids of the true time are still taken");
}

#[tokio::test]
async fn records_end_with_their_window() {
    let fresh = fresh().await;
    put(&fresh.store, once(message("anna", "ben"), OnceKey::Header("key".into()))).await;
    put(&fresh.store, once(message("anna", "ben"), OnceKey::Id)).await;
    let mut redis = plain().await;
    let minute = Duration::from_secs(60);
    for (kind, window) in [("h", IDEMPOTENCY_WINDOW), ("i", IDEMPOTENCY_WINDOW + 2 * ID_AHEAD_MAX)] {
        let keys = redis.keys(format!("{}*:once:anna:ben:{kind}:*", fresh.prefix)).await.unwrap();
        let left: u64 = redis::cmd("PTTL").arg(&keys[0]).query_async(&mut redis).await.unwrap();
        let left = Duration::from_millis(left);
        assert!(left <= window && left > window - minute, "{kind}: {left:?}");
    }
}

#[tokio::test]
async fn what_limits_count_ends_by_itself() {
    let fresh = fresh().await;
    let limits = fresh.store.rate_limits();
    let counted = Counted::Sends("anna".parse().unwrap());
    limits.take(&counted, Rate::new(1, Unit::Minute, 3), 2).await.unwrap();
    limits.try_login(&LoginKey([7; 32])).await.unwrap();
    let mut redis = plain().await;
    let minute = Duration::from_secs(60);
    for (kind, end) in [("rate", 2 * minute), ("failed", LOGIN_FAILURES_REMEMBERED)] {
        let keys = redis.keys(format!("{}*:{kind}:*", fresh.prefix)).await.unwrap();
        let left: u64 = redis::cmd("PTTL").arg(&keys[0]).query_async(&mut redis).await.unwrap();
        let left = Duration::from_millis(left);
        assert!(keys.len() == 1 && left <= end && left > end - minute, "{kind}: {left:?}");
    }
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let fresh = fresh().await;
    let stop = CancellationToken::new();
    let other = Options { partitions: 8, ..options(&fresh.prefix) };
    let store = connect(&other, Clock::system(), &TaskTracker::new(), stop.clone()).unwrap();
    let _stop = stop.drop_guard();
    let unfit =
        |error: &StoreError| matches!(error, StoreError::Unfit { what, .. } if what.contains("4 partitions"));
    let probe = store.probe();
    eventually("the probe says so", || async { probe.check().await.is_err_and(|error| unfit(&error)) }).await;
    let refused = store.log().append(message("anna", "ben")).await;
    assert!(matches!(&refused, Err(AppendError::Store(error)) if unfit(error)), "{refused:?}");
    let refused = store.feed(GENERATION, "one").next_batch(10).await;
    assert!(refused.is_err_and(|error| unfit(&error)));
}

#[test]
fn options_that_cannot_work_are_refused() {
    let _runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = _runtime.enter();
    let good = Options { url: "redis://anna:secret@localhost/".into(), ..options("") };
    assert!(!format!("{good:?}").contains("secret"));
    for bad in [
        Options { url: "redis://anna:secret@:x/".into(), ..good.clone() },
        Options { url: "anna:secret".into(), ..good.clone() },
        Options { url: "rediss://anna:secret@localhost/".into(), ..good.clone() },
        Options { partitions: 0, ..good.clone() },
        Options { partitions: 1_025, ..good.clone() },
        Options { prefix: "a{b}".into(), ..good.clone() },
        Options { idempotency_window: Duration::ZERO, ..good.clone() },
        Options { idempotency_window: Duration::MAX, ..good.clone() },
    ] {
        let refused = connect(&bad, Clock::system(), &TaskTracker::new(), CancellationToken::new());
        let Err(error) = refused.map(|_| ()) else { panic!("{bad:?} was taken") };
        assert!(matches!(error, StoreError::Unfit { .. }));
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
