//! The views on a real Cassandra: the contract, and what only this adapter has: migration, timestamps, and a
//! connection that comes and goes. Each test has keyspaces of its own.

#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use shared::clock::{Clock, Timestamp};
use shared::event::{Event, RecordedEvent, UserRegistered};
use shared::generation::{Generation, Generations, State};
use shared::ids::{Conversation, EventId, Position, Ulid};
use shared::limits::{VIEWS_CONNECT_TIMEOUT, VIEWS_TIMEOUT};
use shared::message::Message;
use shared::ports::{Delivery, Epoch, LogPlace, Probe, Seen, SeenLog, StoreError, ViewReader, ViewWriter};
use shared::view::{InboxChange, TimelineChange, UserRow, UsersChange, ViewChange};
use storage::cassandra::{Cassandra, Migrator, Options};
use storage::contract::ViewStores;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cassandra_node;
use crate::far::far;

mod archive;
mod generations;

storage::views_contract!(open);

async fn open() -> ViewStores {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let (connected, other) = tokio::join!(Connected::to(&options), Connected::to(&options));
    let Connected { cassandra, .. } = &connected;
    ViewStores {
        writer: Arc::new(cassandra.writer(1)),
        other_writer: Arc::new(other.cassandra.writer(1)),
        reader: Arc::new(cassandra.reader()),
        parked: Arc::new(cassandra.parked(1)),
        scan: Arc::new(cassandra.scan(1)),
        histories: 20,
        keep: Box::new((connected, other)),
    }
}

/// A new keyspace, not yet made.
pub(crate) fn options() -> Options {
    let keyspace = format!("t_{}", Clock::system().new_id().to_string().to_lowercase());
    Options { nodes: vec![cassandra_node()], keyspace, replication_factor: 1 }
}

/// A handle whose background task ends with it.
pub(crate) struct Connected {
    pub(crate) cassandra: Cassandra,
    shutdown: CancellationToken,
}

impl Connected {
    /// Whether or not the store is there.
    fn begin(options: &Options) -> Self {
        let shutdown = CancellationToken::new();
        let cassandra = Cassandra::connect(options, &TaskTracker::new(), shutdown.clone()).unwrap();
        Self { cassandra, shutdown }
    }

