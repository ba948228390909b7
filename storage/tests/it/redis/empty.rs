//! A log that has lost everything and is filled again: nobody gets at it before it is whole, and it goes on as it was.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use shared::Clock;
use shared::event::{ConversationRead, Event, UserRegistered};
use shared::ids::{Seq, Subject};
use shared::limits::IDEMPOTENCY_WINDOW;
use shared::ports::{
    Accounts, Append, AppendError, Appended, EmptyLog as _, EventLog, FeedMonitor, HotLog, LogEntry,
    LogEpoch, LogNumbers, Once, OnceKey, Probe, Refusal, StoreError,
};
use storage::redis::{EmptyLog, Options, Redis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::server::Server;
use super::{Fresh, GENERATION, PARTITIONS, eventually, message, put, read, start};

fn plain(event: Event) -> Append {
    Append { id: Clock::system().new_id(), event, once: None, trace: None }
}

fn registered(user: &str) -> Append {
    let (username, password_hash) = (user.parse().unwrap(), format!("hash of {user}"));
    plain(Event::UserRegistered(UserRegistered { username, password_hash }))
}

fn mark(seq: Seq) -> Append {
    let (reader, peer) = ("ben".parse().unwrap(), "anna".parse().unwrap());
    plain(Event::ConversationRead(ConversationRead { reader, peer, seq }))
}

fn once() -> Append {
    let append = message("anna", "ben");
    let Event::MessageSent(sent) = &append.event else { panic!("a message") };
    let fingerprint = sent.fingerprint();
    Append { once: Some(Once { key: OnceKey::Id, fingerprint }), ..append }
}

async fn entries(store: &Redis) -> Vec<Vec<LogEntry>> {
    let mut entries = Vec::new();
    for partition in 0..PARTITIONS {
        entries.push(store.hot().entries(partition, None, 100).await.unwrap());
    }
    entries
}

async fn closed(server: &Server) -> EmptyLog {
    let mut log = EmptyLog::connect(&server.patient(), Clock::system()).await.unwrap();
    log.close().await.unwrap();
    log
}

async fn fill(log: &mut EmptyLog, partition: u16, entries: &[LogEntry]) {
    let deliveries = entries.iter().map(|entry| log.read(entry.clone()));
    let events: Vec<_> = deliveries.map(|delivery| delivery.content.unwrap()).collect();
    let heads: BTreeMap<Subject, Seq> =
        events.iter().map(|recorded| (recorded.event.subject(), recorded.seq)).collect();
    log.keep(&events, IDEMPOTENCY_WINDOW).await.unwrap();
    log.put(entries).await.unwrap();
    let offset = events.len() as u64;
    log.number(&LogNumbers { partition, offset, heads, trimmed: None }).await.unwrap();
}

fn is_refused(appended: &Result<Appended, AppendError>) -> bool {
    matches!(appended, Err(AppendError::Store(StoreError::Unfit { .. } | StoreError::Unavailable { .. })))
}

#[tokio::test]
async fn nobody_gets_at_it_before_it_is_whole_and_it_goes_on_as_it_was() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    for append in [registered("anna"), mark(3), message("anna", "ben"), message("ben", "carl")] {
        put(&store, append).await;
    }
    let sent = once();
    let receipt = put(&store, sent.clone()).await;
    let (held, epoch) = (entries(&store).await, store.epoch().epoch().await.unwrap());

    let mut log = EmptyLog::connect(&server.patient(), Clock::system()).await.unwrap();
    assert!(matches!(log.close().await, Err(StoreError::Unfit { what, .. }) if what.contains("has events")));
    assert_eq!(store.log().append(sent.clone()).await.unwrap(), Appended::Replayed(receipt), "as it was");

    server.ask(&["FLUSHALL"]).await;
    let mut log = closed(&server).await;
    assert!(is_refused(&store.log().append(registered("eve")).await), "who was connected is cut off");
    let probe = store.probe();
    eventually("who comes is refused", || async {
        matches!(probe.check().await, Err(StoreError::Unfit { what, .. }) if what.contains("restored in part"))
    })
    .await;
    fill(&mut log, 0, &held[0]).await;
    drop(log);

    let mut log = closed(&server).await;
    for (partition, entries) in (0..).zip(&held) {
        fill(&mut log, partition, entries).await;
    }
    assert!(is_refused(&store.log().append(registered("eve")).await));
    log.open(&epoch).await.unwrap();
    eventually("it is everybody's", || async { probe.check().await.is_ok() }).await;
    assert_eq!(entries(&store).await, held);
    let hash = store.accounts().password_hash(&"anna".parse().unwrap()).await.unwrap();
    assert_eq!(hash.as_deref(), Some("hash of anna"));
    let again = store.log().append(registered("anna")).await;
    assert!(matches!(again, Err(AppendError::Refused(Refusal::UsernameTaken))), "{again:?}");
    assert_eq!(store.log().append(mark(3)).await.unwrap(), Appended::Unchanged);
    assert_eq!(store.log().append(sent.clone()).await.unwrap(), Appended::Replayed(receipt));
    let other = Append { once: Some(Once { key: OnceKey::Id, fingerprint: [7; 16] }), ..sent };
    let conflict = store.log().append(other).await;
    assert!(matches!(conflict, Err(AppendError::Refused(Refusal::IdempotencyConflict))), "{conflict:?}");
    assert_eq!(put(&store, message("ben", "anna")).await.seq, receipt.seq + 1);
    read(&mut store.feed(GENERATION, "one"), 6).await;
    assert_eq!(store.monitor(GENERATION).status().await.unwrap().head(), 6);
}

/// Passes on what one connection asks, but tells before it cuts others off and waits until it may. Its own port.
async fn told_of_the_cut(
    port: u16,
    (tell, may): (oneshot::Sender<()>, oneshot::Receiver<()>),
    tasks: &TaskTracker,
) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let copies = tasks.clone();
    tasks.spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let ((mut asks, mut takes), (mut answers, mut server)) = (client.into_split(), server.into_split());
        copies.spawn(async move { tokio::io::copy(&mut answers, &mut takes).await });
        let (mut bytes, mut held) = (vec![0; 64 * 1024], Some((tell, may)));
        while let Ok(length @ 1..) = asks.read(&mut bytes).await {
            if bytes[..length].windows(4).any(|word| word == b"KILL")
                && let Some((tell, may)) = held.take()
            {
                tell.send(()).unwrap();
                may.await.unwrap();
            }
            server.write_all(&bytes[..length]).await.unwrap();
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_too_late_leaves_alone_what_another_has_restored() {
    let server = Server::start().await;
    let mut first = closed(&server).await;
    let ((tell, told), (allow, may)) = (oneshot::channel(), oneshot::channel());
    let tasks = TaskTracker::new();
    let port = told_of_the_cut(server.port, (tell, may), &tasks).await;
    let options = Options { url: format!("redis://127.0.0.1:{port}/"), ..server.patient() };
    let mut second = EmptyLog::connect(&options, Clock::system()).await.unwrap();
    let closing = tasks.spawn(async move { second.close().await });
    told.await.unwrap();
    first.open(&"a".parse().unwrap()).await.unwrap();
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put(&store, message("anna", "ben")).await;
    allow.send(()).unwrap();

    let refused = closing.await.unwrap();
    assert!(
        matches!(&refused, Err(StoreError::Unfit { what, .. }) if what.contains("restored")),
        "{refused:?}"
    );
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    assert_eq!(entries(&store).await.iter().map(Vec::len).sum::<usize>(), 1, "what was acknowledged");
}
