//! A Redis of the test's own that is killed, paused, filled and demoted, and what the adapter says meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::Clock;
use shared::ids::EventId;
use shared::limits::{APPENDS_QUEUED_MAX, LOG_TIMEOUT};
use shared::ports::{
    Accounts, Append, AppendError, Appended, Epoch, EventFeed, EventLog, FeedMonitor, Heads, HotLog,
    LogEpoch, LogTail, OnceKey, Probe, SessionKey, Sessions, StoreError,
};
use storage::redis::{Options, Redis};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::server::Server;
use super::{Fresh, GENERATION, PATIENCE, eventually, message, once, put, read, start};

/// docs/faults.md: service is back this soon after the log is.
pub(super) const BACK_WITHIN: Duration = Duration::from_secs(2);
/// An append may wait for [`LOG_TIMEOUT`] in the queue and for as long for its answer; the rest is for a slow
/// machine.
pub(super) const ANSWER_WITHIN: Duration = LOG_TIMEOUT.saturating_mul(8);

pub(super) fn is_unavailable(outcome: &Result<Appended, AppendError>) -> bool {
    matches!(outcome, Err(AppendError::Store(StoreError::Unavailable { .. })))
}

fn is_unknown(outcome: &Result<Appended, AppendError>) -> bool {
    matches!(outcome, Err(AppendError::Store(StoreError::Unknown { .. })))
}