    pub(crate) async fn to(options: &Options) -> Self {
        let connected = Self::begin(options);
        connected.cassandra.connected().await.unwrap();
        connected
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Past the adapter, to look at what it left and to spoil it.
pub(crate) async fn session() -> Session {
    SessionBuilder::new().known_node(cassandra_node()).build().await.unwrap()
}

fn message(seq: u64) -> Message {
    Message {
        id: EventId(Ulid::from_parts(seq, 7)),
        seq,
        sender: "samer".parse().unwrap(),
        recipient: "lena".parse().unwrap(),
        content: "hi".to_owned(),
        timestamp: Timestamp(1_000 + seq),
    }
}

fn conversation() -> Conversation {
    message(1).conversation()
}

fn put(seq: u64) -> Vec<ViewChange> {
    let (message, to) = (message(seq), |owner| InboxChange::PutMessage { owner, message: message(seq) });
    let inbox = [to(message.sender.clone()), to(message.recipient.clone())].map(ViewChange::Inbox);
    [ViewChange::Timeline(TimelineChange::PutMessage(message))].into_iter().chain(inbox).collect()
}

#[tokio::test]
async fn a_migration_is_done_once() {
    let options = options();
    let migrator = Migrator::new(&options).unwrap();
    let first = migrator.migrate().await.unwrap();
    assert!(!first.files.is_empty());
    let again = migrator.migrate().await.unwrap();
    assert_eq!((again.files.len(), again.version), (0, first.version));
    let connected = Connected::to(&options).await;
    let generations = connected.cassandra.generations().list().await.unwrap();
    assert_eq!(generations, [Generation { number: 1, state: State::Serving, rate: None, kept_until: None }]);
}

#[tokio::test]
async fn of_four_migrations_at_once_one_does_the_work() {
    let options = options();
    let migrators = [(); 4].map(|()| Migrator::new(&options).unwrap());
    let done = futures_util::future::join_all(migrators.iter().map(Migrator::migrate)).await;
    let applied: Vec<_> = done.into_iter().map(|migrated| migrated.unwrap().files.len()).collect();
    assert_eq!(applied.iter().filter(|files| **files > 0).count(), 1, "{applied:?}");
    Connected::to(&options).await;
}

#[tokio::test]
async fn a_migration_killed_at_any_point_is_finished_by_the_next() {
    let options = options();
    let migrator = Migrator::new(&options).unwrap();
    let mut cut = 0;
    for patience in (1..).map(|step| Duration::from_millis(step * 10)) {
        if tokio::time::timeout(patience, migrator.migrate()).await.is_ok_and(|migrated| migrated.is_ok()) {
            break;
        }
        cut += 1;
        // What a killed one holds ends by itself; a test need not wait for that.
        let unlock = format!("DELETE FROM {}.locks WHERE name = 'migration' IF EXISTS", options.keyspace);
        let _ = session().await.query_unpaged(unlock, ()).await;
    }
    assert!(cut >= 3, "cut {cut} times");
    let connected = Connected::to(&options).await;
    connected.cassandra.writer(1).apply(put(1), &[]).await.unwrap();
    assert_eq!(connected.cassandra.reader().timeline(&conversation(), 1, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_schema_that_is_missing_half_done_or_newer_is_refused_in_one_line() {
    let options = options();
    let refused = async |expected: &str| {
        let connected = Connected::begin(&options);
        let error = connected.cassandra.connected().await.unwrap_err();
        assert!(matches!(error, StoreError::Unfit { .. }), "{error:?}");
        let line = error.to_string();
        assert!(
            line.contains(expected) && line.contains(&options.keyspace) && !line.contains('\n'),
            "{line}"
        );
        let probed = connected.cassandra.probe().check().await.unwrap_err();
        assert_eq!(probed.to_string(), line);
    };
    refused("run `projector migrate`").await;

    let (session, keyspace) = (session().await, &options.keyspace);
    let migrator = Migrator::new(&options).unwrap();
    migrator.migrate().await.unwrap();
    session
        .query_unpaged(format!("DELETE FROM {keyspace}.schema_versions WHERE version = 1"), ())
        .await
        .unwrap();
    refused("run `projector migrate`").await;

    assert_eq!(migrator.migrate().await.unwrap().files, ["0001_init.cql"]);
    session
        .query_unpaged(format!("INSERT INTO {keyspace}.schema_versions (version) VALUES (99)"), ())
        .await
        .unwrap();
    refused("newer program").await;
    let error = migrator.migrate().await.unwrap_err();
    assert!(
        matches!(error, StoreError::Unfit { .. }) && error.to_string().contains("newer program"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_generation_that_is_not_registered_is_refused() {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let connected = Connected::to(&options).await;
    let error = connected.cassandra.writer(2).apply(put(1), &[]).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Unfit { .. }) && error.to_string().contains("generation 2"),
        "{error:?}"
    );
}

/// One write with the clock's time instead would win over every later one, for ever.
#[tokio::test]
async fn every_cell_carries_the_version_of_what_wrote_it() {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let connected = Connected::to(&options).await;
    let mut changes: Vec<_> = [put(4), put(9)].concat();
    let user = UserRow { username: "samer".parse().unwrap(), registered_at: Timestamp(1) };
    changes.extend([
        ViewChange::Inbox(InboxChange::PutReadMark {
            owner: message(1).sender,
            peer: message(1).recipient,
            seq: 6,
        }),
        ViewChange::Timeline(TimelineChange::PutMarker { conversation: conversation(), seq: 11 }),
        ViewChange::Users(UsersChange::PutUser { user, seq: 1 }),
    ]);
    connected.cassandra.writer(1).apply(changes, &[]).await.unwrap();

    let session = session().await;
    let written = async |cells: &[&str], from: &str| {
        let cells = cells.iter().map(|cell| format!("WRITETIME({cell})")).collect::<Vec<_>>().join(", ");
        let text = format!("SELECT {cells} FROM {}_g1.{from}", options.keyspace);
        let rows = session.query_unpaged(text, ()).await.unwrap().into_rows_result().unwrap();
        let row = rows.single_row::<scylla::value::Row>().unwrap();
        row.columns.into_iter().map(|cell| cell.and_then(|cell| cell.as_bigint())).collect::<Vec<_>>()
    };
    let message = ["id", "sender", "content", "sent_at"];
    let timeline = "timeline WHERE conversation = 'lena:samer' AND bucket = 0 AND seq =";
    assert_eq!(written(&message, &format!("{timeline} 9")).await, [Some(18); 4]);
    assert_eq!(written(&["parked", "id"], &format!("{timeline} 11")).await, [Some(21), None]);
    let inbox = |owner, peer| format!("inbox WHERE owner = '{owner}' AND peer = '{peer}'");
    let last = ["seq", "id", "sender", "content", "sent_at"];
    assert_eq!(written(&last, &inbox("samer", "lena")).await, [Some(18); 5]);
    assert_eq!(written(&last, &inbox("lena", "samer")).await, [Some(18); 5]);
    let others = ["own_seq", "read_mark", "parked_seq"];
    assert_eq!(written(&others, &inbox("samer", "lena")).await, [Some(18), Some(12), None]);
    assert_eq!(written(&others, &inbox("lena", "samer")).await, [None, None, Some(21)]);
    assert_eq!(written(&["registered_at"], "users WHERE username = 'samer'").await, [Some(2)]);
}

#[tokio::test]
async fn calls_fail_at_once_while_the_store_is_away_and_work_again_when_it_is_back() {
    let direct = options();
    Migrator::new(&direct).unwrap().migrate().await.unwrap();
    let mut door = Door::closed().await;
    let options = Options { nodes: vec![door.address.clone()], ..direct };
    let connected = Connected::begin(&options);
    let (writer, reader) = (connected.cassandra.writer(1), connected.cassandra.reader());
    let probe = connected.cassandra.probe();

    for seq in 1..=3 {
        let refused = eventually("the store is missed", async || {
            let (begun, error) = (Instant::now(), reader.timeline(&conversation(), 1, 9).await.err()?);
            assert!(error.is_retryable(), "{error:?}");
            assert!(probe.check().await.is_err());
            (begun.elapsed() < Duration::from_millis(100)).then_some(error)
        });
        assert!(matches!(refused.await, StoreError::Unavailable { .. }));

        door.open().await;
        let opened = Instant::now();
        eventually("the store is back", async || probe.check().await.ok()).await;
        // The driver by itself may take 10 s; the bound of 2 s is for a machine with nothing else to do.
        assert!(opened.elapsed() < Duration::from_secs(5), "back after {:?}", opened.elapsed());
        writer.apply(put(seq), &[]).await.unwrap();
        assert_eq!(reader.timeline_head(&conversation()).await.unwrap(), seq);
        door.close();
    }
}

#[tokio::test]
async fn a_store_that_hangs_ends_calls_by_their_deadline() {
    let direct = options();
    Migrator::new(&direct).unwrap().migrate().await.unwrap();
    let mut door = Door::closed().await;
    door.open().await;
    let connected = Connected::to(&Options { nodes: vec![door.address.clone()], ..direct }).await;
    let (writer, reader) = (connected.cassandra.writer(1), connected.cassandra.reader());
    door.stall(true);
    let begun = Instant::now();
    let error = writer.apply(put(1), &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
    assert!(begun.elapsed() < 2 * VIEWS_TIMEOUT, "{:?}", begun.elapsed());
    assert!(matches!(reader.timeline_head(&conversation()).await, Err(StoreError::Unavailable { .. })));
    door.stall(false);
    eventually("the write works again", async || writer.apply(put(1), &[]).await.ok()).await;
    assert_eq!(reader.timeline_head(&conversation()).await.unwrap(), 1);
}

#[tokio::test]
async fn more_copies_than_the_ring_can_have_are_refused_before_anything_is_made() {
    let options = Options { replication_factor: 3, ..options() };
    let refused = Migrator::new(&options).unwrap().migrate().await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unfit { what, .. } if what.contains("needs 2 copies")),
        "{refused}"
    );
    let select = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let made = session().await.query_unpaged(select, (&options.keyspace,)).await.unwrap();
    assert_eq!(made.into_rows_result().unwrap().rows_num(), 0);
}

#[tokio::test]
async fn a_store_that_is_far_away_can_be_used() {
    let direct = options();
    Migrator::new(&direct).unwrap().migrate().await.unwrap();
    let delay = watch::Sender::new(Duration::from_millis(250));
    let node = format!("127.0.0.1:{}", far(cassandra_node(), delay.subscribe()).await);
    let options = Options { nodes: vec![node], ..direct };
    // On a busy machine a second attempt may be needed; what takes too long never gets there.
    let connected = timeout(3 * VIEWS_CONNECT_TIMEOUT, Connected::to(&options)).await.unwrap();
    let (writer, reader) = (connected.cassandra.writer(1), connected.cassandra.reader());
    writer.apply(put(1), &[]).await.unwrap();
    assert_eq!(reader.timeline_head(&conversation()).await.unwrap(), 1);
}

/// Polls until there is a value, with a deadline.
async fn eventually<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A port of its own in front of the store, which can be shut: what was connected is cut, and nobody listens.
struct Door {
    address: String,
    open: CancellationToken,
    admits: CancellationToken,
    stalled: watch::Sender<bool>,
}

impl Door {
    async fn closed() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let (open, admits) = (CancellationToken::new(), CancellationToken::new());
        Self { address, open, admits, stalled: watch::Sender::new(false) }
    }

    async fn open(&mut self) {
        self.open = CancellationToken::new();
        self.admits = self.open.child_token();
        let listener = TcpListener::bind(&self.address).await.unwrap();
        let (open, admits, stalled) = (self.open.clone(), self.admits.clone(), self.stalled.clone());
        let accepting = async move {
            let connections = TaskTracker::new();
            while let Some(client) = admits.run_until_cancelled(listener.accept()).await {
                let (client, open, stalled) = (client.unwrap().0, open.clone(), stalled.subscribe());
                connections.spawn(async move { open.run_until_cancelled(pass(client, stalled)).await });
            }
        };
        TaskTracker::new().spawn(accepting);
    }

    fn close(&self) {
        self.open.cancel();
    }

    /// What is connected stays so.
    fn admit_no_more(&self) {
        self.admits.cancel();
    }

    /// Connections stay, and nothing passes to the store.
    fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }
}

async fn pass(client: TcpStream, mut stalled: watch::Receiver<bool>) -> std::io::Result<()> {
    let server = TcpStream::connect(cassandra_node()).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        let mut bytes = [0; 4096];
        loop {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let read = from_client.read(&mut bytes).await?;
            if read == 0 || stalled.wait_for(|stalled| !stalled).await.is_err() {
                return Ok(());
            }
            to_server.write_all(&bytes[..read]).await?;
        }
    };
    let answers = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(drop) };
    tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    }
}

