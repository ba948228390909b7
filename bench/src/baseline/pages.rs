//! `GET` → one round trip to Redis → ready bytes; and `GET` → the bare driver's rows → JSON, ready for nobody else: those
//! of a page, or of an inbox.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use redis::aio::MultiplexedConnection;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use serde::{Deserialize, Serialize};
use shared::clock::Timestamp;
use shared::limits::PAGE_CONVERSATIONS_DEFAULT;
use shared::view::timeline::bucket;

use super::drain;

const HEADS_KEY: &str = "{bench}:heads";
const HEAD_FIELD: &str = "c:u0000000:u0000001";
const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

type Answer = Result<([(HeaderName, &'static str); 1], Bytes), StatusCode>;

/// Answers what the file holds, whatever it is asked.
pub(super) async fn ready(redis_url: &str, body: &Path) -> Result<Router> {
    let mut connection = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?;
    let mut head = redis::cmd("HSET");
    head.arg(HEADS_KEY).arg(HEAD_FIELD).arg(100).exec_async(&mut connection).await?;
    let body = Bytes::from(std::fs::read(body).with_context(|| body.display().to_string())?);
    Ok(Router::new().route("/messages", get(ready_page)).with_state((connection, body)))
}

async fn ready_page(State((mut connection, body)): State<(MultiplexedConnection, Bytes)>) -> Answer {
    let mut head = redis::cmd("HGET");
    let head = head.arg(HEADS_KEY).arg(HEAD_FIELD).query_async::<Option<u64>>(&mut connection).await;
    let head = head.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    head.map(|_| (JSON, body)).ok_or(StatusCode::NOT_FOUND)
}

#[derive(Deserialize)]
struct Asked {
    sender: String,
    recipient: String,
    before: u64,
    limit: u64,
}

/// As the system shows it.
#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    seq: i64,
    sender: &'a str,
    recipient: &'a str,
    content: &'a str,
    timestamp: Timestamp,
}

#[derive(Deserialize)]
struct AskedInbox {
    owner: String,
}

/// As the system shows it.
#[derive(Serialize)]
struct Summary<'a> {
    peer: &'a str,
    head_seq: i64,
    read_seq: i64,
    unread: i64,
    last: Message<'a>,
}

/// Peer; seq, id, sender, content and time of the last message; the owner's own last, and his mark.
type InboxRow<'a> = (&'a str, i64, &'a str, &'a str, &'a str, CqlTimestamp, Option<i64>, Option<i64>);

struct Tables {
    session: Session,
    in_one: PreparedStatement,
    in_several: PreparedStatement,
    inbox: PreparedStatement,
}

/// Reads the tables of `keyspace`.
pub(super) async fn select(node: &str, keyspace: &str) -> Result<Router> {
    let session = drain::session(node).await?;
    let select = format!("SELECT seq, id, sender, content, sent_at FROM {keyspace}.timeline");
    let range = "AND seq >= ? AND seq <= ?";
    let in_one = session.prepare(format!("{select} WHERE conversation = ? AND bucket = ? {range}")).await?;
    let in_several =
        session.prepare(format!("{select} WHERE conversation = ? AND bucket IN ? {range}")).await?;
    let inbox = "SELECT peer, seq, id, sender, content, sent_at, own_seq, read_mark";
    let inbox = session.prepare(format!("{inbox} FROM {keyspace}.inbox WHERE owner = ?")).await?;
    let tables = Arc::new(Tables { session, in_one, in_several, inbox });
    let router =
        Router::new().route("/messages", get(selected_page)).route("/conversations", get(selected_inbox));
    Ok(router.with_state(tables))
}

async fn selected_page(State(tables): State<Arc<Tables>>, Query(asked): Query<Asked>) -> Answer {
    let page = tables.read(&asked).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok((JSON, page))
}

async fn selected_inbox(State(tables): State<Arc<Tables>>, Query(asked): Query<AskedInbox>) -> Answer {
    let page = tables.read_inbox(&asked.owner).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok((JSON, page))
}

impl Tables {
    async fn read(&self, asked: &Asked) -> Result<Bytes> {
        let Asked { sender, recipient, before, limit } = asked;
        let (low, high) = if sender < recipient { (sender, recipient) } else { (recipient, sender) };
        let (first, last) = (before.saturating_sub(*limit).max(1), before - 1);
        let (range, conversation) = ((first.cast_signed(), last.cast_signed()), format!("{low}:{high}"));
        let buckets: Vec<i64> = (bucket(first)..=bucket(last)).map(u64::cast_signed).collect();
        let result = match buckets[..] {
            [bucket] => {
                let key = (conversation, bucket, range.0, range.1);
                self.session.execute_unpaged(&self.in_one, key).await?
            }
            [..] => {
                let key = (conversation, buckets, range.0, range.1);
                self.session.execute_unpaged(&self.in_several, key).await?
            }
        };
        let rows = result.into_rows_result()?;
        let mut page = Vec::with_capacity(rows.rows_num());
        for row in rows.rows::<(i64, &str, &str, &str, CqlTimestamp)>()? {
            let (seq, id, sender, content, sent_at) = row?;
            let recipient = if sender == low { high } else { low };
            let timestamp = Timestamp(sent_at.0.cast_unsigned());
            page.push(Message { id, seq, sender, recipient, content, timestamp });
        }
        page.sort_unstable_by_key(|message| message.seq);
        Ok(serde_json::to_vec(&page)?.into())
    }

    /// All rows, as nobody knows which are the newest; of them the first page.
    async fn read_inbox(&self, owner: &str) -> Result<Bytes> {
        let rows = self.session.execute_unpaged(&self.inbox, (owner,)).await?.into_rows_result()?;
        let mut inbox = Vec::with_capacity(rows.rows_num());
        for row in rows.rows::<InboxRow<'_>>()? {
            let (peer, seq, id, sender, content, sent_at, own_seq, read_mark) = row?;
            let recipient = if sender == owner { peer } else { owner };
            let timestamp = Timestamp(sent_at.0.cast_unsigned());
            let last = Message { id, seq, sender, recipient, content, timestamp };
            let read_seq = own_seq.max(read_mark).unwrap_or_default();
            inbox.push(Summary { peer, head_seq: seq, read_seq, unread: (seq - read_seq).max(0), last });
        }
        inbox.sort_unstable_by_key(|summary| (Reverse(summary.last.timestamp.0), summary.peer));
        inbox.truncate(usize::try_from(PAGE_CONVERSATIONS_DEFAULT)?);
        Ok(serde_json::to_vec(&inbox)?.into())
    }
}