pub(super) async fn ready(store: &Redis) {
    let probe = store.probe();
    eventually("ready", || async { probe.check().await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_nothing_acknowledged_is_lost() {
    const APPENDERS: usize = 32;
    let mut server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.options()).await;
    let (tasks, enough) = (TaskTracker::new(), CancellationToken::new());
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|number| {
            let (store, enough) = (store.clone(), enough.clone());
            tasks.spawn(async move { append_through(&store, &format!("peer{number}"), &enough).await })
        })
        .collect();
    for _ in 0..3 {
        let monitor = store.monitor(GENERATION);
        let before = monitor.status().await.map_or(0, |status| status.lag());
        let progress = || async { monitor.status().await.is_ok_and(|status| status.lag() > before + 300) };
        eventually("some appends", progress).await;
        server.kill();
        server.restart().await;
    }
    enough.cancel();

    let (mut acknowledged, mut unknown, mut refused) = (BTreeMap::new(), 0, 0);
    for appender in appenders {
        let done = appender.await.unwrap();
        acknowledged.extend(done.acknowledged);
        unknown += done.unknown;
        refused += done.refused;
    }
    assert!(unknown > 0, "no append was caught by a kill: the test did nothing");
    let total = acknowledged.len();

    let mut feed = store.feed(GENERATION, "one");
    let mut stored = BTreeMap::new();
    while stored.len() < total {
        for delivery in timeout(Duration::from_secs(20), feed.next_batch(500)).await.unwrap().unwrap() {
            let event = delivery.content.unwrap();
            assert_eq!(stored.insert(event.id, (event.seq, event.position)), None, "one id, one event");
        }
    }
    assert_eq!(stored, acknowledged, "{unknown} unknown and {refused} refused were settled by repetition");
    let monitor = store.monitor(GENERATION);
    let heads_agree = || async {
        let Ok(status) = monitor.status().await else { return false };
        status.partitions.iter().map(|partition| partition.head).sum::<u64>() == total as u64
    };
    eventually("the heads count the same events", heads_agree).await;
}

#[derive(Default)]
struct Done {
    acknowledged: BTreeMap<EventId, (u64, shared::ids::Position)>,
    unknown: usize,
    refused: usize,
}

async fn append_through(store: &Redis, peer: &str, enough: &CancellationToken) -> Done {
    let mut done = Done::default();
    while !enough.is_cancelled() {
        append_until_acknowledged(store, &once(message("anna", peer), OnceKey::Id), &mut done).await;
    }
    done
}

/// Again and again with the same id.
async fn append_until_acknowledged(store: &Redis, append: &Append, done: &mut Done) {
    loop {
        let started = Instant::now();
        let outcome = store.log().append(append.clone()).await;
        assert!(started.elapsed() < ANSWER_WITHIN, "answered late: {:?}", started.elapsed());
        match outcome {
            Ok(Appended::New(receipt) | Appended::Replayed(receipt)) => {
                done.acknowledged.insert(receipt.id, (receipt.seq, receipt.position));
                return;
            }
            Err(AppendError::Store(StoreError::Unknown { .. })) => done.unknown += 1,
            Err(AppendError::Store(StoreError::Unavailable { .. })) => {
                done.refused += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn while_redis_is_away_all_is_refused_at_once() {
    let mut server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put(&store, message("anna", "ben")).await;
    server.kill();
    let probe = store.probe();
    eventually("noticed", || async { probe.check().await.is_err() }).await;

    let started = Instant::now();
    for _ in 0..100 {
        let outcome = store.log().append(message("anna", "ben")).await;
        assert!(is_unavailable(&outcome), "{outcome:?}");
    }
    assert!(store.accounts().exists(&"anna".parse().unwrap()).await.unwrap_err().is_retryable());
    assert!(store.feed(GENERATION, "one").next_batch(10).await.unwrap_err().is_retryable());
    assert!(started.elapsed() < ANSWER_WITHIN, "at once: {:?}", started.elapsed());

    server.restart().await;
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    assert_eq!(put(&store, message("anna", "ben")).await.seq, 2, "nothing refused was done");
}

#[tokio::test]
async fn redis_may_start_later() {
    let mut server = Server::start().await;
    server.kill();
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let store = storage::redis::connect(&server.patient(), Clock::system(), &tasks, stop.clone()).unwrap();
    assert!(is_unavailable(&store.log().append(message("anna", "ben")).await));
    assert!(store.probe().check().await.is_err());
    let mut feed = store.feed(GENERATION, "one");
    assert!(feed.next_batch(10).await.is_err());

    server.restart().await;
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    put(&store, message("anna", "ben")).await;
    read(&mut feed, 1).await;

    stop.cancel();
    tasks.close();
    timeout(BACK_WITHIN, tasks.wait()).await.expect("all tasks end with the token");
    assert!(is_unavailable(&store.log().append(message("anna", "ben")).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_ends_in_a_true_answer() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.options()).await;
    let sent = once(message("anna", "ben"), OnceKey::Id);
    server.signal("STOP");

    let started = Instant::now();
    let outcome = store.log().append(sent.clone()).await;
    assert!(is_unknown(&outcome), "{outcome:?}");
    assert!(started.elapsed() < ANSWER_WITHIN, "{:?}", started.elapsed());
    let probe = store.probe();
    let noticed = || async {
        matches!(
            store.log().append(message("anna", "carl")).await,
            Err(AppendError::Store(StoreError::Unavailable { .. }))
        )
    };
    eventually("noticed", noticed).await;
    assert!(started.elapsed() < ANSWER_WITHIN, "noticed after {:?}", started.elapsed());
    assert!(probe.check().await.is_err());

    server.signal("CONT");
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    let mut done = Done::default();
    append_until_acknowledged(&store, &sent, &mut done).await;
    append_until_acknowledged(&store, &once(message("ben", "anna"), OnceKey::Id), &mut done).await;
    assert_eq!(done.acknowledged[&sent.id].0, 1);
    assert_eq!(done.acknowledged.len(), 2);
    let (accounts, conversation) = (store.accounts(), conversation());
    let head_is_2 = || async { accounts.head(&conversation).await.is_ok_and(|head| head == 2) };
    eventually("one id, one event", head_is_2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_busy_at_once() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.options()).await;
    server.signal("STOP");
    let log = store.log();
    let appends = (0..APPENDS_QUEUED_MAX + 1_000).map(|_| log.append(message("anna", "ben")));
    let started = Instant::now();
    let outcomes = futures_util::future::join_all(appends).await;
    assert!(started.elapsed() < ANSWER_WITHIN, "{:?}", started.elapsed());
    let busy =
        outcomes.iter().filter(|o| matches!(o, Err(AppendError::Store(StoreError::Busy { .. })))).count();
    let unknown = outcomes.iter().filter(|outcome| is_unknown(outcome)).count();
    let unavailable = outcomes.iter().filter(|outcome| is_unavailable(outcome)).count();
    assert!(busy > 0 && unknown > 0, "{busy} busy, {unknown} unknown");
    assert_eq!(busy + unknown + unavailable, outcomes.len(), "none was acknowledged");
    server.signal("CONT");
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    let (accounts, conversation, most) = (store.accounts(), conversation(), unknown as u64);
    let at_most = || async { accounts.head(&conversation).await.is_ok_and(|head| head <= most) };
    eventually("only what is unknown may have been done", at_most).await;
}

#[tokio::test]
async fn a_full_memory_refuses_writes_and_serves_reads() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    let accounts = store.accounts();
    let key = SessionKey([7; 32]);
    accounts.open_session(&"anna".parse().unwrap(), &key).await.unwrap();
    put(&store, message("anna", "ben")).await;
    let mut feed = store.feed(GENERATION, "one");
    let batch = read(&mut feed, 1).await;
    let hot = store.hot();
    assert_eq!(hot.standing().await.unwrap().memory, None, "it has no bound");

    server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(hot.standing().await.unwrap().memory.is_some_and(|memory| memory.percent() > 100));
    let send = once(message("anna", "ben"), OnceKey::Header("key".into()));
    for _ in 0..3 {
        let outcome = store.log().append(send.clone()).await;
        assert!(is_unavailable(&outcome), "{outcome:?}");
    }
    let refused = accounts.open_session(&"anna".parse().unwrap(), &SessionKey([8; 32])).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(accounts.find(&key).await.unwrap(), Some("anna".parse().unwrap()));
    assert_eq!(accounts.head(&conversation()).await.unwrap(), 1);
    feed.ack(&batch).await.expect("what is done can be acknowledged");
    assert_eq!(store.monitor(GENERATION).status().await.unwrap().lag(), 0);
    let again = start(&server.patient()).await;
    assert_eq!(again.store.accounts().head(&conversation()).await.unwrap(), 1, "one may still connect");

    server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(put(&store, send).await.seq, 2, "nothing refused was done");
}

/// With fsync each second Redis lives on and refuses (MISCONF); what it took before it knew is written later.
#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_reads() {
    let server = Server::start_with(&["--appendfsync", "everysec"]).await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    let mut head = put(&store, message("anna", "ben")).await.seq;
    server.limit_files("1");
    let refusal = loop {
        match store.log().append(message("anna", "ben")).await {
            Ok(Appended::New(receipt)) if head < 100 => head = receipt.seq,
            outcome => break outcome,
        }
    };
    assert!(is_unavailable(&refusal), "{refusal:?}");
    assert!(format!("{refusal:?}").contains("MISCONF"), "{refusal:?}");
    assert_eq!(store.accounts().head(&conversation()).await.unwrap(), head);
    assert!(store.probe().check().await.is_err_and(|error| error.is_retryable()));
    server.limit_files("unlimited");
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    assert_eq!(put(&store, message("anna", "ben")).await.seq, head + 1, "nothing refused was done");
}

/// With fsync always it ends rather than acknowledge what is not on the disk.
#[tokio::test]
async fn a_full_disk_that_ends_redis_acknowledges_nothing() {
    let mut server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put(&store, message("anna", "ben")).await;
    server.limit_files("1");
    let sent = once(message("anna", "ben"), OnceKey::Id);
    let outcome = store.log().append(sent.clone()).await;
    assert!(is_unknown(&outcome), "{outcome:?}");
    server.ended();
    server.restart().await;
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    let mut done = Done::default();
    append_until_acknowledged(&store, &sent, &mut done).await;
    assert_eq!(done.acknowledged[&sent.id].0, 2, "one id, one event");
}

#[tokio::test]
async fn while_redis_loads_its_data_all_is_refused() {
    const OTHERS: usize = 10_000;
    let mut server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    let sent = once(message("anna", "ben"), OnceKey::Id);
    let first = put(&store, sent.clone()).await;
    let mut others = redis::pipe();
    (0..OTHERS).for_each(|number| {
        others.cmd("SET").arg(format!("other{number}")).arg("x").ignore();
    });
    others.exec_async(&mut server.plain().await.unwrap()).await.unwrap();
    server.kill();
    // So many µs for each key.
    server.launch(&["--key-load-delay", "100"]);
    let is_loading = || async {
        let Ok(mut redis) = server.plain().await else { return false };
        redis::cmd("PING").exec_async(&mut redis).await.is_err_and(|error| error.code() == Some("LOADING"))
    };
    eventually("it loads", is_loading).await;
    let probe = store.probe();
    let refused =
        || async { probe.check().await.is_err_and(|error| format!("{error:?}").contains("loading")) };
    eventually("noticed", refused).await;
    let outcome = store.log().append(sent.clone()).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");

    timeout(BACK_WITHIN + PATIENCE, ready(&store)).await.expect("back when it is loaded");
    assert_eq!(store.log().append(sent).await.unwrap(), Appended::Replayed(first));
}

#[tokio::test]
async fn a_replica_refuses_appends() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put(&store, message("anna", "ben")).await;
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let outcome = store.log().append(message("anna", "ben")).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    // Its heads may be old, and the name of the server may lead to the new master by now.
    let accounts = store.accounts();
    eventually("it is given up", || async { accounts.head(&conversation()).await.is_err() }).await;
    assert!(store.probe().check().await.is_err_and(|error| error.is_retryable()));
    server.ask(&["REPLICAOF", "NO", "ONE"]).await;
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    assert_eq!(put(&store, message("anna", "ben")).await.seq, 2);
}

#[tokio::test]
async fn cut_connections_are_made_again() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    let mut feed = store.feed(GENERATION, "one");
    for round in 1..=5 {
        put(&store, message("anna", "ben")).await;
        assert_eq!(read(&mut feed, 1).await[0].content.as_ref().unwrap().seq, round);
        server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
        let mut unacknowledged = BTreeSet::new();
        while unacknowledged.len() < usize::try_from(round).unwrap() {
            // The first call may find the connection gone; after it all own entries come again.
            let batch = feed.next_batch(100).await.unwrap_or_default();
            unacknowledged.extend(batch.iter().map(|delivery| delivery.position));
        }
    }
    feed.ack(&[]).await.unwrap();
}

#[tokio::test]
async fn an_emptied_redis_is_another_log() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put(&store, message("anna", "ben")).await;
    server.ask(&["FLUSHALL"]).await;
    server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let probe = store.probe();
    eventually("noticed", || async {
        probe.check().await.is_err_and(|error| is_other(&error, "there is none"))
    })
    .await;
    let refused = store.log().append(message("anna", "ben")).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::Other { .. }))), "{refused:?}");

    // Who knew no other begins a new one.
    let Fresh { store: another, _stop, .. } = start(&server.patient()).await;
    put(&another, message("anna", "ben")).await;
    eventually("it is seen", || async {
        probe.check().await.is_err_and(|error| is_other(&error, "it is 0"))
    })
    .await;
    let refused = store.feed(GENERATION, "one").next_batch(10).await;
    assert!(refused.is_err_and(|error| is_other(&error, "it is 0")));
}