#[tokio::test]
async fn the_highest_that_was_seen_stays_and_so_does_the_newest_epoch() {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let connected = Connected::to(&options).await;
    let cassandra = &connected.cassandra;
    let (writer, log) = (cassandra.writer(1), cassandra.seen(1));
    assert_eq!(log.seen().await.unwrap(), []);
    let epoch = |text: &str| text.parse::<Epoch>().unwrap();
    for (text, partitions) in [("log", &[3, 7][..]), ("log.2", &[3]), ("log.1", &[3])] {
        log.follow(partitions, &epoch(text)).await.unwrap();
    }
    let read = |partition: u16, offset: u64| {
        let position = Position { partition, ms: 10 * offset, counter: offset };
        let registered = UserRegistered { username: "anna".parse().unwrap(), password_hash: String::new() };
        let (seq, id, at) = (1, Clock::system().new_id(), Timestamp(position.ms));
        let event = Event::UserRegistered(registered);
        let content = Ok(RecordedEvent { position, offset, seq, id, at, trace: None, event });
        Delivery { position, content }
    };
    for batch in [&[read(3, 5), read(3, 6), read(0, 1)][..], &[read(3, 4)]] {
        writer.apply(Vec::new(), batch).await.unwrap();
    }
    log.tell(&[3, 7], &[0]).await.unwrap();
    log.tell(&[], &[3]).await.unwrap();
    let last = |read: Delivery| LogPlace::of(&read);
    let expected = [
        Seen { partition: 0, epoch: None, last: last(read(0, 1)), is_told_lost: false },
        Seen { partition: 3, epoch: Some(epoch("log.2")), last: last(read(3, 6)), is_told_lost: false },
        Seen { partition: 7, epoch: Some(epoch("log")), last: None, is_told_lost: true },
    ];
    assert_eq!(log.seen().await.unwrap(), expected);
    assert_eq!(cassandra.seen(2).seen().await.unwrap(), [], "each generation for itself");
}
