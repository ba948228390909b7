//! Conversations and inboxes that are there before anything is read. They are put into the tables and beside the log
//! directly: a million sends and their projection would take longer than everything else. What a query-api sees is
//! the same; the log itself has no events of them, and nothing measured here reads it.

use anyhow::{Context, Result};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::client::session::Session;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use shared::Clock;
use shared::ids::{Conversation, Ulid};
use shared::ports::Accounts;
use shared::process::auth::Token;
use shared::view::timeline::bucket;
use shared::view::version;
use storage::redis;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::population::{self, username};
use crate::sends::{content, name};

/// Of one Cassandra partition; some 10 KiB.
const ROWS_PER_BATCH: u64 = 50;
const BATCHES_IN_FLIGHT: usize = 16;
/// When the first message was sent; the others follow by the millisecond.
const BEGUN_MS: u64 = 1_795_000_000_000;
const LOGIN_TRIES_MAX: usize = 40;
const LOGIN_RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(50);

/// A conversation of two users, who take turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) users: (u64, u64),
    pub(crate) messages: u64,
}

impl Written {
    fn conversation(&self) -> Result<Conversation> {
        let (one, other) = self.users;
        Conversation::between(&username(one), &username(other)).context("a peer is somebody else")
    }
}

/// Writes every message into the tables of `views`, and every head beside the log.
pub(crate) async fn write(
    session: &Session,
    views: &str,
    log: (&str, &str),
    conversations: &[Written],
) -> Result<()> {
    write_rows(session, views, conversations).await?;
    set_heads(log, conversations)
}

/// Puts every head beside the log.
pub(crate) fn set_heads((redis_url, key_prefix): (&str, &str), conversations: &[Written]) -> Result<()> {
    let heads: Result<Vec<_>> =
        conversations.iter().map(|written| Ok((written.conversation()?, written.messages))).collect();
    population::set_heads(redis_url, key_prefix, &heads?)
}

/// Writes every message into the tables of `views`.
pub(crate) async fn write_rows(session: &Session, views: &str, conversations: &[Written]) -> Result<()> {
    let columns = "conversation, bucket, seq, id, sender, content, sent_at";
    let insert =
        format!("INSERT INTO {views}.timeline ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?");
    let insert = session.prepare(insert).await?;
    let batches = conversations.iter().flat_map(|written| {
        let firsts = (1..=written.messages).step_by(usize::try_from(ROWS_PER_BATCH).expect("it fits"));
        firsts.map(move |first| (written, first))
    });
    let batches = batches.map(|(written, first)| put(session, &insert, written, first));
    stream::iter(batches).buffer_unordered(BATCHES_IN_FLIGHT).try_collect().await
}

async fn put(session: &Session, insert: &PreparedStatement, written: &Written, first: u64) -> Result<()> {
    let conversation = written.conversation()?.to_string();
    let users = [name(written.users.0), name(written.users.1)];
    let last = written.messages.min(first + ROWS_PER_BATCH - 1);
    let row = |seq: u64| {
        let id = Ulid::from_parts(BEGUN_MS + seq, u128::from(seq)).to_string();
        let sender = users[usize::from(seq.is_multiple_of(2))].as_str();
        let sent_at = CqlTimestamp((BEGUN_MS + seq).cast_signed());
        let (bucket, seq, version) =
            (bucket(seq).cast_signed(), seq.cast_signed(), version::effect(seq).cast_signed());
        (conversation.as_str(), bucket, seq, id, sender, content(), sent_at, version)
    };
    let rows: Vec<_> = (first..=last).map(row).collect();
    let statements = vec![BatchStatement::from(insert.clone()); rows.len()];
    session.batch(&Batch::new_with_statements(BatchType::Unlogged, statements), rows).await?;
    Ok(())
}

/// An inbox: with each peer this last message, of the peer.
pub(crate) async fn write_inbox(
    session: &Session,
    views: &str,
    (owner, peers): (u64, Vec<u64>),
    last: u64,
) -> Result<()> {
    let columns = "owner, peer, seq, id, sender, content, sent_at";
    let insert =
        format!("INSERT INTO {views}.inbox ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?");
    let insert = session.prepare(insert).await?;
    let count = peers.len() as u64;
    let rows = (0..).zip(peers).map(|(nth, peer)| {
        let peer = name(peer);
        let id = Ulid::from_parts(BEGUN_MS, nth).to_string();
        // In no order.
        let sent_at = CqlTimestamp((BEGUN_MS + nth as u64 * 7_919 % count).cast_signed());
        let (seq, version) = (last.cast_signed(), version::effect(last).cast_signed());
        let row = (name(owner), peer.clone(), seq, id, peer, content(), sent_at, version);
        async { session.execute_unpaged(&insert, row).await.map(drop) }
    });
    Ok(stream::iter(rows).buffer_unordered(4 * BATCHES_IN_FLIGHT).try_collect::<()>().await?)
}

/// Opens a session for a user; the token.
pub(crate) async fn log_in(redis_url: &str, key_prefix: &str, user: u64) -> Result<String> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let _stop_when_dropped = stop.clone().drop_guard();
    let options =
        redis::Options { prefix: key_prefix.to_owned(), durability: None, ..redis::Options::new(redis_url) };
    let accounts = redis::connect(&options, Clock::system(), &tasks, stop)?.accounts();
    let token = Token::generate();
    for _ in 0..LOGIN_TRIES_MAX {
        match accounts.open_session(&username(user), &token.key()).await {
            Ok(()) => return Ok(token.reveal()),
            Err(error) if error.is_retryable() => tokio::time::sleep(LOGIN_RETRY_AFTER).await,
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("no session could be opened")
}