/// Nobody is cut off.
#[tokio::test]
async fn a_redis_that_is_emptied_under_a_connection_is_another_log() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put(&store, message("anna", "ben")).await;
    let (accounts, mut tail, session) = (store.accounts(), store.tail(), SessionKey([7; 32]));
    accounts.open_session(&"anna".parse().unwrap(), &session).await.unwrap();
    let epoch = store.epoch().epoch().await.unwrap();
    let end = tail.end(10).await.unwrap().unwrap();
    assert_eq!((end.log, end.entries.len()), (epoch.log.clone(), 1));
    server.ask(&["FLUSHALL"]).await;
    let found = accounts.find(&session).await;
    assert!(found.is_err_and(|error| is_other(&error, "none any more")), "it is not known to be nobody's");
    let refused = tail.next_batch(10).await;
    assert!(refused.is_err_and(|error| is_other(&error, "none any more")));
    let heads = store.accounts();
    eventually("nothing is asked of it", || async { heads.head(&conversation()).await.is_err() }).await;

    // It is back, and then repaired.
    let key = ["HSET", "{0}:log", "version", "2", "partitions", "4", "epoch"];
    server.ask(&[&key[..], &[&epoch.to_string()]].concat()).await;
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    assert_eq!(accounts.find(&session).await.unwrap(), None);
    assert_eq!(tail.next_batch(10).await.unwrap(), []);
    store.epoch().begin(&Epoch { repairs: 1, ..epoch }).await.unwrap();
    let refused = tail.next_batch(10).await;
    assert!(refused.is_err_and(|error| is_other(&error, "repaired")));
    assert_eq!(tail.end(10).await.unwrap(), None);
    assert_eq!(tail.next_batch(10).await.unwrap(), []);
}

pub(super) fn is_other(error: &StoreError, said: &str) -> bool {
    matches!(error, StoreError::Other { what, .. } if what.contains(said))
}

#[tokio::test]
async fn the_probe_tells_the_durability() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&Options { durability: None, ..server.patient() }).await;
    let probe = store.probe();
    assert_eq!(probe.name(), "redis");
    let text = probe.durability().unwrap();
    assert!(text.contains("fsync always") && !text.contains("evict"), "{text}");
    server.ask(&["CONFIG", "SET", "appendfsync", "everysec", "maxmemory-policy", "allkeys-lru"]).await;
    probe.check().await.unwrap();
    let text = probe.durability().unwrap();
    assert!(text.contains("every second") && text.contains("evict"), "{text}");
}

#[tokio::test]
async fn a_password_is_used_and_never_told() {
    let server = Server::start().await;
    server.ask(&["CONFIG", "SET", "requirepass", "s3cret"]).await;
    let with = |userinfo: &str| Options {
        url: format!("redis://{userinfo}127.0.0.1:{}/2", server.port),
        ..server.patient()
    };
    let Fresh { store, _stop, .. } = start(&with(":s3cret@")).await;
    put(&store, message("anna", "ben")).await;
    read(&mut store.feed(GENERATION, "one"), 1).await;

    for userinfo in ["", ":wr0ng@"] {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let store = storage::redis::connect(&with(userinfo), Clock::system(), &tasks, stop.clone()).unwrap();
        let _stop = stop.drop_guard();
        let error = store.feed(GENERATION, "one").next_batch(1).await.unwrap_err();
        assert!(error.is_retryable());
        assert!(!format!("{error:?}").contains("wr0ng"), "{error:?}");
    }
}

pub(super) fn conversation() -> shared::ids::Conversation {
    "anna:ben".parse().unwrap()
}
